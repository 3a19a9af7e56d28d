"""The path of a picture back to its noise: what inversion finds, and what editors tie a new path to.

Shapes: B batch, C latent channels, h w latent size, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.base.backbone import Backbone, Condition
    from pipelines.base.noise import Denoise, Guide, Guided, Step
    from pipelines.progress import Job
    from pipelines.sampling.schedulers import Sampler

Combine = Callable[["Denoise", "Step"], "Tensor"]
"""A guide that combines predictions and leaves the latents alone."""

STOCHASTIC = ("lcm",)
"""Samplers that draw noise on the way: no path leads back along them."""


@dataclass(frozen=True)
class Trajectory:
    """Latents along a sampler's steps, noisiest first.

    `latents[i]`, [B, C, h, w], stands before step `start + i`; the last is the picture itself, so there are
    one more than steps.
    """

    latents: Sequence[Tensor]
    start: int = 0

    @property
    def noisy(self) -> Tensor:
        """Where the way back ended: what sampling from step `start` begins with."""
        return self.latents[0]

    @property
    def clean(self) -> Tensor:
        """The picture's own latents."""
        return self.latents[-1]

    def before(self, index: int) -> Tensor:
        """The latents before step `index` of the sampler."""
        return self.latents[index - self.start]


def mixed(scale: float) -> Combine:
    """A plain guide of scale w over the branches "cond" and "uncond": u + w·(c − u); at 1 only c."""

    def guide(denoise: Denoise, step: Step) -> Tensor:
        if scale == 1:
            return denoise("cond")
        cond, uncond = denoise("cond", "uncond")
        return uncond + scale * (cond - uncond)

    return guide


def invert(  # noqa: PLR0913 (the loop's parts, as in sampling.loop.sample)
    base: Backbone,
    conditions: dict[str, Condition],
    guide: Combine,
    sampler: Sampler,
    z: Tensor,
    job: Job,
    *,
    start: int = 0,
    iterations: int = 0,
) -> Trajectory:
    """Clean latents z [B, C, h, w] → their path back to step `start` along the sampler's (a, b) pairs.

    From the lower of two neighbouring noise levels (l) to the upper (u), with the network asked at the lower
    latents under the upper's timestep:  x_u = a_u·x0 + b_u·ε.  That x_u is where the step down would end up
    in x_l only if the network said the same at x_u; `iterations` rounds of asking there and solving the step
    down for x_u close the gap. Rows for which a round made it wider go back to what they had (the last
    round's answer is taken unasked).
    Raises Cancelled between two steps.
    """
    import torch

    from pipelines.sampling.denoise import Denoiser
    from pipelines.sampling.loop import step_at

    denoise = Denoiser(base, conditions, tuple(conditions))

    def ask(step: Step) -> Tensor:
        denoise.begin(step)
        return guide(denoise, step).float()

    x, path = z.float(), [z.float()]
    with torch.no_grad():
        for index in reversed(range(start, len(sampler))):
            job.check()
            low_a, low_b = sampler.shares[index + 1]
            upper = step_at(base, sampler, index, x)
            lower = replace(upper, a=low_a, b=low_b)
            out = ask(lower)
            x = upper.a * lower.x0(out) + upper.b * lower.eps(out)
            if iterations:
                x = _solve(ask, upper.at(x), path[-1], iterations)
            path.append(x)
            job.report(len(sampler) - index, len(sampler) - start)
    return Trajectory(tuple(reversed(path)), start)


def _solve(ask: Callable[[Step], Tensor], guess: Step, goal: Tensor, iterations: int) -> Tensor:
    """The latents [B, C, h, w] whose step down ends in `goal`, from a guess: x ← (goal − β·out(x)) / α.

    One step down is linear in latents and prediction, α·x + β·out; the base's own space decides both.
    """
    import torch

    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    alpha, beta = (
        (guess.next_a * unit.x0(out) + guess.next_b * unit.eps(out)).item()
        for unit, out in ((guess.at(one), zero), (guess.at(zero), one))
    )
    x = kept = guess.x
    best = torch.full((len(x), 1, 1, 1), float("inf"), device=x.device)
    for _ in range(iterations):
        miss = alpha * x + beta * ask(guess.at(x)) - goal
        error = miss.square().mean((1, 2, 3), keepdim=True)
        better = error < best
        kept, best = torch.where(better, x, kept), torch.where(better, error, best)
        x = torch.where(better, x - miss / alpha, kept)
    return x


def tied(guide: Guide, trajectory: Trajectory, mask: Tensor) -> Guide:
    """The guide with the latents outside `mask` [1, 1, h, w] put back on the trajectory after every step."""
    from pipelines.base.noise import Guided

    def wrapped(denoise: Denoise, step: Step) -> Guided:
        out = guide(denoise, step)
        pred, after = (out.pred, out.after) if isinstance(out, Guided) else (out, None)

        def back(x: Tensor, at: Step) -> Tensor:
            moved = x if after is None else after(x, at)
            return mask * moved + (1 - mask) * trajectory.before(at.index + 1)

        return Guided(pred, back)

    return wrapped


def deterministic(sampler: str) -> None:
    """Raises BadInput for a sampler that no inversion can follow."""
    if sampler in STOCHASTIC:
        raise BadInput(f"{sampler} draws noise on its way: it cannot be inverted.", "Use ddim or euler.")
