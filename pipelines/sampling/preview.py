"""Pictures on the way: what a step already implies, shown small while the rest is drawn.

On a GPU a small autoencoder decodes it. Elsewhere, and for large ones, a linear map from latents to colours
does, fitted once a base to what its own encoder makes of coloured patches: soft, and free, where decoding
four pictures would take as long as a step. Whoever looks on changes nothing: no random number is drawn, and
no latent is touched. Shapes: B batch, C latent channels, h w latent size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import Tensor

from pipelines.base.backbone import Backbone
from pipelines.base.diffusion import vae_decode
from pipelines.base.noise import Step
from pipelines.progress import Job

SHOWN = 4
SIDE = 128
EVERY = 0.33
SHARE_OF_TIME = 0.05
SMALL = 5_000_000
"""Autoencoders with fewer parameters decode previews themselves where there is a GPU."""
_PICTURES, _PATCHES, _CELLS = 2, 4, 4

View = Callable[[Tensor], Tensor]
"""Clean latents [B, C, h, w] → pictures [B, 3, H, W] in [−1, 1], of any size."""


@dataclass
class _Pace:
    """When one job's previews may be drawn: seldom enough to be read, and never more than their share."""

    began: float
    shown: float = float("-inf")
    spent: float = 0.0
    cost: float = 0.0

    def due(self, now: float) -> bool:
        if now - max(self.shown, self.began) < EVERY:
            return False
        return self.spent + self.cost <= SHARE_OF_TIME * (now - self.began)

    def took(self, begun: float, now: float) -> None:
        self.cost = now - begun
        self.spent += self.cost
        self.shown = now


_VIEWS: WeakKeyDictionary[Backbone, View] = WeakKeyDictionary()
_PACES: WeakKeyDictionary[Job, _Pace] = WeakKeyDictionary()


class Previews:
    """Shows a job's pictures so far, where the job wants previews; else does nothing.

    At most three times a second and, however slow that is, within a twentieth of the job's drawing time.
    """

    def __init__(self, base: Backbone, job: Job, clock: Callable[[], float] = time.perf_counter) -> None:
        self._base, self._job, self._clock = base, job, clock
        self._view: View | None = None
        if job.previews:
            # before the first step, while the autoencoder is not in the network's way
            self._view = view_of(base)
            self._pace = _PACES.setdefault(job, _Pace(clock()))

    def offer(self, step: Step, pred: Tensor) -> None:
        """Show what the prediction [B, C, h, w] of a step implies, if it is time."""
        if self._view is None or not self._pace.due(self._clock()):
            return
        _wait(step.x)
        begun = self._clock()
        z = step.x0(pred)[:SHOWN].float()
        with torch.no_grad():
            pixels = self._view(z.nan_to_num(0.0, 0.0, 0.0))
        self._job.preview(strip([_small(each) for each in pixels]))
        self._pace.took(begun, self._clock())


def view_of(base: Backbone) -> View:
    """The quick way from a base's latents to pictures; made once a base."""
    if base not in _VIEWS:
        small = sum(each.numel() for each in base.vae.parameters()) < SMALL
        _VIEWS[base] = _decoding(base) if small and base.device.type != "cpu" else linear(base)
    return _VIEWS[base]


def linear(base: Backbone) -> View:
    """Colours as an affine map of latents, one pixel a cell, fitted by least squares to the base's encoder.

    The pictures are 4 × 4 patches of random colours, each of 4 × 4 cells, the same for every base.
    """
    factor = base.latent.factor
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(_PICTURES, 3, _PATCHES, _PATCHES, generator=generator) * 2 - 1
    pixels = torch.nn.functional.interpolate(patches, scale_factor=_CELLS * factor)
    z = base.to_latents(pixels.to(base.device)).float().cpu()
    wanted = torch.nn.functional.avg_pool2d(pixels, factor).permute(0, 2, 3, 1).reshape(-1, 3)
    given = _with_one(z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]))
    weights = torch.linalg.lstsq(given.double(), wanted.double()).solution.float()  # [C + 1, 3]

    def view(z: Tensor) -> Tensor:
        rows = _with_one(z.cpu().movedim(1, -1))
        return (rows @ weights).movedim(-1, 1)

    return view


def strip(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size side by side."""
    wide, high = images[0].size
    out = Image.new("RGB", (wide * len(images), high))
    for index, image in enumerate(images):
        out.paste(image, (index * wide, 0))
    return out


def _decoding(base: Backbone) -> View:
    # the view must not keep the base alive under which it is remembered
    vae = base.vae
    return lambda z: vae_decode(vae, z)


def _with_one(rows: Tensor) -> Tensor:
    """[…, C] → […, C + 1], the last of them 1."""
    return torch.cat([rows, torch.ones_like(rows[..., :1])], -1)


def _small(pixels: Tensor) -> Image.Image:
    """[3, H, W] in [−1, 1] → a picture with its long side at SIDE or, decoded, at most there."""
    array = pixels.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(array)
    scale = SIDE / max(image.size)
    width, height = (max(1, round(each * scale)) for each in image.size)
    return image if scale == 1 else image.resize((width, height), Image.Resampling.BILINEAR)


def _wait(x: Tensor) -> None:
    """Let a GPU finish its step, so that the step is not timed as part of the preview."""
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
