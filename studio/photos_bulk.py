"""Captions in bulk: the template for all, the new word in all, find and replace, and a describer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.errors import LikenessError
from pipelines.jobs.kinds import PhotoSet
from studio import photos_captions
from studio.desk import Desk
from studio.guarded import guarded
from studio.heard import ACTIVE
from studio.markup import Markup, note, problem
from studio.words import count

if TYPE_CHECKING:
    from studio.page import Page

HELP = (
    "A caption says what is around the subject, so that only the subject is learnt with its "
    "word. Small sets do well without: then the template is used for all. Edit one in its card, or all "
    "here."
)


def build(page: Page) -> Any:
    """The folded tools; → the accordion."""
    with gr.Accordion("Captions of all photos", open=False, visible=False, elem_id="train-captions") as bulk:
        gr.Markdown(HELP, elem_classes="about")
        with gr.Row():
            fill = gr.Button("Use the template for all", size="sm", elem_id="captions-template")
            word = gr.Button("Put the new word into all", size="sm", elem_id="captions-word")
            tell = gr.Button("Describe them for me", size="sm", elem_id="captions-describe")
            clear = gr.Button("Remove all", size="sm", elem_id="captions-clear")
        with gr.Row():
            find = gr.Textbox(
                label="Find", max_length=200, elem_id="captions-find", info="Words as they stand in captions."
            )
            by = gr.Textbox(
                label="Replace by", max_length=200, elem_id="captions-by", info="Empty takes them away."
            )
            swap = gr.Button("Replace in all", size="sm", elem_id="captions-replace")
        answer = gr.HTML(elem_id="captions-said")

    def did(work: Any) -> Any:
        def listener(request: gr.Request, *values: Any) -> Markup:
            return work(page.desk(request), *values)

        return guarded(listener)

    clicks = [
        fill.click(did(_template), None, answer, **ACTIVE),
        word.click(did(_word), None, answer, **ACTIVE),
        clear.click(did(lambda desk: _changed(photos_captions.clear(desk))), None, answer, **ACTIVE),
        swap.click(
            did(lambda desk, old, new: _changed(photos_captions.replace(desk, old, new))), [find, by], answer,
            **ACTIVE,
        ),
        tell.click(lambda: note("Looking at your photos …"), None, answer, **ACTIVE).then(
            did(_describe), None, answer, **ACTIVE
        ),
    ]  # fmt: skip
    page.changed += clicks
    return bulk


def _changed(number: int) -> Markup:
    return note(f"{count(number, 'caption')} changed." if number else "Nothing had to be changed.")


def _words(desk: Desk) -> tuple[str, str, str]:
    """Token, class word and template as they stand in the form."""
    table, plain = desk.draft("train"), PhotoSet()
    return (
        str(table.get("data.token") or plain.token).strip(),
        str(table.get("data.class_word") or "").strip(),
        str(table.get("data.template") or plain.template),
    )


def _template(desk: Desk) -> Markup:
    token, class_word, template = _words(desk)
    return _changed(photos_captions.use_template(desk, template, token, class_word))


def _word(desk: Desk) -> Markup:
    token, class_word, _ = _words(desk)
    return _changed(photos_captions.put_trigger(desk, token, class_word))


def _describe(desk: Desk) -> Markup:
    """The captioner's work; where it is missing, which weights and where they belong, until one moves on."""
    token, class_word, _ = _words(desk)
    try:
        done = photos_captions.describe(desk, token, class_word)
    except LikenessError as error:
        return problem(error.message, error.remedy)
    return note(
        f"{count(int(done.get('written') or 0), 'caption')} written. Photos that had one kept theirs.",
        kind="good",
    )
