"""`likeness compare`: one drawing laid out over one to three settings, as a labelled picture and a table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from PIL import Image, ImageDraw, ImageFont

from pipelines.artifacts import write_png
from pipelines.errors import BadInput
from pipelines.jobs import workspace
from pipelines.jobs.kinds import Axis, Compare, Compose, Edit
from pipelines.jobs.spec import from_table, set_path
from pipelines.progress import Job
from pipelines.worker.common import finished, spread, write_csv
from pipelines.worker.compose import compose
from pipelines.worker.edit import edit

MOST = 400
GAP, LABEL, FONT = 6, 22, 13
PAPER, INK = (255, 255, 255), (30, 30, 34)


def compare(spec: Compare, job: Job) -> dict[str, Any]:
    """Draw every cell; → the grid's pictures, and a row of readings for every cell. Raises BadInput."""
    first = from_table({"kind": "compose", **spec.job})
    if not isinstance(first, Compose | Edit):
        raise BadInput(f'A grid cannot vary a "{first.kind}" job.', "Use a compose or an edit job.")
    cells = list(itertools.product(*(axis.values for axis in spec.axes)))
    _check(spec.axes, len(cells))
    specs = [_at(first, spec.axes, values) for values in cells]
    for each in specs:
        spread(each)  # a wildcard without a list is told before anything is drawn
    with workspace.run_folder(spec.out, "compare", spec.title or "grid") as folder:
        return _drawn(spec, specs, cells, folder, job)


def _drawn(
    spec: Compare,
    specs: Sequence[Compose | Edit],
    cells: Sequence[tuple[Any, ...]],
    folder: Path,
    job: Job,
) -> dict[str, Any]:
    """Draw the cells into their folders, lay them out, and write the table."""
    rows: list[dict[str, Any]] = []
    drawn: list[Path] = []
    notes: list[str] = []
    for index, (each, values) in enumerate(zip(specs, cells, strict=True)):
        job.check()
        job.report(index, len(cells), cell=_words(spec.axes, values))
        part = each.model_copy(update={"out": folder / "cells" / f"{index + 1:03d}"})
        result = compose(part, job) if isinstance(part, Compose) else edit(cast("Edit", part), job)
        drawn.append(Path(result["pictures"][0]["path"]))
        names = {axis.path: value for axis, value in zip(spec.axes, values, strict=True)}
        if (said := result["pictures"][0]["prompt"]) != part.prompts[0]:
            names["drawn"] = said
        rows.append({**names, **result["readings"], "seconds": result["seconds"]["draw"]})
        notes += [each for each in result["notes"] if each not in notes]
    job.report(len(cells), len(cells))
    pages = _pages(spec.axes, drawn)
    table = spec.shareable()
    sheets = [
        write_png(folder / ("grid.png" if len(pages) == 1 else f"grid-{number + 1}.png"), page, table)
        for number, page in enumerate(pages)
    ]
    write_csv(folder / "grid.csv", rows)
    return finished(spec, folder, {"grids": [str(each) for each in sheets], "cells": rows, "notes": notes})


def _check(axes: Sequence[Axis], cells: int) -> None:
    if not 1 <= len(axes) <= 3:
        raise BadInput(f"A grid of {len(axes)} settings cannot be laid out.", "Vary one to three settings.")
    if empty := [axis.path for axis in axes if not axis.values]:
        raise BadInput(f'"{empty[0]}" has no values.', "Give it at least one.")
    if cells > MOST:
        raise BadInput(f"The grid has {cells} cells.", f"Keep it to {MOST}: fewer values, or fewer settings.")


def _at(first: Compose | Edit, axes: Sequence[Axis], values: Sequence[Any]) -> Compose | Edit:
    """The job of one cell. Raises what a wrong path or value raises, before anything is drawn."""
    spec = first
    for axis, value in zip(axes, values, strict=True):
        path = "prompts.0" if axis.path == "prompt" else axis.path
        spec = set_path(spec, path, value)
    return spec


def _words(axes: Sequence[Axis], values: Sequence[Any]) -> str:
    return ", ".join(f"{_short(axis.path)} {value}" for axis, value in zip(axes, values, strict=True))


def _short(path: str) -> str:
    """The last word of a dotted path that is not a number: "adapters.0.weight" → "weight"."""
    return next((part for part in reversed(path.split(".")) if not part.isdigit()), path)


def _pages(axes: Sequence[Axis], drawn: Sequence[Path]) -> list[Image.Image]:
    """One labelled sheet a value of the third axis: the first axis runs right, the second down."""
    across = axes[0].values
    down: Sequence[Any] = axes[1].values if len(axes) > 1 else ("",)
    deep: Sequence[Any] = axes[2].values if len(axes) > 2 else ("",)
    pages: list[Image.Image] = []
    for page in range(len(deep)):
        cells = [
            [drawn[(x * len(down) + y) * len(deep) + page] for x in range(len(across))]
            for y in range(len(down))
        ]
        title = f"{_short(axes[2].path)} {deep[page]}" if len(axes) > 2 else ""
        columns = [f"{_short(axes[0].path)} {value}" for value in across]
        lines = [f"{_short(axes[1].path)} {value}" for value in down] if len(axes) > 1 else [""]
        pages.append(_sheet(cells, columns, lines, title))
    return pages


def _sheet(
    cells: Sequence[Sequence[Path]], columns: Sequence[str], lines: Sequence[str], title: str
) -> Image.Image:
    font = ImageFont.load_default(FONT)
    images = [[Image.open(each).convert("RGB") for each in row] for row in cells]
    wide = max(each.width for row in images for each in row)
    high = max(each.height for row in images for each in row)
    left = max(int(font.getlength(line)) for line in lines)
    left = min(left, 2 * wide) + 2 * GAP if left else GAP
    top = LABEL + (LABEL if title else 0)
    size = (left + len(columns) * (wide + GAP), top + len(images) * (high + GAP))
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    if title:
        pen.text((GAP, 4), title, INK, font)
    for x, text in enumerate(columns):
        pen.text((left + x * (wide + GAP), top - LABEL + 4), _fitting(text, wide, font), INK, font)
    for y, row in enumerate(images):
        upper = top + y * (high + GAP)
        pen.text((GAP, upper + high // 2 - FONT // 2), _fitting(lines[y], 2 * wide, font), INK, font)
        for x, image in enumerate(row):
            canvas.paste(image, (left + x * (wide + GAP), upper))
    return canvas


def _fitting(text: str, width: int, font: Any) -> str:
    """The text, cut with an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
