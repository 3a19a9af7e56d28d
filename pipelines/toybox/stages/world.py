"""The world stage: render scenes and their coarse truth once, for all later stages to read. No torch.

Row i is the train-split scene of seed i, so only pictures and truth are stored, and captions are made anew:
`world/images.npy` uint8 [N, 128, 128, 3] and `world/truth.npy` uint8 [N, 2, 8, 8], the kind and colour that
most of each cell shows (0: none; else 1 + the index in KINDS, COLOURS). They stand under `.part` names until
all rows are there, beside `rows.json`, which lists the chunks that are done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.artifacts import atomic_write
from pipelines.errors import BadInput, BrokenWeights, DiskFull, MissingAsset
from pipelines.progress import Job
from pipelines.toybox.world import COLOURS, KINDS, PATTERNS, Scene, render, sample_scene

SIZE = 128
CELLS = 8
CHUNK = 512
VIEWS = 40_000

_KINDS = {name: 1 + index for index, name in enumerate(KINDS)}
_COLOURS = {name: 1 + index for index, name in enumerate(COLOURS)}
_CELL_SHARE = 0.35  # of a cell that a subject must cover to be its truth: thin legs and ears count

N_KINDS, N_COLOURS = 1 + len(KINDS), 1 + len(COLOURS)


@lru_cache(maxsize=1 << 19)
def scene(row: int) -> Scene:
    """The scene of a row."""
    return sample_scene(int(row))


def truth(masks: np.ndarray, what: Scene) -> np.ndarray:
    """Masks bool [n, H, W] of a scene's subjects → uint8 [2, 8, 8]: kind and colour of each cell."""
    out = np.zeros((2, CELLS, CELLS), np.uint8)
    if not len(masks):
        return out
    side = masks.shape[-1] // CELLS
    shares = masks.reshape(len(masks), CELLS, side, CELLS, side).mean((2, 4))  # [n, 8, 8]
    for index, subject in enumerate(what.subjects):
        mine = (shares[index] >= _CELL_SHARE) & (shares[index] == shares.max(0))
        out[0][mine] = _KINDS[subject.identity.kind]
        out[1][mine] = _COLOURS[subject.identity.colour]
    return out


def codes(scenes: Sequence[Scene]) -> np.ndarray:
    """The values that the subjects of scenes have in `truth`, uint8 [B, 2, 2]: slot, then kind and colour."""
    out = np.zeros((len(scenes), 2, 2), np.uint8)
    for row, what in enumerate(scenes):
        for slot, subject in enumerate(what.subjects):
            out[row, slot] = _KINDS[subject.identity.kind], _COLOURS[subject.identity.colour]
    return out


def render_rows(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [n, 128, 128, 3] and truth uint8 [n, 2, 8, 8] of the rows from start to stop."""
    drawings = [render(sample_scene(row), SIZE) for row in range(start, stop)]
    truths = [truth(each.masks, each.scene) for each in drawings]
    return np.stack([each.image for each in drawings]), np.stack(truths)


def fingerprint() -> str:
    """What this version of the world draws, as a hash over scenes of every kind in every pattern; cached rows
    must agree."""
    digest = hashlib.sha256()
    for number, (kind, pattern) in enumerate(product(KINDS, PATTERNS)):
        what = sample_scene(number, kind=kind, pattern=pattern)
        digest.update(repr(what).encode())
        digest.update(render(what, SIZE).image.tobytes())
    return digest.hexdigest()[:16]


class World:
    """The cached rows, mapped from disk. Raises MissingAsset where they were not rendered yet."""

    def __init__(self, state: Path) -> None:
        folder = state / "world"
        for name in ("images.npy", "truth.npy"):
            if not (folder / name).is_file():
                raise MissingAsset(folder / name, "Render it first: likeness toybox build --stage world.")
        try:
            self._images = np.load(folder / "images.npy", mmap_mode="r")
            self._truth = np.load(folder / "truth.npy", mmap_mode="r")
            self.key = str(json.loads((folder / "rows.json").read_text())["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            remedy = f"Delete {folder} and render again: likeness toybox build --stage world."
            raise BrokenWeights(folder, f"the cached world is damaged ({error})", remedy) from None

    def __len__(self) -> int:
        return len(self._images)

    def images(self, rows: np.ndarray | slice) -> np.ndarray:
        """The pictures of some rows, uint8 [n, 128, 128, 3]."""
        return self._images[rows]

    def truth(self) -> np.ndarray:
        """The truth of every row, uint8 [N, 2, 8, 8]."""
        return np.array(self._truth)


def build_world(state: Path, rows: int, job: Job, processes: int | None = None) -> dict[str, Any]:
    """Render the first `rows` rows that are not there yet, several at a time. → figures

    Raises DiskFull, and BadInput where the cache was drawn by another version of the world.
    """
    folder = state / "world"
    folder.mkdir(parents=True, exist_ok=True)
    key = fingerprint()
    table = _table(folder, key)
    if (folder / "images.npy").is_file() and table["rows"] >= rows:
        return {"stage": "world", "rows": table["rows"], "folder": str(folder)}
    with _maps(folder, rows, table) as (images, truths):
        done: set[int] = set(table["done"])
        todo = [start for start in range(0, rows, CHUNK) if start not in done]
        for start, pictures, maps in _rendered(todo, rows, processes or os.cpu_count() or 1, job):
            stop = start + len(pictures)
            images[start:stop], truths[start:stop] = pictures, maps
            images.flush()
            truths.flush()
            if len(pictures) == CHUNK:
                done.add(start)
            _write_table(folder, key, table["rows"], done)
            job.report(min(rows, CHUNK * len(done)), rows)
    for name in ("images", "truth"):
        (folder / f"{name}.part.npy").replace(folder / f"{name}.npy")
    _write_table(folder, key, rows, done)
    return {"stage": "world", "rows": rows, "folder": str(folder)}


def _rendered(
    todo: list[int], rows: int, processes: int, job: Job
) -> Generator[tuple[int, np.ndarray, np.ndarray]]:
    """Chunks as they are finished, never more than twice the processes in flight."""
    # spawned, not forked: the parent may hold threads of torch
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        flying: dict[Future[tuple[np.ndarray, np.ndarray]], int] = {}
        waiting = list(reversed(todo))
        try:
            while waiting or flying:
                job.check()
                while waiting and len(flying) < 2 * processes:
                    start = waiting.pop()
                    flying[pool.submit(render_rows, start, min(rows, start + CHUNK))] = start
                finished, _ = wait(flying, timeout=1.0, return_when=FIRST_COMPLETED)
                for each in finished:
                    yield flying.pop(each), *each.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _table(folder: Path, key: str) -> dict[str, Any]:
    path = folder / "rows.json"
    if not path.is_file():
        return {"fingerprint": key, "rows": 0, "done": []}
    try:
        table = json.loads(path.read_text())
        found, _ = str(table["fingerprint"]), (int(table["rows"]), list(table["done"]))
    except (ValueError, KeyError, TypeError):
        raise BrokenWeights(path, "it does not list rows", f"Delete {folder} and render again.") from None
    if found != key:
        raise BadInput(
            f"{folder} was drawn by another version of the world.",
            f"Delete {folder} to draw it again, or choose another --state.",
        )
    return table


def _write_table(folder: Path, key: str, rows: int, done: set[int]) -> None:
    table = {"fingerprint": key, "rows": rows, "done": sorted(done)}
    atomic_write(folder / "rows.json", json.dumps(table).encode())


@contextlib.contextmanager
def _maps(folder: Path, rows: int, table: dict[str, Any]) -> Generator[tuple[np.memmap, np.memmap]]:
    """The two growing files, with what an earlier, shorter rendering finished copied in."""
    shapes = {"images": (rows, SIZE, SIZE, 3), "truth": (rows, 2, CELLS, CELLS)}
    maps: list[np.memmap] = []
    for name, shape in shapes.items():
        part, whole = folder / f"{name}.part.npy", folder / f"{name}.npy"
        size = int(np.prod(shape))
        _reserve(part, size)
        if part.is_file() and np.load(part, mmap_mode="r").shape == shape:
            maps.append(np.lib.format.open_memmap(part, mode="r+"))
            continue
        if part.is_file() or not whole.is_file():  # of another length: nothing in it can be kept
            table["done"] = []
        grown = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        if whole.is_file():
            old = np.load(whole, mmap_mode="r")
            grown[: min(rows, len(old))] = old[:rows]
            table["done"] = list(range(0, min(rows, len(old)) - CHUNK + 1, CHUNK))
        maps.append(grown)
    try:
        yield maps[0], maps[1]
    finally:
        maps.clear()


def _reserve(part: Path, size: int) -> None:
    """A mapped file that the disk cannot hold would kill the process at a write: look before."""
    have = part.stat().st_size if part.is_file() else 0
    if shutil.disk_usage(part.parent).free < size - have:
        raise DiskFull(part)
