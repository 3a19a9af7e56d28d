"""Identity: draw a subject after a picture or two of it, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.errors import BadInput
from pipelines.jobs.spec import JobSpec
from studio import bases, edit_drawing, identity_result, identity_tray, identity_weights
from studio.binding import Sheet
from studio.forms import MethodForm, choices
from studio.guarded import guarded
from studio.heard import ACTIVE, CLICKED, QUIET, then_in_view
from studio.identity_tray import PERSON, THING, listed
from studio.markup import ACT, Markup, clicked, step, tag

if TYPE_CHECKING:
    from studio.page import Page

FAMILY = "reference"
LEAVE = "These photos show a person who agreed to this, or me."


def build(page: Page) -> None:
    """Left the references and the words, right what came of them."""
    sheet = Sheet("compose")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_classes="section"):
            tray, shown, leave = _tray(page)
            go = _words(page, sheet, tray)
        with gr.Column(scale=7, min_width=320, elem_id="identity-results"):
            state = gr.HTML(js_on_load=ACT, elem_id="identity-progress")
            results = gr.HTML(js_on_load=ACT, elem_id="identity-gallery")
    _sent(page, sheet, go, (shown, leave))
    page.live.add([state, results], lambda desk: desk.stamp("compose"), lambda desk: (
        identity_result.doing(desk), identity_result.results(desk)
    ))  # fmt: skip
    page.register("identity", sheet)
    page.answers(state, results)


def table_of(value: Any) -> dict[str, Any] | None:
    """The table of a method without its pictures; None where it names no method."""
    table = {name: each for name, each in (value or {}).items() if name != "images"}
    return table if table.get("method") else None


def checked(spec: JobSpec, shown: str, leave: bool) -> JobSpec:
    """A job of this tab that can be done. Raises BadInput, saying what is still to do."""
    table: Any = getattr(spec, "reference", None) or {}
    if not listed(table.get("images")):
        raise BadInput("There is no reference picture yet.", "Upload one on the left, or take a sample.")
    if not any(each.strip() for each in getattr(spec, "prompts", ())):
        raise BadInput("There is nothing to draw yet.", "Say what, for example: a rabbit on the beach.")
    if identity_tray.needs_leave(listed(table.get("images")), shown) and not leave:
        raise BadInput(
            "These photos show a person.", "If they agreed to it, or it is you, tick the box that says so."
        )
    return spec


def _tray(page: Page) -> tuple[Any, Any, Any]:
    gr.HTML(step(1, "References", "pictures of one subject"))
    files = gr.File(
        file_count="multiple", file_types=["image", ".heic", ".heif", ".avif"], height=136,
        elem_id="identity-files", elem_classes="drop", label="Drop pictures here, or click to choose them",
    )  # fmt: skip
    tray = gr.State([])
    shown = gr.HTML(js_on_load=ACT, elem_id="identity-tray")
    with gr.Accordion("Samples and earlier pictures", open=True, elem_id="identity-sources-fold"):
        sources = gr.HTML(js_on_load=ACT, elem_id="identity-sources")
    page.live.add(sources, lambda desk: desk.stamp("compose"), identity_tray.sources)
    who = gr.Radio(
        [("An animal, a thing or a drawing", THING), ("A person", PERSON)], value=THING,
        label="What do they show?", elem_id="identity-who", info="People have a say in pictures of them.",
    )  # fmt: skip
    leave = gr.Checkbox(
        value=False, visible=False, label=LEAVE, elem_id="identity-leave",
        info="Ask before you draw somebody. Drawing people who did not agree harms them, and may be illegal.",
    )  # fmt: skip
    gr.HTML(_privacy(page), elem_id="identity-privacy")

    def upload(request: gr.Request, paths: list[str] | None, now: list[str]) -> Any:
        return identity_tray.uploaded(page.desk(request), now, paths or []), None, False

    def change(now: list[str], event: gr.EventData, request: gr.Request) -> Any:
        act, reference = clicked(event)
        desk = page.desk(request)
        if act == "remove":
            return identity_tray.removed(desk, now, reference)
        if act == "sample":
            return identity_tray.pictures(desk, [reference])
        return identity_tray.added(desk, now, [reference]) if act == "add" else gr.skip()

    def draw(request: gr.Request, now: list[str]) -> Markup:
        return identity_tray.tray(page.desk(request), now)

    files.upload(guarded(upload), [files, tray], [tray, files, leave], **ACTIVE)
    for place in (shown, sources):
        place.click(guarded(change), tray, tray, **CLICKED)
    gr.on([tray.change, page.demo.load], guarded(draw), tray, shown, **QUIET)
    who.change(lambda what: gr.update(visible=what == PERSON, value=False), who, leave, **QUIET)
    return tray, who, leave


def _words(page: Page, sheet: Sheet, tray: Any) -> Any:
    own = edit_drawing.own_settings(page, "compose")
    gr.HTML(step(2, "The picture", "in words"))
    edit_drawing.prompt_box(
        sheet, name="identity", label="Prompt", placeholder="a rabbit on the beach",
        info="What to draw. Name the subject by an ordinary word: rabbit, woman, teapot. Ctrl+Enter draws.",
    )  # fmt: skip
    known = choices(FAMILY)
    form = MethodForm(
        FAMILY, "Method", {"method": known[0][1] if known else ""}, load=page.demo.load,
        elem_id="identity-method", help="How the references are looked at.",
    )  # fmt: skip
    sheet.add(
        FAMILY, form.state, table_of, lambda value: gr.skip() if table_of(value) is None else table_of(value)
    )
    sheet.add_form(FAMILY, form, bind=False)
    sheet.add(f"{FAMILY}.images", tray, lambda value: listed(value) or None, listed)
    base = bases.choice(page, sheet, name="identity")
    _installed(page, form, base)
    edit_drawing.seeds(sheet, name="identity", count=4)
    go = gr.Button("Draw", variant="primary", size="lg", elem_id="identity-go", elem_classes="primary-action")
    edit_drawing.drawing(page, sheet, own, name="identity")
    edit_drawing.at_hand(page, "identity")
    edit_drawing.follow_base(page, sheet, base, "compose")
    return go


def _installed(page: Page, form: MethodForm, base: Any) -> None:
    """Say at once what the chosen method lacks for the chosen base."""
    place = gr.HTML(elem_id="identity-weights")

    def ask(request: gr.Request, table: dict[str, Any], name: str) -> Markup:
        return identity_weights.told(page.desk(request), name, table_of(table) or {})

    gr.on(
        [form.state.change, base.change, page.demo.load], guarded(ask), [form.state, base], place,
        trigger_mode="always_last", **ACTIVE,
    )  # fmt: skip


def _sent(page: Page, sheet: Sheet, go: Any, people: tuple[Any, Any]) -> None:
    def send(request: gr.Request, shown: str, leave: bool, *values: Any) -> None:
        desk = page.desk(request)
        form = sheet.form(values)
        base = str(form.get("base") or page.base)
        spec = checked(sheet.job(values, desk.native(base)), shown, leave)
        identity_weights.check(desk, base, form.get(FAMILY) or {})
        desk.submit(spec)

    inputs = [*people, *sheet.components]
    sent = go.click(guarded(send), inputs, None, **ACTIVE)
    page.changed.append(sent)
    then_in_view(sent, "identity-results")


def _privacy(page: Page) -> Markup:
    hosting = page.hall.settings.hosting
    if hosting.kind == "local":
        said = "Your pictures stay on this machine."
    else:
        said = (
            "This studio is shared, and nobody else sees your pictures. They are deleted, with all that was "
            f"made from them, {hosting.keep_hours:g} hours after your last visit."
        )
    return tag("p", said, cls="quiet")
