"""The axes of a grid: which settings of a drawing may vary, what they mean, and what their values cost.

Everything is read from the job's own fields and the configs of its methods, so that a method that is added
tomorrow can be laid out over a grid without a word here.
"""

from __future__ import annotations

import itertools
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, Union, cast, get_args, get_origin

from pydantic.fields import FieldInfo

from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import presets
from pipelines.jobs.model import mark
from pipelines.jobs.spec import Compare, Compose, Edit, from_table, set_path
from pipelines.spec import Config, catalog, limits
from studio.compare_values import EXAMPLES, MOST, Kind, parse

Table = dict[str, Any]
_SKIPPED = frozenset(
    {"kind", "version", "out", "device", "memory", "count", "score", "base", "references", "mask", "image",
     "prompts", "adapters", "sampler", "start"}
)  # fmt: skip
_WORDY = frozenset({"negative", "source", "prompts"})


@dataclass(frozen=True)
class Setting:
    """A setting that may vary: its dotted path, what to call it, what it does, and what it takes."""

    path: str
    label: str
    help: str = ""
    kind: Kind = "any"
    now: Any = None
    options: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def hint(self) -> str:
        """What to type, in a sentence."""
        span = f" From {self.low:g} to {self.high:g}." if None not in (self.low, self.high) else ""
        now = "" if self.now in (None, "") else f" Now {_told(self.now)}."
        what = f"One or several of: {', '.join(self.options)}." if self.options else EXAMPLES[self.kind]
        # a help that lists names keeps them as they are written
        lead = self.help[:1] if self.kind == "any" else self.help[:1].upper()
        about = f"{lead}{self.help[1:]}. " if self.help else ""
        typed = what if self.options else f"Type {what}."
        return f"{about}{typed}{span}{now}".strip()


def drawing(table: Mapping[str, Any]) -> Compose | Edit:
    """A job table as the drawing that a grid varies. Raises BadInput for any other, UnknownName."""
    spec = from_table({"kind": "compose", **table})
    if not isinstance(spec, Compose | Edit):
        raise BadInput(
            f'A grid cannot vary a "{spec.kind}" job.', "Send settings from Compose, Edit or Identity here."
        )
    return spec


def settings_of(table: Mapping[str, Any]) -> list[Setting]:
    """Every setting of a drawing that a grid may vary, those that people vary most first. Raises BadInput."""
    spec = drawing(table)
    found = [Setting("seed", "seed", "other noise, hence another picture", "whole", spec.seed)]
    found += _adapters(spec)
    for index, prompt in enumerate(spec.prompts[:1]):
        found.append(Setting(f"prompts.{index}", "prompt", "what to draw", "text", prompt))
    for name, field in type(spec).model_fields.items():
        if family := mark(field, "family"):
            found += _method(name, str(family), getattr(spec, name))
    found += _fields(type(spec.sampler).model_fields, "sampler.", "sampler", spec.sampler.model_dump())
    own = {
        name: field
        for name, field in type(spec).model_fields.items()
        if name not in _SKIPPED and not mark(field, "family") and name != "seed"
        if name != "strength" or getattr(spec, "start", "")
    }
    return found + _fields(own, "", "", spec.model_dump())


def _adapters(spec: Compose | Edit) -> list[Setting]:
    many = len(spec.adapters) > 1
    return [
        Setting(
            f"adapters.{index}.weight",
            f"weight of {_name(each.adapter)}" if many else f"adapter weight ({_name(each.adapter)})",
            "how much of the trained concept: 0 is none, 1 as trained",
            "number", each.weight, (), -4, 4,
        )
        for index, each in enumerate(spec.adapters)
    ]  # fmt: skip


def _name(reference: str) -> str:
    """How an adapter is called: "run:train-dog" → train-dog, "…/dog/adapter.safetensors" → dog."""
    path = PurePosixPath(reference.partition("#")[0].replace("\\", "/").rpartition(":")[2])
    name = path.parent.name if path.name == "adapter.safetensors" and path.parent.name else path.stem
    return name or reference


def _method(field: str, family: str, table: Table | None) -> list[Setting]:
    """The choice of a method, its settings, and those of what stands around it."""
    if table is None:
        return []
    known = catalog(family, {})
    name = str(table.get("method"))
    found = [Setting(f"{field}.method", f"{_plain(field)} method", "", "choice", name, tuple(known))]
    if name in known:
        found += _config(known[name], f"{field}.", _plain(field), table)
    combined = table.get("with")
    for inner, values in cast("Table", combined).items() if isinstance(combined, Mapping) else ():
        if inner in known and isinstance(values, Mapping):
            found += _config(
                known[inner], f"{field}.with.{inner}.", known[inner].title, cast("Table", values)
            )
    return found


def _config(config: type[Config], where: str, title: str, table: Table) -> list[Setting]:
    default = {
        name: each.get_default(call_default_factory=True) for name, each in config.model_fields.items()
    }
    return _fields(config.model_fields, where, title, {**default, **table})


def _plain(field: str) -> str:
    return {"edit": "editing"}.get(field, field)


def _fields(fields: Mapping[str, FieldInfo], where: str, title: str, table: Table) -> list[Setting]:
    found: list[Setting] = []
    for name, field in fields.items():
        kind, options = kind_of(field.annotation, name in _WORDY)
        if mark(field, "reference") or kind is None:
            continue
        low, high = limits(field.metadata)
        label = f"{title}: {name.replace('_', ' ')}" if title else name.replace("_", " ")
        found.append(
            Setting(
                where + name, label, (field.description or "").rstrip("."), kind, table.get(name), options,
                low, high,
            )
        )  # fmt: skip
    return found


def kind_of(annotation: Any, wordy: bool = False) -> tuple[Kind | None, tuple[str, ...]]:
    """What values a setting takes, and the choices if it has some; None for what no axis can hold."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [each for each in get_args(annotation) if each is not type(None)]
        return kind_of(inner[0], wordy) if len(inner) == 1 else ("any", ())
    if get_origin(annotation) is Literal:
        return "choice", tuple(str(each) for each in get_args(annotation))
    kinds: dict[Any, Kind] = {bool: "yes", int: "whole", float: "number", str: "text" if wordy else "any"}
    return kinds.get(annotation), ()


def grid(
    job: Mapping[str, Any], axes: Sequence[Mapping[str, Any]], title: str = "", count: int | None = None
) -> Compare:
    """The grid job of a drawing and its axes, as a form holds them; every cell is checked.

    An axis is {"path": …, "values": […]}, or {"path": …, "text": "0..1 step 0.25"}; those without a path are
    left out. `count` is how many pictures every cell draws; by default as many as the drawing says.
    Raises BadInput with a remedy, or UnknownName.
    """
    said = [each for each in job.get("prompts") or () if str(each).strip()]
    spec = drawing({**job, "prompts": said, **({"count": count} if count else {})})
    if not spec.prompts:
        raise BadInput(
            "The drawing that should vary has no prompt.", "Write one under Compose, and send it here."
        )
    known = {each.path: each for each in settings_of(spec.model_dump())}
    laid: list[Table] = []
    for axis in axes:
        path = str(axis.get("path") or "").strip()
        if not path:
            continue
        path = "prompts.0" if path == "prompt" else path
        if path in [each["path"] for each in laid]:
            raise BadInput(f'"{path}" varies twice.', "Choose another setting for one of the axes.")
        values = values_of(axis, known.get(path), spec.seed)
        if not values:
            named = known[path].label if path in known else path
            raise BadInput(f'"{named}" has no values yet.', "Type at least one, such as 0, 0.5, 1.")
        laid.append({"path": path, "values": values})
    if not laid:
        raise BadInput("Nothing varies yet.", "Choose a setting, and type two or more values for it.")
    _check_cells(spec, laid)
    table = {key: value for key, value in spec.portable().items() if key not in ("version", "out")}
    return Compare(title=title or "", job=table, axes=cast("Any", tuple(laid)))


def values_of(axis: Mapping[str, Any], setting: Setting | None, seed: int = 0) -> list[Any]:
    """The values of an axis as a form or a parcel holds it. Raises BadInput where they cannot be read."""
    if "text" in axis:
        return parse(str(axis["text"]), setting.kind if setting else "any", seed)
    values = axis.get("values")
    return list(cast("Sequence[Any]", values)) if isinstance(values, list | tuple) else []


def _check_cells(spec: Compose | Edit, axes: Sequence[Table]) -> None:
    """Raise what a wrong path or value raises, before anything is drawn."""
    cells = math.prod(len(each["values"]) for each in axes)
    if cells > MOST:
        raise BadInput(f"The grid has {cells:,} cells.", f"Keep it to {MOST}: fewer values, or fewer axes.")
    if any(each["path"].endswith(".method") for each in axes):
        # what another setting may be depends on the method: every combination has to fit
        for values in itertools.product(*(each["values"] for each in axes)):
            cell = spec
            for axis, value in zip(axes, values, strict=True):
                cell = set_path(cell, axis["path"], value)
        return
    for axis in axes:
        for value in axis["values"]:
            set_path(spec, axis["path"], value)


def cells(axes: Sequence[Mapping[str, Any]]) -> int:
    """How many pictures a grid of these axes has."""
    return math.prod(len(each["values"]) for each in axes) if axes else 0


def work(spec: Compare) -> float:
    """How much a grid has to draw, in steps × megapixels × pictures, over all of its cells.

    A size that is left open counts as 1: only its ratio to another drawing on the same base is of use.
    """
    first = drawing(spec.job)
    total = 0.0
    for values in itertools.product(*(axis.values for axis in spec.axes)):
        table = first.model_dump()
        for axis, value in zip(spec.axes, values, strict=True):
            try:
                presets.put(table, axis.path, value, free=("guidance", "edit", "reference"))
            except LikenessError:  # a path through a tuple, which no cost depends on
                continue
        total += effort(table)
    return total


def effort(table: Mapping[str, Any]) -> float:
    """What one drawing has to do, in the same measure as `work`."""
    area = (table.get("width") or 0) * (table.get("height") or 0) / 1e6 or 1.0
    pictures = int(table.get("count") or 1) * max(1, len(table.get("prompts") or ()))
    return float((table.get("sampler") or {}).get("steps") or 20) * area * pictures


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f'"{text[:60]}…"' if len(text) > 60 else text
