"""What programs are told: jobs and results without a path of this machine, errors as data.

A file of the visitor stands in a result as the reference that further jobs take ("run:compose-dog/001.png"),
and beside it as "url", to be joined to the studio's own address.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pipelines.artifacts import assets
from pipelines.errors import BadInput, LikenessError
from pipelines.jobs.store import Row
from studio.desk import Desk
from studio.guarded import said

Answer = dict[str, Any]
_STOPPED = {
    "cancelled": ("Cancelled", "It was stopped.", "Send it again."),
    "interrupted": ("Interrupted", "The studio ended before the job did.", "Send it again."),
}


def seen(desk: Desk, row: Row) -> Answer:
    """A job as programs see it: number, state, and its progress, result or error."""
    answer: Answer = {"ok": True, "job": row.id, "kind": row.spec.kind, "state": row.status}
    if row.status == "done":
        return {**answer, "result": told(desk, row.result or {})}
    if row.status == "failed":
        return {**answer, "ok": False, "error": told(desk, dict(row.error or {}))}
    if row.status in _STOPPED:
        kind, message, remedy = _STOPPED[row.status]
        return {**answer, "ok": False, "error": {"type": kind, "message": message, "remedy": remedy}}
    if row.status == "queued":
        return {**answer, "why": without_paths(desk, desk.queue.why_it_waits(row.id))}
    latest = desk.store.report(row.id)
    values = told(desk, latest.values) if latest is not None else {}
    return {**answer, "step": row.step, "total": row.total, "values": values}


def failure(error: BaseException) -> Answer:
    """An error as data: its type, what happened, and the way out."""
    message, remedy = said(error)
    kind = error.as_dict()["type"] if isinstance(error, LikenessError) else "Fault"
    return {"ok": False, "error": {"type": kind, "message": message, "remedy": remedy}}


def told(desk: Desk, value: Any) -> Any:
    """A result in which every file of the workspace is a reference, with its address beside it."""
    if isinstance(value, Mapping):
        table: dict[str, Any] = {}
        for name, each in cast("Mapping[str, Any]", value).items():
            # not "path": gradio_client takes a table with a path for a file, and fetches it by that
            table["reference" if name == "path" else str(name)] = told(desk, each)
            if isinstance(each, str | Path) and (where := _address(desk, each)):
                table["url" if name == "path" else f"{name}_url"] = where
            elif isinstance(each, list | tuple) and each:
                found = [_address(desk, item) for item in each]
                if all(found):
                    table[f"{name}_urls"] = found
        return table
    if isinstance(value, list | tuple):
        return [told(desk, each) for each in cast("list[Any]", value)]
    if isinstance(value, str | Path):
        path = _own(desk, value)
        return without_paths(desk, str(value)) if path is None else _named(desk, path)
    if isinstance(value, float) and value - value != 0:  # infinities and NaN are no JSON
        return None
    return (
        value if isinstance(value, int | float | bool | None) else json.loads(json.dumps(value, default=str))
    )


def without_paths(desk: Desk, text: str) -> str:
    """A sentence without the folders of this machine."""
    for home in (desk.folder, desk.folder.resolve(), assets(), Path.home()):
        if len(home.parts) > 1:
            text = text.replace(f"{home}/", "").replace(f"{home}\\", "").replace(str(home), home.name)
    return text


def _own(desk: Desk, value: Any) -> Path | None:
    """The file or folder of this visitor, or of the embedded ones, that a value names."""
    if not isinstance(value, str | Path) or len(str(value)) > 4096 or "\0" in str(value):
        return None
    path = Path(value)
    homes = (desk.folder, assets())
    return path if path.is_absolute() and any(path.is_relative_to(home) for home in homes) else None


def _named(desk: Desk, path: Path) -> str:
    try:
        return desk.reference(path)
    except BadInput:  # neither a run nor an upload: its name has to do
        return path.name


def _address(desk: Desk, value: Any) -> str:
    path = _own(desk, value)
    return desk.url(path) if path is not None and path.is_file() else ""
