"""DreamBooth with LoRA: the denoising loss on photos of "sks dog", minimised over low-rank changes alone.

arXiv:2208.12242 with arXiv:2106.09685; defaults of diffusers' train_dreambooth_lora (rank 4, alpha = rank,
rate 1e-4, 500 steps, attention layers), except that λ counts class pictures only where it is set. Rank 16–32
and 1e-4 are usual where likeness matters more than size. A fresh LoRA is the base, bitwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipelines.concepts._base import Concept, Recipe
from pipelines.spec import knob

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone
    from pipelines.jobs.kinds import PhotoSet


class DreamBoothLoRA(Concept):
    """Trainable parameters: r·(in + out) a layer."""

    title = "DreamBooth-LoRA"
    source = "arXiv:2208.12242, arXiv:2106.09685"

    steps: int = knob(500, 1, 100_000, "Optimiser steps. More learns closer and forgets more.", "steps")
    learning_rate: float = knob(1e-4, 1e-8, 1, "Rate of the network's factors.")
    rank: int = knob(4, 1, 1024, "r: how many directions a layer may change in. File size grows with it.")
    alpha: float | None = knob(
        None, 0.01, 4096, "Strength of the change is alpha/rank; default: the rank, so 1.", expert=True
    )
    targets: tuple[Literal["attention", "self", "cross", "cross.kv", "feedforward", "conv"], ...] = knob(
        ("attention",), help="Groups of layers that learn."
    )
    text_encoder: bool = knob(False, help="Teach the text encoder too: closer, and forgets sooner.")
    text_learning_rate: float = knob(5e-6, 1e-8, 1, "Rate of the text encoder's factors.", expert=True)
    dora: bool = knob(
        False, help="DoRA: size and direction of every output learn apart (arXiv:2402.09353).", expert=True
    )
    rslora: bool = knob(
        False, help="rsLoRA: strength alpha/√rank, for ranks above 32 (arXiv:2312.03732).", expert=True
    )

    def recipe(self, base: Backbone, data: PhotoSet) -> Recipe:
        """LoRA on the chosen groups, the denoising loss, λ times its prior half."""
        from pipelines.concepts.carriers.low_rank import LowRankCarrier, Rates

        carrier = LowRankCarrier(
            base,
            self.targets,
            self.rank,
            self.rank if self.alpha is None else self.alpha,
            Rates(self.learning_rate, self.text_learning_rate),
            text=self.text_encoder,
            dora=self.dora,
            rslora=self.rslora,
        )
        return self.standard(base, data, carrier)
