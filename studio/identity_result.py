"""The right side of Identity: what was drawn after references, and how like them it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pipelines.jobs.store import Row
from studio import gallery, post
from studio.desk import Desk
from studio.markup import Markup, empty, join, tag
from studio.mask import address

KIND, LIKENESS, PAST = "compose", "dino_i", 60
EXAMPLE = "asset:subjects/rabbit/1.png"


def of_this_tab(row: Row) -> bool:
    """Whether a drawing was made after references."""
    return bool(getattr(row.spec, "reference", None))


def doing(desk: Desk) -> Markup:
    """What is being drawn; the newest where it failed or was stopped."""
    rows = [row for row in desk.active() if row.spec.kind == KIND and of_this_tab(row)]
    if not rows:
        past = filter(of_this_tab, desk.store.jobs(PAST, kind=KIND))
        return gallery.progress(desk, next(past, None))
    return join([join([gallery.progress(desk, row), gallery.preview(desk, row)]) for row in rows[:3]])


def results(desk: Desk) -> Markup:
    """The newest finished drawing after references."""
    rows = [row for row in desk.store.jobs(PAST, "done", KIND) if of_this_tab(row)]
    if not rows:
        return empty(
            "Pictures of your subject appear here",
            "Put a picture or two into the tray, say what to draw, and press Draw.",
            address(desk, EXAMPLE),
        )
    row = rows[0]
    found = cast("Sequence[dict[str, Any]]", (row.result or {}).get("pictures") or ())
    acts = [("use", "Use these settings"), ("edit", "Edit"), ("identity", "As the reference")]
    if "compare" in post.ACTS:
        acts.append(("compare", "Compare"))
    return join([_said(found), gallery.pictures(desk, row, acts), _notes(row)])


def nearest(found: Sequence[Mapping[str, Any]]) -> tuple[int, float] | None:
    """(number from 1, likeness) of the picture most like its references; None where none was measured."""
    measured = [
        (number, float(value))
        for number, each in enumerate(found, 1)
        if isinstance(value := (each.get("readings") or {}).get(LIKENESS), int | float)
    ]
    return max(measured, key=lambda each: each[1], default=None)


def _said(found: Sequence[Mapping[str, Any]]) -> Markup:
    best = nearest(found)
    if best is None:
        return tag("p", "Likeness could not be measured here.", cls="quiet")
    number, value = best
    where = f"Picture {number} is nearest to the references" if len(found) > 1 else "How like the references"
    return tag(
        "p", f"{where}: likeness {value:.2f}, where 1 would be the same and pictures of other things "
        "stand well below. Judge with your own eyes too.", cls="quiet",
    )  # fmt: skip


def _notes(row: Row) -> Markup:
    notes = cast("Sequence[str]", (row.result or {}).get("notes") or ())
    return join(tag("p", each, cls="quiet") for each in notes)
