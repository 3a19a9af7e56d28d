"""Checkpoints from which a training goes on bit for bit, moving averages, and seeded order.

A checkpoint is a folder `step-000050` with flat tensors in safetensors files (one a group: "weights",
"ema", "optimizer"), `checkpoint.json` for everything that is not a tensor, and a `complete` marker. It is
written under another name and renamed, so that a kill at any moment leaves the one before untouched.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pipelines.artifacts import atomic_dir, is_complete, load_safetensors, save_safetensors
from pipelines.errors import BrokenWeights, MissingAsset, StateBusy

FORMAT = 1
KEEP = 2
_NAME = re.compile(r"step-(\d{6,})")

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Bundle:
    """A checkpoint in memory: `groups` of flat tensors by name, and `facts` in plain JSON values."""

    step: int
    groups: dict[str, Tensors]
    facts: dict[str, Any]


def folder_of(state: Path, step: int) -> Path:
    """Where the checkpoint of a step stands inside a state folder."""
    return state / f"step-{step:06d}"


def checkpoints(state: Path) -> list[tuple[int, Path]]:
    """The complete checkpoints of a state folder, oldest first."""
    found: list[tuple[int, Path]] = []
    for each in state.glob("step-*") if state.is_dir() else ():
        match = _NAME.fullmatch(each.name)
        if match and is_complete(each):
            found.append((int(match[1]), each))
    return sorted(found)


def save(state: Path, bundle: Bundle) -> Path:
    """Write a checkpoint and remove all but the last two. Raises DiskFull, leaving the earlier ones whole."""
    path = folder_of(state, bundle.step)
    with atomic_dir(path) as folder:
        for name, tensors in bundle.groups.items():
            save_safetensors(folder / f"{name}.safetensors", tensors)
        facts = {"format": FORMAT, "step": bundle.step, "groups": sorted(bundle.groups), **bundle.facts}
        (folder / "checkpoint.json").write_text(json.dumps(facts, indent=1))
    for _, old in checkpoints(state)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def load_latest(state: Path) -> Bundle | None:
    """The newest complete checkpoint, or None when there is none. Raises BrokenWeights for a damaged one."""
    found = checkpoints(state)
    return load(found[-1][1]) if found else None


def load(folder: Path) -> Bundle:
    """Read one checkpoint folder. Raises BrokenWeights naming the file that is truncated or foreign."""
    remedy = f"Delete the folder {folder}; the training then goes on from the checkpoint before it."
    table = folder / "checkpoint.json"
    try:
        facts = cast("dict[str, Any]", json.loads(table.read_text()))
        step, groups = int(facts["step"]), [str(name) for name in facts["groups"]]
        known = facts["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        raise BrokenWeights(table, "it is not the description of a checkpoint", remedy) from None
    if not known:
        raise BrokenWeights(table, f"its format is {facts['format']}, this program reads {FORMAT}", remedy)
    tensors: dict[str, Tensors] = {}
    for name in groups:
        try:
            tensors[name] = load_safetensors(folder / f"{name}.safetensors")
        except BrokenWeights as error:
            reason = error.message.partition("used: ")[2].rstrip(".")
            raise BrokenWeights(error.path, reason, remedy) from None
        except MissingAsset as error:
            raise BrokenWeights(error.path, "it is missing", remedy) from None
    return Bundle(step, tensors, facts)


@torch.no_grad()
def fill(targets: Mapping[str, Tensor], source: Mapping[str, Tensor], path: Path) -> None:
    """Copy every tensor of `source` into the target of the same name, keeping its memory layout.

    Raises BrokenWeights, naming `path`, where a name is missing, foreign, or of another shape; then nothing
    was copied.
    """
    missing, foreign = sorted(targets.keys() - source.keys()), sorted(source.keys() - targets.keys())
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"holds {foreign[0]}, which this model does not have"
        raise BrokenWeights(path, f"it {what} ({len(missing)} missing, {len(foreign)} foreign tensors)")
    for name, target in targets.items():
        if target.shape != source[name].shape:
            shapes = f"{list(source[name].shape)}, not {list(target.shape)}"
            raise BrokenWeights(path, f"{name} has the shape {shapes}")
    for name, target in targets.items():
        target.copy_(source[name])


class Ema:
    """Exponential moving averages of named parameters, in float32 on the same device.

    The decay rises from 1/11 to `decay` with the steps, so that early averages are not of random weights.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self._parameters = dict(parameters)
        self.averages: Tensors = {name: each.detach().clone() for name, each in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the parameters as they are after step `step` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, parameters = list(self.averages.values()), list(self._parameters.values())
        torch._foreach_lerp_(averages, parameters, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextlib.contextmanager
    def swapped(self) -> Generator[None]:
        """Let the parameters hold the averages, and put their own values back afterwards, bit for bit."""
        kept = {name: each.detach().clone() for name, each in self._parameters.items()}
        try:
            self._copy(self.averages)
            yield
        finally:
            self._copy(kept)

    @torch.no_grad()
    def _copy(self, source: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(source[name])


@lru_cache(maxsize=4)
def seeded_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which an epoch visits n items: int64 [n], read-only, a pure function of its arguments."""
    order = np.random.default_rng((seed, epoch, n)).permutation(n)
    order.setflags(write=False)
    return order


def rows_at(seed: int, step: int, batch: int, n: int) -> np.ndarray:
    """The items that step `step` visits, int64 [batch]: epochs of seeded order, one after the other."""
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = positions // n
    rows = np.empty(batch, np.int64)
    for epoch in np.unique(epochs):
        rows[epochs == epoch] = seeded_order(seed, int(epoch), n)[positions[epochs == epoch] % n]
    return rows


@contextlib.contextmanager
def locked(state: Path) -> Generator[None]:
    """Hold a state folder for this process; the system releases it however the process ends.

    Raises StateBusy when another process holds it.
    """
    state.mkdir(parents=True, exist_ok=True)
    path = state / "lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _take(handle):
            holder = os.pread(handle, 32, 1).decode(errors="replace").strip() if hasattr(os, "pread") else ""
            raise StateBusy(state, f"process {holder}" if holder else "another process")
        os.ftruncate(handle, 1)
        os.lseek(handle, 1, os.SEEK_SET)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    """Lock the first byte of an open file, without waiting; whether it worked."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
