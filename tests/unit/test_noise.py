"""One step of the integration: every conversion undoes another, whatever a² + b² is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipelines.base.noise import Predicts, Step, target

# variance-preserving, Euler's a = 1 (two noise levels), flow, and what none of them has
PAIRS = {
    "eps": [(0.6, 0.8), (1.0, 14.6), (1.0, 0.03), (0.0225, 0.99975)],
    "v": [(0.6, 0.8), (1.0, 14.6), (1.0, 0.03), (0.0, 1.0), (0.3, 0.5)],
    "flow": [(0.3, 0.7), (0.97, 0.03), (0.0, 1.0), (0.6, 0.8)],
}
CASES = [(predicts, a, b) for predicts, pairs in PAIRS.items() for a, b in pairs]
every = pytest.mark.parametrize(("predicts", "a", "b"), CASES)


def normal(seed: int) -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def known(predicts: Predicts, a: float, b: float) -> tuple[Step, Tensor, Tensor, Tensor]:
    """A step whose picture and noise are known, and the perfect prediction there."""
    x0, eps = normal(1), normal(2)
    step = Step(1, 4, torch.full((2,), 500), a, b, a * x0 + b * eps, predicts)
    spread = (a * a + b * b) ** 0.5
    out = {"eps": eps, "v": a / spread * eps - b / spread * x0, "flow": eps - x0}[predicts]
    return step, x0, eps, out


@every
def test_a_perfect_prediction_gives_picture_and_noise(predicts: Predicts, a: float, b: float) -> None:
    step, x0, eps, out = known(predicts, a, b)
    assert torch.allclose(step.x0(out), x0)
    assert torch.allclose(step.eps(out), eps)


@every
def test_any_prediction_recombines_to_the_latents(predicts: Predicts, a: float, b: float) -> None:
    step, *_ = known(predicts, a, b)
    out = normal(3)
    assert torch.allclose(a * step.x0(out) + b * step.eps(out), step.x)


@every
def test_outputs_are_the_inverse(predicts: Predicts, a: float, b: float) -> None:
    step, *_ = known(predicts, a, b)
    out = normal(3)
    assert torch.allclose(step.output(x0=step.x0(out)), out)
    if a or predicts == "eps":  # noise alone does not tell the picture from the latents
        assert torch.allclose(step.output(eps=step.eps(out)), out)
    with pytest.raises(ValueError, match="x0 or eps"):
        step.output()
    with pytest.raises(ValueError, match="x0 or eps"):
        step.output(x0=out, eps=out)


@every
def test_velocities_are_those_of_the_paper_and_convert_back(predicts: Predicts, a: float, b: float) -> None:
    step, x0, eps, out = known(predicts, a, b)
    spread = (a * a + b * b) ** 0.5
    wanted = eps - x0 if predicts == "flow" else a / spread * eps - b / spread * x0
    assert torch.allclose(step.velocity(out), wanted)
    assert torch.allclose(step.from_velocity(step.velocity(normal(3))), normal(3))


@every
def test_another_x_converts_with_that_x(predicts: Predicts, a: float, b: float) -> None:
    step, x0, _, out = known(predicts, a, b)
    moved = step.at(step.x + b * normal(4))
    assert (moved.a, moved.b, moved.index) == (a, b, 1)
    assert torch.allclose(a * moved.x0(out) + b * moved.eps(out), moved.x)
    # one of the two moves with x: both where the base predicts a mixture of them
    assert predicts == "eps" or not torch.allclose(moved.eps(out), step.eps(out))
    assert a == 0 or not torch.allclose(moved.x0(out), x0)


@pytest.mark.parametrize("predicts", ["eps", "v", "flow"])
def test_training_targets_are_perfect_predictions(predicts: Predicts) -> None:
    a, b = (0.3, 0.7) if predicts == "flow" else (0.6, 0.8)
    _, x0, eps, out = known(predicts, a, b)
    shares = [torch.full((2, 1, 1, 1), each, dtype=torch.float64) for each in (a, b)]
    assert torch.allclose(target(predicts, x0, eps, *shares), out)


def test_sigma_is_the_ratio_of_noise_to_picture() -> None:
    assert Step(0, 1, torch.zeros(1), 0.5, 1.0, normal(1)).sigma == 2
    assert Step(0, 1, torch.zeros(1), 0.0, 1.0, normal(1)).sigma == float("inf")
