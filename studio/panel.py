"""The side panel, the status in the header that opens it, and the notice when a long job ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import gradio as gr

from studio import (
    base_manager,
    panel_bases,
    panel_disk,
    panel_library,
    panel_queue,
    panel_settings,
)
from studio.desk import Desk
from studio.markup import Markup, tag
from studio.panel_parts import kind, script, subject
from studio.words import STATES, duration

if TYPE_CHECKING:
    from studio.page import Page

LONG = 20.0
"""Seconds from which on the end of a job is told."""
TOLD = 12

OPENER = script("panel_opener")
"""The chips open the panel at their part; a wide screen opens it by itself, until somebody closed it."""

NOTICES = script("panel_notices")
"""What ended before the page was opened is not told; names are set as text."""


def status(page: Page) -> None:
    """The header's chips: what runs, on which device, with which base; they open the panel."""
    chips = gr.HTML(elem_id="status", js_on_load=OPENER)
    notices = gr.HTML(elem_id="notices", js_on_load=NOTICES)
    page.live.add(chips, lambda desk: (desk.stamp(), desk.stamp("bases")), _chips)
    page.live.add(notices, lambda desk: desk.stamp(), ended)


def build(page: Page) -> None:
    """The panel itself."""
    with gr.Sidebar(
        label="Queue, library, settings", open=False, position="right", width=400, elem_id="panel"
    ):
        gr.HTML(tag("h2", "Your studio"), elem_id="panel-title")
        for section in (panel_queue, panel_library, panel_bases, panel_disk, panel_settings):
            section.build(page)


def ended(desk: Desk) -> Markup:
    """The long jobs that ended lately, for the script that tells of them."""
    told: list[dict[str, str]] = []
    for row in desk.store.jobs(TOLD):
        took = row.ended - row.started if row.ended and row.started else 0.0
        if row.status in ("queued", "running", "cancelled") or took < LONG:
            continue
        about = subject(row)
        name = f"{kind(row)} ({about[:60]})" if about else kind(row)
        says = f"{name}: {STATES[row.status]} after {duration(took)}"
        told.append({"key": f"{row.id}-{row.ended:.0f}", "state": row.status, "says": says})
    return tag("div", data_jobs=json.dumps(told, ensure_ascii=False), hidden=True)


def _chips(desk: Desk) -> Markup:
    active = desk.active()
    if active:
        first = active[0]
        share = f" {100 * first.step // first.total} %" if first.total else ""
        more = f" · {len(active) - 1} waiting" if len(active) > 1 else ""
        doing = f"{kind(first)}{share}{more}"
    else:
        doing = "Ready"
    device = "GPU" if "cuda" in desk.devices else "CPU"
    dot = tag("i", cls="dot on" if active else "dot")
    base = base_manager.title(desk)
    return tag(
        "div",
        tag(
            "button", dot, tag("b", doing), cls="chip", type="button", data_panel="queue",
            title="Open the queue",
        ),
        tag(
            "button", tag("b", base), f" on {device}", cls="chip", type="button", data_panel="bases",
            title="Choose the base",
        ),
        tag("button", "Library", cls="chip", type="button", data_panel="library", title="Open the library"),
        cls="chips",
    )  # fmt: skip
