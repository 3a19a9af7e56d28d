"""A bridge: guiders of diffusers inside our loop, as oracles for ours and for what we do not have.

Only those that compute what they say (diffusers 0.42, each defect reproduced; methods/guidance, 1.1). They
never see x_t, and act on whatever they are given: `space` says whether that is the network's own output or
the picture that it implies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pipelines.base.needs import require
from pipelines.errors import NotAvailable, UnknownName

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.base.backbone import Backbone
    from pipelines.base.noise import Denoise, Guide, Step

WORKS = {
    "ClassifierFreeGuidance",
    "ClassifierFreeZeroStarGuidance",
    "TangentialClassifierFreeGuidance",
    "AdaptiveProjectedGuidance",
}
REFUSED = {
    "PerturbedAttentionGuidance": (
        "without CFG its disturbed branch is given the negative prompt and no disturbance, its first step is "
        "never guided, and joint attention is not supported",
        'Use our own "pag".',
    ),
    "SkipLayerGuidance": (
        "it swaps picture and words in the joint blocks that it skips",
        "Use the pipeline's own skip_layers, or our own pag.",
    ),
    "SmoothedEnergyGuidance": (
        "its blur is never installed, so that it costs a row and changes nothing",
        'Use our own "pag".',
    ),
    "AutoGuidance": (
        "its weak branch is given the negative prompt, and draws from the global generator",
        'Use "cfg", or give denoise another base.',
    ),
    "FrequencyDecoupledGuidance": ("it needs kornia, and mixes up its levels", 'Use "cfg" or "apg".'),
    "MagnitudeAwareGuidance": (
        "the norm that it takes over channels, height and width is one that torch refuses",
        'Use "cfg" or "apg".',
    ),
    "AdaptiveProjectedMixGuidance": ("it mixes two rules by step count", 'Use "apg".'),
    "LTX2Guidance": ("it is made for one video model", 'Use "cfg".'),
}


class Bridge:
    """One guider of diffusers as a guidance method: branches "cond" and "uncond"."""

    def __init__(self, guider: Any, space: Literal["output", "x0"] = "output") -> None:
        """Raises NotAvailable for a guider that does not compute what it says."""
        name = type(guider).__name__
        if name in REFUSED:
            reason, remedy = REFUSED[name]
            raise NotAvailable(f"diffusers' {name}", reason, remedy)
        if name not in WORKS:
            raise UnknownName("guider of diffusers", name, WORKS)
        if name == "AdaptiveProjectedGuidance" and not guider.use_original_formulation:
            raise NotAvailable(
                f"diffusers' {name}", "its default adds to the unconditional branch; the paper does not",
                "Set use_original_formulation=True, and guidance_scale to our scale less 1.",
            )  # fmt: skip
        self.guider, self.space = guider, space

    def branches(self) -> tuple[str, ...]:
        """Both, always: whether a guider needs the second depends on the step."""
        return ("cond", "uncond")

    def start(self, base: Backbone) -> Guide:
        """A fresh guide for one run, with a guider of its own."""
        require(type(self.guider).__name__, {"uncond"}, base)
        guider = self.guider.new()
        began = False

        def guide(denoise: Denoise, step: Step) -> Tensor:
            nonlocal began
            cond, uncond = denoise("cond", "uncond")
            if self.space == "x0":
                cond, uncond = step.x0(cond), step.x0(uncond)
            pair = {"noise_pred": (cond, uncond)}
            if not began and step.index:
                # its memory is made at step 0 alone, and a picture to start from enters later
                guider.set_state(step=0, num_inference_steps=step.count, timestep=step.t[0])
                guider.prepare_inputs(pair)
            began = True
            guider.set_state(step=step.index, num_inference_steps=step.count, timestep=step.t[0])
            batches = guider.prepare_inputs(pair)
            pred: Tensor = guider(batches).pred
            return step.output(x0=pred) if self.space == "x0" else pred

        return guide
