"""The queue in the side panel: what runs and waits, in which order and why, and what ended lately."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.errors import BadInput
from pipelines.jobs.store import Row
from studio.desk import Desk
from studio.gallery import took
from studio.guarded import guarded
from studio.heard import QUIET
from studio.markup import Markup, action, bar, clicked, empty, join, tag
from studio.panel_parts import CLICKS, icon, kind, subject
from studio.words import STATES, ago, count, duration

if TYPE_CHECKING:
    from studio.page import Page

SHOWN_WAITING, SHOWN_ENDED, LOG_LINES = 20, 8, 200


def build(page: Page) -> None:
    """The section with its log."""
    with gr.Accordion("Queue", open=True, elem_id="panel-queue"):
        jobs = gr.HTML(js_on_load=CLICKS, elem_id="queue-jobs")
        log = gr.HTML(js_on_load=CLICKS, elem_id="queue-log")
    page.live.add(jobs, lambda desk: (desk.stamp(), int(time.time() / 30)), section)
    more = {name: _shifting(name) for name in ("up", "down", "first")}
    page.answers(jobs, more={**more, "stop-waiting": stop_waiting})

    def unfold(event: gr.EventData, request: gr.Request) -> Any:
        act, value = clicked(event)
        if act == "close":
            return ""
        return story(page.desk(request), int(value)) if act == "log" else gr.skip()

    for place in (jobs, log):
        place.click(guarded(unfold), None, log, **QUIET)


def shift(desk: Desk, ident: int, where: str) -> None:
    """Move a waiting job "up", "down" or "first" in its line. Raises BadInput where it does not wait."""
    row = desk.store.get(ident)
    line = desk.store.waiting(row.device)
    at = next((index for index, each in enumerate(line) if each.id == ident), None)
    if at is None:
        raise BadInput(f"Job {ident} does not wait any more.", "It cannot be moved.")
    if where == "down":
        if at + 1 < len(line):
            shift(desk, line[at + 1].id, "up")
        return
    target = line[0] if where == "first" else line[max(0, at - 1)]
    if target.id == ident:
        return
    if target.priority != row.priority:
        desk.store.prioritise(ident, target.priority)
    desk.store.move(ident, target.id)
    desk.touch(row.spec.kind)


def stop_waiting(desk: Desk, value: str = "") -> None:
    """Stop everything that waits; what runs goes on."""
    for row in desk.active():
        if row.status == "queued":
            desk.cancel(row.id)


def section(desk: Desk) -> Markup:
    """The whole section."""
    active = desk.active()
    running = [each for each in active if each.status == "running"]
    waiting = [each for each in active if each.status == "queued"]
    ended = [each for each in desk.store.jobs(40) if each.status not in ("queued", "running")][:SHOWN_ENDED]
    if not active and not ended:
        return empty("Nothing has run yet", "Trainings and pictures line up here.")
    parts: list[object] = [_running(each) for each in running]
    if not running and not waiting:
        parts.append(tag("p", "Nothing runs or waits.", cls="quiet"))
    if waiting:
        parts.append(_waiting_head(waiting))
        parts += _waiting(desk, waiting)
    if ended:
        parts.append(tag("h3", "Lately"))
        parts += [_ended(each) for each in ended]
    return join(parts)


def left(row: Row, now: float | None = None) -> str:
    """How long a running job may still take, from how far it came; "" where that cannot be told."""
    if not row.total or not row.step or row.started is None or row.step >= row.total:
        return ""
    past = (time.time() if now is None else now) - row.started
    return f"about {duration(past / row.step * (row.total - row.step))} left" if past > 1 else ""


def story(desk: Desk, ident: int) -> Markup:
    """What a job said on its way, the newest last."""
    row = desk.store.get(ident)
    said = [event.text for _, event in desk.store.events(ident) if event.kind == "note"][-LOG_LINES:]
    head = tag(
        "div",
        tag("b", f"What {kind(row).lower()} {ident} said"),
        tag("span", action("Refresh", "log", ident), action("Close", "close"), cls="acts"),
        cls="line",
    )
    lines = tag("ol", *(tag("li", each) for each in said)) if said else tag("p", "Nothing yet.", cls="quiet")
    return tag("div", head, lines, cls="log", role="region", aria_label="Log")


def _shifting(where: str) -> Any:
    def act(desk: Desk, value: str) -> None:
        shift(desk, int(value), where)

    return act


def _name(row: Row) -> Markup:
    about = subject(row)
    return tag("div", tag("b", kind(row)), tag("span", about, title=about) if about else None, cls="job-name")


def _running(row: Row) -> Markup:
    share = row.step / row.total if row.total else None
    aside = f"{100 * row.step // row.total} %" if row.total else "preparing"
    eta = left(row)
    return tag(
        "div",
        _name(row),
        bar(share, kind(row)),
        tag("div", f"{aside} · {eta}" if eta else aside, cls="quiet"),
        tag(
            "div", action("Stop", "stop", row.id, cls="act danger"), action("Log", "log", row.id), cls="acts"
        ),
        cls="job running",
    )


def _waiting_head(waiting: Sequence[Row]) -> Markup:
    question = f"Stop {count(len(waiting), 'waiting job')}? What runs goes on."
    every = action("Stop all waiting", "stop-waiting", cls="act danger", data_confirm=question)
    return tag("div", tag("h3", f"{len(waiting)} waiting"), every if len(waiting) > 1 else None, cls="line")


def _waiting(desk: Desk, waiting: Sequence[Row]) -> list[Markup]:
    """The waiting jobs; the first of each device says in full why it waits, the others how many are ahead."""
    ahead: dict[str, int] = {}
    cards: list[Markup] = []
    for row in waiting[:SHOWN_WAITING]:
        place = ahead.get(row.device, 0)
        ahead[row.device] = place + 1
        why = desk.queue.why_it_waits(row.id) if place == 0 else f"{count(place, 'waiting job')} before it."
        moves = [
            icon("↑", "Earlier", "up", row.id, aria_disabled="true" if place == 0 else None),
            icon("↓", "Later", "down", row.id),
            icon("⤒", "Next of all", "first", row.id, aria_disabled="true" if place == 0 else None),
            action("Stop", "stop", row.id, cls="act danger"),
        ]
        cards.append(
            tag("div", _name(row), tag("div", why, cls="quiet"), tag("div", *moves, cls="acts"), cls="job")
        )
    if len(waiting) > SHOWN_WAITING:
        cards.append(tag("p", f"… and {len(waiting) - SHOWN_WAITING} more", cls="quiet"))
    return cards


def _ended(row: Row) -> Markup:
    state = {"done": "good", "failed": "bad"}.get(row.status, "warning")
    error = row.error or {}
    reason = tag("div", f"{error.get('message', '')} {error.get('remedy', '')}".strip(), cls="quiet")
    again = None
    if row.status != "done":
        go_on = row.spec.kind == "train" and row.step > 0
        again = action("Go on" if go_on else "Try again", "again", row.id)
    aside = " · ".join(each for each in (ago(row.ended or row.created), took(row)) if each)
    return tag(
        "div",
        tag("div", _name(row), tag("span", STATES[row.status], cls=f"tag {state}"), cls="line"),
        tag("div", aside, cls="quiet"),
        reason if row.error else None,
        tag("div", again, action("Log", "log", row.id), cls="acts"),
        cls="job",
    )
