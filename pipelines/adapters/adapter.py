"""What an adapter is in memory, whatever file it came from: changes of layers, and new words.

Shapes: r rank, in/out features of a layer, k kernel size, n vectors a word, D width of a text encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from pipelines.errors import LikenessError


class AdapterMismatch(LikenessError):
    """An adapter and a base, or two adapters, that do not go together."""


@dataclass(frozen=True)
class LowRank:
    """ΔW = alpha/r · up·down; with `magnitude` [out] the layer is DoRA (arXiv:2402.09353).

    `down` [r, in] or [r, in, k, k], `up` [out, r] or [out, r, 1, 1]. rsLoRA stands here as its alpha·√r.
    """

    down: Tensor
    up: Tensor
    alpha: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """alpha / r."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Full:
    """ΔW itself, in the shape of the layer's weight: what no low rank can hold."""

    delta: Tensor


Change = LowRank | Full


@dataclass(frozen=True)
class Adapter:
    """One adapter: `layers` by module name inside a part of the base, `words` with their vectors.

    Layer names start with the part: "net.down_blocks.0…attn1.to_q", "text_encoder.layers.0…q_proj" (the
    names of `named_modules` of `base.net` and of `base.texts[...]`). `words` is token → text encoder →
    [n, D]. `family` is the base it was made for ("toybox", "sd1", "sdxl", …), None where the file does not
    say. `unused` lists tensors of its file that nothing here can use.
    """

    name: str
    family: str | None = None
    layers: Mapping[str, Change] = field(default_factory=dict[str, Change])
    words: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict[str, Mapping[str, Tensor]])
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    unused: tuple[str, ...] = ()

    @property
    def trigger(self) -> str:
        """The words to use in a prompt, from its metadata; empty where unknown."""
        return self.metadata.get("likeness.trigger", self.metadata.get("modelspec.trigger_phrase", ""))
