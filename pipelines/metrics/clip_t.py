"""CLIP-T: how far a picture shows what its prompt says (DreamBooth, arXiv:2208.12242, section 4.2).

    CLIP-T = cos(E_text(prompt), E_image(picture)), the mean over pictures

The raw cosine in [−1, 1]; papers that print 25.0 multiply it by 100 (CLIPScore, arXiv:2104.08718, cuts it at
0 as well). Prompts longer than the encoder reads are cut, and the note says how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.metrics._base import Band, CannotMeasure, Metric, Reading, ScoreContext, mean, prompts_for
from pipelines.metrics._encoders import clip_for, unstated
from pipelines.spec import knob

if TYPE_CHECKING:
    from PIL.Image import Image


class ClipT(Metric):
    """Needs prompts; pictures without one are left out of the mean."""

    title = "CLIP-T"
    source = "arXiv:2208.12242"
    # study 001 (65-97) calls the encoder "OpenAI's CLIP" and means, as DreamBooth does, most likely ViT-B/32
    bands = {  # noqa: RUF012 - declared as a ClassVar in Metric
        "clip-vit-b32": (Band("poor", -1, 0.20), Band("moderate", 0.20, 0.27), Band("good", 0.27, 1.01))
    }

    encoder: str = knob("", help="the encoder that measures; empty: the one of the base", expert=True)

    def score(self, images: Sequence[Image], context: ScoreContext) -> list[Reading]:
        """One reading, with the cosine of each picture that has a prompt."""
        pairs = [
            (image, prompt)
            for image, prompt in zip(images, prompts_for(len(images), context.prompts), strict=True)
            if prompt.strip()
        ]
        if not pairs:
            raise CannotMeasure("There is no prompt to measure obedience to.", 'Give one: --prompt "…".')
        clip = clip_for(self.encoder, context)
        pictures, prompts = [image for image, _ in pairs], [prompt for _, prompt in pairs]
        each = (clip.images(pictures) * clip.texts(prompts)).sum(1).tolist()
        notes = [unstated(self, clip.name)]
        cut = len(clip.cut(prompts))
        if cut:
            notes.append(f"{cut} of {len(prompts)} prompts are longer than {clip.name} reads, and were cut")
        if len(pairs) < len(images):
            notes.append(f"{len(images) - len(pairs)} pictures without a prompt are left out")
        value = mean(each)
        return [
            Reading(
                name="clip_t",
                value=value,
                better=self.better,
                band=self.band(clip.name, value),
                encoder=clip.name,
                note="; ".join(filter(None, notes)),
                each=tuple(each),
            )
        ]
