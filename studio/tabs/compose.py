"""Compose: prompts to pictures, with any stack of trained concepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.jobs.spec import from_table
from studio import compose_form, compose_gallery, post
from studio.binding import Sheet
from studio.compose_words import job_of
from studio.guarded import guarded
from studio.heard import ACTIVE, CLICKED, then_in_view
from studio.markup import ACT, Markup, clicked
from studio.stack import Stack, called, sweep_of

if TYPE_CHECKING:
    from studio.page import Page

TAKE = (
    ACT
    + """
watch('value', () => {
  const link = element.querySelector('a[data-auto]');
  if (link && link.dataset.auto !== 'done') { link.dataset.auto = 'done'; link.click(); }
});
"""
)
"""A link that is ready is followed at once: the click that made it asked for the file."""


def build(page: Page) -> None:
    """Left what to draw, right what came of it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_classes="section"):
            controls = compose_form.build(page)
        with gr.Column(scale=7, min_width=320, elem_id="compose-results"):
            state = gr.HTML(js_on_load=ACT, elem_id="compose-progress")
            shown = gr.HTML(js_on_load=ACT, elem_id="compose-gallery")
            taken = gr.HTML(js_on_load=TAKE, elem_id="compose-zip")
            strip = gr.HTML(js_on_load=ACT, elem_id="compose-past")
            dropped = gr.File(
                label="Drop a picture made here or in A1111: its settings come back",
                file_types=[".png"], type="filepath",
                height=120, elem_id="compose-drop", elem_classes="drop",
            )  # fmt: skip
    page.register("compose", controls.sheet)
    _wire_draw(page, controls)
    _wire_results(page, state, shown, taken, strip)
    _wire_drop(page, dropped)
    _wire_sweep(page, controls.sheet, controls.stack)


def _wire_draw(page: Page, controls: compose_form.Controls) -> None:
    sheet = controls.sheet

    def draw(request: gr.Request, *values: Any) -> None:
        desk = page.desk(request)
        desk.submit(job_of(desk, sheet, values))

    sent = gr.on([controls.go.click, controls.prompt.submit], guarded(draw), sheet.components, None, **ACTIVE)
    page.changed.append(sent)
    then_in_view(sent, "compose-results")


def _wire_results(page: Page, state: Any, shown: Any, taken: Any, strip: Any) -> None:
    """Progress follows the store, and so do the pictures: new ones show themselves."""

    def asked(event: gr.EventData, request: gr.Request) -> tuple[Any, Any, Any]:
        act, value = clicked(event)
        if act == "zip":
            return compose_gallery.packed(page.desk(request), value), gr.skip(), gr.skip()
        if act == "show" and value.isdigit():
            return Markup(""), *compose_gallery.results(page.desk(request), int(value))
        return gr.skip(), gr.skip(), gr.skip()

    page.live.add(state, lambda desk: desk.stamp("compose"), compose_gallery.doing)
    page.live.add([shown, strip], compose_gallery.ended, compose_gallery.results)
    for place in (shown, strip):
        place.click(guarded(asked), None, [taken, shown, strip], **CLICKED)
    page.answers(
        state, shown,
        more={
            "fresh": compose_gallery.fresh,
            "whole": compose_gallery.whole,
            "example": compose_gallery.example,
        },
    )  # fmt: skip


def _wire_drop(page: Page, dropped: Any) -> None:
    def restore(request: gr.Request, path: str, last: dict[str, Any]) -> tuple[dict[str, Any], None]:
        sent = post.restored(page.desk(request), path)
        return {**sent, "number": last["number"] + 1}, None

    dropped.upload(guarded(restore), [dropped, page.parcel], [page.parcel, dropped], **ACTIVE)


def _wire_sweep(page: Page, sheet: Sheet, stack: Stack) -> None:
    def sweep(
        request: gr.Request, asked: Sequence[int], last: dict[str, Any], *values: Any
    ) -> dict[str, Any]:
        desk, index = page.desk(request), asked[0]
        job = job_of(desk, sheet, values)
        title = called(desk, str(job.adapters[index].adapter))
        grid = sweep_of({"kind": job.kind, **post.settings(job.portable())}, index, title)
        desk.submit(from_table(grid))
        note = f"{title} is being drawn at {len(grid['axes'][0]['values'])} strengths."
        return {**post.parcel("compare", post.settings(grid), note), "number": last["number"] + 1}

    sent = stack.swept.change(
        guarded(sweep), [stack.swept, page.parcel, *sheet.components], page.parcel, **ACTIVE
    )
    page.changed.append(sent)
