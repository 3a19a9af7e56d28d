"""Captions of photos: a text file beside the photo, else templates with {token} and {class_word}.

And what is wrong with them, in plain words. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import BadInput

if TYPE_CHECKING:
    from pipelines.jobs.kinds import PhotoSet

LONGEST = 10_000
READ = 77
"""Pieces of text that CLIP reads (arXiv:2103.00020, section 2.4); T5 reads more, Toybox fewer."""

_PIECE = 9  # letters of a word from which on it is more than one piece
_LOOK = 100  # words of a caption that are looked at for phrases
_PHRASE = 3  # words that make a phrase
_NAMED = 3  # photos that a remark names
_STOCK = re.compile(r"^(an? |the )?(photo|picture|image)(graph)? of( an?| the)?\b")


def captions_of(photo: Path, data: PhotoSet, templates: Sequence[str], trigger: str) -> tuple[str, ...]:
    """The captions that a photo may be shown under.

    A text file's caption is used as it is if the token is in it; else the trigger is put in front, since a
    caption without the token would teach nothing to it. Raises BadInput for a template with other names.
    """
    own = beside(photo) if data.captions else ""
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
    return re.search(_word(word), text, re.IGNORECASE) is not None


def check_words(data: PhotoSet) -> None:
    """Check token and class word. Raises BadInput with the way out."""
    if not data.token.strip() or len(data.token.split()) != 1:
        raise BadInput(
            f'"{data.token}" is not one word.', "Use one short rare word as the token, such as sks."
        )
    if data.token.casefold() in data.class_word.casefold().split():
        raise BadInput(
            f'"{data.token}" is both the token and its class.', "Use a rare word as the token, such as sks."
        )
    if not data.class_word.strip():
        raise BadInput("There is no class word.", 'Say what it is in a word or two: --class-word "dog".')


def with_trigger(caption: str, token: str, class_word: str) -> str:
    """The caption with "token class_word" in it exactly once.

    It takes the place of the token, else of the first class word, else it comes in front. Further tokens go.
    """
    trigger, caption = _tidy(f"{token} {class_word}"), _tidy(caption)
    both = rf"{_word(token)}(?:\s+{_word(class_word)})?" if class_word else _word(token)
    place = next((each for each in (both, _word(class_word)) if re.search(each, caption, re.I)), None)
    if place is None:
        return f"{trigger}, {caption}" if caption else trigger
    before, after = re.split(place, caption, maxsplit=1, flags=re.I)
    return _tidy(f"{before}{trigger}{re.sub(_word(token), '', after, flags=re.I)}")


def lint(caption: str, token: str, class_word: str = "") -> list[str]:
    """What is wrong with a caption, in sentences; without a token, only what no token is needed for."""
    if not caption.strip():
        return ["The caption is empty."]
    found: list[str] = []
    count = len(re.findall(_word(token), caption, re.I)) if token else 1
    if not count:
        found.append(f'"{token}" is not in the caption; a training puts it in front.')
    elif token and class_word and not has_word(caption, class_word):
        found.append(f'The caption says "{token}" without "{class_word}"; write "{token} {class_word}".')
    if count > 1:
        found.append(f'"{token}" is in the caption {count} times; once is enough.')
    # a model's own pieces: a mark is one, a long word several, and two say where the text begins and ends
    pieces = 2 + sum(1 + (len(each) - 1) // _PIECE for each in re.findall(r"\w+|[^\w\s]", caption))
    if pieces > READ:
        found.append(
            f"The caption is long, about {pieces} pieces: most models read {READ} and never see its end."
        )
    return found


def lint_all(captions: Sequence[str], token: str, class_word: str = "") -> list[str]:
    """What is wrong with the captions of a set together: the same everywhere, or a phrase that all share."""
    if len(captions) < 2:
        return []
    plain = [_plain(each, token, class_word) for each in captions]
    if len(set(plain)) == 1:
        return [
            f"All {len(captions)} captions are the same. Say in each what is around the subject: what no "
            "caption tells apart is learnt as part of it."
        ]
    phrase = _shared(plain)
    if not phrase:
        return []
    return [
        f'Every caption says "{phrase}": a model learns that as part of the subject. Say it in other words '
        "here and there, or leave it out."
    ]


def remarks_on(photos: Sequence[Path], data: PhotoSet) -> list[str]:
    """What is wrong with the text files beside photos, each remark once with the photos that it is about."""
    own = {
        each.name: named(text, data.token, data.class_word)
        for each in photos
        if data.captions and (text := beside(each))
    }
    about: dict[str, list[str]] = {}
    for name, text in own.items():
        for remark in lint(text, data.token):  # some methods put the token in the place of the class word
            about.setdefault(remark, []).append(name)
    said = [
        f"{', '.join(names[:_NAMED])}{f' and {len(names) - _NAMED:,} more' if len(names) > _NAMED else ''}: "
        f"{remark}"
        for remark, names in about.items()
    ]
    return [*said, *lint_all(list(own.values()), data.token, data.class_word)]


def named(text: str, token: str, class_word: str) -> str:
    """A caption with its braces filled, whatever else is wrong with it; empty words leave them."""
    for name, word in (("{token}", token), ("{class_word}", class_word)):
        text = text.replace(name, word or name)
    return text


def beside(photo: Path) -> str:
    """What the text file beside a photo says, "" without one."""
    path = photo.with_suffix(".txt")
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return _tidy(file.read(LONGEST))


def _word(text: str) -> str:
    """A pattern for words as a whole, however they are spaced; one that never fits for none."""
    words = r"\s+".join(re.escape(each) for each in text.split())
    return rf"(?<!\w){words}(?!\w)" if words else r"(?!)"


def _plain(caption: str, token: str, class_word: str) -> str:
    """Lower case words without marks, a space at either end; the subject becomes "|", which ends a phrase."""
    subject = f"{_word(token)}|{_word(class_word)}"
    told = _STOCK.sub("", re.sub(subject, " | ", caption.casefold(), flags=re.I).strip())
    words = re.findall(r"\w+|[|]", told)
    return f" {' '.join(words[:_LOOK])} "


def _shared(plain: Sequence[str]) -> str:
    """The longest run of words that all texts have, "" where it is shorter than a phrase."""
    parts = [each.split() for each in min(plain, key=len).split("|")]
    for length in range(max(map(len, parts)), _PHRASE - 1, -1):
        for part in parts:
            for start in range(len(part) - length + 1):
                run = " ".join(part[start : start + length])
                if all(f" {run} " in each for each in plain):
                    return run
    return ""


def _tidy(text: str) -> str:
    return " ".join(text.split())
