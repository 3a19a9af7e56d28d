"""Weighted sum, exact: factors side by side.

    A = [A₁; A₂; …],  B = [w₁s₁B₁ | w₂s₂B₂ | …]   so that   BA = Σ wᵢ sᵢ BᵢAᵢ = Σ wᵢΔWᵢ

The rank is the sum of the ranks. Adding the factors themselves instead would add cross terms BᵢAⱼ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.adapters.merge._base import Merge, Weighted

if TYPE_CHECKING:
    from pipelines.adapters.adapter import Change


class Sum(Merge):
    """A layer where a full ΔW is among the changes becomes a full ΔW."""

    title = "Weighted sum"
    source = "arXiv:2106.09685, section 4; concatenation as in peft's `cat`"

    def layer(self, changes: Weighted) -> Change:
        """Factors side by side, alpha = rank."""
        import torch

        from pipelines.adapters.adapter import Full, LowRank
        from pipelines.adapters.layers import delta

        low = [(each, weight) for each, weight in changes if isinstance(each, LowRank)]
        if len(low) < len(changes):
            return Full(torch.stack([weight * delta(each) for each, weight in changes]).sum(0))
        down = torch.cat([each.down.float() for each, _ in low])
        up = torch.cat([weight * each.scale * each.up.float() for each, weight in low], 1)
        return LowRank(down, up, float(len(down)))
