"""How pictures are drawn, as controls that Edit and Identity share: base, seeds, guidance, sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.jobs import presets
from pipelines.jobs.pictures import SAMPLERS
from pipelines.jobs.spec import KINDS
from studio.binding import Sheet
from studio.forms import MethodForm
from studio.guarded import guarded
from studio.heard import QUIET

if TYPE_CHECKING:
    from studio.page import Page

_KEYS = """() => {
  const keys = window.likenessGo = window.likenessGo || new Set();
  if (keys.has('NAME')) return;
  keys.add('NAME');
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
    if (!event.target.closest('#NAME-prompt, #NAME-negative, #NAME-source')) return;
    event.preventDefault();
    document.querySelector('#NAME-go').click();
  });
}"""


def at_hand(page: Page, name: str) -> None:
    """Ctrl+Enter in the boxes of words presses the button."""
    page.demo.load(None, None, None, js=_KEYS.replace("NAME", name), **QUIET)


def own_settings(page: Page, kind: str) -> dict[str, Any]:
    """What the forms start with: a job's defaults under those of the base that the studio starts with."""
    whole = KINDS[kind].model_validate({}).portable()
    native = page.hall.native(page.base)
    return presets.merge(presets.merge(whole, native), native.get(kind) or {})


def first(prompts: Any) -> str:
    """A job's prompts in the one box of a form."""
    return str(prompts[0]) if prompts else ""


def words(value: Any) -> list[str] | None:
    """What stands in the box as a job's prompts; None for nothing."""
    return [value.strip()] if (value or "").strip() else None


def prompt_box(sheet: Sheet, *, name: str, label: str, placeholder: str, info: str) -> Any:
    """The box for what to see."""
    box = gr.Textbox(
        label=label, lines=2, max_lines=6, max_length=4000, placeholder=placeholder, info=info,
        elem_id=f"{name}-prompt",
    )  # fmt: skip
    return sheet.add("prompts", box, words, first)


def follow_base(page: Page, sheet: Sheet, base: Any, kind: str) -> None:
    """Once the sheet is whole: another base brings its own settings for this kind of job."""

    def refill(request: gr.Request, name: str, *revisions: int) -> list[Any]:
        native = page.desk(request).native(name)
        return sheet.filled(presets.merge(native, native.get(kind) or {}), *revisions)

    base.input(guarded(refill), [base, *sheet.revisions], sheet.outputs, **QUIET)


def seeds(sheet: Sheet, *, name: str, most: int = 8, count: int = 1) -> None:
    """How many pictures, from which seed on."""
    with gr.Row():
        many = gr.Slider(
            1, most, value=count, step=1, label="Results", elem_id=f"{name}-count",
            info="Several seeds show what is chance and what is not.",
        )  # fmt: skip
        seed = gr.Number(
            value=0, precision=0, minimum=0, label="Seed", elem_id=f"{name}-seed",
            info="The same number draws the same again; another one another result.",
        )  # fmt: skip
    sheet.add("count", many, lambda value: int(value or 1))
    sheet.add("seed", seed, lambda value: int(value or 0))


def drawing(page: Page, sheet: Sheet, own: dict[str, Any], *, name: str) -> None:
    """Guidance, sampler, steps and what to avoid, folded away."""
    with gr.Accordion("How words are weighed", open=False, elem_id=f"{name}-guidance-fold"):
        form = MethodForm(
            "guidance", "Guidance", own["guidance"], load=page.demo.load,
            help="How hard the picture is pulled towards the words. Raise it when they are ignored.",
            elem_id=f"{name}-guidance",
        )  # fmt: skip
        sheet.add_form("guidance", form)
        negative = gr.Textbox(
            label="Avoid", lines=1, max_lines=4, max_length=4000, elem_id=f"{name}-negative",
            placeholder="blurry", info="What the picture should stay away from. Often best left empty.",
        )  # fmt: skip
        sheet.add("negative", negative)
    with gr.Accordion("Sampler and steps", open=False, elem_id=f"{name}-sampler-fold"):
        sampler = gr.Dropdown(
            [(shown, key) for key, shown in SAMPLERS.items()], value=own["sampler"]["name"], label="Sampler",
            elem_id=f"{name}-sampler", allow_custom_value=True,
            info="How noise becomes a picture. The base's own is a good start.",
        )  # fmt: skip
        steps = gr.Slider(
            1, 100, value=own["sampler"]["steps"], step=1, label="Steps", elem_id=f"{name}-steps",
            info="20 to 50 for a result. More follow the picture more closely, and take longer.",
        )  # fmt: skip
    sheet.add("sampler.name", sampler)
    sheet.add("sampler.steps", steps, lambda value: int(value or 1))
