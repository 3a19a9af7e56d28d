"""DreamBooth (arXiv:2208.12242): the denoising loss on photos of "sks dog", minimised over the whole network.

    L = ‖ε̂(x_t, "a sks dog") − ε‖² + λ ‖ε̂(x'_t, "a dog") − ε'‖²

x' are pictures that the frozen base drew of the class. Defaults of diffusers' train_dreambooth: rate 5e-6,
800 steps with λ = 1 on 100 to 200 class pictures. The text encoder stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.concepts._base import Concept, Recipe
from pipelines.spec import knob

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone
    from pipelines.jobs.kinds import PhotoSet


class DreamBooth(Concept):
    """Trainable parameters: all of the network; memory for weights, gradients and two moments in float32."""

    title = "DreamBooth"
    source = "arXiv:2208.12242"

    steps: int = knob(800, 1, 100_000, "Optimiser steps. More learns closer and forgets more.", "steps")
    learning_rate: float = knob(5e-6, 1e-9, 1, "Rate of all weights.")
    prior_weight: float = knob(
        1.0,
        0,
        10,
        "λ of prior preservation: keeps other members of the class as they are. 0 switches it off.",
    )

    def recipe(self, base: Backbone, data: PhotoSet) -> Recipe:
        """All weights, the denoising loss, λ times its prior half."""
        from pipelines.concepts.carriers.full import FullCarrier

        return self.standard(base, data, FullCarrier(base, self.learning_rate))
