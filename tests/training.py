"""What tests of training share: photos, and a tiny base of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.base.backbone import Backbone
from pipelines.base.loading import open_base
from pipelines.concepts._base import Concept
from pipelines.data import dataset
from pipelines.data.dataset import Dataset
from pipelines.jobs.kinds import PhotoSet
from pipelines.progress import Event, Job
from pipelines.spec import read
from tests import bases, tiny

PHOTOS = PhotoSet(photos="photos", token="sks", class_word="dog")  # noqa: S106 (a word)
SMALL = {"steps": 4, "batch": 2, "learning_rate": 1e-2, "prior_weight": 0.0}


def base_of(kind: str, folder: Path) -> Backbone:
    """A fresh tiny base: "unet" or "dit"."""
    if kind == "unet":
        return bases.make("unet-eps")
    return open_base(str(tiny.sd3(folder / "sd3", t5=False)), "cpu")


def concept(method: str, **settings: Any) -> Concept:
    """A method with settings for seconds."""
    return cast("Concept", read("concepts", {"method": method, **SMALL, **settings}))


def photos(folder: Path, sizes: list[tuple[int, int]]) -> list[Path]:
    """Photos of noise, the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, (width, height) in enumerate(sizes):
        noise = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        paths.append(folder / f"{index}.png")
        Image.fromarray(noise).save(paths[-1])
    return paths


def data_of(base: Backbone, folder: Path, method: Concept, photo_set: PhotoSet = PHOTOS) -> Dataset:
    """Three square photos as the method wants them, and class pictures of grey noise where it wants some."""
    size = base.latent.size
    paths = photos(folder / "photos", [(size, size)] * 3)

    def draw(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        return [Image.new("RGB", (size, size), (40 * seed % 255, 99, 17)) for seed in seeds]

    return dataset.build(base, paths, photo_set, method, Job(), draw=draw, priors=folder / "priors")


def forward(base: Backbone, prompt: str = "a photo of sks dog") -> Tensor:
    """One prediction."""
    generator = torch.Generator().manual_seed(9)
    cells = base.latent.size // base.latent.factor
    x = torch.randn(1, base.latent.channels, cells, cells, generator=generator)
    with torch.no_grad():
        return base.predict(x, torch.full((1,), 400), base.encode([prompt]))


class StopAt:
    """Cancels a job once a step was reported."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.job = Job(self)

    def __call__(self, event: Event) -> None:
        if event.kind == "report" and event.step == self.step:
            self.job.cancel()
