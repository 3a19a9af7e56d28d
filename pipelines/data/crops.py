"""Crops that people draw on photos: by file name, in shares of the picture as it stands upright. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.opening import open_photo

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, each a share of width or height in 0..1."""


def cropped(image: Image.Image, box: Box | None) -> Image.Image:
    """The part of a picture inside the box, at least one pixel of it; the whole without one."""
    if box is None:
        return image
    left, top, right, bottom = pixels(box, *image.size)
    return image.crop((left, top, right, bottom))


def pixels(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The box in whole pixels of a picture of that size: never empty, never outside."""
    left, right = _span(box[0], box[2], width)
    top, bottom = _span(box[1], box[3], height)
    return left, top, right, bottom


def open_cropped(path: Path, crops: Mapping[str, Box]) -> Image.Image:
    """A photo as `open_photo` gives it, without what was cropped off. Raises as it does."""
    return cropped(open_photo(path), crops.get(path.name))


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    first = min(size - 1, round(low * size))
    return first, max(first + 1, min(size, round(high * size)))
