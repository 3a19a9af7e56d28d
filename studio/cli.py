"""`likeness`: every job without a browser.

A command is a JobSpec sent to the inline runner; its options are the fields of that spec. Results go to
stdout, progress and errors to stderr. Exit codes: 0 done, 2 an error with its remedy, 130 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import types
from collections.abc import Generator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NoReturn, Union, cast, get_args, get_origin

from pydantic.fields import FieldInfo

from pipelines.errors import BadInput, Cancelled, LikenessError, UnknownName
from pipelines.jobs.runner import InlineRunner, Runner
from pipelines.jobs.spec import KINDS, JobSpec, from_table
from pipelines.progress import Job, Printer

FAILED, STOPPED = 2, 130
_HIDDEN = ("kind", "version")


def main(arguments: Sequence[str] | None = None, runner: Runner | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    try:
        spec = read_command(words)
        if spec is None:
            return 0
        return _run(spec, runner or InlineRunner(), as_json)
    except LikenessError as error:
        _fail(error, as_json)
        return FAILED


def read_command(words: Sequence[str]) -> JobSpec | None:
    """Command line words as a JobSpec, or None when help or the version was asked for and printed.

    Raises BadInput or UnknownName.
    """
    try:
        namespace, unknown = _parser().parse_known_args(words)
    except SystemExit:  # argparse printed help or the version
        return None
    table = vars(namespace)
    if unknown:
        known = [
            "--json",
            *(_flag(name) for name in KINDS[table["kind"]].model_fields if name not in _HIDDEN),
        ]
        raise UnknownName("option", unknown[0], known)
    table.pop("json", None)
    return from_table(table)


def _run(spec: JobSpec, runner: Runner, as_json: bool) -> int:
    printer = Printer()
    job = Job(printer)
    try:
        with _stoppable(job):
            result = runner.run(spec, job)
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
    return 0


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


def in_words(result: dict[str, Any]) -> str:
    """A result for people: `rows` as a Markdown table, everything else as "name: value" lines."""
    lines = [f"{name}: {value}" for name, value in result.items() if name != "rows"]
    if "rows" in result:
        lines = [markdown(result["rows"]), *([""] if lines else []), *lines]
    return "\n".join(lines)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The judge's rows {bar, value, at_least, ok, note} as a Markdown table; `ok` None is a mere figure."""
    lines = ["| bar | value | at least | | note |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        ok = row.get("ok")
        mark = "" if ok is None else "✓" if ok else "✗"
        cells = [row["bar"], row["value"], row.get("at_least"), mark, row.get("note")]
        lines.append(f"| {' | '.join(_cell(each) for each in cells)} |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose complaints are ours: a message and a remedy, also in JSON."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise BadInput(f"{message[:1].upper()}{message[1:]}.", f"See: {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise UnknownName("command", str(value), [str(each) for each in action.choices])


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="likeness", allow_abbrev=False, description=_about())
    parser.add_argument("--version", action="version", version=f"likeness {_version()}")
    groups: dict[str, Any] = {"": parser.add_subparsers(required=True, metavar="command")}
    for kind, model in KINDS.items():
        group, _, verb = kind.rpartition("_")
        if group not in groups:
            inner = groups[""].add_parser(group, help=_GROUPS[group], allow_abbrev=False)
            groups[group] = inner.add_subparsers(required=True, metavar="command")
        leaf = groups[group].add_parser(
            verb, help=model.summary, description=f"{model.summary.capitalize()}.", allow_abbrev=False
        )
        leaf.set_defaults(kind=kind)
        leaf.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        for name, field in model.model_fields.items():
            if name not in _HIDDEN:
                _add_option(leaf, name, field)
    return parser


_GROUPS = {"toybox": "the embedded model: its world, its training, its judge"}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add_option(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    """A spec field as an option. Values stay strings: the spec validates them, and says it better."""
    help_text = (field.description or "").replace("%", "%%")
    if field.default is not None and field.annotation is not bool:
        help_text += f" (default: {field.default})"
    flag = _flag(name)
    if field.annotation is bool:
        parser.add_argument(
            flag, dest=name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help_text
        )
        return
    parser.add_argument(flag, dest=name, default=argparse.SUPPRESS, metavar=_metavar(field), help=help_text)


def _metavar(field: FieldInfo) -> str:
    """How an option's value is shown: {auto,cpu,cuda}, PATH, INT, FLOAT."""
    annotation = cast("Any", field.annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(each for each in get_args(annotation) if each is not type(None))
    if get_origin(annotation) is Literal:
        return "{" + ",".join(get_args(annotation)) + "}"
    return annotation.__name__.upper()


def _about() -> str:
    return "Teach a diffusion model your subject, draw it, edit it, and read honestly how well it worked."


def _version() -> str:
    try:
        return version("likeness-studio")
    except PackageNotFoundError:
        return "(not installed)"
