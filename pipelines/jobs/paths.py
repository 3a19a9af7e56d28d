"""Dotted paths into a job: "steps", "guidance.scale", "prompts.0", "adapters.0.weight"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pipelines.errors import BadInput, UnknownName
from pipelines.jobs.model import PICTURES_OF_METHOD, JobSpec, mark
from pipelines.spec import Config, catalog, parse, read

SpecT = TypeVar("SpecT", bound=JobSpec)


def get_path(spec: JobSpec, path: str) -> Any:
    """The value at a dotted path. Settings of a method that the job leaves open give the method's default.

    Raises UnknownName, or BadInput where the path goes through a single value or past the end of a list.
    """
    table = _lists(spec.model_dump())
    for name, config in _configs(spec):
        table[name] = {**config.model_dump(), **table[name]}
    value: Any = table
    walked: list[str] = []
    for part in path.split("."):
        value = _enter(value, part, walked)
        walked.append(part)
    return value


def set_path(spec: SpecT, path: str, value: Any) -> SpecT:
    """A copy of the spec with one value changed, validated as a whole, the tables of methods included.

    A list takes an index up to its length, where the value is appended. Raises UnknownName or BadInput.
    """
    table = _lists(spec.model_dump())
    put(table, path, value, free=tuple(_families(spec)))
    changed = parse(type(spec), table, spec.kind)
    check_methods(changed)
    return changed


def put(table: dict[str, Any], path: str, value: Any, free: tuple[str, ...] = ()) -> None:
    """Set one value in a nested table, in place; below the keys in `free` new keys may appear."""
    *folders, last = path.split(".")
    inner: Any = table
    walked: list[str] = []
    for part in folders:
        open_ended = bool(walked) and walked[0] in free
        if open_ended and isinstance(inner, dict):
            cast("dict[str, Any]", inner).setdefault(part, {})
        if not walked and part in free and table.get(part, 0) is None:
            table[part] = {}
        inner = _enter(inner, part, walked)
        walked.append(part)
    if isinstance(inner, list):
        items = cast("list[Any]", inner)
        index = _index(items, last, walked, len(items) + 1)
        items[index : index + 1] = [value]
        return
    if not (walked and walked[0] in free and isinstance(inner, dict)):
        _enter(inner, last, walked)
    inner[last] = value


def check_methods(spec: JobSpec) -> None:
    """Read every table of a method against its catalog. Raises UnknownName or BadInput where it does not fit.

    A family that has no methods in this installation is not checked.
    """
    for _ in _configs(spec):
        pass


def families(model: type[JobSpec]) -> dict[str, str]:
    """Field → family of the methods that stand in a kind of job: {"guidance": "guidance"}."""
    return {name: family for name, field in model.model_fields.items() if (family := mark(field, "family"))}


def _families(spec: JobSpec) -> dict[str, str]:
    return families(type(spec))


def _configs(spec: JobSpec) -> list[tuple[str, Config]]:
    found: list[tuple[str, Config]] = []
    for name, family in _families(spec).items():
        table = cast("dict[str, Any] | None", getattr(spec, name))
        if table is not None and _known(family):
            found.append((name, read(family, _alone(family, table))))
    return found


def _known(family: str) -> bool:
    """Whether there are methods of a family; a module that does not import is the worker's to report."""
    try:
        return bool(catalog(family, broken={}))
    except UnknownName:
        return False


def _alone(family: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """A method's own table; those it is combined with (`guidance.with.NAME`) are read here.

    The pictures of a reference method stand in its table, and are no setting of it.
    """
    alone = dict(table)
    if family == "reference":
        alone.pop(PICTURES_OF_METHOD, None)
    combined = alone.pop("with", None) if family == "guidance" else None
    if combined is not None:
        if not isinstance(combined, Mapping):
            raise BadInput('"guidance.with" is no table.', "Write it as [guidance.with.NAME].")
        for name, settings in cast("Mapping[str, Any]", combined).items():
            if not isinstance(settings, Mapping):
                raise BadInput(f'"guidance.with.{name}" is no table.', f"Write [guidance.with.{name}].")
            read(family, {"method": name, **cast("Mapping[str, Any]", settings)})
    return alone


def _lists(value: Any) -> Any:
    """Tuples as lists, all the way down, so that items can be set."""
    if isinstance(value, dict):
        return {key: _lists(each) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, tuple | list):
        return [_lists(each) for each in cast("list[Any]", value)]
    return value


def _enter(value: Any, part: str, walked: list[str]) -> Any:
    """What stands under `part` inside `value`."""
    where = ".".join(walked)
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return items[_index(items, part, walked, len(items))]
    if not isinstance(value, dict):
        raise BadInput(f'"{where}" is a single value.', f'Leave out ".{part}".')
    table = cast("dict[str, Any]", value)
    if part not in table:
        raise UnknownName("setting", ".".join([*walked, part]), [".".join([*walked, key]) for key in table])
    return table[part]


def _index(items: list[Any], part: str, walked: list[str], end: int) -> int:
    where = ".".join(walked)
    if not part.isascii() or not part.isdigit() or int(part[:9]) >= end:
        have = f"It has {len(items)}, counted from 0." if items else "It is empty."
        raise BadInput(f'"{where}" has no item "{part}".', have)
    return int(part)
