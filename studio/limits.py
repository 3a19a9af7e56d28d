"""What a visitor of a shared studio may ask for; on one's own machine there are no limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.errors import BadInput, NotAvailable
from pipelines.jobs.kinds import Axis, Compare
from pipelines.jobs.spec import JobSpec, from_table, get_path, set_path
from studio.settings import Settings

MOST_CELLS = 400
MOST_WAITING = 8
"""Jobs of one visitor in the queue of a shared studio."""
NEEDS_DISK = 64 * 2**20
_DUPLICATE = "Duplicate this Space with stronger hardware, or run the studio on your own machine."


def drawings(spec: JobSpec) -> list[JobSpec]:
    """The jobs that one is made of: of a grid its drawing with every value of its axes, else itself.

    Values of axes that touch different settings are not combined: each is looked at once. Raises BadInput or
    UnknownName where a value does not fit, or the grid is too large.
    """
    if not isinstance(spec, Compare):
        return [spec]
    kind = str(spec.job.get("kind", "compose"))
    if kind not in ("compose", "edit"):
        raise BadInput(f'A grid cannot vary a "{kind}" job.', "Use a compose or an edit job.")
    cells = cells_of(spec)
    if cells > MOST_CELLS or len(spec.axes) > 3:
        raise BadInput(
            f"The grid has {cells:,} cells over {len(spec.axes)} settings.",
            f"Keep it to {MOST_CELLS}: fewer values, or fewer settings, of which three can be laid out.",
        )
    first = from_table({**spec.job, "kind": kind})
    return [first, *(each for group in _groups(spec.axes) for each in _varied(first, group))]


def cells_of(spec: JobSpec) -> int:
    """The pictures' places in a grid; 1 for any other job."""
    cells = 1
    for axis in getattr(spec, "axes", ()):
        cells *= max(1, len(axis.values))
    return cells


def check_limits(spec: JobSpec, settings: Settings, bases: Sequence[str]) -> None:
    """Raises NotAvailable for a base or size that this studio does not offer, BadInput for unknown bases."""
    parts = drawings(spec)
    for base in {str(getattr(part, "base", "") or "") for part in parts}:
        _check_base(base, settings, bases)
    hosting = settings.hosting
    if hosting.kind == "local":
        return
    # axes may vary both how many prompts there are and how many pictures of each
    pictures = cells_of(spec) * max(map(_count, parts)) * max(map(_prompts, parts))
    for part in parts:
        for what, value, most in (
            ("steps", _steps(part), hosting.steps),
            ("photos shown in all steps", _shown(part), hosting.steps * 8),
            ("samples on the way", _samples(part), hosting.steps),
            ("pictures", pictures, hosting.pictures),
            ("pixels a side", _side(part), hosting.pixels),
        ):
            if most and value > most:
                raise NotAvailable(f"{value:,} {what}", f"this Space allows {most:,}", _DUPLICATE)


def _check_base(base: str, settings: Settings, bases: Sequence[str]) -> None:
    if not base or base in bases:
        return
    if settings.hosting.bases == "toybox":
        raise NotAvailable(base, "here only the embedded base runs", _DUPLICATE)
    raise BadInput(
        f'"{base}" is not among the bases of this studio.', "Add its folder under Base and device."
    )


def _groups(axes: Sequence[Axis]) -> list[list[Axis]]:
    """Axes that touch the same setting belong together: "reference.method" decides on "reference.scale"."""
    groups: dict[str, list[Axis]] = {}
    for each in axes:
        groups.setdefault(each.path.partition(".")[0], []).append(each)
    return list(groups.values())


def _varied(first: JobSpec, axes: Sequence[Axis]) -> Iterator[JobSpec]:
    for values in itertools.product(*(axis.values for axis in axes)):
        spec = first
        for axis, value in zip(axes, values, strict=True):
            spec = set_path(spec, "prompts.0" if axis.path == "prompt" else axis.path, value)
        yield spec


def _steps(spec: JobSpec) -> int:
    if spec.kind == "train":
        return int(get_path(spec, "concept.steps"))
    return int(getattr(getattr(spec, "sampler", None), "steps", 0))


def _shown(spec: JobSpec) -> int:
    if spec.kind != "train":
        return 0
    return _steps(spec) * int(get_path(spec, "concept.batch")) * int(get_path(spec, "concept.accumulation"))


def _samples(spec: JobSpec) -> int:
    """Pictures that a training draws of itself, and for prior preservation."""
    watch: Any = getattr(spec, "watch", None)
    if watch is None:
        return 0
    looks = _steps(spec) // watch.every + 1 if watch.every else 0
    prior = int(get_path(spec, "concept.prior_images")) if get_path(spec, "concept.prior_weight") else 0
    return looks * watch.count + prior


def _side(spec: JobSpec) -> int:
    sides = [getattr(spec, name, 0) or 0 for name in ("width", "height")]
    return max(*sides, int(get_path(spec, "concept.resolution") or 0) if spec.kind == "train" else 0)


def _count(spec: JobSpec) -> int:
    return int(getattr(spec, "count", 1))


def _prompts(spec: JobSpec) -> int:
    return max(1, len(getattr(spec, "prompts", ())))
