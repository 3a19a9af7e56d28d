"""The mask board: paint on the picture what may change. A canvas of our own (`mask.js`).

The picture and the mask stay in the browser and in the worker: the page's own process decodes neither, it
only copies the painted PNG into the visitor's uploads, where the job finds it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.artifacts import atomic_write
from pipelines.errors import BadInput, LikenessError
from studio.desk import Desk
from studio.guarded import guarded
from studio.heard import ACTIVE, QUIET
from studio.markup import Markup, tag

if TYPE_CHECKING:
    from studio.page import Page

FOLDER = "masks"
MOST_BYTES, MOST_SIDE = 4 * 2**20, 4096
_START = "data:image/png;base64,"
_PNG = b"\x89PNG\r\n\x1a\n"
_TOOLS = (
    ("brush", "Brush", "Paint what may change."),
    ("erase", "Eraser", "Take paint away."),
    ("lasso", "Lasso", "Draw around what may change."),
    ("box", "Box", "Drag a rectangle over what may change."),
)
_DO = (
    ("undo", "Undo", "Take back the last stroke."),
    ("grow", "Grow", "Make the painted part a little larger."),
    ("invert", "Invert", "Paint what is bare, and bare what is painted."),
    ("clear", "Clear", "Paint nothing: the whole picture may change."),
)


class Board:
    """The control. `image` and `mask` are states that hold references; both may be set from anywhere.

    A mask belongs to the picture that it was painted on: another picture drops it, unless it brings its own.
    """

    def __init__(self, page: Page, image: Any, mask: Any, *, name: str) -> None:
        self._page = page
        self.seen = gr.State(("", ""))
        self.place = gr.HTML(
            html_template=_template(), elem_id=f"{name}-mask",
            js_on_load=Path(__file__).with_name("mask.js").read_text(encoding="utf-8"),
        )  # fmt: skip
        gr.on(
            [image.change, mask.change, page.demo.load], guarded(self._settle), [image, mask, self.seen],
            [mask, self.seen, self.place], **QUIET,
        )  # fmt: skip
        # through the queue: from there alone the browser hears that the mask is to be kept with the draft
        self.place.painted(guarded(self._painted), image, [mask, self.seen], **ACTIVE)

    def _settle(self, request: gr.Request, image: str, mask: str, seen: tuple[str, str]) -> Any:
        """Show what was set from elsewhere; what was painted here is shown already."""
        now = settled(image, mask, (seen[0], seen[1]))
        if now == tuple(seen):
            return gr.skip(), gr.skip(), gr.skip()
        return now[1], now, board(self._page.desk(request), *now)

    def _painted(self, request: gr.Request, image: str, event: gr.EventData) -> Any:
        mask = keep_mask(self._page.desk(request), str((getattr(event, "_data", None) or {}).get("png", "")))
        return mask, (image, mask)


def settled(image: str, mask: str, seen: tuple[str, str]) -> tuple[str, str]:
    """(picture, mask) as they belong together, from those set now and those shown before."""
    stale = image != seen[0] and mask == seen[1]
    return (image, "") if stale or not image else (image, mask)


def board(desk: Desk, image: str, mask: str) -> str:
    """What the board shows, as its script reads it."""
    return json.dumps({"image": address(desk, image), "mask": address(desk, mask)})


def address(desk: Desk, reference: str) -> str:
    """The address of a picture behind a reference of any kind; "" where it is gone or was never there."""
    if not reference:
        return ""
    try:
        return desk.url(desk.path(reference))
    except LikenessError:
        return ""


def keep_mask(desk: Desk, data: str) -> str:
    """A painted mask as a file of the visitor's uploads, named by its content; → its reference, "" for none.

    Raises BadInput for anything but a PNG of a sound size.
    """
    if not data:
        return ""
    content = _decoded(data)
    name = f"{FOLDER}/{hashlib.sha256(content).hexdigest()[:20]}.png"
    path = desk.folder / "uploads" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    return f"upload:{name}"


def _decoded(data: str) -> bytes:
    remedy = "Clear the mask and paint it again."
    if len(data) > MOST_BYTES * 4 // 3 or not data.startswith(_START):
        raise BadInput("The mask is no picture of a sound size.", remedy)
    try:
        content = base64.b64decode(data[len(_START) :], validate=True)
    except (binascii.Error, ValueError):
        raise BadInput("The mask arrived damaged.", remedy) from None
    if not content.startswith(_PNG + b"\0\0\0\rIHDR") or len(content) < 45:
        raise BadInput("The mask is no PNG.", remedy)
    wide, high = struct.unpack(">II", content[16:24])
    if not (0 < wide <= MOST_SIDE and 0 < high <= MOST_SIDE):
        raise BadInput(f"The mask is {wide:,}×{high:,} pixels.", f"At most {MOST_SIDE:,} a side are taken.")
    return content


def _template() -> Markup:
    tools = [
        tag(
            "button", label, type="button", cls="act", data_tool=tool, title=help,
            aria_pressed="true" if tool == "brush" else "false",
        )
        for tool, label, help in _TOOLS
    ]  # fmt: skip
    others = [
        tag("button", label, type="button", cls="act", data_do=what, title=help) for what, label, help in _DO
    ]
    size = tag(
        "label", "Size ", tag("input", type="range", min=1, max=40, value=12, aria_label="Size of the brush"),
        cls="mask-size",
    )  # fmt: skip
    canvas = tag(
        "canvas", tabindex=0, role="img",
        aria_label="Mask over the picture. Paint with the mouse or a finger; or move with the arrow keys and "
        "paint with the space bar.",
    )  # fmt: skip
    stage = tag(
        "div", tag("img", alt="The picture to edit"), canvas, tag("i", cls="mask-spot", hidden=True),
        cls="mask-stage",
    )  # fmt: skip
    bar = tag("div", *tools, size, *others, cls="mask-tools", role="toolbar", aria_label="Mask")
    return tag("div", stage, bar, tag("p", cls="mask-said quiet", role="status"), cls="mask", hidden=True)
