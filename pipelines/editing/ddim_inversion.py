"""DDIM inversion (arXiv:2010.02502): walk the picture back to its own noise, and forward under new words.

Backwards with the words for what it shows (the source prompt, at the inversion's own scale), forwards with
the edit's prompt and guidance. The network is asked at the less noisy latents under the noisier timestep, as
the published editors do; asking again at the result (fixed-point iteration; ReNoise, arXiv:2403.14602, here
without its averaging) makes the way back exact where the map contracts. The published editors take 50 steps
and no iterations. Guidance above 1 on the way back pushes the noise off the normal distribution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.base.needs import require
from pipelines.editing._base import Edited, EditMethod, EditRequest, psnr
from pipelines.spec import knob

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pipelines.base.backbone import Backbone, Condition
    from pipelines.base.noise import Guides
    from pipelines.editing.trajectory import Trajectory
    from pipelines.progress import Job
    from pipelines.sampling.schedulers import Sampler


class DDIMInversion(EditMethod):
    """Forwards: (1 + iterations) · steps on the way back, as many as the guide's forwards, steps to check."""

    title = "DDIM inversion"
    source = "arXiv:2010.02502"

    strength: float = knob(
        1.0,
        0,
        1,
        "How far back the picture is walked. Lower it when too much of it is lost; 0 gives it back as the "
        "autoencoder sees it.",
    )
    inversion_guidance: float = knob(
        1.0, 0, 15, "Guidance scale on the way back; above 1 the noise degrades.", expert=True
    )
    iterations: int = knob(
        1, 0, 8, "Rounds of correction a step back: nearer to the picture, each at the price of a forward."
    )
    check: bool = knob(
        True, help="Also redraw the picture under its own words, and measure how near it comes."
    )

    def edit(self, base: Backbone, request: EditRequest, guidance: Guides, job: Job) -> Edited:
        """One result for every prompt; the seed changes nothing."""
        from pipelines.editing.trajectory import deterministic, invert, mixed
        from pipelines.sampling import schedulers
        from pipelines.sampling.generate import to_pixels

        deterministic(request.sampler)
        sampler = schedulers.make(base, request.sampler, request.steps)
        start = schedulers.start_index(sampler, self.strength)
        width, height = request.image.size
        z = base.to_latents(to_pixels(request.image, width, height))
        words = self._source(base, request)
        guide = mixed(self.inversion_guidance)
        path = invert(base, words, guide, sampler, z, job, start=start, iterations=self.iterations)
        readings = self._fidelity(base, request, sampler, words, path, job) if self.check else {}
        drawn = {
            prompt: self._draw(base, request, guidance, sampler, path, prompt, job)
            for prompt in dict.fromkeys(request.prompts)
        }
        notes: tuple[str, ...] = ()
        if len(drawn) < len(request.prompts):
            notes = ("Inversion draws no noise: pictures of one prompt are equal, whatever their seeds.",)
        return Edited([drawn[prompt].copy() for prompt in request.prompts], notes, readings)

    def _source(self, base: Backbone, request: EditRequest) -> dict[str, Condition]:
        words: dict[str, Condition] = {"cond": base.encode([request.source])}
        if self.inversion_guidance != 1:
            require("Guidance on the way back", {"uncond"}, base)
            words["uncond"] = base.encode([request.negative])
        return words

    def _fidelity(
        self,
        base: Backbone,
        request: EditRequest,
        sampler: Sampler,
        words: dict[str, Condition],
        path: Trajectory,
        job: Job,
    ) -> dict[str, float]:
        """PSNR in dB to the picture: of its redrawing under the source prompt, and of the autoencoder's
        round trip, which no editor that goes through latents can pass.
        """
        from pipelines.editing.trajectory import mixed
        from pipelines.sampling.loop import sample

        guide = mixed(self.inversion_guidance)
        again = sample(
            base, words, guide, sampler, path.noisy, job, start=path.start, branches=tuple(words)
        )  # fmt: skip
        redrawn, ceiling = (_picture(base, each) for each in (again, path.clean))
        return {
            "reconstruction_psnr": round(psnr(redrawn, request.image), 2),
            "ceiling_psnr": round(psnr(ceiling, request.image), 2),
        }

    def _draw(
        self,
        base: Backbone,
        request: EditRequest,
        guidance: Guides,
        sampler: Sampler,
        path: Trajectory,
        prompt: str,
        job: Job,
    ) -> Image.Image:
        from pipelines.editing.trajectory import tied
        from pipelines.sampling.generate import Request, conditions_for, mask_for
        from pipelines.sampling.loop import sample

        asked = Request([prompt], [0], negative=request.negative, conditions=request.conditions)
        guide = guidance.start(base)
        if request.mask is not None:
            mask = mask_for(base, request.mask, *request.image.size).to(path.noisy)
            guide = tied(guide, path, mask)
        z = sample(
            base,
            conditions_for(base, asked, guidance, slice(0, 1)),
            guide,
            sampler,
            path.noisy,
            job,
            start=path.start,
            branches=guidance.branches(),
        )
        return _picture(base, z)


def _picture(base: Backbone, z: Tensor) -> Image.Image:
    import torch

    from pipelines.sampling.generate import to_images

    with torch.no_grad():
        return to_images(base.to_pixels(z))[0]
