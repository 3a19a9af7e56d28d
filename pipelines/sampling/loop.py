"""The loop: from noise, or from a noised picture, to clean latents along a scheduler's steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.base.backbone import Backbone, Condition
from pipelines.base.noise import Guide, Guided, Step
from pipelines.errors import BadInput
from pipelines.progress import Job
from pipelines.sampling.denoise import Denoiser
from pipelines.sampling.preview import Previews
from pipelines.sampling.schedulers import Sampler, begin, noised


@dataclass(frozen=True)
class Keep:
    """What must stay: where `mask` [B, 1, h, w] is 0 the latents follow `clean` [B, C, h, w] with `noise`."""

    mask: Tensor
    clean: Tensor
    noise: Tensor


def sample(  # noqa: PLR0913 (the loop's parts, each a separate choice)
    base: Backbone,
    conditions: Mapping[str, Condition],
    guide: Guide,
    sampler: Sampler,
    x: Tensor,
    job: Job,
    *,
    start: int = 0,
    branches: Sequence[str] = (),
    keep: Keep | None = None,
    generators: Sequence[torch.Generator] | None = None,
    denoiser: Denoiser | None = None,
) -> Tensor:
    """Latents x [B, C, h, w] as they stand before step `start` → clean latents.

    `branches` are those that the guide declares; the loop forwards them in one batch. `generators`, one an
    image, feed samplers that add noise. A job that wants previews gets some. Cancels between two steps.
    Raises Cancelled.
    """
    denoise = denoiser or Denoiser(base, conditions, branches)
    previews = Previews(base, job)
    begin(sampler, start)
    count = len(sampler)
    with torch.no_grad():
        for index in range(start, count):
            job.check()
            step = step_at(base, sampler, index, x)
            denoise.begin(step)
            guided = guide(denoise, step)
            pred = guided.pred if isinstance(guided, Guided) else guided
            x = advance(sampler, step, pred, generators)
            if isinstance(guided, Guided) and guided.after is not None:
                x = guided.after(x, step)
            if keep is not None:
                clean = noised(sampler, index + 1, keep.clean, keep.noise)
                x = keep.mask * x + (1 - keep.mask) * clean
            job.report(index + 1 - start, count - start)
            previews.offer(step, pred)
    return x


def step_at(base: Backbone, sampler: Sampler, index: int, x: Tensor) -> Step:
    """The Step of an index for latents x."""
    a, b = sampler.shares[index]
    next_a, next_b = sampler.shares[index + 1]
    t = sampler.timesteps[index].to(x.device).expand(len(x))
    return Step(index, len(sampler), t, a, b, x, base.predicts, next_a, next_b)


def advance(
    sampler: Sampler, step: Step, pred: Tensor, generators: Sequence[torch.Generator] | None = None
) -> Tensor:
    """One step of the scheduler, in float32: what is left of a picture at the first steps is small.

    Raises BadInput for a sampler that adds noise and has no generators: the picture could not be repeated.
    """
    extra: dict[str, Any] = {"eta": sampler.eta} if sampler.eta else {}
    if sampler.draws:
        if generators is None:
            raise BadInput(
                "This sampler adds noise on the way, and nothing says from which seeds.",
                "Use one that adds none: ddim without eta, euler, dpmpp_2m or unipc.",
            )
        extra["generator"] = list(generators)
    moved = sampler.scheduler.step(
        pred.float(), sampler.timesteps[step.index], step.x.float(), return_dict=False, **extra
    )
    return moved[0].to(step.x.dtype)
