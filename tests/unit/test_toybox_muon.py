"""Muon: orthogonal updates, convolutions as matrices, rates that mean what AdamW's do."""

import pytest
import torch
from torch import nn

from pipelines.toybox.muon import LIKE_ADAMW, Muon, orthogonal


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 144), (2, 96, 32)])
def test_every_singular_value_comes_near_one(shape: tuple[int, int, int]) -> None:
    given = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    made = orthogonal(given)
    assert made.shape == given.shape
    values = torch.linalg.svdvals(made.float())
    assert values.max() < 1.3
    assert values.median() > 0.6
    # and the directions stay: the nearest orthogonal matrix is left @ right
    near = nn.functional.cosine_similarity(made.float().flatten(1), (left @ right).flatten(1))
    assert near.min() > 0.9


def test_a_convolution_moves_as_its_matrix_does() -> None:
    torch.manual_seed(0)
    matrix = nn.Parameter(torch.randn(8, 4 * 9))
    kernel = nn.Parameter(
        matrix.detach().clone().view(8, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    )
    gradient = torch.randn(8, 36)
    matrix.grad, kernel.grad = (
        gradient,
        gradient.view(8, 4, 3, 3).contiguous(memory_format=torch.channels_last),
    )
    still = nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([{"params": [matrix, kernel, still], "weight_decay": 0.1}], lr=0.1)
    optimizer.step()
    torch.testing.assert_close(kernel.flatten(1), matrix)
    assert torch.equal(still, torch.ones(2, 2))  # it has no gradient
    assert optimizer.state[kernel]["momentum"].shape == kernel.shape


def test_an_update_is_as_large_as_one_of_adamw() -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.zeros(64, 128))
    parameter.grad = torch.randn(64, 128) * 1e-4
    Muon([parameter], lr=0.01).step()
    assert parameter.pow(2).mean().sqrt().item() == pytest.approx(0.01 * LIKE_ADAMW, rel=0.2)


def test_it_finds_a_minimum() -> None:
    torch.manual_seed(0)
    goal = torch.randn(6, 10)
    parameter = nn.Parameter(torch.zeros(6, 10))
    optimizer = Muon([parameter], lr=0.1)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        (parameter - goal).pow(2).sum().backward()
        optimizer.step()
    assert (parameter - goal).pow(2).mean() < 1e-2 * goal.pow(2).mean()
