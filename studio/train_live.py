"""The right side of the training tab: live parts over the stories of trainings, and what their buttons do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.errors import BadInput, UnknownName
from pipelines.jobs.store import Row
from studio import photos_set, post, train_form, train_result, train_watch
from studio.desk import Desk
from studio.markup import ACT, Markup, empty, tag
from studio.train_story import Stories

if TYPE_CHECKING:
    from studio.page import Page

VIEW = "train-view"
LAST = 8
SAVING = 0.5
"""Seconds from the wish to save to the wish to stop, which travel apart to the worker."""

FOLLOW = (
    ACT
    + """
const end = () => { const row = element.querySelector('.strip'); if (row) row.scrollLeft = row.scrollWidth; };
new MutationObserver(end).observe(element, {childList: true, subtree: true});
"""
)
"""The newest sample is the one that is seen; images that load later have their places already."""


def build(page: Page) -> None:
    """The live parts, in the order in which one looks at them."""
    stories = Stories()
    state = gr.HTML(js_on_load=ACT, elem_id="train-state")
    result = gr.HTML(js_on_load=ACT, elem_id="train-result")
    strip = gr.HTML(js_on_load=FOLLOW, elem_id="train-strip")
    said = gr.HTML(elem_id="train-said")
    curves = gr.HTML(elem_id="train-curves")
    anatomy = gr.HTML(elem_id="train-anatomy")
    past = gr.HTML(js_on_load=ACT, elem_id="train-runs")

    def part(place: Any, key: Any, draw: Any) -> None:
        """A place that follows the training on view: `key` and `draw` of (desk, row, story)."""

        def keyed(desk: Desk) -> Any:
            row = on_view(desk)
            return None if row is None else (row.id, row.status, key(desk, row, stories.of(desk, row.id)))

        def drawn(desk: Desk) -> Any:
            row = on_view(desk)
            return (
                _nothing(desk, place is state) if row is None else draw(desk, row, stories.of(desk, row.id))
            )

        page.live.add(place, keyed, drawn)

    part(
        state,
        lambda desk, row, story: (desk.stamp("train"), len(desk.active())),
        lambda desk, row, story: train_watch.state(desk, row, story, _waiting(desk)),
    )
    part(result, lambda desk, row, story: len(story.saved), train_result.shown)
    part(
        strip,
        lambda desk, row, story: len(story.samples),
        lambda desk, row, story: train_watch.strip(desk, row, story, best_of(row)),
    )
    part(
        said,
        lambda desk, row, story: len(story.notes),
        lambda desk, row, story: train_watch.said(story, row.result),
    )
    part(
        curves,
        lambda desk, row, story: (len(story.losses), story.step, len(story.readings)),
        lambda desk, row, story: train_watch.charts(story, best_of(row)),
    )
    part(
        anatomy,
        lambda desk, row, story: len(story.anatomy),
        lambda desk, row, story: train_watch.anatomy(story, (row.result or {}).get("anatomy")),
    )
    part(
        past,
        lambda desk, row, story: [(each.id, each.status) for each in desk.store.jobs(LAST, kind="train")],
        lambda desk, row, story: train_result.runs(desk, desk.store.jobs(LAST, kind="train"), row.id),
    )
    page.answers(state, result, past, more=acts(page.base))


def on_view(desk: Desk) -> Row | None:
    """The training to show: the one that was asked for, else the foremost."""
    wanted = desk.draft(VIEW).get("job")
    if isinstance(wanted, int):
        try:
            row = desk.store.get(wanted)
            if row.spec.kind == "train":
                return row
        except UnknownName:
            pass
    return _foremost(desk.store.jobs(50, kind="train"))


def _foremost(rows: Sequence[Row]) -> Row | None:
    """What runs, else what runs next, else what ended last; what never began only where nothing else is."""
    for status in ("running", "queued"):
        found = [each for each in rows if each.status == status]
        if found:
            return found[-1]
    begun = [each for each in rows if each.started is not None]
    return max(begun, key=lambda each: each.ended or 0.0) if begun else next(iter(rows), None)


def best_of(row: Row) -> int | None:
    """The step that is kept of a finished training."""
    return (row.result or {}).get("best_step")


def _waiting(desk: Desk) -> list[Row]:
    return [each for each in desk.active() if each.spec.kind == "train" and each.status == "queued"]


def _nothing(desk: Desk, first: bool) -> Markup:
    """What stands there before the first training."""
    if not first:
        return Markup("")
    picture = desk.url("asset:subjects/rabbit/1.png")
    steps = tag(
        "span",
        "Choose photos, say what it is, and press Train. Here you will see it learn: samples, curves, "
        "and what it costs.",
    )
    return empty("Nothing is trained yet", steps, picture)


def forecast(desk: Desk, base: str) -> Markup:
    """How long it will take, where that is known."""
    concept = desk.draft("train").get("concept") or desk.native(base).get("concept") or {}
    words = train_form.forecast(desk.store.jobs(20, kind="train"), base, concept)
    return tag("p", words, cls="about") if words else Markup("")


def acts(base: str) -> dict[str, Any]:
    """What the buttons of this side do."""

    def retrain(desk: Desk, value: str) -> dict[str, Any]:
        return _retrain(desk, value, base)

    return {
        "sample": lambda desk, value: _wish(desk, value, "sample", "Samples are drawn after this step."),
        "save": lambda desk, value: _wish(desk, value, "save", "It is saved after this step."),
        "pause": lambda desk, value: desk.cancel(int(value)),
        "finish": _finish,
        "compose": train_result.compose,
        "retrain": retrain,
        "look": lambda desk, value: _look(desk, int(value)),
    }


def _wish(desk: Desk, value: str, what: str, told: str) -> dict[str, Any]:
    try:
        desk.queue.ask(int(value), what)
    except UnknownName:
        raise BadInput("It does not run any more.", "Look at what came of it below.") from None
    return post.parcel("", {}, told)


def _finish(desk: Desk, value: str) -> dict[str, Any]:
    """End a training with a file of what it learned so far."""
    parcel = _wish(desk, value, "save", "It stops after this step, with a file of what is learned so far.")
    later = threading.Timer(SAVING, desk.cancel, (int(value),))
    later.daemon = True
    later.start()
    return parcel


def _look(desk: Desk, ident: int) -> None:
    desk.store.get(ident)
    desk.keep(VIEW, {"job": ident})
    desk.touch("train")


def _retrain(desk: Desk, value: str, base: str) -> dict[str, Any]:
    """The photos and settings of a training back into the form."""
    spec: Any = desk.store.get(int(value)).spec
    photos_set.choose(desk, spec.data.photos, spec.data.exclude, spec.data.crops)
    photos_set.check(desk, getattr(spec, "base", base))
    return post.parcel("train", post.settings(spec.portable()), "Its photos and settings are in the form.")
