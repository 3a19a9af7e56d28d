"""`likeness`: every job without a browser.

A command is a JobSpec sent to a runner; its options are the fields of that spec. Results go to stdout,
progress and errors to stderr. Exit codes: 0 done, 1 the job failed or found its matter unusable, 2 bad input,
130 stopped.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import sys
import traceback
import types
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipelines.errors import BadInput, Cancelled, LikenessError, MissingAsset, UnknownName
from pipelines.jobs import workspace
from pipelines.jobs.locks import device_of, held
from pipelines.jobs.queue import carry_out, recover, resumed
from pipelines.jobs.runner import InlineRunner, Runner
from pipelines.jobs.spec import Jobs, JobSpec
from pipelines.jobs.store import FILE, Store
from pipelines.progress import Job
from studio.cli_parser import STUDIO, Asked, read_words
from studio.cli_words import Bar, in_words

DONE, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130
RECORDED = frozenset({"train", "compose", "edit", "score", "compare", "merge", "demo", "bench"})


def main(arguments: Sequence[str] | None = None, runner: Runner | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    _speak_utf8()
    if words[:1] == [STUDIO]:
        from studio import launch

        return launch.main(words[1:])
    try:
        asked = read_words(words)
        if asked is None:
            return DONE
        return _run(asked, runner or InlineRunner(), as_json)
    except LikenessError as error:
        _fail(error, as_json)
        return BAD_INPUT if isinstance(error, BadInput | UnknownName | MissingAsset) else FAILED
    except Exception as error:  # noqa: BLE001 -- --json promises one object, whatever happens
        traceback.print_exc()
        remedy = "This is a fault of the program; please report it with the text above."
        _fail(LikenessError(f"{type(error).__name__}: {error}", remedy), as_json)
        return FAILED


def read_command(words: Sequence[str]) -> JobSpec | None:
    """Command line words as a JobSpec, or None when help or the version was asked for and printed.

    Raises BadInput or UnknownName.
    """
    asked = read_words(words)
    return None if asked is None else asked.spec


def _run(asked: Asked, runner: Runner, as_json: bool) -> int:
    printer = Bar()
    job = Job(printer)
    for each in asked.notes:
        job.note(each)
    spec = asked.spec
    try:
        with _stoppable(job):
            result, spec = _carry_out(spec, runner, job)
    except (Cancelled, KeyboardInterrupt) as stop:
        printer.close()
        _stopped(spec, job, str(stop) or "Stopped as asked.", as_json)
        return STOPPED
    finally:
        printer.close()
    if as_json:
        _say(json.dumps({"ok": True, "result": result}, default=str, ensure_ascii=False))
    else:
        _say(in_words(result))
    found_bad = result.get("verdict") == "unusable" or result.get("ok") is False
    return FAILED if found_bad else DONE


def _carry_out(spec: JobSpec, runner: Runner, job: Job) -> tuple[dict[str, Any], JobSpec]:
    """Do the job: those that make something hold their device meanwhile and are kept in the store."""
    resume = spec.id if isinstance(spec, Jobs) and spec.action == "resume" else None
    if resume is None and spec.kind not in RECORDED:
        return runner.run(spec, job), spec
    with ExitStack() as doors:
        store = _store(job, doors, needed=resume is not None or getattr(spec, "out", "") is None)
        if store is None:
            return runner.run(spec, job), spec
        ident = _taken_up(store, resume) if resume else _recorded(store, spec)
        row = store.get(ident)
        try:
            doors.enter_context(held(workspace.root(), row.device, f"likeness {row.spec.kind}", job))
        except BaseException:
            store.finish(ident, "cancelled")
            raise
        row = store.claim(row.device, ident)
        if row is None:
            raise Cancelled("Stopped while it waited.")
        outcome = carry_out(store, row, runner, job)
        if isinstance(outcome, Exception):
            if resume is None and getattr(spec, "out", "") is None and row.run is not None:
                with contextlib.suppress(OSError):  # a run folder of ours into which nothing came
                    Path(row.run).rmdir()
            raise outcome
        return outcome, row.spec


def _store(job: Job, doors: ExitStack, needed: bool) -> Store | None:
    """The workspace's store; where it cannot be written, a job with a folder of its own does without."""
    try:
        store = Store(workspace.ready() / FILE)
        recover(store)
    except (LikenessError, OSError, sqlite3.Error) as error:
        if needed and isinstance(error, LikenessError):
            raise
        if needed:
            raise BadInput(
                f"The workspace {workspace.root()} cannot be used ({error}).",
                "Choose another with --workspace, or name a folder with --out.",
            ) from error
        job.note(f"This job is not kept in the list of jobs: {error}")
        return None
    doors.callback(store.close)
    return store


def _recorded(store: Store, spec: JobSpec) -> int:
    """The job in the store; a training gets its folder now, so that it can be taken up after a crash."""
    if spec.kind == "train" and getattr(spec, "out", None) is None:
        data: Any = getattr(spec, "data", None)
        spec = spec.model_copy(update={"out": workspace.new_run("train", data.class_word or data.token)})
    device = device_of(str(getattr(spec, "device", "auto")))
    return store.add(spec, device=device, origin="cli", run=getattr(spec, "out", None))


def _taken_up(store: Store, ident: int) -> int:
    """An ended job, queued again: a training from its last checkpoint, anything else from its start."""
    row = store.get(ident)
    if row.status in ("running", "queued", "done"):
        raise BadInput(f"Job {ident} is {row.status}.", "Only jobs that were stopped or failed are taken up.")
    store.put_back(ident, resumed(row))
    return ident


@contextlib.contextmanager
def _stoppable(job: Job) -> Generator[None]:
    """The first Ctrl-C cancels the job at its next step; the second interrupts at once."""

    def on_interrupt(number: int, frame: types.FrameType | None) -> None:
        if job.cancelled:
            raise KeyboardInterrupt
        job.cancel()
        job.note("Stopping after this step; press Ctrl-C again to stop at once.")

    try:
        previous = signal.signal(signal.SIGINT, on_interrupt)
    except ValueError:  # not in the main thread: the caller's Ctrl-C is not ours to take
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _stopped(spec: JobSpec, job: Job, message: str, as_json: bool) -> None:
    """Say that the job stopped, and where it can go on from."""
    if job.checkpoint is not None:
        remedy = f"The checkpoint is {job.checkpoint}; run the same command with --resume to go on."
    elif "resume" in type(spec).model_fields:
        remedy = "There is no checkpoint of this run yet; with --resume an earlier one is taken up, if any."
    else:
        remedy = "Run the same command again."
    if as_json:
        error = {"type": "Cancelled", "message": message, "remedy": remedy}
        _say(json.dumps({"ok": False, "error": error}, ensure_ascii=False))
    sys.stderr.write(f"{message}\n{remedy}\n")


def _fail(error: LikenessError, as_json: bool) -> None:
    if as_json:
        _say(json.dumps({"ok": False, "error": error.as_dict()}, ensure_ascii=False))
    sys.stderr.write(f"{error.message}\n{error.remedy}\n")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _speak_utf8() -> None:
    """Prompts come in every script; a terminal of another encoding shows what it cannot as escapes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
