"""The queue: one job a device, by priority, jobs of one base together; it outlives the program.

A thread for each device claims jobs from the store and hands them to that device's runner. After a crash
queued jobs are still queued, trainings go on from their last checkpoint, and anything else is marked as
interrupted, to be repeated by whoever wants it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipelines.errors import BadInput, Cancelled, LikenessError, UnknownName
from pipelines.jobs.locks import device_of, held, holder
from pipelines.jobs.runner import Runner
from pipelines.jobs.spec import JobSpec
from pipelines.jobs.store import Row, Status, Store
from pipelines.progress import Event, Job

IDLE = 0.2
LOG_EVERY = 0.5

Listener = Callable[[int, Event], None]


class Queue:
    """Jobs of a workspace on their way through runners, one a device.

    `listener` hears every event of every job, in the thread of its device; previews only with `previews`,
    since drawing them costs time. `changed` is told the number of every job that begins or ends.
    """

    def __init__(
        self,
        store: Store,
        runners: Mapping[str, Runner],
        workspace: Path,
        listener: Listener | None = None,
        previews: bool = False,
        changed: Callable[[int], None] = lambda ident: None,
    ) -> None:
        self.store = store
        self._runners = dict(runners)
        self._workspace = workspace
        self._listener = listener
        self._previews = previews
        self._changed = changed
        self._running: dict[int, Job] = {}
        self._closing = threading.Event()
        self._wake = threading.Condition()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Take up what a crash left behind, and begin to work."""
        recover(self.store)
        for device in self._runners:
            thread = threading.Thread(target=self._serve, args=(device,), daemon=True, name=f"queue-{device}")
            thread.start()
            self._threads.append(thread)

    def close(self, wait: float = 30.0) -> None:
        """Stop: running jobs are cancelled and marked as interrupted, queued ones stay for the next start."""
        self._closing.set()
        for job in list(self._running.values()):
            job.cancel()
        with self._wake:
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=wait)

    def submit(self, spec: JobSpec, priority: int = 0, run: Path | None = None) -> int:
        """Queue a job; → its number. Raises BadInput where no runner has its device."""
        device = device_of(str(getattr(spec, "device", "cpu")))
        if device not in self._runners:
            raise BadInput(
                f"This machine has no {device} to run on.", f"Choose device {' or '.join(self._runners)}."
            )
        ident = self.store.add(spec, device=device, priority=priority, run=run)
        self.wake()
        return ident

    def wake(self) -> None:
        """Look for work now: something was queued in the store itself."""
        with self._wake:
            self._wake.notify_all()

    def cancel(self, ident: int) -> Status:
        """Stop a job, queued or running; → its status now. Raises UnknownName."""
        status = self.store.cancel(ident)
        if job := self._running.get(ident):
            job.cancel()
        return status

    def ask(self, ident: int, what: str) -> None:
        """Ask a running job for something on the way: of a training "sample" or "save".

        Raises UnknownName for a job that does not run here.
        """
        job = self._running.get(ident)
        if job is None:
            raise UnknownName("running job", str(ident), [str(each) for each in list(self._running)])
        job.ask(what)

    def why_it_waits(self, ident: int) -> str:
        """In a sentence why a queued job does not run yet; what became of it where it is not queued."""
        row = self.store.get(ident)
        if row.status != "queued":
            return f"It does not wait: it is {row.status}."
        line = [each.id for each in self.store.waiting(row.device)]
        ahead = line.index(ident) if ident in line else 0
        now = [each for each in self.store.jobs(1000, "running") if each.device == row.device]
        if now:
            first = f"Job {now[0].id} ({now[0].spec.kind}{_progress(now[0])}) is running on {row.device}"
        elif who := holder(self._workspace, row.device):
            first = f"The {row.device} is held by {who}"
        else:
            first = f"It is about to start on {row.device}" if not ahead else f"{row.device} is free"
        return f"{first}; {ahead} {'job is' if ahead == 1 else 'jobs are'} ahead." if ahead else f"{first}."

    def step(self, device: str) -> bool:
        """Run the next job of a device to its end; → whether there was one."""
        if not self.store.waiting(device):
            return False
        with ExitStack() as doors:
            doors.enter_context(
                held(self._workspace, device, "the queue of the studio", _Waiting(self._closing))
            )
            row = self.store.claim(device)
            if row is None:  # cancelled, or claimed by another process, while we waited
                return False
            runner, job = self._runners[device], self._started(row)
            self._changed(row.id)
            try:
                carry_out(self.store, row, runner, job, self._closing.is_set, self._workspace)
            finally:
                self._running.pop(row.id, None)
                self._changed(row.id)
        return True

    def _started(self, row: Row) -> Job:
        job = Job(previews=self._previews)
        if self._listener is not None:
            listener = self._listener
            job.subscribe(lambda event: listener(row.id, event))
        self._running[row.id] = job
        return job

    def _serve(self, device: str) -> None:
        while not self._closing.is_set():
            try:
                worked = self.step(device)
            except Cancelled:
                return
            if not worked:
                with self._wake:
                    self._wake.wait(timeout=IDLE)


class _Waiting(Job):
    """The wait for a device that another process holds, which ends when the queue closes."""

    def __init__(self, closing: threading.Event) -> None:
        super().__init__()
        self._closing = closing

    def check(self) -> None:
        if self._closing.is_set():
            raise Cancelled("The queue is closing.")


def carry_out(
    store: Store,
    row: Row,
    runner: Runner,
    job: Job,
    closing: Callable[[], bool] = lambda: False,
    folder: Path | None = None,
) -> dict[str, Any] | LikenessError | Cancelled:
    """Run a claimed job and write down what came of it; → its result, or what it raised.

    `folder` is the workspace that it runs in; None: the one of this process. A cancel that another process
    asked for is passed on. A fault of ours is written down and raised.
    """
    job.subscribe(_Log(store, row.id))
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(store, row.id, job, ended), daemon=True)
    watch.start()
    try:
        result = runner.run(row.spec, job, folder)
    except Cancelled as stop:
        store.finish(row.id, "interrupted" if closing() else "cancelled")
        return stop
    except KeyboardInterrupt:
        store.finish(row.id, "cancelled")
        raise
    except LikenessError as error:
        store.finish(row.id, "failed", error=error.as_dict())
        return error
    except BaseException as error:
        remedy = "This is a fault of the program; please report it with the text above."
        about = {"type": type(error).__name__, "message": str(error), "remedy": remedy}
        store.finish(row.id, "failed", error=about)
        if isinstance(error, Exception) and row.origin == "queue":
            return LikenessError(str(error), remedy)
        raise
    finally:
        ended.set()
        watch.join()
    store.finish(row.id, "done", result)
    return result


def recover(store: Store) -> list[int]:
    """Put right what processes that are gone left as running; → the trainings that were queued again."""
    again: list[int] = []
    for row in store.orphans():
        if row.origin == "queue" and (spec := resumed(row)) is not None:
            store.put_back(row.id, spec)
            again.append(row.id)
        else:
            store.finish(row.id, "interrupted")
    return again


def resumed(row: Row) -> JobSpec | None:
    """The job as it goes on from its last checkpoint; None where it has none."""
    folder = getattr(row.spec, "out", None) or row.run
    if "resume" not in type(row.spec).model_fields or folder is None:
        return None
    if not any((Path(folder) / "checkpoints").glob("step-*/complete")):
        return None
    return row.spec.model_copy(update={"resume": True, "out": Path(folder)})


def _watch(store: Store, ident: int, job: Job, ended: threading.Event) -> None:
    """Cancel the job when another process asked for it in the store."""
    while not ended.wait(timeout=IDLE):
        if store.wants_cancel(ident):
            job.cancel()
            return


class _Log:
    """Writes events to the store, steps at most twice a second; those that tell more than figures always."""

    def __init__(self, store: Store, ident: int) -> None:
        self._store, self._ident, self._at = store, ident, 0.0

    def __call__(self, event: Event) -> None:
        if event.kind == "report":
            last = event.total is not None and event.step >= event.total
            plain = all(isinstance(each, int | float) for each in event.values.values())
            if plain and not last and time.monotonic() - self._at < LOG_EVERY:
                return
            self._at = time.monotonic()
        self._store.log(self._ident, event)


def _progress(row: Row) -> str:
    return f", {100 * row.step // row.total} %" if row.total else ""
