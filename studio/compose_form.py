"""The left side of Compose: every control, bound to the sheet, and what keeps them in step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.jobs.pictures import SAMPLERS
from studio import bases, post
from studio.binding import Sheet
from studio.compose_addons import AddOns, cost
from studio.compose_gallery import fresh_seed, past
from studio.compose_start import Start
from studio.compose_words import AUTO, help_lines, notes, prompts_of, reference_sets
from studio.forms import MethodForm
from studio.guarded import guarded
from studio.heard import ACTIVE, QUIET
from studio.presets_bar import PresetsBar
from studio.stack import Stack

if TYPE_CHECKING:
    from studio.page import Page

KEYS = """() => {
  if (window.likenessKeys) return;
  window.likenessKeys = true;
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
    if (!event.target.closest('#compose-prompt, #compose-negative')) return;
    event.preventDefault();
    document.querySelector('#compose-go').click();
  });
}"""
"""Ctrl+Enter draws, from either box of words."""


@dataclass
class Controls:
    """What the tab wires."""

    sheet: Sheet
    prompt: Any
    go: Any
    stack: Stack
    bar: PresetsBar


def build(page: Page) -> Controls:
    """The whole left side, inside a column that is open."""
    sheet = Sheet("compose")
    native = page.hall.native(page.base)
    prompt, negative, words = _words(page, sheet)
    base = bases.choice(page, sheet, name="compose")
    stack = Stack(page, sheet, prompt, name="compose", base=base)
    go = gr.Button("Draw", variant="primary", size="lg", elem_id="compose-go", elem_classes="primary-action")
    asked = gr.HTML(elem_id="compose-cost")
    count = _seeds(page, sheet)
    _shape(page, sheet, base)
    with gr.Accordion("Begin from a picture", open=False, elem_id="compose-start-fold"):
        Start(page, sheet, name="compose")
    with gr.Accordion("How words are weighed", open=False, elem_id="compose-guidance-fold"):
        form = MethodForm(
            "guidance", "Guidance", native.get("guidance", {"method": "cfg"}), load=page.demo.load,
            help="How hard the picture is pulled towards the words.", elem_id="compose-guidance",
        )  # fmt: skip
        sheet.add_form("guidance", form)
        AddOns(page, form, name="compose")
    steps = _sampler(sheet, native)
    _measured(page, sheet)
    with gr.Accordion("Presets", open=False, elem_id="compose-presets-fold"):
        bar = PresetsBar(page, sheet, ("compose", "guidance"), name="compose", adjust=post.told)
    _follow(page, sheet, base, prompt, negative, words, stack)
    _costs(page, asked, form, steps, count, prompt, sheet)
    bar.wire()
    page.demo.load(None, None, None, js=KEYS)
    return Controls(sheet, prompt, go, stack, bar)


def number(text: str | None) -> int | str | None:
    """A whole number that was typed; None for an empty box, which leaves the choice open.

    Anything else stays the text it is: a draft keeps it while it is being typed, and a job refuses it.
    """
    words = (text or "").replace(" ", "").replace(",", "")
    if not words:
        return None
    return int(words) if words.isascii() and words.isdigit() else words


def shown_number(value: int | str | None) -> str:
    """A whole number as it is typed; "" for one that is left open."""
    return "" if value is None else str(value)


def _words(page: Page, sheet: Sheet) -> tuple[Any, Any, Any]:
    prompt = gr.Textbox(
        label="Prompt", lines=3, max_lines=8, max_length=4000, elem_id="compose-prompt",
        placeholder="a sks dog on the beach, watercolor", info="What to draw, in plain words.",
    )  # fmt: skip
    words = gr.HTML(elem_id="compose-words")
    negative = gr.Textbox(
        label="Avoid", lines=1, max_lines=4, max_length=4000, elem_id="compose-negative",
        placeholder="blurry", info="What the picture should stay away from. Often best left empty.",
    )  # fmt: skip
    with gr.Accordion("Weights, wildcards, several prompts", open=False, elem_id="compose-help-fold"):
        helped = gr.HTML(elem_id="compose-help")
        lines = gr.Checkbox(
            value=False, label="Every line is a prompt of its own", elem_id="compose-lines",
            info="On: draws each line, with the same seeds, so that they can be compared.",
        )  # fmt: skip
    sheet.add("_lines", lines, bool)
    sheet.add("prompts", prompt, lambda text: [text] if (text or "").strip() else None, "\n".join)
    sheet.add("negative", negative)
    page.live.add(helped, lambda desk: desk.stamp("wildcards"), help_lines)
    return prompt, negative, words


def _seeds(page: Page, sheet: Sheet) -> Any:
    with gr.Row():
        count = gr.Slider(
            1, 16, value=4, step=1, label="Pictures", elem_id="compose-count",
            info="Several seeds show what is chance and what is not.",
        )  # fmt: skip
        seed = gr.Textbox(
            label="Seed", elem_id="compose-seed", max_lines=1, max_length=20, placeholder="new each time",
            info="A number draws the same again; empty draws anew.",
        )  # fmt: skip
    with gr.Row(elem_classes="seed-tools"):
        last = gr.Button("Lock the last seed", size="sm", elem_id="compose-seed-lock")
        dice = gr.Button("Roll the dice", size="sm", elem_id="compose-seed-dice")
        free = gr.Button("New each time", size="sm", elem_id="compose-seed-free")
    sheet.add("count", count, lambda value: int(value or 1))
    sheet.add("seed", seed, number, shown_number)

    def lock(request: gr.Request) -> Any:
        rows = past(page.desk(request))
        if not rows:
            gr.Info("Nothing was drawn yet. Roll the dice instead.", duration=5)
            return gr.skip()
        return str(getattr(rows[0].spec, "seed", 0))

    last.click(guarded(lock), None, seed, **QUIET)
    dice.click(lambda: str(fresh_seed()), None, seed, **QUIET)
    free.click(lambda: "", None, seed, **QUIET)
    return count


def _shape(page: Page, sheet: Sheet, base: Any) -> None:
    shape = gr.Radio(
        [], label="Size", elem_id="compose-shape", info="Sizes that the base was made for, in pixels."
    )
    with gr.Accordion("Another size", open=False, elem_id="compose-size-fold"), gr.Row():
        width = gr.Textbox(
            label="Width (px)", elem_id="compose-width", max_lines=1, max_length=5,
            placeholder="the base's own",
            info="Far from the base's own size pictures fall apart.",
        )  # fmt: skip
        height = gr.Textbox(
            label="Height (px)", elem_id="compose-height", max_lines=1, max_length=5,
            placeholder="the base's own",
            info="Multiples of the base's step; Draw says which.",
        )  # fmt: skip
    for path, each in (("width", width), ("height", height)):
        sheet.add(path, each, number, shown_number)

    def show(request: gr.Request, name: str, wide: str, high: str) -> Any:
        desk = page.desk(request)
        known = bases.shapes(desk, name)
        now = bases.shape_of(number(wide), number(high), bases.native_size(desk, name))
        return gr.update(choices=known, value=now if now in [value for _, value in known] else None)

    def choose(request: gr.Request, chosen: str, name: str) -> tuple[str, str]:
        sides = bases.sides(chosen)
        own = bases.native_size(page.desk(request), name)[:2]
        return ("", "") if sides == own else (str(sides[0]), str(sides[1]))

    gr.on(
        [base.change, width.change, height.change, page.demo.load], guarded(show), [base, width, height],
        shape, **QUIET,
    )  # fmt: skip
    shape.input(guarded(choose), [shape, base], [width, height], **QUIET)


def _sampler(sheet: Sheet, native: dict[str, Any]) -> Any:
    own = {"name": "ddim", "steps": 20, **native.get("sampler", {})}
    with gr.Accordion("Sampler and steps", open=False, elem_id="compose-sampler-fold"):
        name = gr.Dropdown(
            [(shown, key) for key, shown in SAMPLERS.items()], value=own["name"], label="Sampler",
            elem_id="compose-sampler", allow_custom_value=True,
            info="How noise becomes a picture. The base's own is a good start.",
        )  # fmt: skip
        steps = gr.Slider(
            1, 100, value=own["steps"], step=1, label="Steps", elem_id="compose-steps",
            info="10 for a draft, 20 to 30 for a result; above 40 it is rarely better, only slower.",
        )  # fmt: skip
    sheet.add("sampler.name", name)
    sheet.add("sampler.steps", steps, lambda value: int(value or 1))
    return steps


def _measured(page: Page, sheet: Sheet) -> None:
    with gr.Accordion("Readouts", open=False, elem_id="compose-measure-fold"):
        score = gr.Checkbox(
            value=True, label="Measure every picture", elem_id="compose-score",
            info="Obedience to the prompt, and likeness to photos. Off saves a moment a picture.",
        )  # fmt: skip
        photos = gr.Dropdown(
            [("The photos that the first trained concept learned from", AUTO)], value=AUTO,
            label="Likeness to", elem_id="compose-references", allow_custom_value=True,
            info="Photos that were not trained on tell more.",
        )  # fmt: skip
    sheet.add("score", score, bool)
    sheet.add("references", photos, lambda value: None if value == AUTO else value or "")
    page.live.add(
        photos,
        lambda desk: desk.stamp("uploads"),
        lambda desk: gr.update(choices=reference_sets(desk)),
    )


def _follow(
    page: Page, sheet: Sheet, base: Any, prompt: Any, negative: Any, words: Any, stack: Stack
) -> None:
    """The base's sentence and settings follow the base; the note on words follows what is typed."""

    def heard(request: gr.Request, name: str, text: str, avoid: str, rows: list[dict[str, Any]]) -> Any:
        return notes(page.desk(request), name, text, avoid, rows)

    def refill(request: gr.Request, name: str, *revisions: int) -> list[Any]:
        return sheet.filled(bases.filling(page.desk(request), name), *revisions)

    def describe(request: gr.Request, name: str) -> Any:
        return gr.update(info=bases.sentence(page.desk(request), name))

    gr.on([base.change, page.demo.load], guarded(describe), base, base, **QUIET)
    base.input(guarded(refill), [base, *sheet.revisions], sheet.outputs, **ACTIVE)
    gr.on(
        [prompt.change, negative.change, base.change, stack.state.change], guarded(heard),
        [base, prompt, negative, stack.state], words, trigger_mode="always_last", **QUIET,
    )  # fmt: skip


def _costs(
    page: Page, asked: Any, form: MethodForm, steps: Any, count: Any, prompt: Any, sheet: Sheet
) -> None:
    lines = sheet.bound[0].component

    def asks(table: dict[str, Any], many: float, each: float, text: str, split: bool) -> Any:
        return cost(table, many, int(each or 1) * max(1, len(prompts_of(text, split))))

    gr.on(
        [form.state.change, steps.change, count.change, lines.change, prompt.change, page.demo.load],
        guarded(asks), [form.state, steps, count, prompt, lines], asked, trigger_mode="always_last", **QUIET,
    )  # fmt: skip
