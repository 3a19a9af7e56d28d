"""Pictures from the outside world, opened safely: whatever a camera, a phone or a browser left in a folder.

Photographs come out upright, in sRGB, 8 bits a channel, on white where they were transparent. Nothing is
decoded before its size is known. No torch here.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from pipelines.errors import BadInput, LikenessError, MissingAsset

MAX_PIXELS = 2 * 89_478_485  # as Pillow refuses by itself: a quarter of a gibibyte at 3 bytes, twice
MAX_PHOTOS = 5000
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".heic", ".heif", ".avif", ".tif",
    ".tiff", ".bmp", ".gif", ".jp2", ".ppm", ".pgm",
})  # fmt: skip
# by content, whatever the name says; formats that run programs or describe drawings (EPS, WMF) are left out
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "HEIF", "AVIF", "TIFF", "BMP", "GIF", "JPEG2000", "PPM")
_KINDS = "JPEG, PNG, WebP, HEIC, AVIF, TIFF, BMP or GIF"


def open_photo(path: Path | str) -> Image.Image:
    """One picture as upright RGB, the first frame if it moves.

    Raises MissingAsset without a file, BadInput for one that is no picture, is damaged, or has more than
    179 million pixels (told from its header, before anything is decoded).
    """
    with quiet():
        return load(Path(path))[0]


def load(path: Path, near: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The picture as `open_photo` gives it, and the size (width, height) that its file has, upright.

    With `near`, a JPEG may come at a half, quarter or eighth of its size, its short side still at least
    `near` pixels: many times quicker, for looking only. Raises as `open_photo` does.
    """
    if path.is_dir():
        raise BadInput(f"{path} is a folder, not a picture.", "Name one picture in it.")
    if not path.is_file():
        raise MissingAsset(path, "Check the path of the picture.")
    if not path.stat().st_size:
        raise BadInput(f"{path} is empty (0 bytes).", "Copy it again from where it came, or leave it out.")
    try:
        with Image.open(path, formats=_formats()) as file:
            _refuse_bomb(path, *file.size)
            full = file.size
            if near is not None:
                file.draft(None, (near, near))
            file.load()
            upright = _upright(file)
            turned = upright.size != file.size
            return _rgb(upright), (full[1], full[0]) if turned else full
    except LikenessError:
        raise
    except UnidentifiedImageError:
        remedy = f"Replace it with a {_KINDS} picture, or leave it out."
        raise BadInput(f"{path} is not a picture, whatever its name says.", remedy) from None
    except Image.DecompressionBombError:
        raise _bomb(path) from None
    except MemoryError:
        raise BadInput(f"{path} does not fit into memory.", "Save it smaller, or leave it out.") from None
    except Exception as error:  # noqa: BLE001 - decoders raise whatever they like on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(
            f"{path} is damaged or cut short ({reason}).",
            "Copy it again from where it came, or open it in another program and save it as JPEG or PNG.",
        ) from None


def list_photos(folder: Path | str) -> list[Path]:
    """The photos of a folder in the order a person would sort them (2 before 10), or the one photo named.

    Known by their suffix; hidden files and folders inside are passed over. Raises MissingAsset where nothing
    is, BadInput for a folder without photos or with more than 5,000.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise MissingAsset(folder, "Check the path; it should be a folder of photos, or one photo.")
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in entries if not each.name.startswith(".") and each.is_file()]
    except OSError as error:
        raise BadInput(f"{folder} cannot be read ({error.strerror}).", "Allow reading the folder.") from None
    found = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    if not found:
        raise BadInput(f"{folder} holds no photos{_instead(folder, len(names))}.", _where(folder))
    if len(found) > MAX_PHOTOS:
        raise BadInput(
            f"{folder} holds {len(found):,} photos; at most {MAX_PHOTOS:,} are taken.",
            "A subject needs 3 to 30 good ones, a style some hundreds: put those into a folder of their own.",
        )
    return [folder / name for name in sorted(found, key=_natural)]


@contextmanager
def quiet() -> Generator[None]:
    """Without Pillow's warning about large pictures: our own limit is checked, and says what to do.

    Warnings are settings of the whole process: enter it once around threads, not in each.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@cache
def _formats() -> tuple[str, ...]:
    """The formats of `_FORMATS` that this Pillow can open; HEIC through pillow-heif."""
    from pillow_heif import register_heif_opener

    register_heif_opener()
    Image.init()
    return tuple(each for each in _FORMATS if each in Image.OPEN)


def _refuse_bomb(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _bomb(path, f": {width:,} × {height:,} pixels")


def _bomb(path: Path, size: str = "") -> BadInput:
    return BadInput(
        f"{path} is too large to open{size}; the limit is {MAX_PIXELS // 10**6} million pixels.",
        "Save it smaller: trainings use at most a few thousand pixels a side.",
    )


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - damaged EXIF is no reason to refuse a sound picture
        return image


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode → RGB, 8 bits, sRGB; transparent places become white."""
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    profile = image.info.get("icc_profile")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return _srgb(image, profile).convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Gray of 16 or 32 bits, or floats in [0, 1] → uint8, by what the type can hold and never stretched."""
    peak = values.max(initial=0)
    if np.issubdtype(values.dtype, np.floating):
        top = 1.0 if peak <= 1 else 255.0
    else:
        top = 65535.0 if values.dtype.itemsize == 2 or peak > 255 else 255.0
    scaled = np.nan_to_num(values.astype(np.float32)) / top
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours as its ICC profile means them (phones write Display P3); without a usable one, as they are."""
    if not profile or image.mode not in {"RGB", "CMYK", "L"}:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


def _natural(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Digits count as numbers, letters without case; the name itself decides ties."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], name


def _instead(folder: Path, others: int) -> str:
    if others:
        return f", only {others:,} other file{'s' if others > 1 else ''}"
    return "" if any(folder.iterdir()) else "; it is empty"


def _where(folder: Path) -> str:
    """The remedy for a folder without photos: a folder inside that has some, or what counts as one."""
    for inner in sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")):
        if any(each.suffix.lower() in SUFFIXES for each in inner.iterdir()):
            return f"There are photos in {inner}: give that folder."
    return f"Put 3 to 30 {_KINDS} pictures of the subject into it."
