"""The worker process: `python -m pipelines.worker [MODULE:FUNCTION]`, driven by a SubprocessRunner.

Jobs come in on stdin and events go out on stdout, one JSON object a line (`jobs.wire`), one job after
another. When stdin closes, because the caller ended in whatever way, the worker stops its job and ends.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.errors import Cancelled, LikenessError
from pipelines.jobs import wire, workspace
from pipelines.jobs.spec import JobSpec, from_table
from pipelines.progress import Event, Job

Work = Callable[[JobSpec, Job], dict[str, Any]]

ORPHAN_GRACE = 15.0
HUMBLE = 15
PREVIEW_EVERY = 0.25


class Channel:
    """The way back to the caller; safe from any thread."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message. A caller that is gone is not an error here: stdin tells of it."""
        line = wire.dump(message)
        with self._lock:
            try:
                self._out.write(line)
                self._out.flush()
            except (BrokenPipeError, ValueError):
                pass


class Inbox(threading.Thread):
    """Reads commands; passes jobs on, cancels the one that runs, and tells it what is asked for."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__(daemon=True)
        self.jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._source = source
        self._lock = threading.Lock()
        self._running: tuple[int, Job] | None = None
        self._cancelled: set[int] = set()
        self._asked: list[tuple[int, str]] = []

    def run(self) -> None:
        """Until the caller closes its end."""
        for line in self._source:
            message = wire.load(line)
            if message and message.get("do") in ("run", "warm"):
                self.jobs.put(message)
            elif message and message.get("do") == "cancel":
                self._cancel(int(message["id"]))
            elif message and message.get("do") == "ask":
                self._ask(int(message["id"]), str(message["what"]))
        self.jobs.put(None)
        with self._lock:
            if self._running:
                self._running[1].cancel()
        time.sleep(ORPHAN_GRACE)  # for the checkpoint that a cancelled training writes
        os._exit(1)

    def started(self, number: int, job: Job) -> None:
        """From now on a cancel of `number`, or an ask, means this job; one that came before counts too."""
        with self._lock:
            self._running = (number, job)
            if number in self._cancelled:
                job.cancel()
            for _, what in (each for each in self._asked if each[0] == number):
                job.ask(what)
            self._asked.clear()  # jobs come one after another: what is left was for one that has ended

    def _cancel(self, number: int) -> None:
        with self._lock:
            self._cancelled.add(number)
            if self._running and self._running[0] == number:
                self._running[1].cancel()

    def _ask(self, number: int, what: str) -> None:
        with self._lock:
            if self._running and self._running[0] == number:
                self._running[1].ask(what)
            else:
                self._asked.append((number, what))


def main(arguments: list[str]) -> int:
    """Serve jobs until the caller is gone."""
    source, out = _take_pipes()
    # Ctrl-C goes to the whole terminal group; here the caller decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(out)
    inbox = Inbox(source)
    inbox.start()
    module, _, function = (arguments[0] if arguments else "pipelines.worker:run").partition(":")
    home = import_module(module)
    work: Work = getattr(home, function)
    channel.send({"ready": os.getpid()})
    while (message := inbox.jobs.get()) is not None:
        if message["do"] == "warm":
            _in_the_background(getattr(home, "warm", lambda: None))
        else:
            _serve(message, work, channel, inbox)
    return 0


def _in_the_background(work: Callable[[], object]) -> None:
    """Do it to its end, but give way to everybody: whoever opens the page comes first."""

    def humbly() -> None:
        if sys.platform == "linux":  # where threads have a priority of their own
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HUMBLE)
        work()

    thread = threading.Thread(target=humbly)
    thread.start()
    thread.join()


def _serve(message: dict[str, Any], work: Work, channel: Channel, inbox: Inbox) -> None:
    number = int(message["id"])
    job = Job(deadline=message.get("deadline"), previews=bool(message.get("previews")))
    named = message.get("workspace")
    job.subscribe(_forward(channel, number, job))
    inbox.started(number, job)
    try:
        with workspace.at(Path(named) if named else None):
            result = work(from_table(message["spec"]), job)
        answer = {"id": number, "result": result}
    except Cancelled as stop:
        answer = {"id": number, "stopped": str(stop)}
    except LikenessError as error:
        answer = {"id": number, "error": wire.pack_error(error)}
    except Exception as error:  # noqa: BLE001 -- a fault of ours ends this job, not the worker
        traceback.print_exc()
        answer = {"id": number, "fault": f"{type(error).__name__}: {error}"}
    if job.checkpoint is not None:
        channel.send({"id": number, "checkpoint": str(job.checkpoint)})
    channel.send(answer)


def _forward(channel: Channel, number: int, job: Job) -> Callable[[Event], None]:
    """Send events on, previews at most four times a second, and every new checkpoint."""
    sent: dict[str, Any] = {"checkpoint": None, "preview": 0.0}

    def forward(event: Event) -> None:
        if event.kind == "preview":
            if time.monotonic() - sent["preview"] < PREVIEW_EVERY:
                return
            sent["preview"] = time.monotonic()
        table = wire.pack_event(event)
        if table is not None:
            channel.send({"id": number, "event": table})
        if job.checkpoint != sent["checkpoint"]:
            sent["checkpoint"] = job.checkpoint
            channel.send({"id": number, "checkpoint": str(job.checkpoint)})

    return forward


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for the protocol alone; whatever anyone prints, in C too, goes to stderr."""
    source, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return source, out


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
