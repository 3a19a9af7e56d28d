"""What a workspace takes on the disk, how to take less, and the bin.

Nothing that a running or waiting job works on or names is ever moved or deleted. What is thrown away goes
to `bin/`, from which it comes back until the bin is emptied; what a clean-up deletes says so before.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pipelines.artifacts import atomic_write
from pipelines.errors import BadInput, LikenessError, MissingAsset, StateBusy
from pipelines.jobs import workspace
from pipelines.jobs.references import split
from pipelines.jobs.spec import references_of
from pipelines.jobs.store import Row
from studio.desk import Desk

BIN, NOTE = "bin", "binned.json"
DAY = 86_400.0
PICTURES = frozenset({"compose", "edit"})

What = Literal["checkpoints", "pictures", "packed", "bin"]


@dataclass(frozen=True)
class Use:
    """What one run takes. `kind` is its job's ("" if unknown), `when` seconds since 1970."""

    name: str
    kind: str
    bytes: int
    when: float


@dataclass(frozen=True)
class Binned:
    """Something in the bin: `key` is its folder there, `name` the one that it comes back to."""

    key: str
    name: str
    title: str
    at: float
    bytes: int


def uses(desk: Desk) -> list[Use]:
    """Every run with its size, the largest first."""
    found = [
        Use(each.name, _kind(each), size(each), each.stat().st_mtime)
        for each in _folders(desk.folder / "runs")
    ]
    return sorted(found, key=lambda each: (-each.bytes, each.name))


def size(folder: Path) -> int:
    """Bytes of a file or of all files below a folder; links are not followed."""
    try:
        if folder.is_file():
            return folder.stat().st_size
        total = 0
        with os.scandir(folder) as entries:
            for each in entries:
                if each.is_dir(follow_symlinks=False):
                    total += size(Path(each.path))
                elif each.is_file(follow_symlinks=False):
                    total += each.stat(follow_symlinks=False).st_size
        return total
    except OSError:  # it went away meanwhile
        return 0


def busy(desk: Desk) -> set[Path]:
    """The folders that running and waiting jobs write to or read from."""
    found: set[Path] = set()
    for row in desk.active():
        found |= set(_named(desk, row))
    return found


def throw_away(desk: Desk, name: str) -> Binned:
    """Move a run into the bin. Raises MissingAsset, StateBusy while a job needs it."""
    folder = _run(desk, name)
    if folder in busy(desk):
        raise StateBusy(name, "a job that runs or waits")
    home = desk.folder / BIN
    home.mkdir(exist_ok=True)
    key = _fresh(home, folder.name)
    title = _title(folder)
    folder.rename(home / key)
    table = {"name": folder.name, "title": title, "at": time.time()}
    atomic_write(home / key / NOTE, json.dumps(table, ensure_ascii=False).encode())
    desk.touch("library")
    return next(each for each in binned(desk) if each.key == key)


def restore(desk: Desk, key: str) -> str:
    """Bring something back from the bin; → the name of its run. Raises MissingAsset, BadInput."""
    item = next((each for each in binned(desk) if each.key == key), None)
    if item is None:
        raise MissingAsset(key, "It is no longer in the bin.")
    target = desk.folder / "runs" / item.name
    if target.exists():
        raise BadInput(f"There is another run called {item.name} now.", "Throw that one away first.")
    (desk.folder / BIN / key).rename(target)
    (target / NOTE).unlink(missing_ok=True)
    desk.touch("library")
    return item.name


def binned(desk: Desk) -> list[Binned]:
    """What is in the bin, the newest first."""
    found: list[Binned] = []
    for each in _folders(desk.folder / BIN):
        table = _note(each)
        name = Path(str(table.get("name") or each.name)).name
        at = table.get("at")
        when = float(at) if isinstance(at, int | float) else each.stat().st_mtime
        found.append(Binned(each.name, name, str(table.get("title") or name), when, size(each)))
    return sorted(found, key=lambda each: -each.at)


def freed(desk: Desk, what: What, days: float = 30) -> list[Path]:
    """What a clean-up would delete: checkpoints of finished trainings, runs of single pictures older than
    `days`, packed adapters and small copies of photos (they are made again when needed), or the bin."""
    if what == "bin":
        return list(_folders(desk.folder / BIN))
    if what == "packed":
        thumbs = list(_folders(desk.folder / "thumbs"))
        return thumbs + [
            each / "exports" for each in _folders(desk.folder / "runs") if (each / "exports").is_dir()
        ]
    held = busy(desk)
    runs = [each for each in _folders(desk.folder / "runs") if each not in held]
    if what == "checkpoints":
        return [each / "checkpoints" for each in runs if (each / "checkpoints").is_dir() and _finished(each)]
    old = time.time() - days * DAY
    return [each for each in runs if each.stat().st_mtime < old and _kind(each) in PICTURES]


def clean(desk: Desk, what: What, days: float = 30) -> int:
    """Delete what `freed` lists; → the bytes that became free."""
    before = 0
    for each in freed(desk, what, days):
        inside = each.resolve().is_relative_to(desk.folder.resolve())
        if inside and not each.is_symlink():
            before += size(each)
            shutil.rmtree(each, ignore_errors=True)
            before -= size(each)
    desk.touch("library")
    return before


def delete_all(desk: Desk, wait: float = 20.0) -> int:
    """Stop everything and delete all that a visitor made and brought; → bytes.

    Raises StateBusy where a job does not stop in time; what is deleted by then is gone.
    """
    for row in desk.active():
        desk.cancel(row.id)
    ends = time.monotonic() + wait
    while desk.active():
        if time.monotonic() > ends:
            raise StateBusy("Your workspace", "a job that is still stopping")
        time.sleep(0.1)
    total = 0
    for name in ("runs", "uploads", "thumbs", "adapters", "presets", BIN):
        total += size(desk.folder / name)
        shutil.rmtree(desk.folder / name, ignore_errors=True)
    with desk.store.writing() as base:
        for table in ("readings", "runs", "events", "jobs"):
            base.execute(f"DELETE FROM {table}")  # noqa: S608 -- our own four names
    for name in _json(desk.folder / "drafts.json"):
        desk.keep(name, {})
    workspace.ready(desk.folder)
    for kind in ("library", "uploads", "train", "compose", "edit", "compare", "identity"):
        desk.touch(kind)
    return total


def _folders(home: Path) -> Iterator[Path]:
    if home.is_dir():
        yield from (
            each
            for each in sorted(home.iterdir())
            if each.is_dir() and not each.is_symlink() and not each.name.startswith(".")
        )


def _named(desk: Desk, row: Row) -> Iterator[Path]:
    """The run folders that a job writes to or reads from."""
    runs = desk.folder / "runs"
    places = [row.run, getattr(row.spec, "out", None)]
    places += [runs / split(each)[1] for _, each in references_of(row.spec) if split(each)[0] == "run"]
    for each in places:
        if each is not None and Path(each).is_relative_to(runs) and Path(each) != runs:
            yield runs / Path(each).relative_to(runs).parts[0]


def _run(desk: Desk, name: str) -> Path:
    """A run folder by its plain name. Raises MissingAsset."""
    found = next((each for each in _folders(desk.folder / "runs") if each.name == name), None)
    if found is None:
        raise MissingAsset(name, "It is no longer there.")
    return found


def _fresh(home: Path, name: str) -> str:
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    number = 1
    while (home / (key := stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return key


def _title(folder: Path) -> str:
    return str(_json(folder / "about.json").get("title") or folder.name)


def _note(folder: Path) -> dict[str, Any]:
    return _json(folder / NOTE)


def _kind(folder: Path) -> str:
    return _about(folder)[0]


def _finished(folder: Path) -> bool:
    kind, status = _about(folder)
    return kind == "train" and status == "done"


def _about(folder: Path) -> tuple[str, str]:
    path = folder / "run.json"
    try:
        return _told(path, path.stat().st_mtime_ns)
    except OSError:
        return "", ""


@lru_cache(maxsize=4096)
def _told(path: Path, changed: int) -> tuple[str, str]:
    """The kind and status in a run.json, read once as long as it does not change."""
    try:
        table = workspace.read_run(path.parent)
    except LikenessError:
        return "", ""
    spec = table.get("spec")
    kind: Any = spec.get("kind") if isinstance(spec, dict) else ""
    return str(kind or ""), str(table.get("status") or "")


def _json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}
