"""What the judge's classifiers learn from: rendered pictures of training-split scenes, roughened a little.

Scenes draw rarer attributes more often than the world does. Part of the pictures go through the judged
autoencoder once; all are bent, tinted, softened and given some grain whenever they are seen, so that the
classifiers do not take a generated picture's softness for content.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.artifacts import atomic_write
from pipelines.progress import Job
from pipelines.toybox.draw import round_trip, to_pixels
from pipelines.toybox.judge.reader import cut, whole
from pipelines.toybox.stages.encoders import PAGE, Pages, Prefetch
from pipelines.toybox.world import ACCESSORIES, ACCESSORY_COLOURS, ANIMALS, KINDS, STYLES, Scene, sample_scene
from pipelines.toybox.world.labels import SUBJECT_HEADS, frames, labels

_SHIFT = 0.08  # spread of a crop's centre, in half sides; _ZOOM that of the logarithm of its size
_ZOOM = 0.1


def training_scene(number: int) -> Scene:
    """The training-split scene of a number."""
    rng = Random(f"judge/{number}")
    style = rng.choice(STYLES) if rng.random() < 0.5 else None
    share = rng.random()
    if share < 0.05:
        return sample_scene(number, n_subjects=0, style=style)
    if share < 0.40:
        return sample_scene(number, n_subjects=2, style=style)
    if share < 0.52:
        worn = accessories(rng) if rng.random() < 0.3 else ()
        return sample_scene(number, n_subjects=1, kind="person", style=style, accessories=worn)
    kind = rng.choice(KINDS[:-1])
    worn = accessories(rng) if kind in ANIMALS and rng.random() < 0.7 else ()
    return sample_scene(number, n_subjects=1, kind=kind, style=style, accessories=worn)


def accessories(rng: Random) -> tuple[tuple[str, str], ...]:
    """One accessory, sometimes two, each in a random colour."""
    items = rng.sample(ACCESSORIES, 2 if rng.random() < 0.25 else 1)
    return tuple((item, rng.choice(ACCESSORY_COLOURS)) for item in ACCESSORIES if item in items)


@dataclass(frozen=True)
class Batch:
    """One step: whole pictures [B,3,64,64] and subjects' squares [R,3,64,64], with their truth."""

    whole: Tensor
    scene_truth: dict[str, Tensor]  # [B] by head
    frames: Tensor  # [B,SLOTS,3]
    squares: Tensor
    subject_truth: dict[str, Tensor]  # [R] by head


class Pictures:
    """The pool of rendered pictures, kept on disk while the training lasts, and batches drawn from it."""

    def __init__(self, folder: Path, pages: int, soft_pages: int, seed: int) -> None:
        self.pages, self.soft_pages, self.seed, self.folder = pages, soft_pages, seed, folder
        self._plain = Pages(folder / "plain", lambda page: [training_scene(n) for n in self._numbers(page)])
        self._soft: list[np.ndarray] = []
        self._scenes: list[Scene] = []
        self._ahead = Prefetch(self._make)

    def _numbers(self, page: int) -> range:
        first = self.seed * 10_000_019 + page * PAGE
        return range(first, first + PAGE)

    def prepare(self, vae: nn.Module | None, job: Job) -> None:
        """Render what is not on disk yet; the first `soft_pages` pages go through the autoencoder too."""
        total = self.pages + self.soft_pages
        for page in range(self.pages):
            job.check()
            _ = self._plain[page]
            job.report(page + 1, total, pictures=(page + 1) * PAGE)
        for page in range(self.soft_pages):
            path = self.folder / f"soft-{page:03d}.npy"
            if not path.is_file():
                pictures = softened(self._plain[page][0], vae, job)
                atomic_write(path, lambda temporary, pictures=pictures: np.save(temporary, pictures))
            self._soft.append(np.load(path, mmap_mode="r"))
            job.report(self.pages + page + 1, total)
        scenes = [training_scene(n) for page in range(self.pages) for n in self._numbers(page)]
        self._scenes = scenes
        self._truth = {head: torch.from_numpy(each) for head, each in labels(scenes).items()}
        self._frames = torch.from_numpy(frames(scenes))

    def batch(self, step: int, size: int) -> Batch:
        """The batch of a step: a pure function of (seed, step, size)."""
        self._size = size
        return self._ahead(step)

    def close(self) -> None:
        """Let go of the thread that makes batches."""
        self._ahead.close()

    def _make(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        # a softened copy stands beside its plain one, so soft pages are simply extra pages to draw from
        rows = rng.integers(0, (self.pages + len(self._soft)) * PAGE, self._size)
        pages, within = np.divmod(rows, PAGE)
        stores = [
            self._plain[page][0] if page < self.pages else self._soft[page - self.pages] for page in pages
        ]
        images = np.stack([store[row] for store, row in zip(stores, within, strict=True)])
        scene_rows = torch.from_numpy(np.where(pages < self.pages, rows, rows - self.pages * PAGE))
        dice = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        return compose(
            to_pixels(images),
            {h: t[scene_rows] for h, t in self._truth.items()},
            self._frames[scene_rows],
            dice,
        )


def softened(images: np.ndarray, vae: nn.Module | None, job: Job | None = None) -> np.ndarray:
    """Pictures through the judged autoencoder and back; without one, through half the size and back."""
    if vae is not None:
        return round_trip(vae, images, job, exact=False)
    pixels = F.interpolate(F.avg_pool2d(to_pixels(images), 2), scale_factor=2.0, mode="bilinear")
    return pixels.add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def compose(pixels: Tensor, truth: dict[str, Tensor], where: Tensor, dice: torch.Generator) -> Batch:
    """Pictures [B,3,H,W] with their truth → a batch, roughened by the dice."""
    flip = torch.rand(len(pixels), generator=dice) < 0.5
    mirrored = where.clone()
    mirrored[..., 0] = torch.where(where[..., 2] > 0, 1 - where[..., 0], where[..., 0])
    both = flip & (where[:, 1, 2] > 0)  # in the mirror, left and right change places
    mirrored[both] = mirrored[both].flip(1)
    seen = torch.where(flip[:, None, None], mirrored, where)
    wholes = whole(pixels)
    wholes = torch.where(flip[:, None, None, None], wholes.flip(-1), wholes)
    row, slot = torch.nonzero(where[..., 2] > 0, as_tuple=True)
    frame = where[row, slot].clone()
    half = frame[:, 2:].clone()
    frame[:, :2] += _SHIFT * half * torch.randn(len(row), 2, generator=dice)
    frame[:, 2:] *= torch.exp(_ZOOM * torch.randn(len(row), 1, generator=dice))
    frame[:, 2:] *= torch.randint(0, 2, (len(row), 1), generator=dice) * 2 - 1  # a negative side mirrors
    pull = (
        0.03 * torch.randn(len(row), 2, 5, 5, generator=dice) * torch.rand(len(row), 1, 1, 1, generator=dice)
    )
    return Batch(
        whole=roughened(wholes, dice),
        scene_truth={head: each for head, each in truth.items() if head not in SUBJECT_HEADS},
        frames=seen,
        squares=roughened(cut(pixels[row], frame, pull), dice),
        subject_truth={head: truth[head][row, slot] for head in SUBJECT_HEADS},
    )


def roughened(pixels: Tensor, dice: torch.Generator) -> Tensor:
    """Other contrast, saturation and tint, perhaps softer, some grain: [R,3,h,w] in [-1,1] → the same."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(len(pixels), *shape, generator=dice) * (high - low) + low

    grey = pixels.mean(1, keepdim=True)
    pixels = grey + (pixels - grey) * uniform(0.85, 1.2, 1, 1, 1)
    middle = pixels.mean((1, 2, 3), keepdim=True)
    pixels = middle + (pixels - middle) * uniform(0.88, 1.15, 1, 1, 1) + uniform(-0.06, 0.06, 3, 1, 1)
    soft = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pixels = pixels + (soft - pixels) * uniform(-1, 1, 1, 1, 1).clamp_min(0)
    pixels = pixels + torch.randn(pixels.shape, generator=dice) * uniform(0, 0.04, 1, 1, 1)
    return pixels.clamp(-1, 1)
