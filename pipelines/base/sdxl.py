"""Stable Diffusion XL: one UNet, two CLIP text encoders, and the size a picture was cut from.

Text states are the last but one layers of both encoders side by side, [B, 77, 768 + 1280]; the second one's
projection is the pooled vector (arXiv:2307.01952, section 2). An empty text is all zeros where the base was
trained so. Sizes stand in `extras["time_ids"]`, int64 [B, 6]: original height and width, top and left of the
crop, target height and width, in pixels; −1 stands for the size that is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pipelines.base.backbone import Conditioning
from pipelines.base.text import encoded, fix_pooling, tokenizer_of
from pipelines.base.unet import UNetBase

AS_DRAWN = -1


class SDXL(UNetBase):
    """Text states [B, 77, 2048], pooled [B, 1280]."""

    extra_offers = frozenset({"pooled"})

    def __init__(self, name: str, family: str, parts: Mapping[str, Any]) -> None:
        super().__init__(name, family, parts)
        self.zeros = bool(parts.get("force_zeros_for_empty_prompt", True))
        for key, encoder in self.texts.items():
            fix_pooling(encoder, self.tokenizers[tokenizer_of(key)])

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Texts → states and pooled states, one row each. `(word:1.2)` weighs a word."""
        with self.memory.use(self, "text"):
            read = {key: encoded(self, key, prompts, penultimate) for key in self.texts}
        tokens = torch.cat([states for states, _ in read.values()], -1)
        pooled = read["text_encoder_2"][1]
        assert pooled is not None  # noqa: S101 (`penultimate` gives one)
        if self.zeros:
            keep = torch.tensor([bool(each.strip()) for each in prompts], device=tokens.device)
            tokens = tokens.where(keep[:, None, None], 0)
            pooled = pooled.where(keep[:, None], 0)
        ids = [AS_DRAWN, AS_DRAWN, 0, 0, AS_DRAWN, AS_DRAWN]
        return Conditioning(
            tokens,
            pooled=pooled,
            extras={"time_ids": torch.tensor([ids] * len(prompts), device=tokens.device)},
        )

    def added(self, x: Tensor, cond: Conditioning) -> dict[str, Tensor]:
        """The pooled text and the sizes, −1 filled in."""
        assert cond.pooled is not None  # noqa: S101 (`encode` gives one)
        height, width = (each * self.latent.factor for each in x.shape[-2:])
        ids = cond.extras["time_ids"].to(self.device)
        drawn = torch.tensor([height, width, 0, 0, height, width], device=self.device)
        ids = torch.where(ids == AS_DRAWN, drawn, ids)
        return {"text_embeds": cond.pooled, "time_ids": ids.to(self.dtype)}


def sized(
    cond: Conditioning,
    original: tuple[int, int] | None = None,
    crop: tuple[int, int] = (0, 0),
    target: tuple[int, int] | None = None,
) -> Conditioning:
    """The same texts for other sizes: (height, width) and (top, left) in pixels; None is as drawn."""
    drawn = (AS_DRAWN, AS_DRAWN)
    ids = [*(original or drawn), *crop, *(target or drawn)]
    row = torch.tensor([ids] * len(cond), device=cond.tokens.device)
    return replace(cond, extras={**cond.extras, "time_ids": row})


def penultimate(encoder: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP's last but one states [B, L, D], and its pooled ones, projected where it projects."""
    out = encoder(ids, output_hidden_states=True)
    pooled = out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output
    return out.hidden_states[-2], pooled
