"""A training that has ended: which step is kept and why, what was read, and what to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import BadInput
from pipelines.jobs.kinds import KEPT
from pipelines.jobs.store import Row
from studio import gallery, post
from studio.desk import Desk
from studio.markup import Markup, action, join, tag
from studio.train_story import Story
from studio.train_watch import folder_of, title_of
from studio.words import STATES, ago, duration, size

BEST_SAMPLES = 4


def shown(desk: Desk, row: Row, story: Story) -> Markup:
    """The result of a finished training; of a stopped one what was saved; nothing while there is neither."""
    if row.status == "done" and row.result:
        return _finished(desk, row, row.result)
    saved = [_saved(desk, row, each) for each in story.saved]
    return tag("div", tag("b", "Saved on the way"), *saved, cls="saved") if saved else Markup("")


def reason(result: Mapping[str, Any], best: bool = True) -> str:
    """In a sentence or two why that step is the one that is kept."""
    kept, steps = int(result.get("best_step") or 0), int(result.get("steps") or 0)
    curve: Sequence[Mapping[str, float]] = result.get("curve") or ()
    then = next((each for each in curve if each.get("step") == kept), None)
    if not best or then is None or len(curve) < 2:
        why = "as you asked" if not best else "no samples were measured before it"
        return f"Step {kept:,} of {steps:,}, the last, is kept: {why}."
    if kept >= steps:
        return f"The last step, {kept:,}, is kept: {_both(then)} were never better together before."
    return (
        f"Step {kept:,} of {steps:,} is kept: there {_both(then)} are best together. "
        f"At the end it was {_both(curve[-1])}."
    )


def _both(table: Mapping[str, float]) -> str:
    return f"likeness {table.get('dino_i', 0.0):.2f} and obedience {table.get('clip_t', 0.0):.2f}"


def kept_of_the_base(result: Mapping[str, Any], class_word: str) -> list[str]:
    """What the base still does as it did untrained, in sentences; nothing where it was not looked at."""
    table: Mapping[str, float] = result.get("readings") or {}
    words = ((0.9, "as"), (0.75, "nearly as"), (KEPT, "no longer quite as"))
    found: list[str] = []
    for name, what in (("kept_class", f'A plain "{class_word}"'), ("kept_world", "An unrelated prompt")):
        if name in table:
            value = table[name]
            word = next((word for least, word in words if value >= least), "no longer as")
            found.append(f"{what} looks {word} the untrained base draws it ({value:.2f} of 1).")
    return found


def _finished(desk: Desk, row: Row, result: dict[str, Any]) -> Markup:
    data: Any = getattr(row.spec, "data", None)
    watch: Any = getattr(row.spec, "watch", None)
    table = result.get("readings") or {}
    figures = {name: table[name] for name in ("dino_i", "clip_t", "clip_i") if name in table}
    kept = [tag("li", each) for each in kept_of_the_base(result, getattr(data, "class_word", ""))]
    return tag(
        "div",
        _samples(desk, row, int(result.get("best_step") or 0)),
        tag("p", reason(result, bool(getattr(watch, "best", True)))),
        gallery.readouts(figures) if figures else None,
        tag("ul", *kept, cls="kept") if kept else None,
        tag("p", _facts(result), cls="quiet"),
        tag(
            "div",
            action("Use in Compose", "compose", row.id, cls="act main"),
            *_downloads(desk, row, result),
            action("Train again", "retrain", row.id, title="Put its photos and settings back into the form"),
            cls="acts",
        ),
        cls="result",
    )


def _facts(result: Mapping[str, Any]) -> str:
    seconds: Mapping[str, float] = result.get("seconds") or {}
    spent = sum(each for each in seconds.values() if isinstance(each, int | float))
    words = [size(int(result.get("bytes") or 0)), f"{int(result.get('steps') or 0):,} steps"]
    words += [duration(spent)] if spent else []
    return f'Its word is "{result.get("trigger", "")}". File: {", ".join(words)}.'


def _samples(desk: Desk, row: Row, step: int) -> Markup | None:
    """The samples of the kept step."""
    folder = folder_of(row)
    if folder is None:
        return None
    names = [folder / "samples" / f"step-{step:06d}-{index}.png" for index in range(1, BEST_SAMPLES + 1)]
    images = [
        tag("img", src=desk.url(each), alt=f"Sample {index} of the kept step")
        for index, each in enumerate(names, 1)
        if each.is_file()
    ]
    return tag("div", *images, cls="best") if images else None


def _downloads(desk: Desk, row: Row, result: Mapping[str, Any]) -> list[Markup]:
    """Links to the adapter and its card, as far as they are files."""
    folder, adapter = folder_of(row), Path(str(result.get("adapter") or "."))
    links: list[Markup] = []
    for path, label in ((adapter, "Download"), (folder / "card.md" if folder else None, "Its card")):
        if path is not None and path.is_file() and (where := desk.url(path)):
            named = f"{folder.name if folder else 'concept'}{path.suffix}"
            links.append(tag("a", label, href=where, download=named, cls="act"))
    return links


def _saved(desk: Desk, row: Row, name: str) -> Markup:
    folder = folder_of(row)
    path = folder / name if folder else Path(name)
    link = (
        tag("a", "Download", href=desk.url(path), download=path.name, cls="act") if path.is_file() else None
    )
    use = action("Use in Compose", "compose", f"{row.id}/{name}")
    return tag("div", tag("span", path.stem.replace("-", " ")), use, link, cls="waits")


def compose(desk: Desk, value: str) -> dict[str, Any]:
    """A trained concept for Compose: its adapter, a prompt with its word, its photos to measure against.

    `value` is a job's number, or "NUMBER/saved/step-000050.safetensors" for a file saved on the way.
    Raises BadInput where there is nothing to draw with yet, MissingAsset where it is gone.
    """
    number, _, name = value.partition("/")
    row = desk.store.get(int(number))
    folder = folder_of(row)
    if row.spec.kind != "train" or folder is None or not (row.result or name):
        raise BadInput("There is nothing to draw with yet.", "Wait until it is done, or save it now.")
    data: Any = getattr(row.spec, "data", None)
    reference = f"{desk.reference(folder)}/{name}" if name else desk.reference(folder)
    desk.path(reference)
    trigger = str((row.result or {}).get("trigger") or title_of(row))
    table = {
        "base": getattr(row.spec, "base", ""),
        "adapters": [{"adapter": reference, "weight": 1.0}],
        "prompts": [f"a {trigger} on the beach"],
        "references": data.photos,
    }
    return post.parcel("compose", table, f'Write "{trigger}" wherever it shall appear.')


def runs(desk: Desk, rows: Sequence[Row], now: int | None) -> Markup:
    """The last trainings, to look at again."""
    if len(rows) < 2:
        return Markup("")
    lines = [
        tag(
            "div",
            tag("span", tag("b", title_of(row)), f" {STATES[row.status]}, {ago(row.ended or row.created)}"),
            action(
                "Shown" if row.id == now else "Show", "look", row.id,
                aria_label=f"Show {title_of(row)}, job {row.id}",
                aria_disabled="true" if row.id == now else None,
            ),
            cls="waits",
        )
        for row in rows
    ]  # fmt: skip
    return tag("details", tag("summary", "Trainings so far"), join(lines), cls="said")
