"""The history: every finished run with its pictures, readouts, time and size, as pages of any length.

Nothing is kept in memory: a page of the list is one query and as many rows as it shows, so that a thousand
runs answer as fast as ten.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pipelines.errors import BadInput, LikenessError
from pipelines.jobs.spec import JobSpec, get_path
from pipelines.jobs.store import Row
from studio.desk import Desk

KINDS = ("compose", "edit", "train", "compare")
"""What the history lists."""
PAGE = 12
MOST_CHOSEN = 8
_SAMPLES = 8

Table = dict[str, Any]


@dataclass(frozen=True)
class Shot:
    """One picture of a run."""

    path: Path
    prompt: str = ""
    seed: int | None = None
    readings: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Entry:
    """A finished run. `seconds` is its wall time, `bytes` the size of the adapters it made or drew with."""

    id: int
    kind: str
    title: str
    when: float
    seconds: float | None
    bytes: int | None
    readings: Mapping[str, float]
    shots: tuple[Shot, ...]
    folder: Path
    spec: JobSpec
    result: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A short name that no other run has."""
        return f"#{self.id}"


@dataclass(frozen=True)
class Listing:
    """One page of the history: its entries, how many runs there are in all, which page of how many."""

    entries: tuple[Entry, ...]
    total: int
    page: int
    pages: int


def listing(desk: Desk, kind: str = "", text: str = "", page: int = 0) -> Listing:
    """A page of the finished runs, the newest first: of one kind, and with every word of `text` in them."""
    kinds = (kind,) if kind in KINDS else KINDS
    here = _standing(desk)
    found = [each for each in desk.store.finished(kinds, text) if _there(desk, each[1], here)]
    pages = max(1, math.ceil(len(found) / PAGE))
    page = min(max(0, page), pages - 1)
    shown = found[page * PAGE : (page + 1) * PAGE]
    return Listing(tuple(entry(desk, desk.store.get(each)) for each, _ in shown), len(found), page, pages)


def _standing(desk: Desk) -> set[str]:
    """The names of the runs that stand in the workspace: one look at the folder instead of one a run."""
    with suppress(OSError):
        return {each.name for each in (desk.folder / "runs").iterdir()}
    return set()


def _there(desk: Desk, path: Path, here: set[str]) -> bool:
    """Whether a run is still there; those outside the workspace are asked for one by one."""
    return path.name in here if path.parent == (desk.folder / "runs").resolve() else path.exists()


def stamp(desk: Desk) -> tuple[Any, ...]:
    """What changes with the list of runs, and with nothing else: not with every step of a training."""
    newest = desk.store.runs(1)
    return (newest[0]["path"], newest[0]["at"]) if newest else (), desk.stamp("bin")


def entries(desk: Desk, idents: Sequence[int]) -> list[Entry]:
    """These runs, in this order; those that are gone are left out."""
    found: list[Entry] = []
    for ident in idents:
        with suppress(LikenessError):
            row = desk.store.get(ident)
            each = entry(desk, row)
            if row.status == "done" and each.folder.exists():
                found.append(each)
    return found


def entry(desk: Desk, row: Row) -> Entry:
    """A row of the store as the history shows it."""
    result = row.result or {}
    folder = Path(str(result.get("out") or row.run or desk.folder))
    seconds = row.ended - row.started if row.ended and row.started else None
    return Entry(
        id=row.id,
        kind=row.spec.kind,
        title=title(row.spec),
        when=row.ended or row.created,
        seconds=seconds,
        bytes=_size(desk, row.spec, result),
        readings=_readings(result),
        shots=tuple(_shots(result, folder)),
        folder=folder,
        spec=row.spec,
        result=result,
    )


def title(spec: JobSpec) -> str:
    """What a job is about: its prompt, its subject, or what varies."""
    table = spec.model_dump()
    if prompts := table.get("prompts"):
        more = f" (+{len(prompts) - 1})" if len(prompts) > 1 else ""
        return f"{prompts[0]}{more}"
    if data := table.get("data"):
        return f"{data['token']} {data['class_word']}".strip()
    if axes := table.get("axes"):
        return str(table.get("title") or " × ".join(each["path"] for each in axes))
    return spec.kind


def _readings(result: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a run; of a grid the means over its cells."""
    readings = result.get("readings")
    if isinstance(readings, Mapping):
        return _figures(cast("Table", readings))
    cells = [_figures(each) for each in cast("Sequence[Table]", result.get("cells") or ())]
    return {
        name: sum(values) / len(values)
        for name in ("dino_i", "clip_t", "clip_i")
        if (values := [each[name] for each in cells if name in each])
    }


def _figures(table: Mapping[str, Any]) -> dict[str, float]:
    return {
        str(name): float(value)
        for name, value in table.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("step", "seconds")
        if math.isfinite(value)
    }


def _shots(result: Mapping[str, Any], folder: Path) -> list[Shot]:
    """The pictures of a run: what it drew, its grids, or a training's samples of the step it kept."""
    drawn = [
        Shot(
            Path(str(each.get("path", ""))), str(each.get("prompt", "")), each.get("seed"),
            _figures(each.get("readings") or {}),
        )
        for each in cast("Sequence[Table]", result.get("pictures") or ())
    ]  # fmt: skip
    if drawn:
        return drawn
    if grids := result.get("grids"):
        return [Shot(Path(str(each)), "the grid") for each in cast("Sequence[str]", grids)]
    if "best_step" in result:
        step = int(result.get("best_step") or 0)
        found = sorted((folder / "samples").glob(f"step-{step:06d}-*.png"))[:_SAMPLES]
        return [Shot(each, f"sample of step {step}") for each in found]
    return []


def _size(desk: Desk, spec: JobSpec, result: Mapping[str, Any]) -> int | None:
    """Bytes of the adapter that a training made, or of those that a drawing used; None for neither."""
    if isinstance(result.get("bytes"), int):
        return int(result["bytes"])
    table = spec.model_dump()
    stack = table.get("adapters") or (table.get("job") or {}).get("adapters") or ()
    total = 0
    for each in cast("Sequence[Table]", stack):
        with suppress(LikenessError, OSError):
            path = desk.path(str(each.get("adapter", "")))
            path = path / "adapter.safetensors" if path.is_dir() else path
            total += path.stat().st_size
    return total or None


def removable(desk: Desk, each: Entry) -> bool:
    """Whether a run stands in the workspace, so that the studio may delete it."""
    return each.folder.resolve().parent == (desk.folder / "runs").resolve() and each.folder.is_dir()


def discard(desk: Desk, ident: int) -> Path:
    """Move the folder of a finished run to the bin of the workspace; → where it lies now.

    Raises BadInput for a job that has not ended, and for a run that does not stand in the workspace.
    """
    row = desk.store.get(ident)
    each = entry(desk, row)
    if row.status in ("queued", "running"):
        raise BadInput(f"Job {ident} is {row.status}.", "Wait for it, or stop it first.")
    if not removable(desk, each):
        raise BadInput("This run does not stand in the workspace.", "Delete its folder by hand.")
    used = [other for other in desk.active() if f"run:{each.folder.name}" in other.spec.to_json()]
    if used:
        raise BadInput(f"Job {used[0].id} still needs this run.", "Wait for it, or stop it first.")
    bin_ = desk.folder / "bin"
    bin_.mkdir(exist_ok=True)
    target = bin_ / each.folder.name
    if target.exists():
        target = bin_ / f"{each.folder.name}-{time.time_ns():x}"
    shutil.move(each.folder, target)
    desk.touch("bin")
    return target


def paths(table: Mapping[str, Any], where: str = "") -> Table:
    """A nested table as dotted path → value: {"guidance.scale": 5, "adapters.0.weight": 1}."""
    flat: Table = {}
    for key, value in table.items():
        inner: Any = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        if isinstance(inner, Mapping) and inner:
            flat |= paths({str(name): each for name, each in cast("Table", inner).items()}, f"{where}{key}.")
        else:
            flat[f"{where}{key}"] = None if inner in ({}, "") else inner
    return flat


def differences(found: Sequence[Entry]) -> dict[str, list[Any]]:
    """Dotted path → its value in every run, where they are not the same; None where a run has none."""
    tables = [paths(each.spec.portable()) for each in found]
    names = dict.fromkeys(name for table in tables for name in table)
    differing: dict[str, list[Any]] = {}
    for name in names:
        values = [
            table[name] if name in table else _default(each.spec, name)
            for each, table in zip(found, tables, strict=True)
        ]
        if name.partition(".")[0] not in ("out", "version", "resume") and any(
            each != values[0] for each in values
        ):
            differing[name] = values
    return differing


def _default(spec: JobSpec, path: str) -> Any:
    """What a setting is where a job leaves it open; None where the job has no such setting."""
    try:
        return get_path(spec, path)
    except LikenessError:
        return None
