"""Disk in the side panel: what takes how much, how to take less, and the bin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

import gradio as gr

from pipelines.errors import BadInput
from studio import disk
from studio.desk import Desk
from studio.disk import Use, What
from studio.guarded import guarded
from studio.heard import ACTIVE, CLICKED
from studio.markup import Markup, action, bar, clicked, join, tag
from studio.panel_parts import CLICKS, fact, fold
from studio.words import KINDS, ago, count, size

if TYPE_CHECKING:
    from studio.page import Page

LARGEST = 12
DAYS = (7, 30, 90, 365)
OFFERS: dict[str, tuple[str, str, str]] = {
    "checkpoints": (
        "Checkpoints of finished trainings",
        "Only needed to train on from where they ended. The concepts themselves stay.",
        "Delete the checkpoints? These trainings can then not be gone on with.",
    ),
    "pictures": (
        "Old pictures",
        "Runs of single pictures and edits that are older than the age below.",
        "Delete these pictures for good?",
    ),
    "packed": (
        "Packed and small copies",
        "Exported zips and thumbnails; they are made again when needed.",
        "Delete these copies?",
    ),
    "bin": ("The bin", "What was thrown away and can still come back.", "Empty the bin for good?"),
}
"""Clean-up → title, what it is, the question before."""


def build(page: Page) -> None:
    """The section; it is computed when it is opened, and after each clean-up."""
    with gr.Accordion("Disk", open=False, elem_id="panel-disk") as whole:
        shown = gr.HTML(js_on_load=CLICKS, elem_id="disk-uses")
        days = gr.Radio(
            [(f"{each} days", each) for each in DAYS], value=30, label="Old means older than",
            elem_id="disk-days", info="For old pictures alone. Trained concepts are never old.",
        )  # fmt: skip

    def draw(age: int, request: gr.Request) -> Markup:
        return section(page.desk(request), age)

    def answer(age: int, event: gr.EventData, request: gr.Request) -> Markup:
        desk = page.desk(request)
        act, value = clicked(event)
        if said := done(desk, act, value, age):
            gr.Info(said, duration=5)
        return section(desk, age)

    whole.expand(guarded(draw), days, shown, **ACTIVE)
    days.input(guarded(draw), days, shown, **ACTIVE)
    page.changed.append(shown.click(guarded(answer), days, shown, **CLICKED))


def done(desk: Desk, act: str, value: str, days: float) -> str:
    """Do what a button of the section says; → what to tell. Raises BadInput, MissingAsset, StateBusy."""
    if act == "clean":
        if value not in get_args(What):
            raise BadInput("Nobody knows that clean-up.", f"Choose one of: {', '.join(get_args(What))}.")
        return f"{size(disk.clean(desk, cast('What', value), days))} are free again."
    if act == "discard-run":
        return f"{disk.throw_away(desk, value).title} is in the bin."
    if act == "restore":
        return f"{disk.restore(desk, value)} is back."
    return ""


def section(desk: Desk, days: float = 30) -> Markup:
    """What takes how much, what could go, and the bin."""
    uses = disk.uses(desk)
    extra = {name: disk.size(desk.folder / name) for name in ("uploads", "thumbs", disk.BIN)}
    total = sum(each.bytes for each in uses) + sum(extra.values())
    free = desk.free_bytes()
    busy = {each.name for each in disk.busy(desk)}
    facts = tag(
        "div",
        fact("This workspace", size(total)),
        fact("Free on the disk", size(free)),
        bar(total / (total + free) if total + free else None, "share of the workspace"),
        fact(count(len(uses), "run"), size(sum(each.bytes for each in uses))),
        fact("Photos that you brought", size(extra["uploads"])),
        cls="facts",
    )
    return join([facts, tag("h3", "Make room"), *_offers(desk, days), _largest(uses, busy), _bin(desk)])


def _offers(desk: Desk, days: float) -> list[Markup]:
    rows: list[Markup] = []
    for what, (title, about, question) in OFFERS.items():
        folders = disk.freed(desk, cast("What", what), days)
        bytes_ = sum(disk.size(each) for each in folders)
        act = (
            action(f"Free {size(bytes_)}", "clean", what, cls="act danger", data_confirm=question)
            if bytes_
            else tag("span", "nothing to free", cls="tag")
        )
        rows.append(
            tag(
                "div", tag("div", tag("b", title), act, cls="line"), tag("div", about, cls="quiet"), cls="job"
            )
        )
    return rows


def _largest(uses: Sequence[Use], busy: set[str]) -> Markup | None:
    if not uses:
        return None
    rows: list[Any] = []
    for each in uses[:LARGEST]:
        question = f"Move {each.name} with everything in it to the bin?"
        act = (
            tag("span", "in use", cls="tag")
            if each.name in busy
            else action("To the bin", "discard-run", each.name, cls="act danger", data_confirm=question)
        )
        about = f"{KINDS.get(each.kind, each.kind or 'Run')} · {ago(each.when)} · {size(each.bytes)}"
        name = tag("div", tag("b", each.name), tag("div", about, cls="quiet"))
        rows.append(tag("div", name, act, cls="line job"))
    return fold("largest", f"The largest of {count(len(uses), 'run')}", *rows)


def _bin(desk: Desk) -> Markup | None:
    items = disk.binned(desk)
    if not items:
        return None
    rows = [
        tag(
            "div",
            tag("div", tag("b", each.title), tag("div", f"{ago(each.at)} · {size(each.bytes)}", cls="quiet")),
            action("Bring back", "restore", each.key),
            cls="line job",
        )
        for each in items
    ]
    return fold("bin", f"In the bin: {len(items)}", *rows)
