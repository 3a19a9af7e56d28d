"""The library: every adapter of a workspace, and what a person may do with one.

An adapter stands in the folder of the run that made it, `runs/NAME/adapter.safetensors`, and so does an
imported one: a job names all of them `run:NAME`. What people call it, and what was found out about an
imported file, stands beside it in `about.json`; folders are never renamed, since jobs and pictures name them.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

from pipelines.artifacts import atomic_write, read_safetensors_header
from pipelines.errors import BadInput, DiskFull, LikenessError, MissingAsset
from pipelines.jobs import workspace
from pipelines.jobs.queries import Info
from pipelines.jobs.references import ADAPTER, PICTURES
from studio.desk import Desk

ABOUT = "about.json"
LONGEST_TITLE = 80
ROOM = 200 * 2**20
_ABOUT_LIMIT = 64 * 1024
_BASES = {
    "toybox": "Toybox", "sd1": "SD 1.5", "sd2": "SD 2", "sdxl": "SDXL", "sd3": "SD 3", "flux": "FLUX.1",
}  # fmt: skip
_INSIDE = ("", "train")
"""Where in a run its adapter may stand: a demo keeps its training in a folder below."""

Origin = Literal["trained", "merged", "imported"]


@dataclass(frozen=True)
class Entry:
    """One adapter. `reference` is its name in jobs, `base` what it was made for in words ("" if unknown).

    `thumbnail` is an address ("" without a picture), `when` seconds since 1970, `readings` those of the kept
    step by their names, `family` the base's as files call it ("toybox", "sd1" …), `path` the weights.
    """

    reference: str
    title: str
    trigger: str
    base: str
    bytes: int
    thumbnail: str
    when: float
    readings: Mapping[str, float] = field(default_factory=dict[str, float])
    family: str = ""
    origin: Origin = "trained"
    method: str = ""
    path: Path = Path()

    @property
    def folder(self) -> Path:
        """The folder of its run."""
        return self.path.parent


_LAST: WeakKeyDictionary[Desk, tuple[float, str, list[Entry]]] = WeakKeyDictionary()
FRESH = 2.0
"""Seconds for which the list stands while nothing on the desk changes."""


def adapters(desk: Desk) -> list[Entry]:
    """The adapters of a workspace, the newest first; damaged files are left out."""
    at, pulse, known = _LAST.get(desk, (0.0, "", []))
    # a page asks for them in five places at once
    if pulse == desk.pulse() and time.monotonic() - at < FRESH:
        return list(known)
    found = [_entry(desk, path) for path in _files(desk.folder / "runs")]
    listed = sorted((each for each in found if each), key=lambda each: (-each.when, each.reference))
    _LAST[desk] = time.monotonic(), desk.pulse(), listed
    return list(listed)


def entry(desk: Desk, reference: str) -> Entry:
    """One adapter by its reference. Raises BadInput, MissingAsset."""
    path = workspace.resolve(reference, "adapter", desk.folder, local=False)
    found = _entry(desk, path) if desk.owns(path) else None
    if found is None:
        raise MissingAsset(reference, "Open the library again: it is no longer there.")
    return found


def rename(desk: Desk, reference: str, title: str) -> Entry:
    """Give an adapter another title; "" takes it away again. Raises BadInput, MissingAsset."""
    words = " ".join(title.split())
    if len(words) > LONGEST_TITLE:
        raise BadInput(f"The name has {len(words)} characters.", f"Use at most {LONGEST_TITLE}.")
    note(entry(desk, reference).folder, title=words)
    desk.touch("library")
    return entry(desk, reference)


def bring_in(desk: Desk, file: Path, name: str = "") -> Entry:
    """Import an uploaded adapter file under a name of its own. Only its header is read here.

    Raises BrokenWeights (pickles, damage), BadInput for what is no adapter, DiskFull.
    """
    header = read_safetensors_header(file)
    if not header.tensors:
        raise BadInput(f"{file.name} holds nothing.", "Choose an adapter in safetensors.")
    if desk.free_bytes() < file.stat().st_size + ROOM:
        raise DiskFull(desk.folder)
    stem = Path(name or file.name).stem
    folder = workspace.new_run("import", stem, desk.folder)
    path = folder / ADAPTER
    try:
        atomic_write(path, lambda temporary: shutil.copyfile(file, temporary))
        # what it is: told by the worker, which knows every layout that goes around
        told = desk.ask(Info(file=f"run:{folder.name}/{ADAPTER}"))
        if not told.get("layout"):
            raise BadInput(
                f"{Path(name or file.name).name} is no adapter in a layout that is known here.",
                "Choose a LoRA or a textual inversion in safetensors; bases go under Base and device.",
            )
        note(
            folder,
            imported=True,
            title=" ".join(stem.split())[:LONGEST_TITLE],
            family=told.get("family") or "",
            trigger=told.get("trigger") or " ".join(_table(told.get("words"))),
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    desk.touch("library")
    return entry(desk, f"run:{folder.name}")


def note(folder: Path, **facts: Any) -> None:
    """Write facts down in the folder's about.json, beside those that stand there."""
    table = about(folder) | facts
    atomic_write(folder / ABOUT, json.dumps(table, indent=1, ensure_ascii=False).encode())


def about(folder: Path) -> dict[str, Any]:
    """What about.json says; nothing where there is none, or a damaged one."""
    path = folder / ABOUT
    try:
        if path.stat().st_size > _ABOUT_LIMIT:
            return {}
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", table) if isinstance(table, dict) else {}


def pictures(folder: Path, best: int | None = None) -> list[Path]:
    """The samples of a training, those of the kept step first; else the pictures in the folder itself."""
    samples = sorted(folder.glob("samples/*.png"), reverse=True)
    if best is not None:
        samples.sort(key=lambda each: not each.name.startswith(f"step-{best:06d}-"))
    plain = [each for each in sorted(folder.iterdir()) if each.suffix.lower() in PICTURES]
    return samples or plain


def _files(runs: Path) -> Iterator[Path]:
    if not runs.is_dir():
        return
    for folder in runs.iterdir():
        if folder.name.startswith("."):
            continue
        for inside in _INSIDE:
            path = folder / inside / ADAPTER
            if path.is_file():
                yield path


def _entry(desk: Desk, path: Path) -> Entry | None:
    """An adapter as the library shows it; None where the file is damaged or gone."""
    try:
        stamps = tuple(_stamp(each) for each in (path, path.with_name("run.json"), path.with_name(ABOUT)))
        found = _read(path, stamps)
    except (LikenessError, OSError):
        return None
    folder = path.parent.relative_to(desk.folder / "runs").as_posix()
    thumbnail = desk.url(Path(found.thumbnail)) if found.thumbnail else ""
    return replace(found, reference=f"run:{folder}", thumbnail=thumbnail)


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4096)
def _read(path: Path, stamps: tuple[int, ...]) -> Entry:
    """An entry without its reference, `thumbnail` still a path; read again when one of the files changed."""
    folder = path.parent
    says, own, run = read_safetensors_header(path).metadata, about(folder), _run(folder)
    result = _table(run.get("result"))
    trigger = says.get("likeness.trigger") or says.get("modelspec.trigger_phrase") or ""
    family = str(own.get("family") or says.get("likeness.family") or "")
    base = says.get("likeness.base", "") if family in ("", "toybox") else ""
    best = result.get("best_step")
    shown = pictures(folder, best if isinstance(best, int) else None)
    return Entry(
        reference="",
        title=str(own.get("title") or _title(folder, trigger)),
        trigger=str(own.get("trigger") or trigger),
        base=_BASES.get(family, family or base),
        bytes=path.stat().st_size,
        thumbnail=str(shown[0]) if shown else "",
        when=path.stat().st_mtime,
        readings=_figures(run.get("readings")),
        family=family,
        origin=_origin(folder, own),
        method=says.get("likeness.method", ""),
        path=path,
    )


def _title(folder: Path, trigger: str) -> str:
    """The trigger, with the number that tells its run from others of the same; else the folder's name."""
    home = folder.parent if folder.name == "train" else folder
    number = re.search(r"-(\d+)$", home.name)
    if trigger:
        return f"{trigger} {number[1]}" if number else trigger
    return re.sub(r"^(train|merge|import)-", "", home.name).replace("-", " ")


def _origin(folder: Path, own: Mapping[str, Any]) -> Origin:
    if own.get("imported"):
        return "imported"
    return "merged" if folder.name.startswith("merge-") else "trained"


def _run(folder: Path) -> dict[str, Any]:
    try:
        return workspace.read_run(folder)
    except LikenessError:
        return {}


def _table(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _figures(value: Any) -> dict[str, float]:
    table = _table(value)
    return {
        name: float(each)
        for name, each in table.items()
        if name not in ("step", "score") and isinstance(each, int | float) and not isinstance(each, bool)
    }
