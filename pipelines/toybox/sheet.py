"""Contact sheets: pictures in a grid with their captions, and the 64-prompt sheet of a model.

`grid` is the one picture table of the toybox (training samples and `toybox show` use it too);
`sheet` draws a fixed list of prompts with a folder's weights and writes the PNG.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.artifacts import assets, write_png
from pipelines.jobs.spec import ToyboxSheet
from pipelines.progress import Job
from pipelines.toybox.draw import Sampling, draw, open_painter, quick_dtype
from pipelines.toybox.training import pick_device
from pipelines.toybox.world import (
    ACCESSORIES,
    ACCESSORY_COLOURS,
    ANIMALS,
    KINDS,
    OBJECTS,
    PATTERNS,
    PLACES,
    STYLES,
    Scene,
    caption,
    sample_scene,
)

PAPER = (244, 242, 238)  # a warm grey that no place of the world uses
FRAME = (222, 218, 210)
INK = (74, 70, 66)
GAP = 14
BELOW = 6  # between a picture and its caption
MARGIN = 28
CAPTION_SIZE = 10
LINE_HEIGHT = 13
CAPTION_LINES = 4


def grid(
    images: Sequence[Image.Image | np.ndarray], captions: Sequence[str] | None = None, columns: int = 8
) -> Image.Image:
    """Pictures (PIL or uint8 [H,W,3], all of one size) → one sheet, captions small under each.

    Captions are wrapped to the picture's width; what exceeds four lines ends in an ellipsis. A row is as
    high as its longest caption.
    """
    pictures = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
    if not pictures:
        raise ValueError("a grid needs at least one picture")
    width, height = pictures[0].size
    columns = min(columns, len(pictures))
    font = _font(CAPTION_SIZE)
    wrapped = [wrap(text, width, font) for text in captions] if captions else [[]] * len(pictures)
    tops = [MARGIN]
    for start in range(0, len(pictures), columns):
        lines = max(len(each) for each in wrapped[start : start + columns])
        tops.append(tops[-1] + height + GAP + (lines * LINE_HEIGHT + BELOW if lines else 0))
    page = Image.new("RGB", (2 * MARGIN + columns * (width + GAP) - GAP, tops[-1] - GAP + MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    for index, (picture, lines) in enumerate(zip(pictures, wrapped, strict=True)):
        x, y = MARGIN + index % columns * (width + GAP), tops[index // columns]
        pen.rectangle((x - 1, y - 1, x + width, y + height), outline=FRAME)
        page.paste(picture.convert("RGB"), (x, y))
        for row, line in enumerate(lines):
            pen.text((x, y + height + BELOW + row * LINE_HEIGHT), line, font=font, fill=INK)
    return page


@lru_cache
def _font(size: int) -> Any:
    """Pillow's built-in Aileron at `size` pixels."""
    return ImageFont.load_default(size)


def wrap(text: str, width: int, font: Any) -> list[str]:
    """Words into at most CAPTION_LINES lines no wider than `width` pixels."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    lines.append(line)
    if len(lines) > CAPTION_LINES:
        lines = lines[:CAPTION_LINES]
        while lines[-1] and font.getlength(lines[-1] + "…") > width:
            lines[-1] = lines[-1][:-1]
        lines[-1] = lines[-1].rstrip() + "…"
    return lines


def sheet_prompts(count: int = 64, seed: int = 0) -> list[str]:
    """Captions of test-split scenes, eight to a row: animals, objects, people, animals that wear something,
    patterns, pairs, styles, empty places."""
    return [caption(_scene(index, seed), seed, full=True) for index in range(count)]


def _scene(index: int, seed: int) -> Scene:
    """The scene of a place in the sheet."""
    row, column = index // 8 % 8, index % 8
    rng = Random(f"sheet/{seed}/{index}")
    place = PLACES[(column + 3 * row) % len(PLACES)]
    bare: dict[str, Any] = {"n_subjects": 1, "accessories": (), "style": "flat", "place": place}
    worn = ((ACCESSORIES[column % len(ACCESSORIES)], rng.choice(ACCESSORY_COLOURS)),)
    rows: tuple[dict[str, Any], ...] = (
        bare | {"kind": ANIMALS[column % len(ANIMALS)], "pattern": PATTERNS[column // 2 % len(PATTERNS)]},
        bare | {"kind": OBJECTS[column % len(OBJECTS)], "pattern": "plain"},
        bare | {"kind": "person"},
        bare | {"kind": ANIMALS[-1 - column % len(ANIMALS)], "accessories": worn},
        bare | {"kind": (*OBJECTS, *ANIMALS)[column * 5 % 13], "pattern": PATTERNS[1 + column % 3]},
        {"n_subjects": 2, "style": "flat" if column % 4 else rng.choice(STYLES[2:]), "place": place},
        bare | {"kind": KINDS[(column * 5 + 2) % len(KINDS)], "style": STYLES[1 + column % 4]},
        {"n_subjects": 0, "place": PLACES[column], "style": STYLES[column % 5] if column % 2 else "flat"},
    )
    return sample_scene(rng.randrange(1 << 40), "test", **rows[row])


def sheet(spec: ToyboxSheet, job: Job) -> dict[str, Any]:
    """Draw `spec.prompts` pictures with a folder's weights and write them as one PNG.

    The PNG carries the settings, the prompts and the seeds. → {"path", "prompts", "seconds"}
    """
    folder = spec.folder or assets() / "toybox"
    captions = sheet_prompts(spec.prompts, spec.seed)
    device = pick_device(spec.device)
    painter = open_painter(folder, device, quick_dtype(device))
    seeds = [spec.seed + index for index in range(len(captions))]
    start = time.monotonic()
    images = draw(painter, captions, seeds, Sampling(spec.steps, spec.guidance), job, on_batch=job.report)
    page = grid(list(images), captions, columns=8)
    carried = {**spec.shareable(), "captions": captions, "seeds": seeds}
    path = write_png(spec.out, page, carried)
    job.preview(page)
    return {"path": str(path), "prompts": len(captions), "seconds": round(time.monotonic() - start, 1)}
