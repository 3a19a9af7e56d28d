"""The picture to begin from, how much of it is drawn again, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.errors import LikenessError
from pipelines.jobs.references import PICTURES
from studio.binding import Sheet
from studio.desk import Desk
from studio.guarded import guarded
from studio.heard import ACTIVE, CLICKED, QUIET
from studio.markup import ACT, Markup, action, clicked, note, tag
from studio.mask import Board

if TYPE_CHECKING:
    from studio.page import Page

UPLOADS = "start"


class Start:
    """Upload, mask and strength, bound to `start`, `mask` and `strength` of the sheet."""

    def __init__(self, page: Page, sheet: Sheet, *, name: str) -> None:
        self._page = page
        self.start, self.mask = gr.State(""), gr.State("")
        upload = gr.File(
            label="A picture to begin from", file_types=["image"], type="filepath", height=120,
            elem_id=f"{name}-start", elem_classes="drop",
        )  # fmt: skip
        Board(page, self.start, self.mask, name=name)
        about = gr.HTML(js_on_load=ACT, elem_id=f"{name}-start-about")
        strength = gr.Slider(
            0, 1, value=0.6, step=0.05, label="How much is drawn again", elem_id=f"{name}-strength",
            info="0.3 keeps the picture and changes its manner, 0.8 keeps little more than its layout.",
        )  # fmt: skip
        sheet.add("start", self.start)
        sheet.add("mask", self.mask)
        sheet.add("strength", strength)
        upload.upload(guarded(self._brought), upload, [self.start, self.mask, upload], **ACTIVE)
        gr.on([self.start.change, page.demo.load], guarded(self._told), self.start, about, **QUIET)
        about.click(guarded(self._left), None, [self.start, self.mask], **CLICKED)

    def _brought(self, request: gr.Request, path: str) -> tuple[str, str, None]:
        return bring(self._page.desk(request), path), "", None

    def _told(self, request: gr.Request, start: str) -> Markup:
        return told(self._page.desk(request), start)

    def _left(self, event: gr.EventData) -> tuple[Any, Any]:
        return ("", "") if clicked(event)[0] == "nothing" else (gr.skip(), gr.skip())


def bring(desk: Desk, path: str) -> str:
    """Copy an uploaded picture into the workspace; → its reference. Raises BadInput, DiskFull."""
    folder = desk.path(desk.upload([path], UPLOADS))
    found = [each for each in sorted(folder.iterdir()) if each.suffix.lower() in PICTURES]
    return desk.reference(found[0])


def told(desk: Desk, start: str) -> Markup:
    """The way back to noise, and a warning where the picture is gone; nothing without a picture."""
    if not start:
        return Markup("")
    gone = None
    try:
        desk.path(start)
    except LikenessError as error:
        gone = note(error.message, " ", error.remedy, kind="warning")
    return tag("div", gone, action("Begin from noise instead", "nothing", cls="act"))
