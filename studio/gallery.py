"""What a job is doing and what it drew: progress, problems, cards with readouts. Shared by every tab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.jobs.store import Row
from studio.desk import Desk
from studio.markup import Markup, action, bar, join, note, problem, readout, tag
from studio.words import KINDS, READOUTS, duration


def progress(desk: Desk, row: Row | None, *, stop: bool = True) -> Markup:
    """A job's state in words and a bar, with a button to stop it; nothing for none or a finished one."""
    if row is None or row.status == "done":
        return Markup("")
    if row.status == "failed":
        error = row.error or {}
        return join([problem(error.get("message", "It failed."), error.get("remedy", "")), _again(row)])
    if row.status in ("cancelled", "interrupted"):
        said = "Stopped as asked." if row.status == "cancelled" else "It was interrupted."
        return join(
            [note(tag("strong", said), " What was saved is untouched. ", _again(row), kind="warning")]
        )
    if row.status == "queued":
        told = tag("b", "Waiting")
        share: float | None = 0.0
        aside = desk.queue.why_it_waits(row.id)
    else:
        told = tag("b", _doing(row))
        share = row.step / row.total if row.total else None
        aside = f"step {row.step:,} of {row.total:,}" if row.total else "preparing"
    words = tag("div", told, tag("span", aside), cls="line")
    button = tag("div", action("Stop", "stop", row.id, cls="act danger"), cls="acts") if stop else None
    return tag("div", words, bar(share, KINDS.get(row.spec.kind, row.spec.kind)), button, cls="progress")


def _doing(row: Row) -> str:
    return KINDS.get(row.spec.kind, row.spec.kind)


def _again(row: Row) -> Markup:
    label = "Go on" if row.spec.kind == "train" else "Try again"
    return tag("div", action(label, "again", row.id, cls="act main"), cls="acts")


def preview(desk: Desk, row: Row | None) -> Markup:
    """The newest preview of a running job."""
    if row is None or row.status != "running":
        return Markup("")
    where = desk.preview_url(row.id)
    if not where:
        return Markup("")
    return tag("figure", tag("img", src=where, alt="The picture so far"), cls="preview")


def readouts(values: Mapping[str, Any] | None) -> Markup:
    """Figures in a row, those with a plain name first."""
    table = dict(values or {})
    named = [(name, table.pop(name)) for name in READOUTS if isinstance(table.get(name), int | float)]
    parts = [readout(READOUTS[name][0], value, READOUTS[name][1]) for name, value in named]
    parts += [
        readout(name.replace("_", " "), value)
        for name, value in table.items()
        if isinstance(value, int | float)
    ]
    return tag("div", *parts, cls="readouts")


def pictures(desk: Desk, row: Row | None, acts: Sequence[tuple[str, str]], *, chosen: str = "") -> Markup:
    """The pictures of a finished job as cards: picture, readouts, prompt, seed, and the given actions."""
    result = (row.result or {}) if row is not None else {}
    cards = [card(desk, each, acts, chosen=chosen) for each in result.get("pictures") or ()]
    return tag("div", *cards, cls="cards") if cards else Markup("")


def card(
    desk: Desk, picture: Mapping[str, Any], acts: Sequence[tuple[str, str]], *, chosen: str = ""
) -> Markup:
    """One picture. `acts` are (act, label); each is sent with the picture's reference."""
    path = Path(str(picture.get("path", "")))
    where, prompt = desk.url(path), str(picture.get("prompt", ""))
    reference = desk.reference(path) if where else ""
    image = tag("img", src=where, alt=prompt or path.name, loading="lazy")
    body = tag(
        "div",
        readouts(picture.get("readings")),
        tag("p", prompt, cls="quiet", title=prompt),
        tag("p", f"seed {picture.get('seed', '–')}", cls="quiet"),
        tag(
            "div",
            *(action(label, act, reference) for act, label in acts),
            tag("a", "Download", href=where, download=path.name, cls="act"),
            cls="acts",
        ),
        cls="body",
    )
    return tag(
        "article",
        tag("a", image, href=where, target="_blank"),
        body,
        cls="card on" if chosen == reference else "card",
    )


def took(row: Row | None) -> str:
    """How long an ended job took."""
    if row is None or row.started is None or row.ended is None:
        return ""
    return duration(row.ended - row.started)
