"""The side panel and the status in the header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from studio.desk import Desk
from studio.markup import Markup, tag
from studio.words import KINDS

if TYPE_CHECKING:
    from studio.page import Page


def status(page: Page) -> None:
    """The header's chips: what runs, on which device, with which base."""
    chips = gr.HTML(elem_id="status")
    page.live.add(chips, lambda desk: desk.stamp(), _chips)


def _chips(desk: Desk) -> Markup:
    active = desk.active()
    if active:
        first = active[0]
        share = f" {100 * first.step // first.total} %" if first.total else ""
        more = f" · {len(active) - 1} waiting" if len(active) > 1 else ""
        doing = f"{KINDS.get(first.spec.kind, first.spec.kind)}{share}{more}"
    else:
        doing = "Ready"
    device = "GPU" if "cuda" in desk.devices else "CPU"
    return tag(
        "div",
        tag("span", tag("i", cls="dot on" if active else "dot"), tag("b", doing), cls="chip", role="status"),
        tag("span", "Runs on ", tag("b", device), cls="chip"),
        cls="chips",
    )


def build(page: Page) -> None:
    """The panel itself."""
