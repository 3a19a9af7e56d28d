"""Command line words → a job. argparse splits the words; the job's own fields say the rest."""

from __future__ import annotations

import argparse
import os
import types
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NoReturn, Union, cast, get_args, get_origin

from pydantic.fields import FieldInfo

from pipelines.errors import BadInput, UnknownName
from pipelines.jobs import workspace
from pipelines.jobs.spec import KINDS, JobSpec
from studio.cli_commands import (
    COMMANDS,
    HIDDEN,
    Command,
    Word,
    check_complete,
    field_at,
    main_method,
    spec_of,
)

_ABOUT = "Teach a diffusion model your subject, draw it, edit it, and read honestly how well it worked."
STUDIO = "studio"
"""The command that is no job: its words are those of `studio.settings`."""
_GROUPS = {
    "toybox": "the embedded model: its world, its training, its judge",
    "study": "the methods' effects: what was measured, and whether it still stands",
}


@dataclass(frozen=True)
class Asked:
    """What a command line asks for: the job, and what is to be said before it begins."""

    command: str
    spec: JobSpec
    notes: tuple[str, ...] = ()


def read_words(words: Sequence[str]) -> Asked | None:
    """Command line words as a job, or None when help or the version was asked for and printed.

    Raises BadInput or UnknownName.
    """
    try:
        namespace, unknown = _parser().parse_known_args(words)
    except SystemExit:  # argparse printed help or the version
        return None
    table = vars(namespace)
    name, flags = table.pop("command_name"), table.pop("flags")
    if unknown:
        if unknown[0].startswith("-"):
            raise UnknownName("option", unknown[0].partition("=")[0], flags)
        raise BadInput(f'"{unknown[0]}" is one word too many.', f"See: likeness {name} --help")
    if folder := table.pop("workspace", None):
        # for this process and those it starts: every part of a job must mean the same folder
        os.environ[workspace.ENV] = str(folder)
    spec, notes = spec_of(COMMANDS.get(name), table["kind"], table)
    check_complete(name, spec)
    return Asked(name, spec, tuple(notes))


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose complaints are ours: a message and a remedy, also in JSON."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise BadInput(f"{message[:1].upper()}{message[1:]}.", f"See: {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise UnknownName("command", str(value), [str(each) for each in action.choices])


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="likeness", allow_abbrev=False, description=_ABOUT)
    parser.add_argument("--version", action="version", version=f"likeness {_version()}")
    groups: dict[str, Any] = {"": parser.add_subparsers(required=True, metavar="command")}
    groups[""].add_parser(STUDIO, help="open the studio in the browser", add_help=False)
    names = {command.kind: name for name, command in COMMANDS.items()}
    for kind, model in KINDS.items():
        group, _, verb = names.get(kind, kind).rpartition("_")
        if group not in groups:
            inner = groups[""].add_parser(group, help=_GROUPS[group], allow_abbrev=False)
            groups[group] = inner.add_subparsers(required=True, metavar="command")
        about = f"{model.summary[:1].upper()}{model.summary[1:]}."
        leaf = groups[group].add_parser(verb, help=model.summary, description=about, allow_abbrev=False)
        _fill(leaf, names.get(kind, kind), kind)
    return parser


def _fill(leaf: argparse.ArgumentParser, name: str, kind: str) -> None:
    """The options of one command."""
    command, model = COMMANDS.get(name), KINDS[kind]
    leaf.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    leaf.add_argument("--workspace", metavar="DIR", help="folder of runs, presets and the list of jobs")
    if command is None:
        words = [
            Word(name, _flag(name), many=get_origin(field.annotation) is tuple)
            for name, field in model.model_fields.items()
            if name not in HIDDEN
        ]
    else:
        words = list(command.words)
        _add_layers(leaf, command)
    for word in words:
        _add_word(leaf, word, field_at(model, word.path))
    flags = [each for action in leaf._actions for each in action.option_strings if each.startswith("--")]
    leaf.set_defaults(kind=kind, command_name=name, flags=flags)


def _add_layers(leaf: argparse.ArgumentParser, command: Command) -> None:
    main = main_method(command.kind)
    if command.kind == "compare":
        leaf.add_argument("preset", nargs=1, metavar="GRID", help="a TOML file, or the name of a preset")
    elif command.presets:
        leaf.add_argument(
            "--preset",
            action="append",
            metavar="NAME",
            help="a preset by name, or a TOML file; may come often",
        )
    if command.kind in ("compose", "edit"):
        leaf.add_argument("--like", metavar="PICTURE", help="repeat a picture: take the settings it carries")
    if command.presets or main:
        bare = f"; a bare name belongs to {main}" if main else ""
        leaf.add_argument(
            "--set", action="append", metavar="NAME=VALUE", help=f"any setting by its dotted path{bare}"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add_word(parser: argparse.ArgumentParser, word: Word, field: FieldInfo | None) -> None:
    """One option or positional. Values stay strings: the spec validates them, and says it better."""
    help_text = (word.help or (field.description if field else "") or "").replace("%", "%%")
    if word.flag and field is not None and field.annotation is bool:
        parser.add_argument(
            word.flag,
            dest=word.name,
            action=argparse.BooleanOptionalAction,
            default=argparse.SUPPRESS,
            help=help_text,
        )
        return
    if word.flag and field is not None and not field.is_required() and _says_something(field.default):
        help_text += f" (default: {field.default})"
    metavar = word.metavar or ("NAME" if word.path.endswith(".method") else _metavar(field))
    if word.flag:
        how: dict[str, Any] = {"action": "append"} if word.many else {}
        parser.add_argument(
            word.flag, dest=word.name, default=argparse.SUPPRESS, metavar=metavar, help=help_text, **how
        )
        return
    count = {(True, True): "*", (True, False): "+", (False, True): "?"}.get((word.many, word.optional))
    # argparse gives an absent "*" its default, so that one must be empty
    default = [] if count == "*" else argparse.SUPPRESS
    parser.add_argument(word.name, nargs=count, default=default, metavar=metavar, help=help_text)


def _says_something(default: Any) -> bool:
    return isinstance(default, int | float) or (isinstance(default, str) and default != "")


def _metavar(field: FieldInfo | None) -> str:
    """How an option's value is shown: {auto,cpu,cuda}, PATH, INT, FLOAT; VALUE inside a method's table."""
    if field is None:
        return "VALUE"
    annotation = cast("Any", field.annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(each for each in get_args(annotation) if each is not type(None))
    if get_origin(annotation) is Literal:
        return "{" + ",".join(get_args(annotation)) + "}"
    names = {str: "TEXT", int: "INT", float: "FLOAT", tuple[str, ...]: "TEXT"}
    return names.get(annotation, "PATH" if getattr(annotation, "__name__", "") == "Path" else "VALUE")


def _version() -> str:
    try:
        return version("likeness-studio")
    except PackageNotFoundError:
        return "(not installed)"
