"""What a set of photos is worth before a training: a verdict on each and on all, with reasons in plain words.

Measured on thumbnails, without networks; the thresholds are set between the real photos in `assets/photos`
and degraded copies of them (see the tests). No torch here.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from pipelines.artifacts import atomic_write
from pipelines.data.crops import Box, cropped, pixels
from pipelines.data.opening import list_photos, load, open_photo, quiet
from pipelines.errors import BadInput, LikenessError
from pipelines.progress import Job

__all__ = ["PhotoReport", "PhotoVerdict", "Verdict", "check", "list_photos", "open_photo"]

Verdict = Literal["good", "usable", "poor", "unusable"]
Finding = tuple[Verdict, str]
_ORDER: tuple[Verdict, ...] = ("good", "usable", "poor", "unusable")

LOOK = 512  # short side at most, in pixels, at which photos are looked at
TINY = 32  # a short side under which nothing can be learnt
BLURRED, SOFT = 20.0, 60.0  # variance of the Laplacian, gray levels²; sharp photos here have 185 and more
DARK, DIM = 60, 90  # gray level that 98 % of the pixels stay under
BURNT, BRIGHT = 190, 165  # gray level that 98 % of the pixels stay above
PLAIN, FLAT = 8, 40  # gray levels between the darkest and the brightest 2 %
LONG = 2.2  # long side over short side from which a square crop loses more than half
MIXED = 1.6  # ratio of the widest to the narrowest shape of a set
SAME_BITS, SAME_LEVELS = 5, 18.0  # of 64 bits of the hash, and mean gray levels, that two copies differ by
ALIKE = 14.0  # gray levels by which backgrounds differ when they are one; different ones have 30 and more
BAR = 0.04  # share of a side that a plain bar must fill
SMALL = 320  # long side of a small copy, in pixels
FEW = 3  # DreamBooth's three to five photos (arXiv:2208.12242)


@dataclass(frozen=True)
class PhotoVerdict:
    """One photo: its verdict, the reasons (worst first, none for a plainly good one), its size upright.

    `small` names its small copy, "" where none was made.
    """

    path: Path
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    width: int = 0
    height: int = 0
    small: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The verdict in plain JSON values; the path as its name."""
        return {
            "name": self.path.name,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "width": self.width,
            "height": self.height,
            "small": self.small,
        }


@dataclass(frozen=True)
class PhotoReport:
    """Every photo in the order given, and the set as a whole, for a training at `size` pixels."""

    photos: tuple[PhotoVerdict, ...]
    verdict: Verdict
    reasons: tuple[str, ...]
    size: int

    @property
    def kept(self) -> list[Path]:
        """The photos worth training on: the good and the usable."""
        return [each.path for each in self.photos if each.verdict in ("good", "usable")]

    def as_dict(self) -> dict[str, Any]:
        """The report in plain JSON values."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "size": self.size,
            "kept": len(self.kept),
            "photos": [each.as_dict() for each in self.photos],
        }


@dataclass(frozen=True)
class _Look:
    """What is kept of a decoded photo: `bits` bool [64], `small` [16,16,3], `edge` [k,3], in gray levels."""

    verdict: PhotoVerdict
    findings: tuple[Finding, ...]
    bits: np.ndarray
    small: np.ndarray
    edge: np.ndarray


@dataclass(frozen=True)
class _How:
    """How photos are looked at: for which training size, cropped how, and where small copies go."""

    size: int
    crops: Mapping[str, Box] = field(default_factory=dict[str, Box])
    out: Path | None = None


def check(
    paths: Sequence[Path | str],
    size: int = 512,
    job: Job | None = None,
    crops: Mapping[str, Box] | None = None,
    out: Path | None = None,
) -> PhotoReport:
    """Look at photos for a training at `size` pixels, of each only what its crop keeps.

    With `out` every photo that opens gets a small upright copy there, NAME.jpg, of the whole photo. A file
    that cannot be opened is a verdict too ("unusable", with the reason and the way out), not an error. Raises
    BadInput when there are no paths, Cancelled when the job is stopped, DiskFull.
    """
    if not paths:
        raise BadInput("There are no photos to look at.", "Give 3 to 30 photos of the subject.")
    job = job or Job()
    how = _How(size, crops or {}, out)
    looks: list[_Look | PhotoVerdict] = []
    with quiet(), ThreadPoolExecutor(4) as pool:
        pending = [pool.submit(_look, Path(path), how) for path in paths]
        try:
            for future in pending:
                job.check()
                looks.append(future.result())
                job.report(len(looks), len(paths))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    seen = [each for each in looks if isinstance(each, _Look)]
    judged = iter(_judge(seen))
    photos = tuple(next(judged) if isinstance(each, _Look) else each for each in looks)
    verdict, reasons = _settle(_of_the_set(photos, seen))
    return PhotoReport(photos, verdict, reasons, size)


def _look(path: Path, how: _How) -> _Look | PhotoVerdict:
    size, crop = how.size, how.crops.get(path.name)
    try:
        # what the crop keeps must be large enough to look at
        kept = min(crop[2] - crop[0], crop[3] - crop[1]) if crop else 1.0
        image, (width, height) = load(path, near=ceil(LOOK / kept))
    except LikenessError as error:
        return PhotoVerdict(path, "unusable", (f"{error.message} {error.remedy}",))
    small = _copied(image, path.name, how.out)
    if crop:
        left, top, right, bottom = pixels(crop, width, height)
        image, width, height = cropped(image, crop), right - left, bottom - top
    image = _shrunk(image, LOOK)
    # blur only matters as far as the training will see it
    sharpness = _sharpness(_gray(_shrunk(image, size)))
    gray = _gray(image)
    findings = (
        *_size(width, height, size),
        *_exposure(gray),
        *_blur(sharpness),
        *_shape(width, height),
        *_bars(gray),
    )
    tiny = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return _Look(
        PhotoVerdict(path, "good", (), width, height, small),
        findings,
        (tiny[:, 1:] > tiny[:, :-1]).ravel(),  # the difference hash: does it get brighter to the right?
        np.asarray(image.resize((16, 16), Image.Resampling.BOX), np.float32),
        _edge(np.asarray(image.resize((8, 8), Image.Resampling.BOX), np.float32)),
    )


def _copied(image: Image.Image, name: str, out: Path | None) -> str:
    """Write a small copy of a photo, and name it; nothing without a folder."""
    if out is None:
        return ""
    small = image.convert("RGB")
    small.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    atomic_write(out / f"{name}.jpg", data.getvalue())
    return f"{name}.jpg"


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    """The picture with its short side at most `side`, never enlarged."""
    factor = side / min(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(each * factor)) for each in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def _gray(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"), np.float32)


def _edge(small: np.ndarray) -> np.ndarray:
    """[8,8,3] → the outer cells where subjects rarely are: the top and both sides, [k,3]."""
    mask = np.ones((8, 8), bool)
    mask[1:, 1:-1] = False
    return small[mask]


def _size(width: int, height: int, size: int) -> Iterable[Finding]:
    short = min(width, height)
    text = f"{width} × {height} pixels; the training wants a short side of {size}"
    if short < TINY:
        yield "unusable", f"too small to show anything: {text}"
    elif short * 2 <= size:
        yield "poor", f"too small: {text}, so it would be enlarged {size / short:.1f} times and teach blur"
    elif short < size * 0.9:
        yield "usable", f"a little small: {text}"


def _sharpness(gray: np.ndarray) -> float:
    """The variance of the Laplacian where the picture is sharpest: the second best of 4×4 tiles.

    A blurred background around a sharp subject is good photography, so the whole is not averaged.
    """
    if min(gray.shape) < TINY:
        return float("nan")
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    laplacian = 4 * gray[1:-1, 1:-1] - around
    tiles = [tile for rows in np.array_split(laplacian, 4) for tile in np.array_split(rows, 4, axis=1)]
    return float(np.sort([tile.var() for tile in tiles])[-2])


def _blur(sharpness: float) -> Iterable[Finding]:
    if sharpness < BLURRED:
        yield "poor", "blurred: no part of it is sharp, and the model would learn the blur"
    elif sharpness < SOFT:
        yield "usable", "rather soft: the sharpest part of it is not quite sharp"


def _exposure(gray: np.ndarray) -> Iterable[Finding]:
    low, high = np.percentile(gray, [2, 98])
    if high - low < PLAIN:
        yield "unusable", "it shows one plain colour"
    elif high < DARK:
        yield "poor", "much too dark"
    elif low > BURNT:
        yield "poor", "overexposed: nearly all of it is burnt to white"
    elif high < DIM:
        yield "usable", "rather dark"
    elif low > BRIGHT:
        yield "usable", "very bright: there is no dark place in it"
    elif high - low < FLAT:
        yield "usable", "hardly any contrast"


def _shape(width: int, height: int) -> Iterable[Finding]:
    ratio = max(width, height) / max(1, min(width, height))
    if ratio >= LONG:
        lost = f"a square crop would lose {1 - 1 / ratio:.0%} of it"
        yield "usable", f"very long ({ratio:.1f} to 1): {lost}; crop it yourself"


def _bars(gray: np.ndarray) -> Iterable[Finding]:
    """Plain bars on two opposite sides that end in a hard edge: a film still, a story, a screenshot."""
    for lines, sides in ((gray, "above and below"), (gray.T, "left and right")):
        first, last = _bar(lines), _bar(lines[::-1])
        if min(first, last) >= BAR and first + last < 0.9:
            yield "usable", f"plain bars {sides}, as on a screenshot or a film still: crop them off"


def _bar(lines: np.ndarray) -> float:
    """The share of lines from the first on that are one flat colour, if something else follows at once."""
    plain = (lines.std(1) < 2) & (np.abs(lines.mean(1) - lines[0].mean()) < 3)
    count = len(lines) if plain.all() else int(plain.argmin())
    if count in (0, len(lines)):
        return 0.0
    return (
        count / len(lines)
        if np.abs(lines[min(count + 1, len(lines) - 1)] - lines[0].mean()).mean() > 12
        else 0.0
    )


def _judge(looks: Sequence[_Look]) -> Iterable[PhotoVerdict]:
    """Each photo by its own findings, and by whether an earlier one is the same picture."""
    if not looks:
        return
    # ±1 bits: their product counts agreements, so 64 bits differ in (64 − product) / 2
    bits = np.stack([each.bits for each in looks]).astype(np.float32) * 2 - 1
    for index, each in enumerate(looks):
        findings = list(each.findings)
        differing = (64 - bits[:index] @ bits[index]) / 2
        for other in np.flatnonzero(differing <= SAME_BITS).tolist():
            if np.abs(looks[other].small - each.small).mean() <= SAME_LEVELS:
                same = looks[other].verdict.path.name
                findings.append(("poor", f"the same picture as {same}; leave one of them out"))
                break
        verdict, reasons = _settle(findings)
        yield replace(each.verdict, verdict=verdict, reasons=reasons)


def _settle(findings: Iterable[Finding]) -> tuple[Verdict, tuple[str, ...]]:
    """The worst verdict, and all reasons, worst first."""
    ordered = sorted(findings, key=lambda each: -_ORDER.index(each[0]))
    return (ordered[0][0] if ordered else "good"), tuple(text for _, text in ordered)


def _of_the_set(photos: Sequence[PhotoVerdict], looks: Sequence[_Look]) -> Iterable[Finding]:
    fit = [each for each in photos if each.verdict in ("good", "usable")]
    if not fit:
        poor = any(each.verdict == "poor" for each in photos)
        yield ("poor" if poor else "unusable"), "none of the photos is good enough"
        return
    if len(fit) < FEW:
        some = "one photo is" if len(fit) == 1 else f"{len(fit)} photos are"
        text = f"only {some} good enough: pose and background would be learnt too; give 3 to 10"
        yield ("poor" if len(fit) == 1 else "usable"), text
    rest = len(photos) - len(fit)
    if rest:
        yield ("usable" if rest * 2 < len(photos) else "poor"), f"{rest} of {len(photos)} should be left out"
    kept = {each.path for each in fit}
    yield from _backgrounds([each for each in looks if each.verdict.path in kept])
    shapes = [each.width / each.height for each in fit]
    if max(shapes) / min(shapes) > MIXED:
        yield (
            "good",
            "shapes differ (upright and wide): crops or size buckets take care of it; look at the crops",
        )


def _backgrounds(looks: Sequence[_Look]) -> Iterable[Finding]:
    """Whether the edges of the photos, where the background is, look the same throughout."""
    if len(looks) < 2:
        return
    edges = np.stack([each.edge for each in looks[:200]])  # enough of a large set to tell
    apart = [np.abs(edges[index + 1 :] - edges[index]).mean((1, 2)) for index in range(len(edges) - 1)]
    if np.median(np.concatenate(apart)) < ALIKE:
        text = (
            "the backgrounds are all alike and would be learnt with the subject; add photos from other places"
        )
        yield "usable", text
