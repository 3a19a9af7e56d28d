"""Train Concept: photos in, a word that draws them out, and everything in between to be seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.errors import BadInput
from studio import bases, photos_bulk, photos_cards, photos_set, post, train_form, train_live
from studio.binding import Sheet
from studio.desk import Desk
from studio.guarded import guarded
from studio.heard import ACTIVE, QUIET
from studio.markup import ACT, Markup, step
from studio.train_form import CHOOSER, Controls

if TYPE_CHECKING:
    from studio.page import Page

FILES = ["image", ".zip", ".txt", ".heic", ".heif", ".avif"]


def build(page: Page) -> None:
    """Left four steps from photos to the button, right the training as it runs and what came of it."""
    sheet = Sheet("train")
    with gr.Row(equal_height=False, elem_id="train"):
        with gr.Column(scale=6, min_width=320):
            with gr.Column(elem_classes="section"):
                gr.HTML(step(1, "Photos", "3 to 10 good ones are enough"))
                _photos(page)
            with gr.Column(elem_classes="section"):
                gr.HTML(step(2, "What is it?", "three answers choose a method"))
                asked, why, rights = train_form.what_is_it(sheet)
            with gr.Column(elem_classes="section"):
                gr.HTML(step(3, "How it learns", "as suggested, unless you know better"))
                form, base = train_form.how_to_learn(page, sheet)
        with gr.Column(scale=6, min_width=320, elem_classes="section", elem_id="train-watch"):
            gr.HTML(step(4, "Train and watch"))
            forecast = gr.HTML(elem_id="train-forecast")
            go = gr.Button(
                "Train", variant="primary", size="lg", elem_id="train-go", elem_classes="primary-action"
            )
            train_live.build(page)
    controls = Controls(sheet, form, base, asked, why, rights)
    page.register("train", sheet)
    _ask(page, controls)
    _follow(page, controls, forecast)

    def start(request: gr.Request, agreed: bool, *values: Any) -> None:
        desk = page.desk(request)
        spec = train_form.job(desk, sheet, values, agreed)
        busy = [each for each in desk.active() if each.spec.kind == "train"]
        desk.submit(spec)
        desk.keep(train_live.VIEW, {})
        if busy:
            gr.Info("It is queued, and starts when what runs now is done.", duration=6)

    clicked = go.click(guarded(start), [rights, *sheet.components], None, **ACTIVE)
    page.changed.append(clicked)


def _photos(page: Page) -> None:
    """Step 1: drop photos or take a sample; then the cards."""
    with gr.Column(elem_id="train-drop"):
        drop = gr.File(
            file_count="multiple", file_types=FILES, label="Drop photos or a zip here", height=132,
            elem_id="train-files",
        )  # fmt: skip
        folder = gr.UploadButton(
            "Choose a whole folder", file_count="directory", size="sm", elem_id="train-folder"
        )
    head = gr.HTML(js_on_load=ACT, elem_id="train-set")
    cards = gr.HTML(js_on_load=photos_cards.CROPPER, elem_id="train-photos")
    bulk = photos_bulk.build(page)

    def take(request: gr.Request, files: list[str] | None) -> Any:
        if files:
            desk = page.desk(request)
            photos_set.add(desk, files, Path(files[0]).stem if len(files) == 1 else "photos")
        return None

    def look(request: gr.Request) -> None:
        desk = page.desk(request)
        now = photos_set.read(desk)
        if now.reference and not now.report and not now.problem[0]:
            photos_set.check(desk, base_of(desk, page.base))

    for taken in (
        drop.upload(guarded(take), drop, drop, **ACTIVE),
        folder.upload(guarded(take), folder, None, **ACTIVE),
    ):
        page.changed += [taken, taken.then(guarded(look), None, None, **ACTIVE)]
    page.live.add(
        [head, cards, bulk],
        lambda desk: (desk.stamp("photos"), words_of(desk), base_of(desk, page.base)),
        lambda desk: _shown(desk, base_of(desk, page.base)),
    )
    # another set is shown at once, and looked at by a second listener behind the first
    more = {
        "sample-set": lambda desk, value: _sample(desk, value, page.base),
        "clear": lambda desk, value: photos_set.clear(desk),
        "out": photos_set.leave_out,
        "back": photos_set.take_back,
        "out-poor": lambda desk, value: photos_set.leave_out_poor(desk),
        "more": lambda desk, value: _more(desk),
        "caption": _caption,
        "crop": lambda desk, value: _crop(desk, value, page.base),
    }
    page.answers(head, cards, more=more)
    page.changed += [each.then(guarded(look), None, None, **ACTIVE) for each in page.changed[-2:]]


def _shown(desk: Desk, base: str) -> tuple[Markup, Markup, Any]:
    photos = photos_set.read(desk)
    if not photos.reference:
        return Markup(""), photos_cards.samples(desk), gr.update(visible=False)
    words = words_of(desk)
    return (
        photos_cards.head(desk, photos, base, *words),
        photos_cards.cards(desk, photos, *words),
        gr.update(visible=bool(photos.rows)),
    )


def words_of(desk: Desk) -> tuple[str, str]:
    """Token and class word as they stand in the form now."""
    table = desk.draft("train")
    return str(table.get("data.token") or "").strip(), str(table.get("data.class_word") or "").strip()


def base_of(desk: Desk, fallback: str) -> str:
    """The base that stands in the form now."""
    return str(desk.draft("train").get("base") or fallback)


def _sample(desk: Desk, reference: str, fallback: str) -> dict[str, Any]:
    """Take a sample set, and fill in what is known of it."""
    sample = next((each for each in photos_set.SAMPLES if each.reference == reference), None)
    if sample is None:
        raise BadInput("There is no such sample set.", "Choose one of those that are shown.")
    photos_set.choose(desk, reference)
    _, faithful, small = train_form.train_chooser.answers(desk.draft(CHOOSER))
    answers = {"kind": sample.kind, "faithful": faithful, "small": small}
    desk.keep(CHOOSER, answers)
    table = train_form.suggested(desk, base_of(desk, fallback))
    data = {**dict(table.get("data") or {}), "class_word": sample.class_word}
    return post.parcel("train", {**table, "data": data})


def _more(desk: Desk) -> None:
    photos_set.change(desk, shown=photos_set.read(desk).shown + photos_set.SHOWN)


def _caption(desk: Desk, value: str) -> None:
    name, text = json.loads(value)
    photos_bulk.photos_captions.write(desk, str(name), str(text))


def _crop(desk: Desk, value: str, fallback: str) -> None:
    name, box = json.loads(value)
    photos_set.crop(desk, str(name), None if box in (None, [0, 0, 1, 1]) else box)
    photos_set.check(desk, base_of(desk, fallback))


def _ask(page: Page, controls: Controls) -> None:
    """The questions choose the method; they and the base are what the suggestion follows."""
    sheet = controls.sheet
    revisions = sheet.revisions

    def answered(request: gr.Request, kind: str, faithful: int, small: int, base: str, *raised: int) -> Any:
        desk = page.desk(request)
        desk.keep(CHOOSER, {"kind": kind, "faithful": faithful, "small": small})
        desk.touch(CHOOSER)
        return sheet.filled(train_form.suggested(desk, base), *raised)

    inputs = [*controls.asked, controls.base, *revisions]
    changes = [each.input for each in (*controls.asked, controls.base)]
    page.changed.append(gr.on(changes, guarded(answered), inputs, sheet.outputs, **QUIET))


def _follow(page: Page, controls: Controls, forecast: Any) -> None:
    """What follows the desk: the questions and why, the rights note, the bases, the forecast."""

    def answers(desk: Desk) -> tuple[Any, ...]:
        return train_form.train_chooser.answers(desk.draft(CHOOSER))

    page.live.add(controls.asked, answers, lambda desk: [gr.update(value=each) for each in answers(desk)])
    page.live.add(
        controls.why,
        lambda desk: (answers(desk), base_of(desk, page.base), words_of(desk)),
        lambda desk: train_form.suggestion(desk, base_of(desk, page.base), words_of(desk)[1]),
    )
    page.live.add(
        controls.rights,
        lambda desk: (train_form.needs_rights(desk),),
        lambda desk: gr.update(visible=train_form.needs_rights(desk)),
    )
    page.live.add(
        controls.base,
        lambda desk: tuple(desk.base_names()),
        lambda desk: gr.update(choices=bases.titles(desk)),
    )
    page.live.add(
        forecast,
        lambda desk: (desk.draft("train").get("concept"), base_of(desk, page.base)),
        lambda desk: train_live.forecast(desk, base_of(desk, page.base)),
    )
