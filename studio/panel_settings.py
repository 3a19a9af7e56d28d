"""Settings in the side panel: look, notices, where things are, the doctor, and deleting everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.errors import NotAvailable
from pipelines.jobs.queries import Doctor
from studio import base_manager, disk
from studio.desk import Desk
from studio.guarded import guarded
from studio.heard import ACTIVE, QUIET
from studio.markup import Markup, note, tag
from studio.panel_parts import fact, script
from studio.words import size

if TYPE_CHECKING:
    from studio.page import Page

LICENCE = "https://www.apache.org/licenses/LICENSE-2.0"
SIGNS = {True: ("✓", "good", "fine"), False: ("✗", "bad", "to do"), None: ("–", "", "for your information")}

PREFERENCES = script("panel_settings")
"""Look and notices are the browser's own affair: kept there, sent nowhere."""


def build(page: Page) -> None:
    """The section."""
    with gr.Accordion("Settings", open=False, elem_id="panel-settings"):
        gr.HTML(preferences(), js_on_load=PREFERENCES, elem_id="settings-look")
        about = gr.HTML(elem_id="settings-about")
        check = gr.Button("Check this installation", size="sm", elem_id="settings-doctor", visible=False)
        told = gr.HTML(elem_id="settings-told")
        with gr.Accordion("Delete everything of mine", open=False, elem_id="settings-all"):
            sure = gr.Checkbox(
                False, label="Yes, all of it", elem_id="settings-sure",
                info="Stops every job and deletes photos, concepts, pictures, presets and the history. "
                "Nothing of it comes back.",
            )  # fmt: skip
            erase = gr.Button(
                "Delete everything", variant="stop", size="sm", elem_id="settings-erase", interactive=False
            )

    def here(request: gr.Request) -> Any:
        desk = page.desk(request)
        return facts(desk), gr.update(visible=base_manager.may_add(desk))

    def doctor(request: gr.Request) -> Markup:
        return examined(page.desk(request))

    def everything(agreed: bool, request: gr.Request) -> Any:
        if agreed:
            freed = disk.delete_all(page.desk(request))
            gr.Info(f"Everything is deleted: {size(freed)}.", duration=8)
        return gr.update(value=False), gr.update(interactive=False)

    page.demo.load(here, None, [about, check], **QUIET)
    check.click(guarded(doctor), None, told, api_visibility="private", show_progress="minimal")
    sure.change(lambda agreed: gr.update(interactive=bool(agreed)), sure, erase, **QUIET)
    page.changed.append(erase.click(guarded(everything), sure, [sure, erase], **ACTIVE))


def examined(desk: Desk) -> Markup:
    """The doctor's list. Raises NotAvailable where others can reach the studio: it names folders."""
    if not base_manager.may_add(desk):
        raise NotAvailable("Checking", "others can reach this studio", "On the machine: likeness doctor")
    return table(desk.ask(Doctor()))


def preferences() -> Markup:
    """The switches of the look and of notices."""
    return tag(
        "div",
        _switch("theme", "Look", (("light", "Light"), ("dark", "Dark"), ("system", "As the system"))),
        _switch("sound", "Sound when a long job ends", (("off", "Off"), ("on", "On"))),
        _switch("notify", "Note of the browser when a long job ends", (("off", "Off"), ("on", "On"))),
        tag("p", cls="quiet", data_said=True, role="status"),
        cls="switches",
    )


def facts(desk: Desk) -> Markup:
    """Version, workspace, licence. Where the workspace is, only its own user is told."""
    local = base_manager.may_add(desk)
    return tag(
        "div",
        fact("Version", _version()),
        fact("Workspace", desk.folder) if local else None,
        fact("Kept for", f"{desk.settings.hosting.keep_hours} h after your last visit")
        if desk.settings.hosting.keep_hours
        else None,
        fact("Licence", tag("a", "Apache 2.0", href=LICENCE, target="_blank", rel="noreferrer")),
        cls="facts",
    )


def table(told: Mapping[str, Any]) -> Markup:
    """What the doctor found, and what to do about it."""
    rows: list[Markup] = []
    for each in cast("Sequence[Mapping[str, Any]]", told.get("rows") or ()):
        sign, kind, words = SIGNS.get(each.get("ok"), SIGNS[None])
        fix = each.get("fix")
        rows.append(
            tag(
                "li",
                tag("span", sign, cls=f"tag {kind}", role="img", aria_label=words),
                tag("div", tag("b", each.get("check", "")), tag("span", each.get("found", ""), cls="quiet"),
                    tag("span", fix, cls="fix") if fix else None),
            )
        )  # fmt: skip
    head = (
        note("Everything that is needed is here.", kind="good")
        if told.get("ok")
        else note("Something needs a hand; see the lines marked ✗.", kind="warning")
    )
    return tag("div", head, tag("ul", *rows, cls="doctor"))


def _switch(name: str, label: str, choices: Sequence[tuple[str, str]]) -> Markup:
    buttons = [
        tag(
            "button",
            words,
            type="button",
            cls="act",
            data_preference=name,
            data_choice=choice,
            aria_pressed="false",
        )
        for choice, words in choices
    ]
    return tag(
        "div",
        tag("span", label),
        tag("div", *buttons, cls="acts"),
        role="group",
        aria_label=label,
        cls="switch",
    )


def _version() -> str:
    try:
        return version("likeness-studio")
    except PackageNotFoundError:
        return "not installed"
