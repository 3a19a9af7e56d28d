"""Who was drawn, as an encoder's tokens are taught to read it: names, proportions and the exact shade.

The heads are trained beside toybox-dino and not exported. Letters: B tokens, D their width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.toybox.stages.encoders import entropy
from pipelines.toybox.world import COLOURS, KINDS, Identity, exact_colour
from pipelines.toybox.world.labels import IGNORE, NO_YES, PEOPLE, SUBJECT_HEADS
from pipelines.toybox.world.scene import N_PARAMS

NAMES = {head: len(SUBJECT_HEADS[head]) for head in ("kind", "colour", "pattern", *PEOPLE)}
NUMBERS = N_PARAMS + 3
SHADE = 15.0  # levels of 255: how far shades of one colour differ


class Reader(nn.Module):
    """Reads from tokens who was drawn: names, proportions and the exact shade. Not exported.

    Proportions mean something else for every kind, so each kind has its own outputs for them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.names = nn.Linear(width, sum(NAMES.values()))
        self.numbers = nn.Linear(width, len(KINDS) * NUMBERS)

    def forward(self, tokens: Tensor, truth: Tensor) -> Tensor:
        """tokens [B, D], truth [B, len(NAMES) + NUMBERS] as `truth_of` gives it → the loss []."""
        names, numbers = truth[:, : len(NAMES)].long(), truth[:, len(NAMES) :]
        read = self.names(tokens).float().split(list(NAMES.values()), dim=1)
        wanted = dict(zip(NAMES, names.unbind(1), strict=True))
        loss = entropy(dict(zip(NAMES, read, strict=True)), wanted, len(names))
        guessed = self.numbers(tokens).float().view(-1, len(KINDS), NUMBERS)
        guessed = guessed[torch.arange(len(names), device=names.device), names[:, 0]]
        # 1/12 is the variance of a proportion
        shape, shade = (guessed - numbers).pow(2).split([N_PARAMS, NUMBERS - N_PARAMS], dim=1)
        return loss + 12 * shape.mean() + shade.mean()


def truth_of(identity: Identity) -> np.ndarray:
    """NAMES as indices (IGNORE where a kind has none), then proportions and shade about their means: float32
    [len(NAMES) + NUMBERS]."""
    names = {"kind": identity.kind, "colour": identity.colour}
    if identity.kind == "person":
        names |= {"hair style": identity.hair_style}
        names |= {"beard": NO_YES[identity.beard], "glasses": NO_YES[identity.glasses]}
        if identity.hair_style != "bald":
            names["hair colour"] = identity.hair_colour
    else:
        names["pattern"] = identity.pattern
    indices = [SUBJECT_HEADS[head].index(names[head]) if head in names else IGNORE for head in NAMES]
    shade = np.subtract(exact_colour(identity), COLOURS[identity.colour]) / SHADE
    return np.array([*indices, *np.subtract(identity.params, 0.5), *shade], np.float32)
