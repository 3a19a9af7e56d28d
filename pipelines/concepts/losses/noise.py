"""The denoising loss, per sample: mean over C, h, w of (out − target)², whatever the base predicts.

min-SNR-γ (arXiv:2303.09556, equation 3) weighs a sample by min(SNR, γ)/SNR for ε and by min(SNR, γ)/(SNR + 1)
for v, with SNR = a²/b². Each sample has its own timestep's weight, prior pictures included; diffusers' SD
example mixes up the two halves there (its issue 5791).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.base.backbone import Backbone
    from pipelines.concepts._base import LossInput, LossTerm


def noise(base: Backbone, min_snr: float = 0.0) -> LossTerm:
    """The term. Raises BadInput for `min_snr` on a flow, whose loss has no such weight."""
    if min_snr and base.predicts == "flow":
        raise BadInput(
            f"min-SNR weights do not exist for {base.name}, which predicts a flow.", "Set min_snr to 0."
        )

    def term(given: LossInput) -> Tensor:
        square = (given.out.float() - given.target.float()).square()
        if given.mask is not None:
            square = square * given.mask / given.mask.mean((1, 2, 3), keepdim=True).clamp_min(1e-6)
        loss = square.mean((1, 2, 3))
        return loss * weights(base.predicts, given.a, given.b, min_snr) if min_snr else loss

    return term


def weights(predicts: str, a: Tensor, b: Tensor, gamma: float) -> Tensor:
    """min-SNR-γ weights [B] from the shares a, b [B, 1, 1, 1].

    Written with b² above the line, so that a timestep without any picture (zero terminal SNR) has weight 1
    for ε and 0 for v instead of 0/0.
    """
    signal, spread = a.flatten().square(), b.flatten().square()
    capped = (gamma * spread / signal.clamp_min(1e-20)).clamp_max(1.0)  # min(SNR, γ) / SNR
    return capped if predicts == "eps" else capped * signal / (signal + spread)


def only(kind: int, term: LossTerm) -> LossTerm:
    """The term for rows of one kind, 0 for the others."""
    return lambda given: term(given) * (given.kind == kind)
