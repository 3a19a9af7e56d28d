"""What guidance methods do with predictions [B, C, h, w]: always per sample, and in float32 at least."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DIMS = (1, 2, 3)
TINY = 1e-12


def fine(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 where it is that."""
    return x.float() if x.element_size() < 4 else x


def dot(one: Tensor, other: Tensor) -> Tensor:
    """Inner products, [B, 1, 1, 1]."""
    return (fine(one) * fine(other)).sum(DIMS, keepdim=True)


def norm(x: Tensor) -> Tensor:
    """Lengths, [B, 1, 1, 1]."""
    return dot(x, x).sqrt()


def split(x: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """`x` as (parallel, orthogonal) to `axis`; along an axis of zeros nothing is parallel."""
    parallel = dot(x, axis) / dot(axis, axis).clamp_min(TINY) * fine(axis)
    return parallel, fine(x) - parallel


def clip_norm(x: Tensor, most: float) -> Tensor:
    """`x` shortened to length `most` where it is longer."""
    return fine(x) * (most / norm(x).clamp_min(TINY)).clamp_max(1)


def match_std(x: Tensor, like: Tensor, amount: float = 1.0) -> Tensor:
    """`x` with its standard deviation drawn by `amount` (0–1) towards that of `like`."""
    ratio = fine(like).std(DIMS, keepdim=True) / fine(x).std(DIMS, keepdim=True).clamp_min(TINY)
    return fine(x) * (1 - amount + amount * ratio)
