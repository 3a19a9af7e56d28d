"""The studio on a Hugging Face Space, and jobs on its ZeroGPU.

There a GPU is lent by the minute, to a forked process that ends with the call: a function decorated by
`spaces.GPU`. Arguments and results travel by pickle, and nothing else comes back. So the function takes a job
as plain values and yields the lines of `pipelines.jobs.wire`; a training is cut into slices, each of which
ends in a checkpoint, from which the next goes on.

`spaces` must be imported before torch and before the page is built: import this module first.
"""

from __future__ import annotations

import html
import os
import queue
import re
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextvars import Context, copy_context
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from pipelines.errors import Cancelled, LikenessError
from pipelines.jobs import wire, workspace
from pipelines.jobs.runner import InlineRunner, Runner, outcome, relay
from pipelines.jobs.spec import JobSpec, from_table
from pipelines.progress import Event, Job
from studio import guards
from studio.launch import (
    Build,
    Greeter,
    MakeHall,
    end_on_terminate,
    gradio_options,
    has_logged_in,
    prepare,
    studio_parts,
)
from studio.quicker import Packed, open_sooner
from studio.settings import Settings, hosting_of

LONGEST = 90
"""Seconds that one call asks for at most: what a visitor without an account has in a day is two minutes."""
OPENING = 25
"""Seconds to open a base and the readouts."""
ENDING = 15
"""Seconds that a call asks for beyond its time limit: the last step, and the checkpoint."""
TICK = 0.5
PREVIEW_EVERY = 0.25
_ENDS = ("result", "error", "stopped", "fault")

Work = Callable[[dict[str, Any], int, str | None, str], Iterator[bytes]]


class OutOfTime(LikenessError):
    """A job that does not fit into the time for which this Space has a GPU."""


class NoGpu(LikenessError):
    """The Space got no GPU, or lost it: the visitor's share of today is used up, or none is free."""


def launch(
    settings: Settings,
    build: Build | None = None,
    hall: MakeHall | None = None,
    look: dict[str, Any] | None = None,
) -> int:
    """Serve the studio as a Space does, until the Space is stopped; → the exit code.

    Gradio itself launches the page here, as ZeroGPU needs it: our routes and guards go into its app. Raises
    BadInput where the workspace cannot be written.
    """
    from starlette.middleware import Middleware

    end_on_terminate()
    prepare(settings)
    build, make_hall, given = studio_parts(build, hall, look)
    home = make_hall(settings)
    try:
        home.start()
        demo = build(home)
        open_sooner(str(each["type"]) for each in demo.config["components"])
        options = gradio_options(settings)
        layers = [
            Middleware(guards.Headers, framed=True),
            Middleware(guards.OriginGuard, names=_names(settings)),
            Middleware(guards.BodyLimit, limit=(settings.hosting.uploads_mb + 1) * 2**20),
            Middleware(guards.Visitors, framed=True),
        ]
        if settings.auth:
            layers.append(Middleware(guards.Login, routes=home.routes, entered=_entered(demo)))
        layers += [Middleware(Packed), Middleware(Greeter, warm=home.warm)]
        options["app_kwargs"] |= {"routes": list(home.routes), "middleware": layers}
        demo.launch(server_name=settings.host, server_port=settings.port, share=False, **options, **given)
    finally:
        home.close()
    return 0


def work(table: dict[str, Any], seconds: int, folder: str | None, wishes: str) -> Generator[bytes]:
    """Do a job in this process and yield what happens, as lines of the wire; the last one is its end.

    It stops by itself after `seconds`. `folder` is the workspace; `wishes` is a file to which the caller adds
    lines: "cancel", or what `Job.ask` takes. Empty lines come twice a second, so that a caller who is gone is
    noticed.
    """
    lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    job = Job(deadline=seconds, previews=True)
    job.subscribe(_Packed(job, lines.put))
    home = None if folder is None else Path(folder)
    thread = threading.Thread(target=_carry_out, args=(table, job, home, lines.put), daemon=True)
    thread.start()
    heard = 0
    try:
        while True:
            try:
                message = lines.get(timeout=TICK)
            except queue.Empty:
                message = {}
            heard = _listen(Path(wishes), heard, job)
            yield wire.dump(message)
            if any(each in message for each in _ENDS):
                return
    finally:
        job.cancel()
        thread.join(timeout=ENDING)


def seconds_for(spec: JobSpec) -> int:
    """How long a GPU is asked for: by the steps of the job, at most `LONGEST`."""
    table = spec.portable()
    inner = table.get("job")
    drawing: dict[str, Any] = inner if isinstance(inner, dict) else table
    if spec.kind == "train":
        steps = 0.3 * _number((table.get("concept") or {}).get("steps"), 400)
    else:
        pictures = _number(drawing.get("count"), 1) * max(1, len(drawing.get("prompts") or ()))
        for axis in table.get("axes") or ():
            pictures *= max(1, len(axis.get("values") or ()))
        steps = 0.15 * pictures * _number((drawing.get("sampler") or {}).get("steps"), 20)
    return min(LONGEST, OPENING + int(steps))


class ZeroRunner:
    """Runs jobs on ZeroGPU, several at a time if need be; those that need no device run in this process.

    `gpu` is the decorated function; tests give their own.
    """

    def __init__(self, gpu: Work | None = None, here: Runner | None = None) -> None:
        self._gpu = gpu or on_gpu
        self._here = here or InlineRunner()
        self._asked_by: dict[Path | None, Context] = {}

    def remember(self, folder: Path | None) -> None:
        """Let jobs of a workspace run on the GPU time of the visitor whose request this thread answers."""
        self._asked_by[folder] = copy_context()

    def run(self, spec: JobSpec, job: Job, folder: Path | None = None) -> dict[str, Any]:
        """Carry out `spec`; a training in as many slices as it takes.

        Raises what the job raised, Cancelled when it was stopped, OutOfTime or NoGpu.
        """
        if not {"device", "job"} & set(type(spec).model_fields):
            return self._here.run(spec, job, folder)
        if spec.kind == "train" and getattr(spec, "out", None) is None:
            # named now, so that the next slice finds the checkpoint of the last
            spec = spec.model_copy(update={"out": workspace.new_run("train", "concept", folder)})
        before: Path | None = None
        while True:
            job.check()
            end = self._slice(spec, job, folder)
            if not end.get("ran_out") or job.cancelled:
                return outcome(end, str(end.get("log") or ""))
            if spec.kind != "train" or job.checkpoint == before:
                raise OutOfTime(
                    f"This job takes longer than the {LONGEST} seconds for which a GPU is lent here.",
                    "Ask for fewer steps or pictures, or duplicate the Space with a GPU of its own.",
                )
            before = job.checkpoint
            spec = spec.model_copy(update={"resume": True})
            job.note("This turn on the GPU is over; the training goes on in the next one.")

    def _slice(self, spec: JobSpec, job: Job, folder: Path | None) -> dict[str, Any]:
        """One call of the decorated function; → its last message."""
        handle, name = tempfile.mkstemp(prefix="likeness-wishes-")
        os.close(handle)
        wishes = Path(name)
        end: dict[str, Any] = {}
        told = False
        try:
            home = None if folder is None else str(folder.absolute())
            for line in self._lines(folder, spec.portable(), seconds_for(spec), home, name):
                asked = job.take_all()
                if job.cancelled and not told:
                    asked, told = [*asked, "cancel"], True
                with wishes.open("a", encoding="utf-8") as file:
                    file.writelines(f"{each}\n" for each in asked)
                end = _taken(wire.load(line) or {}, job) or end
        finally:
            wishes.unlink(missing_ok=True)
        if not end:
            raise NoGpu("The GPU was taken away before the job was done.", "Start it again in a while.")
        return end

    def _lines(self, folder: Path | None, *request: Any) -> Iterator[bytes]:
        """The lines of one call, made in the name of the visitor."""
        context = self._asked_by.get(folder, copy_context()).copy()
        lines = context.run(lambda: iter(self._gpu(*request)))
        try:
            while (line := context.run(next, lines, None)) is not None:
                yield cast("bytes", line)
        except GeneratorExit:
            context.run(
                getattr(lines, "close", lambda: None)
            )  # the job is given up: it must not run on unseen
            raise
        except Exception as error:
            raise NoGpu(_plain(error), "Log in to Hugging Face, or try again later.") from error


class _Packed:
    """A subscriber that sends events on, previews at most four times a second, and every new checkpoint."""

    def __init__(self, job: Job, put: Callable[[dict[str, Any]], object]) -> None:
        self._job, self._put = job, put
        self._shown = 0.0

    def __call__(self, event: Event) -> None:
        if event.kind == "preview":
            if time.monotonic() - self._shown < PREVIEW_EVERY:
                return
            self._shown = time.monotonic()
        table = wire.pack_event(event)
        if table is not None:
            self._put({"event": table})
        _tell_checkpoint(self._job, self._put)


def _carry_out(
    table: dict[str, Any], job: Job, folder: Path | None, put: Callable[[dict[str, Any]], object]
) -> None:
    """The job itself, in a thread: a generator cannot yield from inside of it."""
    try:
        end = {"result": InlineRunner().run(from_table(table), job, folder)}
    except Cancelled as stop:
        end = {"stopped": str(stop), "ran_out": not job.cancelled and job.remaining() == 0.0}
    except LikenessError as error:
        end = {"error": wire.pack_error(error)}
    except Exception as error:  # noqa: BLE001 -- told to the caller, who raises it
        end = {"fault": f"{type(error).__name__}: {error}", "log": traceback.format_exc()}
    _tell_checkpoint(job, put)
    put(end)


def _tell_checkpoint(job: Job, put: Callable[[dict[str, Any]], object]) -> None:
    if job.checkpoint is not None:
        put({"checkpoint": str(job.checkpoint)})


def _taken(message: dict[str, Any], job: Job) -> dict[str, Any]:
    """Pass a message on to the job of this side; → the message if it was the last."""
    if "event" in message:
        relay(wire.unpack_event(message["event"]), job)
    if "checkpoint" in message:
        job.checkpoint = Path(message["checkpoint"])
    return message if any(each in message for each in _ENDS) else {}


def _listen(wishes: Path, heard: int, job: Job) -> int:
    """Tell the job what was asked for since; → how many lines have been read."""
    try:
        lines = wishes.read_text(encoding="utf-8").splitlines()
    except OSError:
        return heard
    for each in lines[heard:]:
        if each == "cancel":
            job.cancel()
        else:
            job.ask(each)
    return len(lines)


def _number(value: Any, default: int) -> float:
    return float(value) if isinstance(value, int | float) and value > 0 else float(default)


def _plain(error: Exception) -> str:
    """What the lender of the GPU says, without its markup."""
    said = html.unescape(re.sub(r"<[^>]*>", "", str(getattr(error, "message", None) or error))).strip()
    return f"There is no GPU for this job: {said or type(error).__name__}"


def _names(settings: Settings) -> list[str]:
    return [*settings.allowed_hosts, *filter(None, [os.environ.get("SPACE_HOST")])]


def _entered(demo: Any) -> Callable[[Any], bool]:
    """Whether a visitor has logged in; Gradio's app exists only after the launch."""
    return lambda cookies: has_logged_in(demo.app, cookies)


def _duration(table: dict[str, Any], seconds: int, folder: str | None, wishes: str) -> int:
    """What `spaces.GPU` asks for, by the arguments of the call."""
    return seconds + ENDING


def _decorated() -> Work:
    if hosting_of(os.environ).kind != "zero":
        return work
    return import_module("spaces").GPU(duration=_duration)(work)


on_gpu: Work = _decorated()
