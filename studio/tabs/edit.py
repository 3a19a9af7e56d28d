"""Edit: a picture, where it may change, and what to see instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.errors import BadInput
from pipelines.jobs.spec import JobSpec
from studio import bases, edit_drawing, edit_result, edit_samples, post
from studio.binding import Sheet
from studio.edit_result import SLIDE
from studio.forms import MethodForm
from studio.guarded import guarded
from studio.heard import ACTIVE, then_in_view
from studio.markup import ACT, step
from studio.mask import Board
from studio.stack import Stack

if TYPE_CHECKING:
    from studio.page import Page

PICTURES = ["image", ".heic", ".heif", ".avif"]


def build(page: Page) -> None:
    """Left the picture and the words, right what came of it."""
    sheet = Sheet("edit")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_classes="section"):
            files, samples = _picture(page, sheet)
            go = _words(page, sheet)
        with gr.Column(scale=7, min_width=320, elem_id="edit-results"):
            state = gr.HTML(js_on_load=ACT, elem_id="edit-progress")
            shown = gr.HTML(js_on_load=SLIDE, elem_id="edit-result")
    _sent(page, sheet, go)
    _brought(page, files)
    page.live.add([state, shown], lambda desk: desk.stamp("edit"), lambda desk: (
        edit_result.doing(desk), edit_result.results(desk)
    ))  # fmt: skip
    page.register("edit", sheet)
    page.answers(
        state, shown, samples,
        more={
            "edit-show": edit_result.show,
            "edit-next": edit_result.go_on,
            "edit-sample": lambda desk, reference: post.parcel("edit", edit_result.picture(desk, reference)),
        },
    )  # fmt: skip


def checked(spec: JobSpec) -> JobSpec:
    """A job of this tab that can be done. Raises BadInput, saying what is still to do."""
    if not getattr(spec, "image", ""):
        raise BadInput("There is no picture yet.", "Drop one on the left, or take a sample.")
    if not any(each.strip() for each in getattr(spec, "prompts", ())):
        raise BadInput("Nothing is to be changed yet.", "Say what to see instead, for example: a blue house.")
    return spec


def _picture(page: Page, sheet: Sheet) -> tuple[Any, Any]:
    gr.HTML(step(1, "The picture", "and where it may change"))
    files = gr.File(
        file_count="single", file_types=PICTURES, height=136, elem_id="edit-file", elem_classes="drop",
        label="Drop a picture here, or click to choose one",
    )  # fmt: skip
    samples = gr.HTML(js_on_load=ACT, elem_id="edit-samples")
    image, mask = sheet.add("image", gr.State("")), sheet.add("mask", gr.State(""))
    Board(page, image, mask, name="edit")
    page.live.add(samples, lambda desk: 0, edit_samples.strip)
    return files, samples


def _words(page: Page, sheet: Sheet) -> Any:
    own = edit_drawing.own_settings(page, "edit")
    gr.HTML(step(2, "The change", "in words"))
    source = gr.Textbox(
        label="What it shows now", lines=1, max_lines=4, max_length=4000, elem_id="edit-source",
        placeholder="a red house in the meadow",
        info="Filled in where the picture says so itself. Helps methods that walk the picture back.",
    )  # fmt: skip
    sheet.add("source", source)
    prompt = edit_drawing.prompt_box(
        sheet, name="edit", label="What to see instead", placeholder="a blue house in the meadow",
        info="The whole picture in words, not only the change. Ctrl+Enter edits.",
    )  # fmt: skip
    form = MethodForm(
        "editing", "Method", own["edit"], load=page.demo.load, elem_id="edit-method",
        help="How the picture is held on to while it changes.",
    )  # fmt: skip
    sheet.add_form("edit", form)
    edit_drawing.seeds(sheet, name="edit")
    go = gr.Button("Edit", variant="primary", size="lg", elem_id="edit-go", elem_classes="primary-action")
    base = bases.choice(page, sheet, name="edit")
    Stack(page, sheet, prompt, name="edit", base=base, sweeps=False)
    edit_drawing.drawing(page, sheet, own, name="edit")
    edit_drawing.at_hand(page, "edit")
    edit_drawing.follow_base(page, sheet, base, "edit")
    return go


def _sent(page: Page, sheet: Sheet, go: Any) -> None:
    def send(request: gr.Request, *values: Any) -> None:
        desk = page.desk(request)
        base = str(sheet.form(values).get("base") or page.base)
        desk.submit(checked(sheet.job(values, desk.native(base))))

    sent = go.click(guarded(send), sheet.components, None, **ACTIVE)
    page.changed.append(sent)
    then_in_view(sent, "edit-results")


def _brought(page: Page, files: Any) -> None:
    def take(request: gr.Request, path: str | None, last: dict[str, Any]) -> Any:
        if not path:
            return gr.skip(), gr.skip()
        desk = page.desk(request)
        reference = edit_result.only(desk, desk.upload([path], "picture"))
        parcel = post.parcel("edit", edit_result.picture(desk, reference))
        return {**parcel, "number": last["number"] + 1}, None

    files.upload(guarded(take), [files, page.parcel], [page.parcel, files], **ACTIVE)
