"""The choice of a base: what there is to draw with, what each is, and the sizes that suit it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.artifacts import assets
from pipelines.jobs import presets
from studio.binding import Sheet
from studio.desk import Desk
from studio.words import size

if TYPE_CHECKING:
    from studio.page import Page

NATIVE, STEP = 512, 64
"""Pixels and their step where a base does not say its own."""
_RATIOS = (("Square", 1.0), ("Portrait", 3 / 4), ("Landscape", 4 / 3), ("Wide", 16 / 9))
_JSON_LIMIT = 1024 * 1024


def choice(page: Page, sheet: Sheet, *, name: str) -> Any:
    """The control, bound to `base` of a sheet. A base may also be typed: a folder, a file, a repository."""
    only = page.hall.settings.hosting.bases == "toybox"
    known = [(title(None, page.base), page.base)] if only else titles(None)
    base = gr.Dropdown(
        known, value=page.base, label="Base", elem_id=f"{name}-base",
        allow_custom_value=True, info="The model that draws. Another one brings its own settings.",
    )  # fmt: skip
    sheet.add("base", base)
    page.live.add(base, lambda desk: desk.stamp("bases"), lambda desk: gr.update(choices=titles(desk)))
    return base


def titles(desk: Desk | None) -> list[tuple[str, str]]:
    """(title, name) of every base that may be named here. Without a desk: of shipped ones."""
    return [(title(desk, name), name) for name in (desk.base_names() if desk else presets.names("bases"))]


def title(desk: Desk | None, name: str) -> str:
    """What people call a base: its preset's title, or its folder. Without a desk: of shipped ones."""
    return str(_preset(desk, name).get("title") or Path(name).name or name)


def sentence(desk: Desk, name: str) -> str:
    """What a base is, in a sentence or two."""
    table = _preset(desk, name)
    width, height, _ = native_size(desk, name)
    if table.get("asset"):
        return (
            f"A small demonstration base that comes with the studio. It draws a little world of its own at "
            f"{width} × {height} pixels: good for trying everything out, but a real dog's face will not fit "
            "into it."
        )
    if table.get("hub"):
        return (
            f"Draws at {width} × {height} pixels. {size(float(table.get('bytes', 0)))}, fetched when first "
            f"used where it is not here yet. Licence: {table.get('licence', 'see its page')}."
        )
    return "A model on this machine."


def native_size(desk: Desk, name: str) -> tuple[int, int, int]:
    """Width and height that a base was made for, and the step between sizes that it draws, in pixels."""
    table = _preset(desk, name)
    defaults = cast("dict[str, Any]", table.get("defaults") or {})
    folder = assets() / str(table["asset"]) if table.get("asset") else Path(name)
    found = _measured(folder)
    if "width" in defaults:
        return int(defaults["width"]), int(defaults.get("height", defaults["width"])), STEP
    if found:
        return found[0], found[0], found[1]
    return NATIVE, NATIVE, STEP


def shapes(desk: Desk, name: str) -> list[tuple[str, str]]:
    """(label, "WIDTHxHEIGHT") of the sizes of about a base's own number of pixels; none twice."""
    width, height, step = native_size(desk, name)
    area = width * height
    found: dict[str, str] = {}
    for label, ratio in _RATIOS:
        wide = (width, height) if ratio == 1 and width == height else _near(area, ratio, step)
        found.setdefault(f"{wide[0]}x{wide[1]}", f"{label} {wide[0]} × {wide[1]}")
    return [(label, value) for value, label in found.items()]


def shape_of(width: int | str | None, height: int | str | None, native: tuple[int, int, int]) -> str:
    """The value of `shapes` that stands for a size; an open side is the base's own."""
    return f"{width or native[0]}x{height or native[1]}"


def sides(shape: str) -> tuple[int, int]:
    """ "512x768" as numbers."""
    width, _, height = shape.partition("x")
    return int(width), int(height)


def filling(desk: Desk, name: str) -> dict[str, Any]:
    """What a form shows once another base is chosen: that base's own settings and size."""
    table = presets.merge({"width": None, "height": None}, desk.native(name))
    return presets.merge(table, cast("dict[str, Any]", table.get("compose") or {}))


def _near(area: int, ratio: float, step: int) -> tuple[int, int]:
    height = (area / ratio) ** 0.5
    return max(step, round(height * ratio / step) * step), max(step, round(height / step) * step)


def _preset(desk: Desk | None, name: str) -> dict[str, Any]:
    folder = desk.folder if desk else None
    if name not in presets.names("bases", folder):
        return {}
    return presets.load("bases", name, folder)


def _measured(folder: Path) -> tuple[int, int] | None:
    """(native side, step) as the configs in a model's folder tell; None where they do not."""
    net, coder = _config(folder / "unet"), _config(folder / "vae")
    if not net:
        net = _config(folder / "transformer")
    sample = net.get("sample_size")
    blocks = coder.get("block_out_channels") or coder.get("encoder_block_out_channels")
    if not isinstance(sample, int) or not isinstance(blocks, list):
        return None
    factor = 2 ** (len(cast("list[Any]", blocks)) - 1)
    depth = net.get("block_out_channels")
    step = factor * 2 ** (len(cast("list[Any]", depth)) - 1) if isinstance(depth, list) else 2 * factor
    return sample * factor, step


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        if path.stat().st_size > _JSON_LIMIT:
            return {}
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", table) if isinstance(table, dict) else {}
