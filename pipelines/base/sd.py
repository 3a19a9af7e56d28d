"""Stable Diffusion 1 and 2, and Toybox: one UNet, one CLIP text encoder (arXiv:2112.10752)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pipelines.base.backbone import Conditioning
from pipelines.base.text import encoded, fix_pooling
from pipelines.base.unet import UNetBase


class SD(UNetBase):
    """Text states [B, 77, D] of CLIP's last layer; Toybox reads 48 tokens."""

    def __init__(self, name: str, family: str, parts: Mapping[str, Any]) -> None:
        super().__init__(name, family, parts)
        fix_pooling(self.texts["text_encoder"], self.tokenizers["tokenizer"])

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Texts → states, one row each. `(word:1.2)` weighs a word."""
        with self.memory.use(self, "text"):
            states, _ = encoded(self, "text_encoder", prompts, _last)
        return Conditioning(states)


def _last(encoder: Any, ids: Tensor) -> tuple[Tensor, None]:
    return encoder(ids)[0], None
