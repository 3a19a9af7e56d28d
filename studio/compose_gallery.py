"""The right side of Compose: what is being drawn, what came of it, and the last jobs to look at again."""

from __future__ import annotations

import secrets
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

from pipelines.artifacts import atomic_write
from pipelines.errors import BadInput
from pipelines.jobs.spec import Compose, from_table
from pipelines.jobs.store import Row
from studio import gallery, post
from studio.desk import Desk
from studio.markup import Markup, action, empty, join, note, tag
from studio.words import count, size

KIND, PAST, SHOWN = "compose", 12, 3
SEEDS = 2**31
ACTS = (
    ("use", "Use these settings"),
    ("edit", "Edit"),
    ("identity", "Identity"),
    ("compare", "Compare"),
)
SHEET = "asset:toybox/sheet.png"
EXAMPLES = (
    "a red dog on the beach",
    "a blue teapot in space, pencil style",
    "a woman with curly hair and glasses in a forest",
    "a {purple|green|orange} rabbit with a hat in the snow",
)
"""Prompts to begin with, of words that the embedded base learned."""

_ENDED: WeakKeyDictionary[Desk, tuple[tuple[int, ...], tuple[int, ...]]] = WeakKeyDictionary()
"""What `ended` said of each desk at which stamp: it is asked every second, by every page."""


def fresh_seed() -> int:
    """A seed that nobody chose."""
    return secrets.randbelow(SEEDS)


# ---- what is shown


def doing(desk: Desk) -> Markup:
    """What is being drawn and what waits; the newest where it failed or was stopped."""
    rows = [row for row in desk.active() if row.spec.kind == KIND]
    if not rows:
        return gallery.progress(desk, desk.latest(KIND))
    parts = [join([gallery.progress(desk, row), gallery.preview(desk, row)]) for row in rows[:SHOWN]]
    rest = len(rows) - SHOWN
    more = tag("p", f"{count(rest, 'more job')} after these.", cls="quiet") if rest > 0 else None
    return tag("div", *parts, more, cls="doing")


def past(desk: Desk) -> list[Row]:
    """The last jobs of this tab that have pictures, the newest first; what references drew is Identity's."""
    rows = desk.store.jobs(4 * PAST, "done", KIND)
    return [row for row in rows if _pictures(row) and not getattr(row.spec, "reference", None)][:PAST]


def ended(desk: Desk) -> tuple[int, ...]:
    """The numbers of those jobs: while one is being drawn, the pictures below it stand still."""
    stamp = desk.stamp(KIND)
    if _ENDED.get(desk, ((), ()))[0] != stamp:
        _ENDED[desk] = stamp, tuple(row.id for row in past(desk))
    return _ENDED[desk][1]


def results(desk: Desk, chosen: int = 0) -> tuple[Markup, Markup]:
    """The pictures of a job, by default of the newest that has some, and the strip of the last jobs."""
    return shown(desk, chosen), strip(desk, chosen)


def shown(desk: Desk, chosen: int) -> Markup:
    """The pictures of a job, or of the newest that has some (`chosen` 0), with what can be done with them."""
    rows = past(desk)
    row = next((each for each in rows if each.id == chosen), rows[0] if rows else None)
    if row is None:
        return _first(desk)
    result = row.result or {}
    return join(
        [
            _heading(row, newest=row.id == rows[0].id),
            *(note(each) for each in cast("Sequence[str]", result.get("notes") or ())),
            gallery.pictures(desk, row, ACTS),
        ]
    )


def _first(desk: Desk) -> Markup:
    """Before the first picture: what the embedded base draws, and prompts to try."""
    hint = tag("span", "Write a prompt and press Draw, or begin with one of these:")
    tries = tag("span", *(action(each, "example", each) for each in EXAMPLES), cls="acts")
    return empty("Your pictures appear here", join([hint, tries]), desk.url(SHEET))


def _heading(row: Row, *, newest: bool) -> Markup:
    facts = [count(len(_pictures(row)), "picture"), gallery.took(row)]
    acts = [
        action("New seeds", "fresh", row.id, cls="act main", title="The same job, other pictures"),
        action("Same seeds again", "again", row.id, title="The same job once more: it should draw the same"),
        action("Use all settings", "whole", row.id, title="Put the settings of this job into the form"),
        action("Download all", "zip", row.id, title="All pictures in one ZIP file"),
        None if newest else action("Back to the newest", "show", 0),
    ]
    line = tag("div", tag("b", "Results"), tag("span", " · ".join(filter(None, facts))), cls="line")
    return tag("div", line, tag("div", *acts, cls="acts"), cls="results-head")


def strip(desk: Desk, chosen: int) -> Markup:
    """The last jobs as small pictures; a click shows one again."""
    rows = past(desk)
    if len(rows) < 2:
        return Markup("")
    at = chosen if any(row.id == chosen for row in rows) else rows[0].id
    return tag(
        "div",
        tag("p", "Earlier", cls="quiet"),
        tag("div", *(_thumbnail(desk, row, row.id == at) for row in rows), cls="past"),
    )


def _thumbnail(desk: Desk, row: Row, here: bool) -> Markup:
    first = _pictures(row)[0]
    prompt = str(first.get("prompt", ""))
    image = tag("img", src=desk.url(Path(str(first["path"]))), alt="", loading="lazy")
    return action(
        image, "show", row.id, cls="thumb on" if here else "thumb", title=prompt, aria_label=f"Show {prompt}",
        aria_pressed="true" if here else "false",
    )  # fmt: skip


def _pictures(row: Row) -> list[dict[str, Any]]:
    return list((row.result or {}).get("pictures") or ())


# ---- what can be done with it


def fresh(desk: Desk, value: str) -> None:
    """Queue a job once more with a seed that nobody chose."""
    row = _row(desk, value)
    table = {**post.settings(row.spec.portable()), "kind": KIND, "seed": fresh_seed()}
    desk.submit(from_table(table), row.priority)


def example(desk: Desk, value: str) -> dict[str, Any]:
    """A prompt to begin with, for the form."""
    return post.parcel(KIND, post.told({"prompts": [value]}))


def whole(desk: Desk, value: str) -> dict[str, Any]:
    """All settings of a job, for the form."""
    table = post.settings(_row(desk, value).spec.portable())
    return post.parcel(KIND, post.told(table), "These are the settings of the whole job.")


def packed(desk: Desk, value: str) -> Markup:
    """All pictures of a job in a ZIP file, written when first asked for; → a link to it. Raises DiskFull."""
    row = _row(desk, value)
    paths = [path for each in _pictures(row) if desk.owns(path := Path(str(each["path"]))) and path.is_file()]
    if not paths:
        raise BadInput("The pictures of this job are gone.", "Draw them again.")
    target = paths[0].parent / f"{paths[0].parent.name}.zip"
    newest = max(each.stat().st_mtime for each in paths)
    if not target.is_file() or target.stat().st_mtime < newest:
        atomic_write(target, lambda temporary: _pack(temporary, paths))
    link = tag("a", f"Download {target.name}", href=desk.url(target), download=target.name, data_auto=True)
    return note(f"{count(len(paths), 'picture')}, {size(target.stat().st_size)}: ", link, kind="good")


def _pack(target: Path, paths: Sequence[Path]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # PNGs are packed already
        for each in paths:
            archive.write(each, each.name)


def _row(desk: Desk, value: str) -> Row:
    """A job of this tab by its number. Raises UnknownName, BadInput."""
    if not value.isascii() or not value.isdigit():
        raise BadInput("That is no job.", "Reload the page.")
    row = desk.store.get(int(value))
    if not isinstance(row.spec, Compose):
        raise BadInput("That job drew no pictures here.", "Choose one of the strip.")
    return row
