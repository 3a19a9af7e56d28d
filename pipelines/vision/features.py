"""Features by what was looked at: the same picture is never encoded twice, nor the same text.

In memory the least recently used go first; with a folder they also stand on disk, one small file each.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from pipelines.artifacts import load_safetensors, save_safetensors
from pipelines.errors import BrokenWeights

T = TypeVar("T")


def picture_key(image: Image.Image) -> str:
    """The SHA-256 of a picture's pixels; file, format and metadata do not matter."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}".encode() + rgb.tobytes()).hexdigest()


def text_key(text: str) -> str:
    """The SHA-256 of a text."""
    return hashlib.sha256(b"text\0" + text.encode()).hexdigest()


class Features:
    """Feature rows [D] on the CPU by key, for one version of one encoder.

    `stamp` names encoder and weights: a folder may be shared by several.
    """

    def __init__(self, stamp: str, limit: int = 8192, folder: Path | None = None) -> None:
        self.limit = limit
        self._folder = None if folder is None else folder / hashlib.sha256(stamp.encode()).hexdigest()[:16]
        self._rows: OrderedDict[str, Tensor] = OrderedDict()

    def rows(
        self, items: Sequence[T], key: Callable[[T], str], encode: Callable[[Sequence[T]], Tensor]
    ) -> Tensor:
        """Features [n,D] of the items in their order; `encode` sees only those not known yet, each once."""
        keys = [key(item) for item in items]
        found = {name: self._look_up(name) for name in dict.fromkeys(keys)}
        fresh = {name: item for name, item in zip(keys, items, strict=True) if found[name] is None}
        if fresh:
            for name, row in zip(fresh, encode(list(fresh.values())).unbind(), strict=True):
                found[name] = row
                self._keep(name, row)
        return torch.stack([row for row in (found[name] for name in keys) if row is not None])

    def _look_up(self, name: str) -> Tensor | None:
        if name in self._rows:
            self._rows.move_to_end(name)
            return self._rows[name]
        path = self._path(name)
        if path is None or not path.is_file():
            return None
        try:
            row = load_safetensors(path)["row"]
        except (BrokenWeights, KeyError):  # made anew
            return None
        self._remember(name, row)
        return row

    def _keep(self, name: str, row: Tensor) -> None:
        self._remember(name, row)
        path = self._path(name)
        if path is not None:
            save_safetensors(path, {"row": row})

    def _remember(self, name: str, row: Tensor) -> None:
        self._rows[name] = row
        if len(self._rows) > self.limit:
            self._rows.popitem(last=False)

    def _path(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / name[:2] / f"{name}.safetensors"
