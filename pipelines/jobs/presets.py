"""Presets: partial jobs with a title, in TOML, and how layers of settings become one job.

Precedence, low to high: the defaults of the configs, the base's own defaults, a preset, `--set`, the form or
the options of the command line. A layer that names another method starts that method afresh: settings of
one method never reach the next.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import tomli_w
from pydantic import BaseModel

from pipelines.artifacts import atomic_write
from pipelines.errors import BadInput, MissingAsset, UnknownName
from pipelines.jobs.model import JobSpec, part_of
from pipelines.jobs.paths import check_methods, families, put
from pipelines.jobs.spec import KINDS
from pipelines.spec import parse

LIMIT = 256 * 1024
FOLDERS = ("bases", "concepts", "guidance", "compose", "edit", "grids")
MAIN = {"train": "concept", "compose": "guidance", "edit": "edit", "merge": "merge"}
_ABOUT = ("title", "note", "for")
"""What a preset says of itself; [for] is when to choose it: kinds, faithful, small and why."""

Table = dict[str, Any]


def shipped() -> Path:
    """The presets of this program: the checkout's, or the installed package's copy."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "presets"
    if (package.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    return package / "_presets"


def names(folder: str, workspace: Path | None = None) -> dict[str, Path]:
    """The presets of a kind by name; one of the user's own replaces a shipped one of its name."""
    found: dict[str, Path] = {}
    for home in (shipped(), *([workspace / "presets"] if workspace else [])):
        found |= {each.stem: each for each in sorted((home / folder).glob("*.toml"))}
    return dict(sorted(found.items()))


def load(folder: str, name: str, workspace: Path | None = None) -> Table:
    """A preset by name, or a TOML file by path. Raises UnknownName, MissingAsset or BadInput."""
    if name.endswith(".toml"):
        return read_file(Path(name).expanduser())
    known = names(folder, workspace)
    if name not in known:
        raise UnknownName(f"preset for {folder}", name, known)
    return read_file(known[name])


def native(base: str, workspace: Path | None = None) -> Table:
    """The [defaults] of a base that has a preset; nothing for any other."""
    if base not in names("bases", workspace):
        return {}
    return cast("Table", load("bases", base, workspace).get("defaults") or {})


def read_file(path: Path) -> Table:
    """A TOML table. Raises MissingAsset without a file, BadInput where it is none or larger than 256 KiB."""
    if not path.is_file():
        raise MissingAsset(path, "Check the path of the preset.")
    remedy = "Correct the file; every line is name = value, below a [table]."
    try:
        if path.stat().st_size > LIMIT:
            raise ValueError("it is larger than 256 KiB")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read as TOML ({error}).", remedy) from None


def save(path: Path, title: str, table: Mapping[str, Any]) -> Path:
    """Write a preset: a title and a partial job; what is None is left out, since TOML has no word for it."""
    whole = {"title": title, **cast("Table", _without_none(table))}
    return atomic_write(path, tomli_w.dumps(whole).encode())


def changes(spec: JobSpec) -> Table:
    """What a job says beyond the defaults of its kind: the part of it that a preset should hold."""
    plain, default = spec.portable(), type(spec).model_validate({}).portable()
    return {
        name: value
        for name, value in plain.items()
        if name not in ("version", "out", "resume") and (name == "kind" or value != default[name])
    }


def build(
    kind: str,
    *,
    base_defaults: Mapping[str, Any] | None = None,
    preset: Mapping[str, Any] | None = None,
    sets: Iterable[str] = (),
    form: Mapping[str, Any] | None = None,
) -> JobSpec:
    """A job from its layers, validated as a whole, the tables of its methods included.

    `base_defaults` is the [defaults] of a base's preset, `sets` are "a.b=value" texts, and `form` maps dotted
    paths to values. Raises UnknownName with the nearest known name, or BadInput.
    """
    model = KINDS[kind]
    table = _defaults(model)
    for layer in (_fitting(model, base_defaults or {}), _checked(model, preset or {})):
        table = merge(table, layer)
    for text in sets:
        path, value = assignment(kind, text)
        _put(model, table, path, value)
    # the method comes first: its other settings belong to it
    for path, value in sorted((form or {}).items(), key=lambda each: not each[0].endswith(".method")):
        _put(model, table, path, value)
    spec = parse(model, table, kind)
    check_methods(spec)
    return spec


def assignment(kind: str, text: str) -> tuple[str, Any]:
    """A "--set" text as (dotted path, value): "guidance.scale=6", or bare "rank=8" for the main method.

    Values are TOML ("6", "true", "[1, 2]"); whatever is not TOML is a text. Raises BadInput.
    """
    path, equals, raw = text.partition("=")
    path = path.strip()
    if not equals or not path:
        raise BadInput(f'"{text}" sets nothing.', "Write --set name=value, for example --set rank=8.")
    if "." not in path and path not in KINDS[kind].model_fields:
        if kind not in MAIN:
            raise UnknownName("setting", path, _settings(KINDS[kind]))
        path = f"{MAIN[kind]}.{path}"
    return path, scalar(raw.strip())


def scalar(text: str) -> Any:
    """A text as TOML reads it, or the text itself."""
    if len(text) > LIMIT or "\n" in text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> Table:
    """Two layers as one. Tables are merged key by key, unless `high` names another method than `low`."""
    merged = dict(low)
    for name, value in high.items():
        below = merged.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            table, under = cast("Table", value), cast("Table", below)
            other = "method" in table and table["method"] != under.get("method")
            merged[name] = dict(table) if other else merge(under, table)
        else:
            merged[name] = value
    return merged


def _put(model: type[JobSpec], table: Table, path: str, value: Any) -> None:
    head, _, rest = path.partition(".")
    methods = families(model)
    if head in methods and rest == "method":
        table[head] = merge({head: table.get(head) or {}}, {head: {"method": value}})[head]
        return
    put(table, path, value, free=(*methods, *_free(model)))


def _free(model: type[JobSpec]) -> list[str]:
    """Fields that are tables without a model of their own, such as the drawing inside a grid."""
    return [name for name, field in model.model_fields.items() if field.annotation == dict[str, Any]]


def _defaults(model: type[JobSpec]) -> Table:
    return model.model_validate({}).portable()


def _fitting(model: type[JobSpec], defaults: Mapping[str, Any]) -> Table:
    """A base's defaults as far as a kind of job has such settings; [defaults.KIND] is for one alone."""
    kind = cast("str", model.model_fields["kind"].default)
    own = cast("Table", defaults.get(kind) or {})
    fits = {name: value for name, value in defaults.items() if name in model.model_fields}
    return merge(fits, own)


def _checked(model: type[JobSpec], preset: Mapping[str, Any]) -> Table:
    """A preset without its title; raises UnknownName for a key that this kind of job does not have."""
    table = {
        name: value for name, value in preset.items() if name not in _ABOUT or name in model.model_fields
    }
    kind = table.pop("kind", None)
    if kind is not None and kind != model.model_fields["kind"].default:
        raise BadInput(f"This preset is for {kind}.", "Choose one for this kind of job.")
    for name in table:
        if name not in model.model_fields:
            raise UnknownName("setting of the preset", name, _settings(model))
    return table


def _settings(model: type[BaseModel], where: str = "") -> Sequence[str]:
    """Every dotted path of a model, lists and free tables left closed."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        inner = part_of(field.annotation)
        paths.append(where + name)
        if inner is not None and isinstance(field.annotation, type):
            paths += _settings(inner, f"{where}{name}.")
    return [each for each in paths if each not in ("kind", "version")]


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        return {name: _without_none(each) for name, each in table.items() if each is not None}
    if isinstance(value, tuple | list):
        return [_without_none(each) for each in cast("list[Any]", value)]
    return value
