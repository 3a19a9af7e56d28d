"""The weak sibling for AutoGuidance (arXiv:2406.02507): the base's task, a ninth of its size, fewer views.

It reads the base's text encoder, which is frozen here and is not exported again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pipelines.toybox import nets
from pipelines.toybox.stages import unet
from pipelines.toybox.stages.unet import UNetStage

PLANS = {
    "cpu": replace(unet.PLANS["cpu"], views=200_000, lr=1e-3, ema=0.999, seed=1, sample_every=0),
    "cuda": replace(unet.PLANS["cuda"], views=3_000_000, seed=1, sample_every=0),
}


class WeakStage(UNetStage):
    """Trains `modules["unet"]` and the head; exports the UNet alone."""

    name = "weak"

    def encode_text(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] → [B, L, D], without a graph."""
        with torch.no_grad():
            return super().encode_text(ids)

    def export(self, folder: Path) -> None:
        """Write config.json and the weights into the folder itself."""
        nets.export_diffusers(nets.plain_unet(self.unet), folder)
