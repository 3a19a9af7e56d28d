"""The right side of Edit: before and after under one slider, the other results, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import pictures
from pipelines.jobs.store import Row
from studio import gallery, post
from studio.desk import Desk
from studio.markup import ACT, Markup, action, empty, join, tag
from studio.mask import address

KIND, SHOWN = "edit", "edit-shown"
EXAMPLE = "asset:samples/house.png"
SLIDE = (
    ACT
    + """
const place = (dial) => {
  const pair = dial.closest('.wipe');
  if (pair) pair.style.setProperty('--at', dial.value + '%');
};
element.addEventListener('input', (event) => {
  if (event.target.matches('.wipe input')) place(event.target);
});
// a new pair keeps the place where the hand left the dial
watch('value', () => element.querySelectorAll('.wipe input').forEach(place));
"""
)
"""For `gr.HTML(js_on_load=SLIDE)`: the dial under a pair moves the edge between its two pictures."""
_OUTSIDE = (
    (40.0, "hardly to be seen"),
    (30.0, "small"),
    (22.0, "clear to see"),
    (0.0, "strong"),
)
"""From how many decibels on a difference between two pictures is called what."""


def doing(desk: Desk) -> Markup:
    """What is being edited; the newest edit where it failed or was stopped."""
    rows = [row for row in desk.active() if row.spec.kind == KIND]
    if not rows:
        return gallery.progress(desk, desk.latest(KIND))
    return join([join([gallery.progress(desk, row), gallery.preview(desk, row)]) for row in rows[:3]])


def results(desk: Desk) -> Markup:
    """The newest finished edit."""
    rows = desk.store.jobs(1, "done", KIND)
    found = _pictures(rows[0]) if rows else []
    if not found:
        return empty(
            "Before and after appear here",
            "Choose a picture on the left, say what to see instead, and press Edit.",
            address(desk, EXAMPLE),
        )
    row = rows[0]
    wanted = desk.draft(SHOWN).get("picture")
    named = [(_reference(desk, each), each) for each in found]
    reference, chosen = next((each for each in named if each[0] == wanted), named[0])
    parts = [_pair(desk, row, chosen), _others(desk, named, reference), _about(desk, row, chosen, reference)]
    return tag("div", *parts, cls="edited")


def show(desk: Desk, reference: str) -> None:
    """Put another result under the slider."""
    desk.keep(SHOWN, {"picture": reference})
    desk.touch(KIND)


def go_on(desk: Desk, reference: str) -> dict[str, Any]:
    """A result as the next picture to edit."""
    return post.parcel("edit", picture(desk, reference), "The result is the picture now. Say what is next.")


def picture(desk: Desk, reference: str, words: str = "") -> dict[str, Any]:
    """A picture for the form: itself, no mask, and in words what it shows as far as it says so itself."""
    return {"image": reference, "source": words or says(desk, reference), "mask": ""}


def says(desk: Desk, reference: str) -> str:
    """The prompt that a picture carries; "" where it says nothing of itself."""
    try:
        prompts = pictures.like(desk.path(reference)).table.get("prompts")
    except LikenessError:
        return ""
    return str(prompts[0]) if prompts else ""


def only(desk: Desk, reference: str) -> str:
    """The first picture of an upload. Raises BadInput where there is none."""
    names = sorted(each for each in desk.path(reference).iterdir() if each.suffix != ".txt")
    if not names:
        raise BadInput("There is no picture in it.", "Choose a photo as JPEG, PNG, WebP or HEIC.")
    return desk.reference(names[0])


def in_words(readings: Mapping[str, Any], masked: bool) -> list[str]:
    """What an edit's own figures say, one sentence each."""
    told: list[str] = []
    if masked:
        told.append("Outside the mask nothing changed: every pixel there is that of your picture.")
    drift = readings.get("outside_psnr_before_paste")
    if isinstance(drift, int | float):
        told.append(
            f"Before your picture was laid over it, the change out there was {_difference(drift)} "
            f"({drift:.1f} dB): "
            + ("the seam should not show." if drift >= 30 else "look at the seam, and raise the feather.")
        )
    near, best = readings.get("reconstruction_psnr"), readings.get("ceiling_psnr")
    if isinstance(near, int | float):
        against = f"; {best:.1f} is the most that this base can do" if isinstance(best, int | float) else ""
        told.append(
            f"Redrawn under its own words, your picture came back with a difference that is "
            f"{_difference(near)} ({near:.1f} dB{against})."
        )
    return told


def _difference(decibels: float) -> str:
    return next(words for least, words in _OUTSIDE if decibels >= least or not least)


def _pictures(row: Row) -> list[dict[str, Any]]:
    return list(cast("Sequence[dict[str, Any]]", (row.result or {}).get("pictures") or ()))


def _reference(desk: Desk, each: Mapping[str, Any]) -> str:
    path = Path(str(each.get("path", "")))
    return desk.reference(path) if desk.owns(path) else ""


def _pair(desk: Desk, row: Row, chosen: Mapping[str, Any]) -> Markup:
    """Two pictures in one frame; what the dial leaves of the first is the second."""
    before = address(desk, str(getattr(row.spec, "image", "")))
    after, prompt = desk.url(Path(str(chosen.get("path", "")))), str(chosen.get("prompt", ""))
    new = tag("img", src=after, alt=f"After: {prompt}", cls="after")
    if not before:
        return tag("div", new, cls="wipe alone")
    return tag(
        "div",
        tag("div", new, tag("img", src=before, alt="Before", cls="before"), tag("i", cls="wipe-edge"),
            tag("span", "Before", cls="wipe-word left"), tag("span", "After", cls="wipe-word right"),
            cls="wipe-frame"),
        tag("input", type="range", min=0, max=100, value=50, aria_label="How much of the picture before"),
        cls="wipe", style="--at:50%",
    )  # fmt: skip


def _others(desk: Desk, named: Sequence[tuple[str, Mapping[str, Any]]], chosen: str) -> Markup | None:
    if len(named) < 2:
        return None
    thumbs = [
        action(
            tag("img", src=desk.url(Path(str(each.get("path", "")))), alt="", loading="lazy"),
            "edit-show", reference, cls="thumb", aria_label=f"Result {number}, seed {each.get('seed')}",
            aria_pressed="true" if reference == chosen else "false",
        )
        for number, (reference, each) in enumerate(named, 1)
    ]  # fmt: skip
    return tag("div", *thumbs, cls="thumbs", role="group", aria_label="Results")


def _about(desk: Desk, row: Row, chosen: Mapping[str, Any], reference: str) -> Markup:
    result = row.result or {}
    path = Path(str(chosen.get("path", "")))
    readings = cast("Mapping[str, Any]", result.get("readings") or {})
    told = in_words(readings, bool(getattr(row.spec, "mask", "")))
    prompt = str(chosen.get("prompt", ""))
    aside = " · ".join(filter(None, (f"seed {chosen.get('seed', '–')}", gallery.took(row))))
    acts = (
        action("Use as the new picture", "edit-next", reference, cls="act main"),
        action("Use these settings", "use", reference),
        action("Identity", "identity", reference),
        *((action("Compare", "compare", reference),) if "compare" in post.ACTS else ()),
        tag("a", "Download", href=desk.url(path), download=path.name, cls="act"),
    )
    return tag(
        "div",
        tag("p", prompt, cls="said"),
        tag("p", aside, cls="quiet"),
        gallery.readouts(chosen.get("readings")),
        tag("ul", *(tag("li", each) for each in told), cls="told") if told else None,
        *(tag("p", each, cls="quiet") for each in result.get("notes") or ()),
        tag("div", *acts, cls="acts"),
        cls="body",
    )
