"""Prompts → pictures: seeds, batches that fit, image-to-image and masked starts, decoding.

Shapes: B batch, C latent channels, h w latent size, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.base.backbone import Backbone, Condition
from pipelines.base.noise import Guide, Guides
from pipelines.errors import BadInput
from pipelines.progress import Job
from pipelines.sampling import schedulers
from pipelines.sampling.loop import Keep, sample

BATCH = 8


@dataclass(frozen=True)
class Request:
    """What to draw. One picture for every (prompt, seed) pair, `prompts` and `seeds` of equal length.

    `start` is a picture to begin from, `strength` (0–1) how much of the way is walked again; `mask` (white:
    draw anew) keeps the rest of it.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    negative: str = ""
    steps: int = 20
    sampler: str = "ddim"
    width: int | None = None
    height: int | None = None
    start: Image.Image | None = None
    strength: float = 0.6
    mask: Image.Image | None = None
    batch: int = BATCH
    conditions: Mapping[str, Condition] = field(default_factory=dict[str, Condition])
    """Conditions that replace or join "cond" and "uncond", for methods that make their own."""


def generate(
    base: Backbone, request: Request, guidance: Guides, job: Job, guide: Guide | None = None
) -> list[Image.Image]:
    """Draw the request. Picture i of a batch equals the same seed drawn alone, to rounding.

    Raises BadInput for a size that the base cannot draw, and what the guide raises.
    """
    if len(request.prompts) != len(request.seeds):
        raise BadInput("There are not as many seeds as prompts.", "Give one seed for every picture.")
    width, height = size_of(base, request)
    if note := schedulers.advice(base, request.sampler):
        job.note(note)
    pictures: list[Image.Image] = []
    for rows in _split(len(request.prompts), request.batch):
        z = _draw(base, request, guidance, guide, job, rows, (width, height))
        pictures += to_images(base.to_pixels(z))
    return pictures


def size_of(base: Backbone, request: Request) -> tuple[int, int]:
    """Width and height in pixels. Raises BadInput where the base cannot draw them."""
    width = request.width or base.latent.size
    height = request.height or base.latent.size
    step = base.latent.multiple
    if width % step or height % step or min(width, height) < step:
        near = [max(step, round(each / step) * step) for each in (width, height)]
        raise BadInput(
            f"{base.name} cannot draw {width}×{height} pixels.",
            f"Width and height must be multiples of {step}, for example {near[0]}×{near[1]}.",
        )
    return width, height


def _split(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, max(1, size)):
        yield slice(start, min(count, start + max(1, size)))


@torch.no_grad()
def _draw(
    base: Backbone,
    request: Request,
    guidance: Guides,
    guide: Guide | None,
    job: Job,
    rows: slice,
    size: tuple[int, int],
) -> Tensor:
    width, height = size
    sampler = schedulers.make(base, request.sampler, request.steps)
    generators = [schedulers.seeded(seed) for seed in request.seeds[rows]]
    noise = noise_for(base, generators, width, height)
    conditions = conditions_for(base, request, guidance, rows)
    start, keep = 0, None
    if request.start is None:
        x = schedulers.initial(sampler, noise)
    else:
        z = base.to_latents(to_pixels(request.start, width, height)).expand(len(noise), -1, -1, -1)
        start = schedulers.start_index(sampler, request.strength)
        x = schedulers.noised(sampler, start, z, noise)
        if request.mask is not None:
            keep = Keep(mask_for(base, request.mask, width, height).to(x), z, noise)
    return sample(
        base,
        conditions,
        guide or guidance.start(base),
        sampler,
        x,
        job,
        start=start,
        branches=guidance.branches(),
        keep=keep,
        generators=generators,
    )


def conditions_for(base: Backbone, request: Request, guidance: Guides, rows: slice) -> dict[str, Condition]:
    """The conditions that the guide's branches need, one row a picture."""
    conditions: dict[str, Condition] = {}
    wanted = {*guidance.branches(), "cond"} - request.conditions.keys()
    if "cond" in wanted:
        prompts = list(request.prompts[rows])
        different = list(dict.fromkeys(prompts))
        states = base.encode(different)
        conditions["cond"] = states[[different.index(each) for each in prompts]]
    if "negative" in wanted:
        conditions["negative"] = base.encode([request.negative])
    if "uncond" in wanted:
        # methods that know a branch of its own for the negative prompt keep the empty text as their baseline
        text = "" if "negative" in guidance.branches() else request.negative
        conditions["uncond"] = base.encode([text])
    return conditions | dict(request.conditions)


def noise_for(base: Backbone, generators: Sequence[torch.Generator], width: int, height: int) -> Tensor:
    """Noise [B, C, h, w], each picture's from its own generator, whatever the batch."""
    shape = (1, base.latent.channels, height // base.latent.factor, width // base.latent.factor)
    noise = torch.cat([torch.randn(shape, generator=each) for each in generators])
    return noise.to(base.device)


def to_pixels(image: Image.Image, width: int, height: int) -> Tensor:
    """A picture, scaled and cropped about its middle → [1, 3, H, W] in [−1, 1]."""
    array = np.asarray(_fit(image.convert("RGB"), width, height), dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1)[None] / 127.5 - 1


def mask_for(base: Backbone, mask: Image.Image, width: int, height: int) -> Tensor:
    """A mask in latent cells, [1, 1, h, w]: 1 where anything of it is white."""
    array = np.asarray(_fit(mask.convert("L"), width, height), dtype=np.float32) / 255
    return torch.nn.functional.max_pool2d(torch.from_numpy(array)[None, None], base.latent.factor).round()


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    from PIL import ImageOps

    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def to_images(pixels: Tensor) -> list[Image.Image]:
    """[B, 3, H, W] in [−1, 1] → pictures."""
    array: Any = pixels.float().clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1)
    return [Image.fromarray(each) for each in array.cpu().numpy()]
