"""Adaptive projected guidance (arXiv:2410.02416): guidance without the part that only burns colours.

    Δ = x0_c − x0_u                     in the space of pictures
    m ← Δ + β·m,  Δ ← m                 momentum; a negative β damps what repeats
    Δ ← Δ·min(1, r/‖Δ‖)                 no push longer than r
    x0 = x0_c + (w − 1)·(Δ⊥ + η·Δ∥)     Δ split along x0_c

Where we differ from diffusers' guider: it works on whatever the network predicts and adds to the
unconditional branch, which is not the paper's rule and does not end at c for w → 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pipelines.guidance._base import Guidance, conditional
from pipelines.guidance._ops import clip_norm, split
from pipelines.spec import knob

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.base.backbone import Backbone
    from pipelines.base.noise import Denoise, Guide, Step

SDXL = 4 * 128 * 128


class APG(Guidance):
    """Rows: 2 a step; 1 at scale 1."""

    title = "Adaptive projected guidance"
    source = "arXiv:2410.02416"
    needs = frozenset({"uncond"})
    neutral: ClassVar = {"scale": 1}

    scale: float = knob(
        10.0, 0, 30, "How closely the picture follows the words; bears higher values than CFG. 1 is off."
    )
    eta: float = knob(
        0.0, 0, 1, "How much of the push that only raises saturation stays; 1 keeps all, as CFG does."
    )
    norm_threshold: float = knob(
        15.0,
        0,
        1000,
        "Longest push a step, counted for SDXL's latents (4×128×128) and scaled with the square root of "
        "their number for others; 0 for no limit.",
        expert=True,
    )
    momentum: float = knob(
        -0.5, -0.95, 0.95, "Weight of the pushes of earlier steps; negative damps what repeats.", expert=True
    )

    def branches(self) -> tuple[str, ...]:
        """Only the conditional one at scale 1."""
        return ("cond",) if self.scale == 1 else ("cond", "uncond")

    def guide(self, base: Backbone) -> Guide:
        """The combination of one run; it remembers the pushes so far."""
        if self.scale == 1:
            return conditional
        past: Tensor | None = None

        def guide(denoise: Denoise, step: Step) -> Tensor:
            nonlocal past
            cond, uncond = denoise("cond", "uncond")
            x0 = step.x0(cond)
            push = x0 - step.x0(uncond)
            if past is not None:
                push = push + self.momentum * past
            past = push  # before it is clipped
            if self.norm_threshold:
                push = clip_norm(push, self.norm_threshold * (push[0].numel() / SDXL) ** 0.5)
            along, across = split(push, x0)
            return step.output(x0=x0 + (self.scale - 1) * (across + self.eta * along))

        return guide
