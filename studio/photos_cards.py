"""The photos as cards: sample sets to begin with, then every photo with its verdict, caption and actions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio import photos_captions, photos_set
from studio.desk import Desk
from studio.markup import Markup, action, join, note, problem, tag
from studio.photos_set import SAMPLES, Photos, Sample
from studio.words import count

CROPPER = Path(__file__).with_name("photos_crop.js").read_text(encoding="utf-8")
"""For `gr.HTML(js_on_load=CROPPER)`: clicks as with ACT, captions as they are left, and the cropper."""

VERDICTS = {"good": "good", "usable": "usable", "poor": "poor", "unusable": "cannot be used"}


def samples(desk: Desk) -> Markup:
    """The sample sets, one click each."""
    drawn = [_sample(desk, each) for each in SAMPLES if each.drawn]
    real = [_sample(desk, each) for each in SAMPLES if not each.drawn]
    return join([
        tag("p", "Or try one of ours. Drawn subjects, made for Toybox, the small base that is built in:",
            cls="about"),
        tag("div", *drawn, cls="cards samples"),
        tag("p", "Real photos. Toybox knows only a drawn world and will not hold a real dog's face; "
            "take these for a larger base, or to see what happens:", cls="about"),
        tag("div", *real, cls="cards samples"),
    ])  # fmt: skip


def _sample(desk: Desk, sample: Sample) -> Markup:
    folder = desk.path(sample.reference)
    files = sorted(each for each in folder.iterdir() if each.is_file())
    picture = tag("img", src=desk.url(files[0]), alt="", loading="lazy")
    words = tag("span", tag("b", sample.title), tag("small", count(len(files), "photo")))
    return action(join([picture, words]), "sample-set", sample.reference, cls="sample")


def head(desk: Desk, photos: Photos, base: str, token: str, class_word: str) -> Markup:
    """The set as a whole: how many photos, the verdict on all, what to do about it."""
    if photos.problem[0]:
        return join([problem(*photos.problem), _over()])
    if not photos.report:
        return note("Looking at your photos …")
    sample, used = photos.sample, photos.used
    poor = [
        row["name"]
        for row in photos.rows
        if row["verdict"] in ("poor", "unusable") and row["name"] not in photos.exclude
    ]
    words = tag("b", f"{len(used)} of {count(len(photos.rows), 'photo')} will be used")
    name = sample.title if sample else "your photos"
    parts = [tag("div", words, tag("span", name), cls="line")]
    if sample is not None and not sample.drawn and base == "toybox":
        parts.append(
            note(
                "These are real photos, and Toybox was made for a drawn world: expect the colours and the "
                "rough shape, not the face.", kind="warning",
            )
        )  # fmt: skip
    # what the check says of the whole set was said before anything was left out
    reasons = list(photos.report.get("reasons") or ()) if not photos.exclude else []
    parts += [note(f"{each[:1].upper()}{each[1:]}.", kind="warning") for each in reasons]
    if not used:
        parts.append(note("Every photo is left out: take at least one back.", kind="bad"))
    remarks = photos_captions.said_of_all(desk, photos, token, class_word)
    parts += [note(each, kind="warning") for each in remarks]
    acts = [action(f"Leave out the {count(len(poor), 'poor one')}", "out-poor")] if poor else []
    parts.append(tag("div", *acts, _over(), cls="acts"))
    return join(parts)


def _over() -> Markup:
    return action("Take other photos", "clear")


def cards(desk: Desk, photos: Photos, token: str, class_word: str) -> Markup:
    """Every photo as a card."""
    if not photos.rows:
        return Markup("")
    folder = photos_set.folder_of(desk, photos)
    shown = [
        _card(desk, photos, row, folder, token, class_word) for row in photos.rows[: photos.shown]
    ]  # fmt: skip
    rest = len(photos.rows) - len(shown)
    more = tag("div", action(f"Show {rest:,} more", "more"), cls="acts") if rest > 0 else None
    return join([tag("div", *shown, cls="cards photos"), more])


def _card(
    desk: Desk, photos: Photos, row: Mapping[str, Any], folder: Path, token: str, class_word: str
) -> Markup:
    name, verdict = str(row["name"]), str(row["verdict"])
    out = name in photos.exclude
    where = photos_set.small_url(desk, photos, row)
    box = photos.crops.get(name)
    caption = photos_captions.read(folder, name)
    remarks = photos_captions.said(caption, token, class_word)
    # a native button: keyboards reach it, and the picture is what one wants to click
    picture = tag("div", tag("img", src=where, alt=f"Photo {name}", loading="lazy") if where else None,
                  _frame(box), cls="shot")  # fmt: skip
    reasons = "; ".join(str(each) for each in row.get("reasons") or ())
    body = tag(
        "div",
        tag("span", "left out" if out else VERDICTS.get(verdict, verdict),
            cls="tag" if out else f"tag {verdict}"),
        tag("p", reasons, cls="quiet") if reasons and not out else None,
        _caption(name, caption, remarks),
        tag(
            "div",
            action("Take back" if out else "Leave out", "back" if out else "out", name,
                   data_key=f"out-{name}", aria_label=f"{'Take back' if out else 'Leave out'} {name}"),
            _crop_button(name, where, box) if where and not out else None,
            cls="acts",
        ),
        cls="body",
    )  # fmt: skip
    return tag("article", picture, body, cls="card out" if out else "card", aria_label=f"Photo {name}")


def _caption(name: str, caption: str, remarks: list[str]) -> Markup:
    field = tag(
        "textarea", caption, rows=2, data_caption=name, data_key=f"caption-{name}",
        placeholder="no caption: the template is used", aria_label=f"Caption of {name}",
        maxlength=photos_captions.LONGEST,
    )  # fmt: skip
    return join([field, *(tag("p", each, cls="remark") for each in remarks)])


def _crop_button(name: str, where: str, box: photos_set.Box | None) -> Markup:
    return tag(
        "button", "Change crop" if box else "Crop", type="button", cls="act", data_crop=name,
        data_key=f"crop-{name}", data_src=where, data_box=json.dumps(list(box or (0, 0, 1, 1))),
        aria_label=f"Crop {name}",
    )  # fmt: skip


def _frame(box: photos_set.Box | None) -> Markup | None:
    """What a crop keeps, drawn over the small copy."""
    if box is None:
        return None
    left, top, right, bottom = (100 * each for each in box)
    style = f"left:{left:.1f}%;top:{top:.1f}%;width:{right - left:.1f}%;height:{bottom - top:.1f}%"
    return tag("i", cls="frame", style=style)
