"""The tray of reference pictures: what is in it, where more come from, and whose leave is needed.

The tray is a list of references, as a reference method takes them. Uploaded pictures that leave it again are
deleted, unless a drawing was made with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from pipelines.artifacts import assets
from pipelines.errors import BadInput, LikenessError
from pipelines.jobs.references import PICTURES, split
from pipelines.jobs.spec import references_of
from studio.desk import Desk
from studio.markup import Markup, action, empty, join, tag
from studio.mask import address
from studio.words import count

MOST, RECENT, HISTORY = 12, 12, 500
THING, PERSON = "thing", "person"
FOLDER = "references"


def listed(value: Any) -> list[str]:
    """References as a job or a parcel holds them: one, or several."""
    if isinstance(value, str):
        return [value] if value else []
    return [str(each) for each in cast("Sequence[Any]", value or ()) if each]


def pictures(desk: Desk, references: Iterable[str]) -> list[str]:
    """References of single pictures: folders stand for what is in them, what is gone is left out."""
    found: list[str] = []
    for each in references:
        try:
            path = desk.path(each)
        except LikenessError:
            continue
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.suffix.lower() in PICTURES)
            found += [desk.reference(one) for one in inside]
        else:
            found.append(each)
    return list(dict.fromkeys(found))


def added(desk: Desk, tray: Iterable[str], more: Iterable[str]) -> list[str]:
    """The tray with more in it. Raises BadInput where it is full."""
    whole = pictures(desk, [*tray, *more])
    if len(whole) > MOST:
        raise BadInput(
            f"These would be {len(whole)} references.", f"{MOST} are taken; two or three good ones are best."
        )
    return whole


def uploaded(desk: Desk, tray: Iterable[str], paths: Sequence[str]) -> list[str]:
    """The tray with a visitor's own pictures in it. Raises BadInput, DiskFull."""
    if not paths:
        return list(tray)
    fresh = desk.upload(paths, FOLDER)
    try:
        return added(desk, tray, [fresh])
    except BadInput:
        for each in pictures(desk, [fresh]):
            forget(desk, each)
        raise


def removed(desk: Desk, tray: Iterable[str], reference: str) -> list[str]:
    """The tray without one picture."""
    rest = [each for each in pictures(desk, tray) if each != reference]
    forget(desk, reference)
    return rest


def forget(desk: Desk, reference: str) -> None:
    """Delete a picture that was uploaded as a reference, unless a job was made with it."""
    scheme, name = split(reference)
    if scheme != "upload" or not name.startswith(FOLDER) or used(desk, reference):
        return
    path = desk.path(reference)
    path.unlink(missing_ok=True)
    if not any(each.suffix.lower() in PICTURES for each in path.parent.iterdir()):
        for each in path.parent.iterdir():
            each.unlink(missing_ok=True)
        path.parent.rmdir()


def used(desk: Desk, reference: str) -> bool:
    """Whether one of the last jobs names a picture, or the folder that it is in."""
    names = {reference, reference.rpartition("/")[0]}
    rows = desk.store.jobs(HISTORY)
    return any(each in names for row in rows for _, each in references_of(row.spec))


def needs_leave(tray: Iterable[str], shown: str) -> bool:
    """Whether somebody has to have agreed: uploads that show a person. Our own samples need nobody's."""
    return shown == PERSON and any(split(each)[0] not in ("asset",) for each in tray)


# ---- what is shown


def tray(desk: Desk, references: Sequence[str]) -> Markup:
    """The pictures in the tray, each with a button that takes it out."""
    found = pictures(desk, references)
    if not found:
        return empty("No reference yet", "Upload pictures of the subject, or take a sample below.")
    tiles = [
        tag(
            "figure",
            tag("img", src=address(desk, each), alt=f"Reference {number}", loading="lazy"),
            action("×", "remove", each, cls="take-out", aria_label=f"Remove reference {number}"),
            cls="tile",
        )
        for number, each in enumerate(found, 1)
    ]
    said = f"{count(len(found), 'reference')}. All of them are looked at together."
    return join([tag("div", *tiles, cls="tiles"), tag("p", said, cls="quiet")])


@lru_cache(maxsize=1)
def samples() -> tuple[tuple[str, str, str], ...]:
    """(reference of the folder, reference of its first picture, what it is) of every sample set."""
    found: list[tuple[str, str, str]] = []
    for kind in ("subjects", "photos"):
        for folder in sorted(each for each in (assets() / kind).iterdir() if each.is_dir()):
            first = next((one for one in sorted(folder.iterdir()) if one.suffix in PICTURES), None)
            if first is not None:
                home = f"asset:{kind}/{folder.name}"
                what = "drawn " if kind == "subjects" else ""
                found.append((home, f"{home}/{first.name}", what + folder.name.replace("_", " ")))
    return tuple(found)


def sources(desk: Desk) -> Markup:
    """Where else references come from: sample sets, and the last pictures that were drawn."""
    sets = [
        _source(desk, home, picture, f"Take the sample: {what}", "sample")
        for home, picture, what in samples()
    ]
    drawn = [_source(desk, each, each, "Add this picture", "add") for each in recent(desk)]
    parts = [tag("p", "Sample sets", cls="quiet"), tag("div", *sets, cls="thumbs")]
    if drawn:
        parts += [tag("p", "Your last pictures", cls="quiet"), tag("div", *drawn, cls="thumbs")]
    return join(parts)


def _source(desk: Desk, reference: str, picture: str, label: str, act: str) -> Markup:
    image = tag("img", src=address(desk, picture), alt="", loading="lazy")
    return action(image, act, reference, cls="thumb", title=label, aria_label=label)


def recent(desk: Desk) -> list[str]:
    """The last pictures of this workspace."""
    found: list[str] = []
    for row in desk.store.jobs(RECENT, "done", "compose"):
        for each in (row.result or {}).get("pictures") or ():
            path = Path(str(each.get("path", "")))
            if desk.owns(path) and path.is_file():
                found.append(desk.reference(path))
    return found[:RECENT]
