"""Classifier-free guidance (arXiv:2207.12598), with rescaling (arXiv:2305.08891, section 3.4).

    ε̂ = u + w·(c − u)

w is the scale as diffusers counts it: 1 is the conditional prediction alone. The negative prompt, where
there is one, stands in for u. Rescaling pulls the spread of the result, per sample, towards that of c. It is
done on velocities, as in the paper; diffusers does it in whatever the network predicts, so that for ε the
two differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pipelines.guidance._base import Guidance, conditional
from pipelines.guidance._ops import match_std
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
    neutral: ClassVar = {"scale": 1}

    scale: float = knob(
        5.0,
        0,
        30,
        "How closely the picture follows the words. Raise it when words are ignored, lower it when colours "
        "burn; at 1 guidance is off, and a negative prompt does nothing.",
    )
    rescale: float = knob(
        0.0, 0, 1, "Tames contrast at high scales; 0.7 for models of v-prediction with zero terminal SNR.",
        expert=True,
    )  # fmt: skip

    def branches(self) -> tuple[str, ...]:
        """Only the conditional one at scale 1."""
        return ("cond",) if self.scale == 1 else ("cond", "uncond")

    def guide(self, base: Backbone) -> Guide:
        """The combination of one run."""
        if self.scale == 1:
            return conditional

        def guide(denoise: Denoise, step: Step) -> Tensor:
            cond, uncond = denoise("cond", "uncond")
            return uncond + self.scale * (cond - uncond)

        return guide

    def finish(self, denoise: Denoise, step: Step, out: Tensor) -> Tensor:
        """The result, rescaled: last, after what other methods add to it."""
        if not self.rescale:
            return out
        like = step.velocity(denoise("cond"))
        return step.from_velocity(match_std(step.velocity(out), like, self.rescale))
