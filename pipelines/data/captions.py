"""Captions of photos: a text file beside the photo, else templates with {token} and {class_word}."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import BadInput

if TYPE_CHECKING:
    from pipelines.jobs.kinds import PhotoSet

LONGEST = 10_000


def captions_of(photo: Path, data: PhotoSet, templates: Sequence[str], trigger: str) -> tuple[str, ...]:
    """The captions that a photo may be shown under.

    A text file's caption is used as it is if the token is in it; else the trigger is put in front, since a
    caption without the token would teach nothing to it. Raises BadInput for a template with other names.
    """
    own = _beside(photo) if data.captions else ""
    if own:
        text = fill(own, data) if "{token}" in own or "{class_word}" in own else own
        return (text if has_word(text, data.token) else f"{trigger}, {text}",)
    return tuple(dict.fromkeys(fill(each, data) for each in templates))


def class_captions(data: PhotoSet, templates: Sequence[str]) -> tuple[str, ...]:
    """The same templates about any member of the class: "a photo of sks dog" → "a photo of dog"."""
    found: list[str] = []
    for each in templates:
        plain = each.replace("{token} {class_word}", "{class_word}")
        if "{class_word}" not in plain:
            plain = plain.replace("{token}", "{class_word}")
        found.append(_tidy(plain.replace("{token}", "").replace("{class_word}", data.class_word)))
    return tuple(dict.fromkeys(found))


def fill(template: str, data: PhotoSet) -> str:
    """A template with the subject's words. Raises BadInput without {token}, or with another name."""
    foreign = set(re.findall(r"\{(\w*)\}", template)) - {"token", "class_word"}
    if foreign or "{token}" not in template:
        what = f"names {{{sorted(foreign)[0]}}}" if foreign else "lacks {token}"
        raise BadInput(
            f'The caption "{template}" {what}.', 'Write it like "a photo of {token} {class_word}".'
        )
    return _tidy(template.replace("{token}", data.token).replace("{class_word}", data.class_word))


def has_word(text: str, word: str) -> bool:
    """Whether a word stands in a text, as a whole and in any case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _beside(photo: Path) -> str:
    """What the text file beside a photo says, "" without one."""
    path = photo.with_suffix(".txt")
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return _tidy(file.read(LONGEST))


def _tidy(text: str) -> str:
    return " ".join(text.split())
