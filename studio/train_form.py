"""The controls of a training: what it is, which words, which method, what is looked at. And back: the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.data import captions
from pipelines.errors import BadInput
from pipelines.jobs import presets
from pipelines.jobs.kinds import PhotoSet
from pipelines.jobs.spec import JobSpec
from pipelines.jobs.store import Row
from pipelines.jobs.vocabulary import unknown
from studio import bases, photos_set, train_chooser
from studio.binding import Sheet
from studio.desk import Desk
from studio.forms import MethodForm
from studio.markup import Markup, join, note, tag
from studio.method_words import in_short
from studio.words import duration

if TYPE_CHECKING:
    from studio.page import Page

CHOOSER = "train-chooser"
RIGHTS = "The person in the photos agrees to this, or it is me"


@dataclass(frozen=True)
class Controls:
    """What step 2 and 3 put on the page, for the wiring."""

    sheet: Sheet
    form: MethodForm
    base: Any
    asked: list[Any]
    """The three questions: kind, faithful, small."""
    why: Any
    rights: Any


def what_is_it(sheet: Sheet) -> tuple[list[Any], Any, Any]:
    """Step 2: the three questions, the words, the rights note. → questions, why, rights"""
    with gr.Row():
        kind = gr.Radio(
            list(train_chooser.KINDS), value=train_chooser.DEFAULT["kind"], label="What is it?",
            elem_id="train-kind", elem_classes="pills",
            info="Decides which ways of training make sense.",
        )  # fmt: skip
    with gr.Row():
        faithful = gr.Radio(
            list(train_chooser.FAITHFUL), value=train_chooser.DEFAULT["faithful"], label="How faithful?",
            elem_id="train-faithful", elem_classes="pills",
            info="Closer takes more room and varied photos.",
        )  # fmt: skip
        small = gr.Radio(
            list(train_chooser.SMALL), value=train_chooser.DEFAULT["small"], label="How small?",
            elem_id="train-small", elem_classes="pills", info="The size of the file that comes of it.",
        )  # fmt: skip
    why = gr.HTML(elem_id="train-why")
    with gr.Row():
        sheet.add(
            "data.class_word",
            gr.Textbox(
                label="What people call it", placeholder="dog, glass teapot, man", max_length=80,
                elem_id="train-class", info="One or two ordinary words that the base knows.",
            ),
        )  # fmt: skip
        sheet.add(
            "data.token",
            gr.Textbox(
                value="sks", label="Its new word", max_length=40, elem_id="train-token",
                info="Short and rare, so that it means nothing yet. You write it in prompts: a sks dog.",
            ),
        )  # fmt: skip
    rights = gr.Checkbox(
        value=False, label=RIGHTS, visible=False, elem_id="train-rights",
        info="Pictures of people are theirs. Without their consent, do not train on them or publish results.",
    )  # fmt: skip
    return [kind, faithful, small], why, rights


def how_to_learn(page: Page, sheet: Sheet) -> tuple[MethodForm, Any]:
    """Step 3: base, method with its settings, what is looked at on the way. → form, base"""
    native = page.hall.native(page.base)
    shown = gr.HTML(elem_id="train-how")
    with gr.Accordion("Change how it learns", open=False, elem_id="train-how-fold"):
        base = gr.Dropdown(
            bases.titles(None), value=page.base, label="Base", filterable=False, elem_id="train-base",
            info="The model that learns. What it learns works with this kind of base only.",
        )  # fmt: skip
        sheet.add("base", base)
        form = MethodForm(
            "concepts", "Method", native.get("concept") or _first_method(), load=page.demo.load,
            elem_id="train-method",
            help="The questions above choose one; change it here if you know better.",
        )  # fmt: skip
        sheet.add_form("concept", form)
        with gr.Accordion("Samples, captions and seed", open=False, elem_classes="expert"):
            _watching(sheet)

    def learns(desk: Desk) -> tuple[str, Any]:
        told = desk.draft("train")
        return str(told.get("base") or page.base), told.get("concept") or form.state.value

    page.live.add(shown, lambda desk: repr(learns(desk)), lambda desk: how(*learns(desk)))
    return form, base


def how(base: str, table: Mapping[str, Any]) -> Markup:
    """Step 3 in one line: the base, the method and its first figures."""
    title = bases.title(None, base)
    first, *rest = in_short("concepts", table) or ["No method"]
    return tag("p", tag("b", first), " on ", tag("b", title), *(f" · {each}" for each in rest), cls="how")


def _first_method() -> dict[str, Any]:
    """The method that a training has unless told otherwise."""
    return dict(presets.build("train").model_dump()["concept"])


def _watching(sheet: Sheet) -> None:
    """What is looked at on the way, the template of captions, and the seed."""
    with gr.Row():
        sheet.add(
            "watch.every",
            gr.Number(
                value=50, precision=0, minimum=0, label="Sample every (steps)", elem_id="train-every",
                info="Fewer steps between show more and take longer. 0 for none: then nothing is compared.",
            ),
        )  # fmt: skip
        sheet.add(
            "watch.count",
            gr.Slider(
                1, 16, value=4, step=1, label="Samples each time", elem_id="train-samples",
                info="More show more sides of it.",
            ),
        )  # fmt: skip
    sheet.add(
        "watch.prompts",
        gr.Textbox(
            label="Prompts of the samples, one a line", lines=3, max_lines=8, max_length=4000,
            elem_id="train-prompts", placeholder="empty: some of our own, which it is never trained on",
            info="Write what you want to draw later, with the new word in it.",
        ),
        lambda text: tuple(each.strip() for each in (text or "").splitlines() if each.strip()),
        lambda prompts: "\n".join(str(each) for each in prompts or ()),
    )  # fmt: skip
    sheet.add(
        "watch.best",
        gr.Checkbox(
            value=True, label="Keep the best step, not the last", elem_id="train-best",
            info="Best is where likeness and obedience are highest together.",
        ),
    )  # fmt: skip
    sheet.add(
        "data.template",
        gr.Textbox(
            value=PhotoSet.model_fields["template"].default, label="Caption of photos without one",
            max_length=400, elem_id="train-template",
            info="{token} and {class_word} stand for the words above.",
        ),
    )  # fmt: skip
    with gr.Row():
        sheet.add(
            "data.flip",
            gr.Checkbox(
                label="Show photos mirrored too", elem_id="train-flip",
                info="Helps with few photos. Not for faces, writing or anything one-sided.",
            ),
        )  # fmt: skip
        sheet.add(
            "seed",
            gr.Number(
                value=0, precision=0, minimum=0, maximum=2**31 - 1, label="Seed", elem_id="train-seed",
                info="The same seed and settings give the same result again.",
            ),
        )  # fmt: skip


def job(desk: Desk, sheet: Sheet, values: Sequence[Any], agreed: bool) -> JobSpec:
    """The training that the page describes. Raises BadInput where something of it is missing."""
    photos = photos_set.read(desk)
    if not photos.reference:
        raise BadInput("There are no photos yet.", "Drop some in step 1, or take one of the sample sets.")
    if photos.report and not photos.used:
        raise BadInput("No photo is left to train on.", "Take some back in step 1, or choose others.")
    told = sheet.form(values)
    data = PhotoSet(
        token=str(told.get("data.token", "")).strip(),
        class_word=str(told.get("data.class_word", "")).strip(),
        template=str(told.get("data.template", "")),
    )
    if not data.class_word:
        raise BadInput("It has no name yet.", 'Say in step 2 what people call it, for example "dog".')
    captions.check_words(data)
    captions.fill(data.template, data)
    if needs_rights(desk) and not agreed:
        raise BadInput("Please say that you may use photos of this person.", "Tick the box in step 2.")
    names = set(photos.names)
    more = {
        "data.photos": photos.reference,
        "data.exclude": [each for each in photos.exclude if not names or each in names],
        "data.crops": {
            name: list(box) for name, box in photos.crops.items() if not names or name in names
        },
        "data.token": data.token,
        "data.class_word": data.class_word,
    }  # fmt: skip
    base = str(told.get("base", ""))
    return sheet.job(values, desk.native(base), more)


def needs_rights(desk: Desk) -> bool:
    """Whether the photos are of a person, and not of one of our drawn ones."""
    kind, _, _ = train_chooser.answers(desk.draft(CHOOSER))
    return kind == "person" and photos_set.read(desk).sample is None


def suggestion(desk: Desk, base: str, class_word: str = "") -> Markup:
    """What the answers lead to and why; and which words for it the base never learned."""
    choice = train_chooser.choose(
        train_chooser.rules(desk.folder), *train_chooser.answers(desk.draft(CHOOSER)), base
    )
    strange = [f'"{each}"' for each in unknown(base, class_word)]
    return join(
        [
            note("No method here is made for that; choose one below.", kind="warning")
            if choice is None
            else note(tag("strong", f"{choice.rule.title}. "), choice.why),
            note(
                f"This base never learned {', '.join(strange)}, and so has nothing to build on. Call it by a "
                "word that it knows, if there is one.",
                kind="warning",
            )
            if strange
            else None,
        ]
    )


def suggested(desk: Desk, base: str) -> dict[str, Any]:
    """The partial job that the answers lead to on a base; empty where nothing fits."""
    choice = train_chooser.choose(
        train_chooser.rules(desk.folder), *train_chooser.answers(desk.draft(CHOOSER)), base
    )
    return train_chooser.table_for(choice, desk.native(base)) if choice else {}


def forecast(rows: Sequence[Row], base: str, concept: Mapping[str, Any]) -> str:
    """How long a training will take and how large it gets, from the last one like it; "" without one."""
    for row in rows:
        spec: Any = row.spec
        result = row.result or {}
        past: Mapping[str, Any] = getattr(spec, "concept", {})
        seconds = (result.get("seconds") or {}).get("train")
        alike = spec.base == base and past.get("method") == concept.get("method")
        if row.status != "done" or not alike or not seconds or not result.get("steps"):
            continue
        steps = int(concept.get("steps") or result["steps"])
        share = int(concept.get("batch") or 1) / max(1, int(past.get("batch") or 1))
        left = float(seconds) / int(result["steps"]) * steps * share
        return f"About {duration(left)} for {steps:,} steps, going by your last training of this kind."
    return ""
