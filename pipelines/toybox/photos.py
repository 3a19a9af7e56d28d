"""Crops of the photographs in ``assets/photos``: what the toybox models see of the real world.

Six subjects (DreamBooth dataset, CC BY 4.0; credits in ``assets/photos/README.md``). ``HELD_OUT`` ones are
never trained on: the judge measures with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipelines.artifacts import assets
from pipelines.errors import BadInput, MissingAsset, UnknownName

CLASS_WORDS = {
    "backpack": "backpack",
    "bear_plushie": "stuffed animal",
    "cat": "cat",
    "clock": "clock",
    "dog": "dog",
    "teapot": "teapot",
}
SUBJECTS = tuple(CLASS_WORDS)
HELD_OUT = ("clock", "teapot")

_AREA = (0.25, 1.0)  # share of the photograph's area that a crop covers
_ASPECT = (4 / 5, 5 / 4)
_JITTER = 0.12  # largest change of brightness and contrast, as a factor; half of it for each colour channel


@lru_cache(maxsize=8)
def _photos(name: str) -> tuple[Image.Image, ...]:
    """Every photograph of one subject, decoded once and kept (0.8 MB each)."""
    folder = assets() / "photos" / name
    paths = sorted(folder.glob("*.jpg"))
    if not paths:
        raise MissingAsset(folder / "00.jpg", "Restore assets/photos from the repository.")
    photos = []
    for path in paths:
        try:
            with Image.open(path) as image:
                photos.append(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise BadInput(f"{path} cannot be read as a photograph ({error}).", "Restore it.") from error
    return tuple(photos)


def _crop(rng: np.random.Generator, photo: Image.Image, size: int) -> np.ndarray:
    """One random resized crop, perhaps mirrored. → uint8 [size, size, 3]"""
    area = photo.width * photo.height * rng.uniform(*_AREA)
    aspect = np.exp(rng.uniform(*np.log(_ASPECT)))
    width = min(photo.width, np.sqrt(area * aspect))
    height = min(photo.height, np.sqrt(area / aspect))
    left = rng.uniform(0, photo.width - width)
    top = rng.uniform(0, photo.height - height)
    crop = photo.resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height), reducing_gap=2.0
    )
    pixels = np.asarray(crop)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def _jitter(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Brightness, contrast and white balance, slightly. uint8 [..., 3] → uint8 [..., 3]

    A table of 256 entries a channel: all three changes in one look-up.
    """
    gain = np.exp(rng.uniform(-_JITTER, _JITTER)) * np.exp(rng.uniform(-_JITTER / 2, _JITTER / 2, 3))
    contrast = np.exp(rng.uniform(-_JITTER, _JITTER))
    levels = np.arange(256, dtype=np.float32)[:, None]
    table = np.clip(((levels - 127.5) * contrast + 127.5) * gain + 0.5, 0, 255).astype(np.uint8)  # [256, 3]
    return np.stack([table[:, channel][pixels[..., channel]] for channel in range(3)], axis=-1)


def crops_of(rng: np.random.Generator, names: Sequence[str], size: int = 128) -> np.ndarray:
    """One random crop for each subject name, of any of its photographs. → uint8 [n, size, size, 3]"""
    out = np.empty((len(names), size, size, 3), np.uint8)
    for row, name in enumerate(names):
        photos = _photos(name)
        out[row] = _jitter(rng, _crop(rng, photos[rng.integers(len(photos))], size))
    return out


def photo_crops(
    rng: np.random.Generator,
    n: int,
    size: int = 128,
    subjects: Iterable[str] | None = None,
    exclude: Iterable[str] = HELD_OUT,
) -> np.ndarray:
    """Random resized crops, mirrored half of the time, colours slightly jittered. → uint8 [n, size, size, 3]

    Drawn from ``subjects`` (default: all) less ``exclude`` (default: the held-out ones), each subject equally
    often. The same generator state gives the same crops.
    """
    kept = training_subjects(subjects, exclude)
    return crops_of(rng, [kept[i] for i in rng.integers(len(kept), size=n)], size)


def training_subjects(
    subjects: Iterable[str] | None = None, exclude: Iterable[str] = HELD_OUT
) -> tuple[str, ...]:
    """The subjects that may be trained on, in a fixed order."""
    wanted = SUBJECTS if subjects is None else tuple(subjects)
    without = set(exclude)
    for name in (*wanted, *without):
        if name not in CLASS_WORDS:
            raise UnknownName("photographed subject", name, SUBJECTS)
    kept = tuple(name for name in wanted if name not in without)
    if not kept:
        raise BadInput("No subject is left to crop photographs of.", "Exclude fewer subjects.")
    return kept


@lru_cache(maxsize=16)
def subject_photos(name: str, size: int = 128) -> np.ndarray:
    """The centre square of every photograph of one subject. → uint8 [n, size, size, 3], read-only"""
    training_subjects((name,), ())
    squares = []
    for photo in _photos(name):
        side = min(photo.size)
        left, top = (photo.width - side) / 2, (photo.height - side) / 2
        box = (left, top, left + side, top + side)
        squares.append(np.asarray(photo.resize((size, size), Image.Resampling.LANCZOS, box=box)))
    stack = np.stack(squares)
    stack.setflags(write=False)
    return stack
