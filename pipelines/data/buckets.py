"""Sizes for whole photos: about as many pixels each, the photo's own shape, sides that a base can take."""

from __future__ import annotations

from math import sqrt

WIDEST = 2.0


def bucket(width: int, height: int, resolution: int, multiple: int) -> tuple[int, int]:
    """(width, height) in pixels for a photo: multiples of `multiple`, at most resolution² pixels.

    Of all such sizes the one whose shape is nearest to the photo's, and of those the largest. Shapes beyond
    2:1 are cut to it, since networks trained on squares draw poorly there.
    """
    ratio = min(max(width / height, 1 / WIDEST), WIDEST)
    cells = (resolution // multiple) ** 2
    most = int(sqrt(cells * WIDEST)) + 1
    sizes = [
        (w, min(h, cells // w)) for w in range(1, most + 1) for h in range(1, most + 1) if h <= cells // w
    ]
    large = [(w, h) for w, h in sizes if w * h > 0.8 * cells] or [(1, 1)]
    w, h = min(large, key=lambda size: (_apart(size[0] / size[1], ratio), -size[0] * size[1]))
    return w * multiple, h * multiple


def square(resolution: int, multiple: int) -> tuple[int, int]:
    """The largest square that the base can take within `resolution`."""
    side = max(multiple, resolution // multiple * multiple)
    return side, side


def _apart(one: float, other: float) -> float:
    """How far two ratios are from each other, the same for 2:1 and 1:2."""
    return max(one / other, other / one)
