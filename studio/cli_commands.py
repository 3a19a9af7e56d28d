"""The commands: which words of the command line fill which settings of a job.

A command is its job kind and a list of words; help, range and default of each come from the job's own
fields, which the dotted path names. Commands without a list (`doctor`, `toybox build`) offer every field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipelines.errors import BadInput
from pipelines.jobs import pictures, presets, workspace
from pipelines.jobs.model import JobSpec, mark, part_of
from pipelines.jobs.paths import families
from pipelines.jobs.references import split
from pipelines.jobs.spec import KINDS, from_table

HIDDEN = ("kind", "version")
SHARED = ("json", "workspace", "kind")


@dataclass(frozen=True)
class Word:
    """One option or positional: where its value goes, what it is called, and whether it may come often."""

    path: str
    flag: str = ""
    help: str = ""
    many: bool = False
    optional: bool = False
    metavar: str = ""

    @property
    def name(self) -> str:
        """Its key in argparse's namespace; positionals are called by it."""
        return self.path.replace(".", "__")


@dataclass(frozen=True)
class Command:
    """A command: its words, the folder of its presets, and whether it takes --set and --preset."""

    kind: str
    words: tuple[Word, ...]
    presets: str = ""


def _options(*paths: str) -> tuple[Word, ...]:
    """Options whose flag is the last part of their path."""
    return tuple(Word(each, _flag(each.rpartition(".")[2])) for each in paths)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


_ADAPTERS = Word(
    "adapters", "--adapter", "an adapter and how much of it, PATH[:WEIGHT]; may come several times", many=True
)
_DRAWING = (
    Word("negative", "--negative"),
    _ADAPTERS,
    Word("guidance.method", "--guidance", "the guidance method; see: likeness methods --family guidance"),
    Word("sampler.name", "--sampler"),
    Word("sampler.steps", "--steps"),
    *_options("width", "height", "count", "seed", "base", "device", "memory", "references", "score", "out"),
)

COMMANDS: dict[str, Command] = {
    "check": Command("check", (Word("photos", metavar="PHOTOS"), *_options("size", "token", "class_word"))),
    "caption": Command(
        "caption",
        (
            Word("photos", metavar="PHOTOS"),
            *_options("token", "class_word", "plain", "template", "overwrite", "dry_run", "device"),
        ),
    ),
    "train": Command(
        "train",
        (
            Word("data.photos", metavar="PHOTOS"),
            Word(
                "concept.method", "--method", "the training method; see: likeness methods --family concepts"
            ),
            *_options(
                "data.token", "data.class_word", "data.template", "data.captions", "data.flip", "data.focus"
            ),
            Word("data.exclude", "--exclude", many=True),
            Word("concept.steps", "--steps", "training steps; default: the method's own"),
            Word("watch.every", "--watch-every"),
            Word("watch.prompts", "--watch-prompt", many=True),
            *_options("seed", "base", "device", "memory", "out", "resume"),
        ),
        "concepts",
    ),
    "generate": Command(
        "compose",
        (
            Word("prompts", many=True, optional=True, metavar="PROMPT"),
            *_DRAWING,
            Word(
                "reference.method",
                "--reference",
                "a reference method; see: likeness methods --family reference",
            ),
            *_options("start", "strength", "mask"),
        ),
        "compose",
    ),
    "edit": Command(
        "edit",
        (
            Word("image", metavar="IMAGE"),
            Word("edit.method", "--method", "the editing method; see: likeness methods --family editing"),
            Word("prompts", "--prompt", "what the picture should show; may come several times", many=True),
            Word("edit.strength", "--strength", "how much is drawn again; for methods that have it"),
            *_options("source", "mask"),
            *_DRAWING,
        ),
        "edit",
    ),
    "score": Command(
        "score",
        (
            Word("images", many=True, metavar="IMAGE"),
            *_options("prompt", "references"),
            Word("metrics", "--metric", many=True),
            *_options("base", "device"),
        ),
    ),
    "compare": Command(
        "compare",
        (
            Word("job.base", "--base", "the base model of the drawing"),
            Word("job.device", "--device", "where to draw: auto, cpu or cuda"),
            Word("job.references", "--references", "photos of the subject to measure likeness against"),
            Word("job.adapters", "--adapter", _ADAPTERS.help, many=True),
            Word("out", "--out"),
        ),
        "grids",
    ),
    "merge": Command(
        "merge",
        (
            Word(
                "adapters", help="adapters and how much of each, PATH[:WEIGHT]", many=True, metavar="ADAPTER"
            ),
            Word(
                "merge.method",
                "--method",
                "the merging method; see: likeness methods --family adapters.merge",
            ),
            *_options("base", "out"),
        ),
    ),
    "info": Command("info", (Word("file", metavar="FILE"),)),
    "jobs": Command(
        "jobs",
        (
            Word("action", optional=True, metavar="{list,cancel,resume}"),
            Word("id", optional=True, metavar="ID"),
            Word("limit", "--limit"),
        ),
    ),
}
"""The commands with a list of words of their own; every other kind of job offers all its fields."""


def field_at(model: type[BaseModel], path: str) -> FieldInfo | None:
    """The field that a dotted path names, or None inside a free table."""
    head, _, rest = path.partition(".")
    field = model.model_fields.get(head)
    if field is None or not rest:
        return field
    inner = part_of(field.annotation)
    return field_at(inner, rest) if inner is not None else None


def spec_of(command: Command | None, kind: str, table: Mapping[str, Any]) -> tuple[JobSpec, list[str]]:
    """The job that a command line asks for, and what to say about it. Raises BadInput or UnknownName."""
    if command is None:
        return from_table({"kind": kind, **_without(table)}), []
    model = KINDS[kind]
    form: dict[str, Any] = {}
    for word in command.words:
        value = table.get(word.name)
        if value is None or value == []:
            continue
        form[word.path] = _value(word, field_at(model, word.path), value)
    layers, notes = _layers(command, table)
    base = form.get("base") or next((each["base"] for each in reversed(layers) if "base" in each), "toybox")
    preset: dict[str, Any] = {}
    for layer in layers:
        preset = presets.merge(preset, layer)
    sets = cast("Sequence[str]", table.get("set") or ())
    defaults = presets.native(str(base), workspace.root()) if "base" in model.model_fields else {}
    spec = presets.build(kind, base_defaults=defaults, preset=preset, sets=sets, form=form)
    return spec, notes


def _layers(command: Command, table: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The partial jobs that a command line names: --preset, a grid's file, --like."""
    layers = [_preset(command, name) for name in cast("Sequence[str]", table.get("preset") or ())]
    notes: list[str] = []
    if picture := table.get("like"):
        found = pictures.like(workspace.resolve(str(picture)))
        unwanted = ("version", "out", "device")
        layers.append({name: value for name, value in found.table.items() if name not in unwanted})
        if found.ignored:
            notes.append(f"Not used of what {picture} says: {', '.join(found.ignored)}.")
    return layers, notes


def _preset(command: Command, name: str) -> dict[str, Any]:
    """A preset of the command, or of its guidance."""
    folders = [command.presets, *(["guidance"] if command.kind in ("compose", "edit") else [])]
    for folder in folders:
        if name in presets.names(folder, workspace.root()):
            table = presets.load(folder, name, workspace.root())
            # a preset of guidance stands for any kind that draws
            return {key: value for key, value in table.items() if folder != "guidance" or key != "kind"}
    return presets.load(command.presets, name, workspace.root())


def _value(word: Word, field: FieldInfo | None, value: Any) -> Any:
    """What the user wrote as the job's value: adapters with weights, and files from wherever he stands."""
    if word.path.endswith("adapters"):
        return [adapter(each) for each in cast("Sequence[str]", value)]
    if field is None and isinstance(value, str):
        return presets.scalar(value)
    if field is not None and mark(field, "reference"):
        many = isinstance(value, list)
        found = [anchored(each) for each in (cast("list[str]", value) if many else [str(value)])]
        return found if many else found[0]
    if word.path == "out":
        return str(Path(str(value)).expanduser().absolute())
    return value


def adapter(text: str) -> dict[str, Any]:
    """PATH[:WEIGHT] as a table; a colon that is followed by no number belongs to the path."""
    path, colon, weight = text.rpartition(":")
    try:
        amount = float(weight) if colon else None
    except ValueError:
        amount = None
    if amount is None or not path or path in ("run", "asset", "upload", "file"):
        return {"adapter": anchored(text)}
    return {"adapter": anchored(path), "weight": amount}


def anchored(reference: str) -> str:
    """A reference that means the same from any folder: a path that exists becomes absolute."""
    scheme, name = split(reference)
    if scheme != "file":
        return reference
    try:
        path = Path(name).expanduser()
        return str(path.absolute()) if path.exists() else reference
    except OSError:
        return reference


def _without(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name not in SHARED}


def check_complete(command: str, spec: JobSpec) -> None:
    """Raise BadInput where a command lacks what it cannot do without."""
    if command == "train" and getattr(spec, "resume", False) and getattr(spec, "out", None) is None:
        raise BadInput(
            "--resume does not know which run.",
            "Name its folder with --out, or use: likeness jobs resume ID.",
        )


def main_method(kind: str) -> str:
    """The field that a bare `--set name=value` belongs to, or nothing."""
    return presets.MAIN.get(kind, "") if families(KINDS[kind]) else ""
