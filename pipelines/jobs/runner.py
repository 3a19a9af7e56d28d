"""Runners: who carries out a job, and in which process."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from pipelines.errors import Cancelled, WorkerDied
from pipelines.jobs import wire, workspace
from pipelines.jobs.spec import JobSpec
from pipelines.progress import Event, Job

POLL = 0.1
GRACE = 60.0


class Runner(Protocol):
    """Takes a job from its spec to its result, a table of plain JSON values."""

    def run(self, spec: JobSpec, job: Job, folder: Path | None = None) -> dict[str, Any]:
        """Carry out `spec` in the workspace `folder` (None: the one of this process).

        Raises LikenessError, or Cancelled when `job` was stopped.
        """
        ...


class InlineRunner:
    """Runs the job here and now, in the caller's process: command line and tests."""

    def run(self, spec: JobSpec, job: Job, folder: Path | None = None) -> dict[str, Any]:
        """Carry out `spec`; raises LikenessError, or Cancelled when `job` was stopped."""
        with workspace.at(folder):
            # reached by name, so that nothing that imports a runner imports torch
            return import_module("pipelines.worker").run(spec, job)


class SubprocessRunner:
    """Runs jobs in a worker process that outlives them and is started again when it died.

    The caller survives whatever happens there: a worker that is killed or runs out of memory raises
    WorkerDied. `work` is the MODULE:FUNCTION that does the jobs; `grace` is how many seconds a cancelled job
    has for its checkpoint before its worker is killed.
    """

    def __init__(
        self,
        work: str = "pipelines.worker:run",
        grace: float = GRACE,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._work = work
        self._grace = grace
        self._environment = environment or {}
        self._busy = threading.Lock()
        self._worker: _Worker | None = None
        self._count = 0

    def __enter__(self) -> SubprocessRunner:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The worker's process id while it lives."""
        worker = self._worker
        return worker.process.pid if worker and worker.process.poll() is None else None

    def warm(self) -> None:
        """Start the worker before its first job, and let it load what that will need."""
        with self._busy:
            self._ready().send({"do": "warm"})

    def run(self, spec: JobSpec, job: Job, folder: Path | None = None) -> dict[str, Any]:
        """Carry out `spec`, one job at a time; events come in the calling thread.

        Raises what the job raised, Cancelled when it was stopped, WorkerDied when its process ended.
        """
        with self._turn(job):
            worker = self._ready()
            self._count += 1
            worker.send(
                {
                    "do": "run",
                    "id": self._count,
                    "spec": spec.portable(),
                    "deadline": job.remaining(),
                    "workspace": None if folder is None else str(folder.absolute()),
                    "previews": job.previews,
                }
            )
            try:
                return self._follow(worker, self._count, job)
            except BaseException:
                # a job that is given up half-way (Ctrl-C, a subscriber's fault) must not run on unseen
                if not worker.idle:
                    worker.kill()
                raise

    @contextmanager
    def _turn(self, job: Job) -> Generator[None]:
        """Wait until no other job runs here; the wait ends when the job is stopped."""
        job.check()
        while not self._busy.acquire(timeout=POLL):
            job.check()
        try:
            job.check()
            yield
        finally:
            self._busy.release()

    def close(self) -> None:
        """End the worker; a job that runs in it is stopped."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _ready(self) -> _Worker:
        if self._worker is None or self._worker.process.poll() is not None:
            self._worker = _Worker(self._work, self._environment)
        return self._worker

    def _follow(self, worker: _Worker, number: int, job: Job) -> dict[str, Any]:
        """Pass events on until the job's end; pass on, as they come, a cancel and what is asked for."""
        worker.idle = False
        told: float | None = None
        while True:
            if told is None and job.cancelled:
                told = time.monotonic()
                worker.send({"do": "cancel", "id": number})
            if told is not None and time.monotonic() - told > self._grace:
                worker.kill()
                raise Cancelled("Stopped at once: the work did not stop by itself.")
            for what in job.take_all():
                worker.send({"do": "ask", "id": number, "what": what})
            message = worker.receive(POLL)
            if message is None or message.get("id") != number:
                continue
            if "event" in message:
                relay(wire.unpack_event(message["event"]), job)
            elif "checkpoint" in message:
                job.checkpoint = Path(message["checkpoint"])
            else:
                worker.idle = True
                return outcome(message, worker.log())


class _Worker:
    """One worker process, and the threads that empty its pipes."""

    def __init__(self, work: str, environment: dict[str, str]) -> None:
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(  # noqa: S603 -- our own interpreter and module, no shell
            [sys.executable, "-m", "pipelines.worker", work],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        )
        self.idle = True
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._log: deque[str] = deque(maxlen=200)
        self._readers = [threading.Thread(target=each, daemon=True) for each in (self._read, self._listen)]
        for each in self._readers:
            each.start()

    def send(self, message: dict[str, Any]) -> None:
        pipe = cast("Any", self.process.stdin)
        with suppress(OSError, ValueError):  # a worker that is gone is noticed by `receive`
            pipe.write(wire.dump(message))
            pipe.flush()

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """The next message, or None when none came in time. Raises WorkerDied after the last one."""
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None:
            raise self._died()
        return message

    def log(self) -> str:
        """The last lines that the worker printed."""
        return "".join(self._log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Close its stdin, which ends it; kill it if that does not."""
        with suppress(OSError):
            cast("Any", self.process.stdin).close()
        try:
            self.process.wait(timeout=2 if self.idle else 20)
        except subprocess.TimeoutExpired:
            self.kill()

    def _read(self) -> None:
        for line in cast("Any", self.process.stdout):
            message = wire.load(line)
            if message is not None:
                self._messages.put(message)
        self._messages.put(None)

    def _listen(self) -> None:
        for line in cast("Any", self.process.stderr):
            self._log.append(line.decode(errors="replace"))

    def _died(self) -> WorkerDied:
        code = self.process.wait()
        self._readers[1].join(timeout=1)
        again = "Run it again with --resume; what was saved is untouched."
        if code < 0 and -code == getattr(signal, "SIGKILL", 9):
            return WorkerDied(
                "The worker process was killed, most likely because memory ran out.",
                f"Free memory or choose smaller settings, then go on. {again}",
            )
        last = next((line.strip() for line in reversed(self._log) if line.strip()), "")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        said = f" Its last words: {last}" if last else ""
        return WorkerDied(f"The worker process ended before its job did ({name}).{said}", again)


def relay(event: Event, job: Job) -> None:
    """What happened in the worker, told to the subscribers on this side."""
    if event.kind == "report":
        job.report(event.step, event.total, **event.values)
    elif event.kind == "preview":
        job.preview(event.image)
    else:
        job.note(event.text)


def outcome(message: dict[str, Any], log: str) -> dict[str, Any]:
    """The result in a last message; raises what it says was raised."""
    if "stopped" in message:
        raise Cancelled(str(message["stopped"]))
    if "error" in message:
        raise wire.unpack_error(message["error"])
    if "fault" in message:
        raise RuntimeError(f"{message['fault']}\n{log}")
    return cast("dict[str, Any]", message["result"])
