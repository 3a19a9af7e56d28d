"""Textual Inversion (arXiv:2208.01618): the denoising loss, minimised over the embedding of one new word.

Everything else is frozen, so prior preservation has nothing to preserve and is off. Rates of the original
code (5e-3) and of diffusers (5e-4) differ by a factor of ten; 5e-4 with several vectors is the usual choice
on SD 1.5. Rows start at the class word's embedding alone, where the original adds its position by mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.concepts._base import Concept, Recipe
from pipelines.spec import knob

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone
    from pipelines.jobs.kinds import PhotoSet

TEMPLATES = (
    "a photo of {token}",
    "a photo of a {token}",
    "a picture of {token}",
    "a picture of the {token}",
    "an image of a {token}",
    "a close up photo of {token}",
    "a photo of one {token}",
    "a small photo of the {token}",
)


class TextualInversion(Concept):
    """Trainable parameters: n·D a text encoder."""

    title = "Textual Inversion"
    source = "arXiv:2208.01618"

    steps: int = knob(3000, 1, 100_000, "Optimiser steps.", "steps")
    batch: int = knob(4, 1, 256, "Photos a step.")
    learning_rate: float = knob(5e-4, 1e-8, 1, "Rate of the rows.")
    vectors: int = knob(
        1, 1, 8, "Rows that the word stands for: more hold more, and take room in the prompt."
    )
    initial: str = knob("", help="The word to start from; default: the class word.")
    varied: bool = knob(
        True, help="Show photos without a caption under varied templates; off: the photo set's own.",
        expert=True,
    )  # fmt: skip

    def recipe(self, base: Backbone, data: PhotoSet) -> Recipe:
        """Rows for the token, and the denoising loss."""
        from pipelines.concepts.carriers.token_rows import TokenRowsCarrier

        carrier = TokenRowsCarrier(
            base, data.token, self.initial or data.class_word, self.vectors, self.learning_rate
        )
        return self.standard(base, data, carrier)

    def templates(self, data: PhotoSet) -> tuple[str, ...]:
        """Short captions in which the token is the noun."""
        return TEMPLATES if self.varied else (data.template,)

    def trigger(self, data: PhotoSet) -> str:
        """The token stands alone: it took the class word's place."""
        return data.token if self.varied else super().trigger(data)
