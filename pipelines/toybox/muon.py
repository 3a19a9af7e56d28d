"""Muon: momentum whose update is made orthogonal, for every matrix and convolution of a network.

Keller Jordan et al., 2024 (kellerjordan.github.io/posts/muon); the update's size after Liu et al.,
arXiv:2502.16982, section 2.2, so that AdamW's rates and weight decay hold. torch's own takes matrices only,
one at a time; here convolutions are matrices [out, in·kh·kw], and those of one shape go through together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic: steep at 0, about 1 in [0.7, 1.2]
STEPS = 5
LIKE_ADAMW = 0.2  # root mean square of AdamW's updates


def orthogonal(matrices: Tensor) -> Tensor:
    """[k, m, n] → about the nearest with orthonormal rows or columns, by Newton–Schulz in bfloat16."""
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Takes parameters of two dimensions or more; state "momentum" has a parameter's own shape."""

    def __init__(self, parameters: Iterable[Any], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = {}
            for each in group["params"]:
                if each.grad is not None:
                    alike.setdefault((each.shape[0], each[0].numel()), []).append((each, each.grad))
            for shape, pairs in alike.items():
                self._update(shape, pairs, group)

    def _update(
        self, shape: tuple[int, int], pairs: list[tuple[nn.Parameter, Tensor]], group: dict[str, Any]
    ) -> None:
        heading = []
        for parameter, gradient in pairs:
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(gradient, 1 - group["momentum"])
            heading.append(gradient.lerp(momentum, group["momentum"]).flatten(1))  # Nesterov's
        updates = orthogonal(torch.stack(heading)).float()
        size = group["lr"] * LIKE_ADAMW * max(shape) ** 0.5
        for (parameter, _), update in zip(pairs, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(
                update.view(parameter.shape), alpha=size
            )
