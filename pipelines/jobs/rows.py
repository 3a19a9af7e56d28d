"""A job as the store knows it: one line of its table of jobs."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic_core import from_json as from_json_text

from pipelines.jobs.schema import started_at
from pipelines.jobs.spec import JobSpec, from_json

Status = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
Origin = Literal["queue", "cli"]


@dataclass(frozen=True)
class Row:
    """A job as the store knows it. `step` of `total` is how far it came; times are seconds since 1970."""

    id: int
    spec: JobSpec
    status: Status
    origin: Origin
    base: str
    device: str
    priority: int
    place: float
    cancel: bool
    owner: int | None
    owner_since: float | None
    created: float
    started: float | None
    ended: float | None
    step: int
    total: int | None
    run: Path | None
    result: dict[str, Any] | None
    error: dict[str, str] | None


def row_of(row: sqlite3.Row) -> Row:
    """A line of the table as a Row."""
    table = dict(row)
    spec = from_json(table.pop("spec"))
    table.pop("kind")
    table["cancel"] = bool(table["cancel"])
    table["run"] = Path(table["run"]) if table["run"] else None
    for name in ("result", "error"):
        table[name] = from_json_text(table[name]) if table[name] else None
    return Row(spec=spec, **table)


def lives(row: Row) -> bool:
    """Whether the process that runs a job is still that process."""
    if row.owner is None:
        return False
    since = started_at(row.owner)
    return since is not None and row.owner_since is not None and abs(since - row.owner_since) < 1
