"""SDEdit, or image-to-image (arXiv:2108.01073): noise the picture part of the way, and denoise it anew.

    x_t0 = a·E(picture) + b·ε,  then the sampler's steps from t0 under the prompt

The picture enters as the mean of its posterior, so that a seed fixes the result. The strength counts steps
of the sampler: with N steps, round(N·strength) of them are walked. At strength 1 the picture still shows
wherever the schedule's first step keeps a share a > 0 of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.editing._base import Edited, EditMethod, EditRequest
from pipelines.spec import knob

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone
    from pipelines.base.noise import Guides
    from pipelines.progress import Job


class SDEdit(EditMethod):
    """Forwards: strength · steps, times the rows of the guide."""

    title = "SDEdit (image to image)"
    source = "arXiv:2108.01073"

    strength: float = knob(
        0.6,
        0,
        1,
        "How much of the picture is drawn anew. Raise it when the words are not followed, lower it when too "
        "much is lost; 0 gives the picture back as the autoencoder sees it.",
    )

    def edit(self, base: Backbone, request: EditRequest, guidance: Guides, job: Job) -> Edited:
        """One result for every (prompt, seed) pair."""
        from pipelines.sampling.generate import Request, generate

        images = generate(
            base,
            Request(
                request.prompts,
                request.seeds,
                negative=request.negative,
                steps=request.steps,
                sampler=request.sampler,
                width=request.width,
                height=request.height,
                start=request.image,
                strength=self.strength,
                mask=request.mask,
                conditions=request.conditions,
            ),
            guidance,
            job,
        )
        walked = round(request.steps * self.strength)
        notes = (f"{walked} of {request.steps} steps were walked: the picture cannot change.",)
        return Edited(images, notes if walked == 0 else ())
