"""Weighted sum at a rank of choice: the best approximation of Σ wᵢΔWᵢ (Eckart and Young 1936).

    Σ wᵢΔWᵢ ≈ U_k S_k V_kᵀ,  B = U√S, A = √SVᵀ,  error² = Σ_{j>k} σ_j²

The sum is itself a product of stacked factors, so the decomposition is one of a core as small as their
rank: B = Q_b R_b and Aᵀ = Q_a R_a give BA = Q_b (R_b R_aᵀ) Q_aᵀ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.adapters.merge._base import Merge, Weighted, shaped
from pipelines.adapters.merge.sum import Sum
from pipelines.spec import knob

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.adapters.adapter import Change


class SVD(Merge):
    """The header of the result tells the share of the energy Σσ² that was kept."""

    title = "Weighted sum, compressed"
    source = "Eckart and Young 1936; as peft's `svd`"

    rank: int = knob(
        16, 1, 1024, "Rank of the result: smaller files lose more. The share kept is in the file's header."
    )

    def layer(self, changes: Weighted) -> Change:
        """The nearest factors of at most `rank`, alpha = rank."""
        from pipelines.adapters.adapter import LowRank

        u, s, v, like = _decomposed(Sum().layer(changes))
        keep = max(1, min(self.rank, int((s > s[0] * 1e-7).sum())))
        root = s[:keep].sqrt()
        up, down = u[:, :keep] * root, root[:, None] * v[:, :keep].T
        up = up.reshape(len(up), keep, *[1] * (like.ndim - 2))
        return LowRank(shaped(down, like).contiguous(), up.contiguous(), float(keep))

    def facts(self, changes: Mapping[str, Weighted], layers: Mapping[str, Change]) -> dict[str, str]:
        """`likeness.energy`: Σσ² kept over Σσ², all layers together."""
        whole = sum(energy(Sum().layer(each)) for each in changes.values())
        kept = sum(energy(each) for each in layers.values())
        return {"likeness.energy": f"{kept / whole if whole else 1.0:.6f}"}


def energy(change: Change) -> float:
    """Σσ² = ‖ΔW‖² of a plain change."""
    from pipelines.adapters.adapter import Full

    if isinstance(change, Full):
        return float(change.delta.double().square().sum())
    up, down = change.up.double().flatten(1), change.down.double().flatten(1)
    return float(change.scale**2 * ((up.T @ up) * (down @ down.T)).sum())


def _decomposed(change: Change) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """U [out, k], S [k], V [in·…, k] of a plain change, and a tensor shaped as its `down`."""
    import torch

    from pipelines.adapters.adapter import Full

    if isinstance(change, Full):
        u, s, vh = torch.linalg.svd(change.delta.float().flatten(1), full_matrices=False)
        return u, s, vh.T, change.delta
    left, core_left = torch.linalg.qr(change.up.float().flatten(1) * change.scale)
    right, core_right = torch.linalg.qr(change.down.float().flatten(1).T)
    u, s, vh = torch.linalg.svd(core_left @ core_right.T, full_matrices=False)
    return left @ u, s, right @ vh.T, change.down
