"""What every base model looks like from above: UNet or DiT, ε, v or flow, one text encoder or three.

Shapes: B batch, C latent channels, h w latent size, L text tokens, D width, P pooled width, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from pipelines.base.noise import Predicts, Step


@dataclass(frozen=True)
class Latent:
    """The latent space: channels, pixels per latent cell, and the native picture size in pixels."""

    channels: int
    factor: int
    size: int
    multiple: int = 8
    """Width and height in pixels must be multiples of this."""


@dataclass(frozen=True)
class Site:
    """One attention site, in execution order.

    `kind` is what its queries look at. In a joint site `image` and `text` say which part of its sequence is
    which; elsewhere they cover everything.
    """

    name: str
    index: int
    kind: Literal["self", "cross", "joint"]
    image: slice = field(default_factory=lambda: slice(None))
    text: slice = field(default_factory=lambda: slice(None))
    stream: int = 0
    """Which attention of one forward: 0 the site's own; above it those that a reference method adds."""


@dataclass(frozen=True)
class Conditioning:
    """What the network is told: text states `tokens` [B, L, D] and, by family, more.

    `mask` bool [B, L] marks the tokens that count (None: all); `pooled` [B, P]; `layers` gives single
    attention sites other states [B, L, D]; `extras` are further tensors of the family, batch first.
    """

    tokens: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None
    layers: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    extras: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __len__(self) -> int:
        """B."""
        return len(self.tokens)

    def map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        """The same with every tensor changed."""
        return Conditioning(
            change(self.tokens),
            None if self.mask is None else change(self.mask),
            None if self.pooled is None else change(self.pooled),
            {key: change(each) for key, each in self.layers.items()},
            {key: change(each) for key, each in self.extras.items()},
        )

    def __getitem__(self, rows: slice | list[int] | Tensor) -> Conditioning:
        """Some rows, as a Conditioning."""
        return self.map(lambda each: each[rows])

    def repeat(self, count: int) -> Conditioning:
        """Every row `count` times, neighbours equal: [a, b] → [a, a, b, b]."""
        return self.map(lambda each: each.repeat_interleave(count, 0))

    def expand(self, batch: int) -> Conditioning:
        """One row as `batch` equal rows; B rows stay."""
        return self if len(self) == batch else self.map(lambda each: each.expand(batch, *each.shape[1:]))

    def to(self, *args: Any) -> Conditioning:
        """Floating tensors as by `Tensor.to`; the mask keeps its type."""
        moved = self.map(lambda each: each.to(*args) if each.is_floating_point() else each)
        device = moved.tokens.device
        return moved.map(lambda each: each.to(device))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """One batch of all rows. Shorter texts are padded *and* masked: padding alone changes pictures."""
        if len(parts) == 1:
            return parts[0]
        length = max(each.tokens.shape[1] for each in parts)
        ragged = any(each.tokens.shape[1] != length for each in parts)
        masked = ragged or any(each.mask is not None for each in parts)
        names = {key for each in parts for key in each.layers}
        layers = {
            name: torch.cat([_padded(each.layers.get(name, each.tokens), length) for each in parts])
            for name in names
        }
        first = parts[0]
        pooled = None
        if first.pooled is not None:
            pooled = torch.cat([each.pooled for each in parts if each.pooled is not None])
        return Conditioning(
            torch.cat([_padded(each.tokens, length) for each in parts]),
            torch.cat([_mask(each, length) for each in parts]) if masked else None,
            pooled,
            layers,
            {key: torch.cat([each.extras[key] for each in parts]) for key in first.extras},
        )


def _padded(tokens: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(tokens, (0, 0, 0, length - tokens.shape[1]))


def _mask(part: Conditioning, length: int) -> Tensor:
    batch, own = part.tokens.shape[:2]
    mask = part.mask if part.mask is not None else torch.ones(batch, own, dtype=torch.bool)
    return torch.nn.functional.pad(mask.to(part.tokens.device), (0, length - own))


Condition = Conditioning | Callable[[Step], Conditioning]
Rows = Mapping[str, slice]
"""Which rows of the batch in flight belong to which branch."""


class Backbone(Protocol):
    """One loaded base model.

    `offers` names capabilities that methods may need: "uncond", "cross_attention", "joint_attention",
    "pooled", "inpaint". `targets` maps the groups that adapters train ("attention", "cross.kv",
    "feedforward", "conv", "text") to module names inside `net` (for "text": inside each of `texts`).
    """

    name: str
    family: str
    predicts: Predicts
    latent: Latent
    net: nn.Module
    vae: nn.Module
    texts: Mapping[str, nn.Module]
    """The text encoders by their folder names: text_encoder, text_encoder_2 …"""
    tokenizers: Mapping[str, Any]
    offers: frozenset[str]
    sites: tuple[Site, ...]
    targets: Mapping[str, tuple[str, ...]]
    scheduler_config: Mapping[str, Any]
    rows: Rows
    """Set by the loop while a forward is in flight; empty otherwise."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's weights."""
        ...

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Texts → states, one row each. Gradients flow where they are enabled."""
        ...

    def to_latents(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[B, 3, H, W] in [−1, 1] → [B, C, h, w], scaled; the mean of the posterior without a generator."""
        ...

    def to_pixels(self, z: Tensor) -> Tensor:
        """[B, C, h, w] → [B, 3, H, W], in [−1, 1] up to overshoot."""
        ...

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """[B, C, h, w] at timesteps [B] → [B, C, h, w] in the base's own space."""
        ...

    def shares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Training timesteps [B] → (a, b), each [B, 1, 1, 1]."""
        ...

    def timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Random training timesteps [count], on the CPU, as the family's training draws them."""
        ...


def same_fields(one: Conditioning, other: Conditioning) -> bool:
    """Whether two conditionings have the same parts, so that they can share a batch."""
    return all(
        (getattr(one, each.name) is None) == (getattr(other, each.name) is None) for each in fields(one)
    )


@contextmanager
def rows_in_flight(base: Backbone, rows: Rows) -> Iterator[None]:
    """Let the doors see which rows belong to which branch."""
    before = base.rows
    base.rows = rows
    try:
        yield
    finally:
        base.rows = before
