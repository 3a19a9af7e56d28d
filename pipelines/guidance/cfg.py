"""Classifier-free guidance (arXiv:2207.12598), with rescaling (arXiv:2305.08891, section 3.4).

    ε̂ = u + w·(c − u)

w is the scale as diffusers counts it: 1 is the conditional prediction alone. The negative prompt, where
there is one, stands in for u. Rescaling pulls the spread of the result, per sample, towards that of c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.guidance._base import Guidance
from pipelines.spec import knob

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.base.backbone import Backbone
    from pipelines.base.noise import Denoise, Guide, Step


class CFG(Guidance):
    """Rows: 2 a step; 1 at scale 1."""

    title = "Classifier-free guidance"
    source = "arXiv:2207.12598"
    needs = frozenset({"uncond"})

    scale: float = knob(
        5.0,
        0,
        30,
        "How closely the picture follows the words. Raise it when words are ignored, lower it when colours "
        "burn; 1 switches guidance off.",
    )
    rescale: float = knob(
        0.0, 0, 1, "Tames contrast at high scales; 0.7 for models of v-prediction with zero terminal SNR.",
        expert=True,
    )  # fmt: skip

    def branches(self) -> tuple[str, ...]:
        """Only the conditional one at scale 1."""
        return ("cond",) if self.scale == 1 else ("cond", "uncond")

    def start(self, base: Backbone) -> Guide:
        """The guide of one run."""

        def guide(denoise: Denoise, step: Step) -> Tensor:
            if self.scale == 1:
                return denoise("cond")  # pyright: ignore[reportReturnType]
            cond, uncond = denoise("cond", "uncond")
            out = uncond + self.scale * (cond - uncond)
            if self.rescale:
                spread = cond.std((1, 2, 3), keepdim=True) / out.std((1, 2, 3), keepdim=True).clamp_min(1e-8)
                out = out * (1 - self.rescale + self.rescale * spread)
            return out

        return guide
