"""What a visitor of a shared studio may ask for; on one's own machine there are no limits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.errors import BadInput, NotAvailable
from pipelines.jobs.spec import Compare, JobSpec, from_table, set_path
from studio.settings import Settings

MOST_CELLS = 400
NEEDS_DISK = 200 * 2**20
_DUPLICATE = "Duplicate this Space with stronger hardware, or run the studio on your own machine."


def check_limits(spec: JobSpec, settings: Settings, bases: Sequence[str]) -> None:
    """Raises NotAvailable for a base or size that this studio does not offer, BadInput for unknown bases."""
    inner = getattr(spec, "job", None)
    if isinstance(inner, dict):
        check_limits(from_table({"kind": "compose", **inner}), settings, bases)
    base = str(getattr(spec, "base", "") or "")
    if base and base not in bases:
        if settings.hosting.bases == "toybox":
            raise NotAvailable(base, "here only the embedded base runs", _DUPLICATE)
        raise BadInput(
            f'"{base}" is not among the bases of this studio.', "Add its folder under Base and device."
        )
    hosting = settings.hosting
    if hosting.kind == "local":
        return
    for what, value, most in (
        ("steps", _steps(spec), hosting.steps),
        ("pictures", _pictures(spec), hosting.pictures),
        (
            "pixels a side",
            max(getattr(spec, "width", 0) or 0, getattr(spec, "height", 0) or 0),
            hosting.pixels,
        ),
    ):
        if most and value > most:
            raise NotAvailable(f"{value:,} {what}", f"this Space allows {most:,}", _DUPLICATE)


def cells_of(spec: JobSpec) -> Iterator[JobSpec]:
    """The drawings inside a grid, one a cell, as they will be drawn; none for any other job.

    An axis may set anything, files and base included, so that whatever a drawing is held to holds for these.
    Raises BadInput for a grid that is too large or does not fit, UnknownName.
    """
    if not isinstance(spec, Compare):
        return
    first = from_table({"kind": "compose", **spec.job})
    count = math.prod(len(axis.values) for axis in spec.axes)
    if count > MOST_CELLS:
        raise BadInput(f"The grid has {count:,} cells.", f"Keep it to {MOST_CELLS}: fewer values.")
    for values in itertools.product(*(axis.values for axis in spec.axes)):
        cell = first
        for axis, value in zip(spec.axes, values, strict=True):
            cell = set_path(cell, "prompts.0" if axis.path == "prompt" else axis.path, value)
        yield cell


def _steps(spec: JobSpec) -> int:
    table: Any = getattr(spec, "concept", None)
    if isinstance(table, dict):
        return int(table.get("steps") or 0)
    sampler = getattr(spec, "sampler", None)
    return int(getattr(sampler, "steps", 0))


def _pictures(spec: JobSpec) -> int:
    count = int(getattr(spec, "count", 1)) * max(1, len(getattr(spec, "prompts", ())))
    cells = 1
    for axis in getattr(spec, "axes", ()):
        cells *= max(1, len(axis.values))
    return count * cells
