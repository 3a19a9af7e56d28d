"""Compose: prompts to pictures, with any stack of trained concepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.errors import BadInput
from studio import gallery
from studio.binding import Sheet
from studio.desk import Desk
from studio.forms import MethodForm
from studio.guarded import guarded
from studio.markup import ACT, Markup, empty, join

if TYPE_CHECKING:
    from studio.page import Page

ACTS = (("use", "Use these settings"), ("edit", "Edit"), ("identity", "Identity"))


def build(page: Page) -> None:
    """Left what to draw, right what came of it."""
    from studio.page import ACTIVE

    sheet = Sheet("compose")
    native = page.hall.native(page.base)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_classes="section"):
            prompt = gr.Textbox(
                label="Prompt", lines=3, max_lines=8, max_length=4000, elem_id="compose-prompt",
                placeholder="a sks dog on the beach, watercolor",
                info="What to draw. Weigh a word with (word:1.2); {red|blue} picks one; Ctrl+Enter draws.",
            )  # fmt: skip
            sheet.add("prompts", prompt, lambda text: [text] if (text or "").strip() else None, _first)
            sheet.add(
                "negative", gr.Textbox(label="Avoid", lines=1, max_length=4000, elem_id="compose-negative")
            )
            go = gr.Button(
                "Draw", variant="primary", size="lg", elem_id="compose-go", elem_classes="primary-action"
            )
            with gr.Row():
                sheet.add(
                    "count", gr.Slider(1, 16, value=4, step=1, label="Pictures", elem_id="compose-count")
                )
                sheet.add(
                    "seed", gr.Number(value=0, precision=0, minimum=0, label="Seed", elem_id="compose-seed")
                )
            with gr.Accordion("How words are weighed", open=False):
                form = MethodForm(
                    "guidance", "Guidance", native.get("guidance", {"method": "cfg"}), load=page.demo.load
                )
                sheet.add_form("guidance", form)
        with gr.Column(scale=7, min_width=320):
            state = gr.HTML(js_on_load=ACT, elem_id="compose-progress")
            shown = gr.HTML(js_on_load=ACT, elem_id="compose-gallery")

    def draw(request: gr.Request, *values: Any) -> None:
        desk = page.desk(request)
        spec = sheet.job(values, desk.native(page.base), {"base": page.base})
        if not any(each.strip() for each in getattr(spec, "prompts", ())):
            raise BadInput(
                "There is nothing to draw yet.", "Write a prompt, for example: a red dog on the beach."
            )
        desk.submit(spec)

    sent = gr.on([go.click, prompt.submit], guarded(draw), sheet.components, None, api_name=False, **ACTIVE)
    page.changed.append(sent)
    page.live.add([state, shown], lambda desk: desk.stamp("compose"), _shown)
    page.register("compose", sheet)
    page.answers(state, shown)


def _first(prompts: Any) -> str:
    return str(prompts[0]) if prompts else ""


def _shown(desk: Desk) -> tuple[Markup, Markup]:
    row = desk.latest("compose")
    now = join([gallery.progress(desk, row), gallery.preview(desk, row)])
    cards = gallery.pictures(desk, row, ACTS)
    if row is None:
        cards = empty("Your pictures appear here", "Write a prompt on the left and press Draw.")
    return now, cards
