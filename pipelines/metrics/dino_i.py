"""DINO-I: how much the subject of a picture is the one in the references.

    DINO-I = mean over pictures p and references r of cos(CLS(p), CLS(r))

As DreamBooth's DINO score (arXiv:2208.12242, section 4.2), with DINOv2 ViT-S/14 in place of its DINO v1
ViT-S/16: the two scales must not be compared. Learned without words, so it tells two dogs of a breed apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.metrics._base import Band, Metric, Reading, ScoreContext
from pipelines.metrics._encoders import dino_for, likeness
from pipelines.spec import knob

if TYPE_CHECKING:
    from PIL.Image import Image


class DinoI(Metric):
    """Needs references."""

    title = "DINO-I"
    source = "arXiv:2208.12242, arXiv:2304.07193"
    # study 001 (133-165), stated for DINOv2 ViT-S/14
    bands = {  # noqa: RUF012 - declared as a ClassVar in Metric
        "dinov2-vits14": (Band("poor", -1, 0.45), Band("moderate", 0.45, 0.65), Band("good", 0.65, 0.80))
    }

    encoder: str = knob("", help="the encoder that measures; empty: the one of the base", expert=True)

    def score(self, images: Sequence[Image], context: ScoreContext) -> list[Reading]:
        """One reading, with the mean cosine of each picture to the references."""
        return [likeness("dino_i", self, dino_for(self.encoder, context), images, context)]
