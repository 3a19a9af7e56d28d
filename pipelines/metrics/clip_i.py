"""CLIP-I: how like the references a picture looks at a glance (DreamBooth, arXiv:2208.12242, section 4.2).

    CLIP-I = mean over pictures p and references r of cos(E(p), E(r))

The average of pairwise cosines, not the cosine of averages. Backgrounds and colours weigh heavily; values
above .95 on other prompts than the photos' mean copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.metrics._base import Band, Metric, Reading, ScoreContext
from pipelines.metrics._encoders import clip_for, likeness
from pipelines.spec import knob

if TYPE_CHECKING:
    from PIL.Image import Image


class ClipI(Metric):
    """Needs references."""

    title = "CLIP-I"
    source = "arXiv:2208.12242"
    # study 001 (99-131), encoder as in clip_t
    bands = {  # noqa: RUF012 - declared as a ClassVar in Metric
        "clip-vit-b32": (Band("poor", -1, 0.75), Band("good", 0.75, 0.85), Band("excellent", 0.85, 0.95))
    }

    encoder: str = knob("", help="the encoder that measures; empty: the one of the base", expert=True)

    def score(self, images: Sequence[Image], context: ScoreContext) -> list[Reading]:
        """One reading, with the mean cosine of each picture to the references."""
        return [likeness("clip_i", self, clip_for(self.encoder, context), images, context)]
