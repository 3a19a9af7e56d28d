"""What an editing method is: a config whose `edit` turns one picture into others, and what stands around it.

Sizes are in pixels. Outside a mask the result is the input bit for bit, whatever the method: no autoencoder
gives a pixel back unchanged, so the masked result is laid over the input at the very end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageFilter, ImageOps

from pipelines.base.needs import require
from pipelines.errors import BadInput
from pipelines.spec import Config, knob

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone, Condition
    from pipelines.base.noise import Guides
    from pipelines.progress import Job

EXACT = 99.0
"""The PSNR, in dB, of two equal pictures: infinity is no number in JSON."""


@dataclass(frozen=True)
class EditRequest:
    """One picture and what to make of it: a result for every (prompt, seed) pair.

    `source` says what the picture shows now. `mask` is white where the change may happen. Without `width`
    and `height` the picture keeps its shape at the base's native area.
    """

    image: Image.Image
    prompts: Sequence[str]
    seeds: Sequence[int]
    source: str = ""
    negative: str = ""
    steps: int = 50
    sampler: str = "ddim"
    width: int | None = None
    height: int | None = None
    mask: Image.Image | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict[str, "Condition"])
    """Conditions that replace those made from the prompts, as in `sampling.generate.Request`."""


@dataclass(frozen=True)
class Edited:
    """The results in the order of the prompts, remarks in words, and figures by name."""

    images: list[Image.Image]
    notes: tuple[str, ...] = ()
    readings: dict[str, float] = field(default_factory=dict[str, float])


class EditMethod(Config):
    """A method defines `edit`; `run` fits the picture to the base before, and lays the result over after."""

    feather: float = knob(
        4.0,
        0,
        64,
        "How softly a masked edit begins, inside its mask. Raise it when the seam shows; 0 cuts hard.",
        unit="px",
    )

    def run(self, base: Backbone, request: EditRequest, guidance: Guides, job: Job) -> Edited:
        """Edit. Raises BadInput for a request that contradicts itself, NotAvailable where the base lacks
        what the method needs, and Cancelled between two steps.
        """
        self._check(base, request)
        fitted = fit(base, request)
        edited = self.edit(base, fitted, guidance, job)
        if fitted.mask is None:
            return edited
        outside = ImageChops.invert(_binary(fitted.mask))
        drift = sum(psnr(each, fitted.image, outside) for each in edited.images) / len(edited.images)
        images = [paste(fitted.image, each, fitted.mask, self.feather) for each in edited.images]
        readings = edited.readings | {"outside_psnr_before_paste": round(drift, 2)}
        return Edited(images, edited.notes, readings)

    def edit(self, base: Backbone, request: EditRequest, guidance: Guides, job: Job) -> Edited:
        """The method itself, on a picture and mask that already have the size to draw in."""
        raise NotImplementedError

    def _check(self, base: Backbone, request: EditRequest) -> None:
        require(self.title, self.needs, base)
        if len(request.prompts) != len(request.seeds) or not request.prompts:
            raise BadInput("Prompts and seeds do not pair up.", "Give one seed for every prompt.")
        mask = request.mask
        if mask is None:
            return
        ratios = [each.width / each.height for each in (mask, request.image)]
        if abs(ratios[0] / ratios[1] - 1) > 0.02:
            raise BadInput(
                f"The mask is {mask.width}×{mask.height}, the picture {request.image.width}×"
                f"{request.image.height}: they do not cover each other.",
                "Paint the mask on the picture itself.",
            )
        if _binary(mask).getbbox() is None:
            raise BadInput("The mask is black throughout: nothing may change.", "Paint the place white.")


def fit(base: Backbone, request: EditRequest) -> EditRequest:
    """The request with picture and mask in the size to draw in, cropped about the middle."""
    size = drawing_size(base, request)
    image = request.image.convert("RGB")
    mask = request.mask
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if mask is not None:
        mask = _binary(mask)
        if mask.size != size:
            mask = _binary(ImageOps.fit(mask, size, Image.Resampling.BILINEAR))
    return replace(request, image=image, mask=mask, width=size[0], height=size[1])


def drawing_size(base: Backbone, request: EditRequest) -> tuple[int, int]:
    """Width and height asked for, else the picture's shape at the base's native area, in its multiples."""
    if request.width and request.height:
        return request.width, request.height
    wide, high = request.image.size
    if request.width or request.height:
        scale = request.width / wide if request.width else (request.height or 0) / high
    else:
        scale = base.latent.size / math.sqrt(wide * high)
    step = base.latent.multiple
    width, height = (max(step, round(each * scale / step) * step) for each in (wide, high))
    return request.width or width, request.height or height


def paste(source: Image.Image, edit: Image.Image, mask: Image.Image, feather: float) -> Image.Image:
    """The edit inside the mask, the source bit for bit outside, over `feather` pixels inside its edge."""
    mask = _binary(mask)
    if feather:
        # a blurred edge stands at half on the mask's own border: stretched, it rises from 0 there
        soft = mask.filter(ImageFilter.GaussianBlur(feather / 2)).point(
            [max(0, 2 * i - 255) for i in range(256)]
        )
        mask = ImageChops.darker(mask, soft)
    return Image.composite(edit, source, mask)


def psnr(one: Image.Image, other: Image.Image, where: Image.Image | None = None) -> float:
    """Peak signal-to-noise ratio in dB, over the white part of `where` if given; EXACT for equal pictures."""
    squares = [value * value for value in range(256)]
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    counts = difference.histogram(where) if where is not None else difference.histogram()
    total = sum(counts)
    error = sum(count * squares[index % 256] for index, count in enumerate(counts))
    return min(EXACT, 10 * math.log10(255**2 * total / error)) if error else EXACT


def _binary(mask: Image.Image) -> Image.Image:
    return mask.convert("L").point([0] * 128 + [255] * 128)
