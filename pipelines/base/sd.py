"""Stable Diffusion 1 and 2, and Toybox: one UNet, one CLIP text encoder (arXiv:2112.10752)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pipelines.base.backbone import Conditioning
from pipelines.base.unet import UNetBase


class SD(UNetBase):
    """Text states [B, 77, D] of CLIP's last layer; Toybox reads 48 tokens."""

    def __init__(self, name: str, family: str, parts: Mapping[str, Any]) -> None:
        super().__init__(name, family, parts)
        encoder: Any = self.texts["text_encoder"]
        # old configs say 2, and pooling then looks for the largest id, which an added token would be
        encoder.config.eos_token_id = self.tokenizers["tokenizer"].eos_token_id

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Texts → states, one row each."""
        tokenizer, encoder = self.tokenizers["tokenizer"], self.texts["text_encoder"]
        batch = tokenizer(
            list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        device = next(encoder.parameters()).device
        ids: torch.Tensor = batch["input_ids"].to(device)
        return Conditioning(encoder(ids)[0])
