"""Exports of comparisons: CSV that no spreadsheet runs, JSON, a page that opens alone, a grid as TOML.

`/studio/export/runs-3-5.csv` and `/studio/export/grid-7.html` are made when they are asked for.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pipelines.errors import LikenessError
from pipelines.jobs.model import JobSpec
from studio import history
from studio.command import command, grid_file
from studio.compare_parts import reading, told
from studio.desk import Desk
from studio.history import Entry
from studio.markup import Markup, tag
from studio.scatter import Point, scatter
from studio.words import READOUTS, duration, size

_NAME = re.compile(r"(runs|grid)-(\d{1,12}(?:-\d{1,12}){0,15})\.(csv|json|html|toml)")
_MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
_MOST_BYTES = 64 * 2**20
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Rows = Sequence[Mapping[str, Any]]


def export(desk: Desk, name: str) -> bytes | None:
    """The file of a name, of this visitor's runs alone; None where there is nothing of that name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    what, numbers, form = match.groups()
    found = history.entries(desk, [int(each) for each in numbers.split("-")])
    if not found:
        return None
    if what == "grid":
        if found[0].kind != "compare":
            return None
        if form == "toml":
            return grid_file(found[0].spec).encode()
        rows: Rows = cells(found[0])
    elif form == "toml":
        return None
    else:
        rows = runs(found)
    if form == "csv":
        return as_csv(rows).encode("utf-8-sig")
    if form == "json":
        return as_json(found, rows).encode()
    return page(found, rows, what == "grid").encode()


def runs(found: Sequence[Entry]) -> list[dict[str, Any]]:
    """A row a run: what it is, its readouts, time and size, and the settings in which the runs differ."""
    differing = history.differences(found)
    names = list(dict.fromkeys(name for each in found for name in each.readings))
    rows: list[dict[str, Any]] = []
    for index, each in enumerate(found):
        row: dict[str, Any] = {
            "run": each.id, "kind": each.kind, "title": each.title,
            "when": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.when)),
        }  # fmt: skip
        for name in names:
            now = reading(each, name)
            row[name] = None if now is None else round(now.value, 4)
            row[f"{name} ±"] = None if now is None or now.give is None else round(now.give, 4)
        row |= {"pictures": len(each.shots), "seconds": _round(each.seconds), "adapter bytes": each.bytes}
        rows.append(row | {name: values[index] for name, values in differing.items() if name not in row})
    return [{key: row[key] for key in row if any(each.get(key) is not None for each in rows)} for row in rows]


def cells(entry: Entry) -> list[dict[str, Any]]:
    """A row a cell of a grid: the values of its axes, its readouts and its seconds."""
    return [dict(each) for each in cast("Rows", entry.result.get("cells") or ())]


def cell_pictures(entry: Entry) -> list[Path | None]:
    """The picture of every cell of a grid; None where it was deleted."""
    count = len(cells(entry))
    folders = [entry.folder / "cells" / f"{index + 1:03d}" for index in range(count)]
    return [next(iter(sorted(each.glob("*.png"))), None) if each.is_dir() else None for each in folders]


def as_csv(rows: Rows) -> str:
    """Rows as CSV; a text that a spreadsheet would take for a formula gets an apostrophe before it."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([safe(each) for each in columns])
    writer.writerows([[safe(row.get(each)) for each in columns] for row in rows])
    return text.getvalue()


def safe(value: Any) -> Any:
    """A value as a spreadsheet may have it: numbers as they are, no text that begins as a formula does."""
    if value is None or isinstance(value, bool | int | float):
        return "" if value is None else value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return f"'{text}" if text.lstrip(" \n").startswith(_FORMULA) or text.startswith(_FORMULA) else text


def as_json(found: Sequence[Entry], rows: Rows) -> str:
    """Everything about some runs: jobs without paths, readouts of every picture, times, sizes, commands."""
    table = {
        "made_by": "Likeness Studio",
        "rows": list(rows),
        "runs": [
            {
                "run": each.id,
                "kind": each.kind,
                "job": each.spec.shareable(),
                "command": said(each.spec),
                "readings": dict(each.readings),
                "seconds": _round(each.seconds),
                "adapter_bytes": each.bytes,
                "pictures": [
                    {"file": shot.path.name, "prompt": shot.prompt, "seed": shot.seed,
                     "readings": dict(shot.readings)}
                    for shot in each.shots
                ],
            }
            for each in found
        ],
    }  # fmt: skip
    return json.dumps(table, indent=1, ensure_ascii=False, default=str)


def said(spec: JobSpec) -> str:
    """The command that does a job again; "" for one that has none."""
    try:
        return command(spec)
    except LikenessError:
        return ""


def points(found: Sequence[Entry]) -> list[Point]:
    """Obedience across, likeness up: a large point a run, a small one each of its pictures."""
    plotted: list[Point] = []
    for group, each in enumerate(found):
        across, up = reading(each, "clip_t"), reading(each, "dino_i")
        plotted += [
            Point(shot.readings["clip_t"], shot.readings["dino_i"], each.name, group, small=True)
            for shot in each.shots
            if {"clip_t", "dino_i"} <= shot.readings.keys()
        ]
        if across and up:
            plotted.append(Point(across.value, up.value, f"{each.name} {each.title}", group))
    return plotted


def cell_points(entry: Entry) -> list[Point]:
    """The cells of a grid; those of the same value on the second axis have one tint."""
    rows = cells(entry)
    axes = [each["path"] for each in entry.spec.model_dump().get("axes", ())]
    second = list(dict.fromkeys(str(row.get(axes[1])) for row in rows)) if len(axes) > 1 else [""]
    few = len(rows) <= 24
    return [
        Point(
            float(row["clip_t"]), float(row["dino_i"]),
            " · ".join(told(row.get(each)) for each in axes) if few else "",
            second.index(str(row.get(axes[1]))) if len(axes) > 1 else 0,
            small=not few,
        )
        for row in rows
        if isinstance(row.get("clip_t"), int | float) and isinstance(row.get("dino_i"), int | float)
    ]  # fmt: skip


def page(found: Sequence[Entry], rows: Rows, grid: bool) -> str:
    """One HTML file with pictures, table, plot and commands, which needs nothing else to open."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = tag("tr", *(tag("th", READOUTS.get(each, (each,))[0]) for each in columns))
    body = [tag("tr", *(tag("td", _shown(row.get(each))) for each in columns)) for row in rows]
    parts: list[object] = [tag("h1", found[0].title if grid else "A comparison of runs")]
    parts.append(tag("p", f"Made by Likeness Studio, {time.strftime('%Y-%m-%d %H:%M')}."))
    left = _MOST_BYTES
    for each in found:
        images: list[Markup] = []
        for shot in each.shots:
            embedded = _embedded(shot.path, left)
            left -= len(embedded)
            if embedded:
                images.append(tag("img", src=embedded, alt=shot.prompt))
        spent = f" · {duration(each.seconds)}" if each.seconds is not None else ""
        weight = f" · adapter {size(each.bytes)}" if each.bytes else ""
        line = f"{each.name} {each.title}{spent}{weight}"
        pictures = tag("div", *images, cls="pictures")
        parts.append(tag("section", tag("h2", line), pictures, tag("pre", said(each.spec))))
    parts.append(tag("table", tag("thead", head), tag("tbody", *body)))
    plotted = cell_points(found[0]) if grid else points(found)
    if plotted:
        parts.append(
            scatter(plotted, "Likeness against obedience", "obedience (CLIP-T)", "likeness (DINO-I)")
        )
    if grid:
        parts.append(tag("details", tag("summary", "grid.toml"), tag("pre", grid_file(found[0].spec))))
    whole = tag(
        "html",
        tag("head", tag("meta", charset="utf-8"), tag("title", "Likeness comparison"),
            tag("style", Markup(_STYLE))),
        tag("body", *parts),
        lang="en",
    )  # fmt: skip
    return f"<!doctype html>\n{whole}\n"


def _embedded(path: Path, left: int) -> str:
    """A picture as a data address; "" where it is gone, or would make the page too large."""
    media = _MEDIA.get(path.suffix.lower())
    try:
        if media is None or path.stat().st_size * 4 / 3 > left:
            return ""
        return f"data:{media};base64,{base64.b64encode(path.read_bytes()).decode()}"
    except OSError:
        return ""


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else told(value)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 24px auto; padding: 0 16px; }
.pictures { display: flex; flex-wrap: wrap; gap: 8px; overflow-x: auto; }
.pictures img { max-width: 100%; } pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; }
table { border-collapse: collapse; }
td, th { border-bottom: 1px solid #8886; padding: 4px 8px; text-align: left; }
.sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
svg { max-width: 560px; } .rule { stroke: #8884; } svg text { fill: currentColor; font-size: 12px; }
.tint-0 { fill: #237d7f; } .tint-1 { fill: #b5541c; } .tint-2 { fill: #6a51a3; } .tint-3 { fill: #8a7a00; }
.tint-4 { fill: #b0356b; } .tint-5 { fill: #4a6fb5; } .dot-small { opacity: .45; }
"""
