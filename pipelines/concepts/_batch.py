"""What a step sees, as a function of (seed, number of the batch) alone.

Shapes: B batch, C latent channels, h w latent size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.concepts._base import INSTANCE, PRIOR, DataPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from pipelines.base.backbone import Backbone
    from pipelines.data.dataset import Dataset, Example


@dataclass(frozen=True)
class Row:
    """One picture of a batch: clean latents and noise [1, C, h, w], timestep [1], and what it counts."""

    x0: Tensor
    eps: Tensor
    t: Tensor
    caption: str
    kind: int
    weight: float


@dataclass(frozen=True)
class Rows:
    """Rows of one size: x0, eps [B, C, h, w], t, kind, weight [B]."""

    x0: Tensor
    eps: Tensor
    t: Tensor
    captions: list[str]
    kind: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Batch:
    """The rows of a batch, of any sizes."""

    rows: tuple[Row, ...]

    def by_size(self) -> Iterator[Rows]:
        """Rows that can share a forward, in order of first appearance."""
        import torch

        sizes: dict[tuple[int, ...], list[Row]] = {}
        for row in self.rows:
            sizes.setdefault(tuple(row.x0.shape), []).append(row)
        for rows in sizes.values():
            yield Rows(
                torch.cat([each.x0 for each in rows]),
                torch.cat([each.eps for each in rows]),
                torch.cat([each.t for each in rows]),
                [each.caption for each in rows],
                torch.tensor([each.kind for each in rows]),
                torch.tensor([each.weight for each in rows]),
            )


def draw(plan: DataPlan, data: Dataset, base: Backbone, seed: int, index: int) -> Batch:
    """Batch number `index`: photos, then as many class pictures where the plan has a prior half.

    The halves draw from generators of their own, so that the photos' noise does not depend on there being a
    prior. Raises BadInput where the plan wants class pictures and there are none.
    """
    rows = _half(plan, data.photos, base, (seed, index), INSTANCE)
    if plan.prior:
        rows += _half(plan, data.priors, base, (seed, index), PRIOR)
    return Batch(tuple(rows))


def generator(seed: int, index: int, kind: int) -> torch.Generator:
    """The source of a half's noise and timesteps."""
    import torch

    state = np.random.SeedSequence((seed, index, kind)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


def _half(
    plan: DataPlan, examples: Sequence[Example], base: Backbone, place: tuple[int, int], kind: int
) -> list[Row]:
    import torch

    from pipelines.concepts.checkpoint import rows_at
    from pipelines.errors import BadInput

    if not examples:
        raise BadInput("Prior preservation is on, and there are no class pictures.", "Set prior_weight to 0.")
    seed, index = place
    noise = generator(seed, index, kind)
    choices = np.random.default_rng((seed, index, kind, 1))
    times = base.timesteps(plan.batch, noise)
    rows: list[Row] = []
    for number, chosen in enumerate(rows_at(seed + kind, index, plan.batch, len(examples))):
        example = examples[chosen]
        view = int(choices.integers(len(example.latents)))
        caption = example.captions[int(choices.integers(len(example.captions)))]
        dropped = choices.random() < plan.caption_dropout
        x0 = example.latents[view : view + 1].float()
        eps = torch.randn(x0.shape, generator=noise)
        if plan.noise_offset:
            eps = eps + plan.noise_offset * torch.randn(*x0.shape[:2], 1, 1, generator=noise)
        rows.append(
            Row(
                x0.to(eps),
                eps,
                times[number : number + 1],
                "" if dropped else caption,
                kind,
                1 / plan.batch,
            )
        )
    return rows
