"""Photos → what a training reads: latents, made once, and captions.

Shapes: C latent channels, h w latent size, H W pixels, V views of a picture: 1, or 2 with its mirror image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pipelines.data import buckets
from pipelines.data.cache import Draw, Wanted, drawn
from pipelines.data.captions import captions_of, class_captions
from pipelines.data.crops import open_cropped
from pipelines.data.opening import list_photos, open_photo
from pipelines.errors import BadInput, BrokenWeights
from pipelines.jobs import workspace

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone
    from pipelines.jobs.kinds import PhotoSet
    from pipelines.progress import Job


class Needs(Protocol):
    """What a training method says about its data; every `Concept` does."""

    @property
    def resolution(self) -> int | None:
        """Training size in pixels; None: the base's own."""
        ...

    @property
    def prior_weight(self) -> float:
        """0: no class pictures are needed."""
        ...

    @property
    def prior_images(self) -> int:
        """How many class pictures to draw."""
        ...

    @property
    def prior_folder(self) -> str:
        """A folder of class pictures to take instead; "" for none."""
        ...

    def templates(self, data: PhotoSet) -> tuple[str, ...]:
        """Captions of photos that bring none."""
        ...

    def trigger(self, data: PhotoSet) -> str:
        """The words that call the concept."""
        ...


@dataclass(frozen=True)
class Example:
    """One picture: its views in latent space [V, C, h, w], and the captions it may be shown under."""

    name: str
    latents: Tensor
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """The subject's photos, and pictures of its class (none without prior preservation)."""

    photos: tuple[Example, ...]
    priors: tuple[Example, ...] = ()

    def captions(self) -> list[str]:
        """Every caption there is, each once."""
        return list(dict.fromkeys(text for each in (*self.photos, *self.priors) for text in each.captions))

    def key(self) -> str:
        """A hash of all latents and captions: a training may only go on with the data it began with."""
        digest = hashlib.sha256()
        for each in (*self.photos, *self.priors):
            digest.update(repr((tuple(each.latents.shape), each.captions)).encode())
            digest.update(each.latents.float().cpu().numpy().tobytes())
        return digest.hexdigest()[:24]


def build(  # noqa: PLR0913 (each is given by the caller alone)
    base: Backbone,
    photos: Sequence[Path],
    data: PhotoSet,
    needs: Needs,
    job: Job,
    *,
    draw: Draw | None = None,
    settings: str = "",
    priors: Path | None = None,
) -> Dataset:
    """Encode the photos, and class pictures where `needs.prior_weight` > 0.

    Class pictures come from `needs.prior_folder`, else `draw` makes them once; `settings` says how it draws
    (guidance, steps), and `priors` is the folder that keeps them, in place of the user's cache.
    Raises BadInput for no photos or no way to class pictures, BrokenWeights where latents are not finite.
    """
    if not photos:
        raise BadInput("There are no photos to train on.", "Add a few sharp photos of the subject.")
    resolution = needs.resolution or base.latent.size
    templates, trigger = needs.templates(data), needs.trigger(data)
    examples = [
        Example(
            path.name,
            encode(base, open_cropped(path, data.crops), resolution, data, job),
            captions_of(path, data, templates, trigger),
        )
        for path in photos
    ]
    if not needs.prior_weight:
        return Dataset(tuple(examples))
    own = class_captions(data, templates)
    if needs.prior_folder:
        paths = list_photos(workspace.resolve(needs.prior_folder))
    elif draw is not None:
        size = buckets.square(resolution, base.latent.multiple)
        paths = drawn(base, Wanted(own, needs.prior_images, size, settings), draw, job, priors)
    else:
        raise BadInput(
            "Prior preservation needs class pictures, and nothing here can draw them.",
            "Set prior_folder to a folder of them, or prior_weight to 0.",
        )
    class_pictures = [
        Example(
            path.name,
            encode(base, open_photo(path), resolution, data, job),
            own
            if needs.prior_folder
            else (own[index % len(own)],),  # a drawn one has the caption it was drawn from
        )
        for index, path in enumerate(paths)
    ]
    return Dataset(tuple(examples), tuple(class_pictures))


def encode(base: Backbone, image: Image.Image, resolution: int, data: PhotoSet, job: Job) -> Tensor:
    """A photo's latents [V, C, h, w] in float32, cropped about its middle to a square, or to its bucket.

    Raises BrokenWeights where the autoencoder gives numbers that are not finite, Cancelled.
    """
    job.check()
    multiple = base.latent.multiple
    if data.focus:
        size = buckets.square(resolution, multiple)
    else:
        size = buckets.bucket(image.width, image.height, resolution, multiple)
    fitted = ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS)
    array = np.array(fitted, dtype=np.float32)
    pixels = torch.from_numpy(array).permute(2, 0, 1)[None] / 127.5 - 1
    views = [pixels, pixels.flip(-1)] if data.flip else [pixels]
    latents = torch.cat([base.to_latents(each.contiguous()) for each in views]).float()
    if not bool(latents.isfinite().all()):
        raise BrokenWeights(
            base.name,
            "its autoencoder gives numbers that are not finite",
            "Load the base in float32 or bfloat16: some autoencoders overflow in float16.",
        )
    return latents
