"""Captions of the photos on a desk: a text file beside each, edited one by one or all together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.artifacts import atomic_write
from pipelines.data import captions
from pipelines.errors import BadInput
from pipelines.jobs import presets
from pipelines.jobs.kinds import PhotoSet
from studio import photos_set
from studio.desk import Desk

LONGEST = 2000


def read(folder: Path, name: str) -> str:
    """The caption of a photo as it stands in its file; "" without one."""
    return captions.beside(folder / name)


def said(text: str, token: str, class_word: str) -> list[str]:
    """What is wrong with a caption, in sentences; nothing for a photo without one."""
    if not text:
        return []
    return captions.lint(captions.named(text, token, class_word), token, class_word)


def said_of_all(desk: Desk, photos: photos_set.Photos, token: str, class_word: str) -> list[str]:
    """What is wrong with the captions of the set together."""
    folder = photos_set.folder_of(desk, photos)
    texts = [read(folder, name) for name in photos.used]
    return captions.lint_all(
        [captions.named(text, token, class_word) for text in texts if text], token, class_word
    )


def write(desk: Desk, name: str, text: str) -> None:
    """Write a photo's caption; an empty one takes its file away. Raises BadInput for an unknown photo."""
    if name not in photos_set.read(desk).names:
        raise BadInput(f'There is no photo "{name}" in the set.', "Choose one of those that are shown.")
    folder = photos_set.folder_of(desk, photos_set.own_copy(desk))
    _put(folder / name, text)
    desk.touch(photos_set.NAME)


def use_template(desk: Desk, template: str, token: str, class_word: str) -> int:
    """The template as the caption of every photo; → how many. Raises BadInput for a template without the
    word."""
    text = captions.fill(template, PhotoSet(token=token, class_word=class_word))
    return _each(desk, lambda _: text)


def put_trigger(desk: Desk, token: str, class_word: str) -> int:
    """The new word into every caption exactly once; → how many changed."""
    return _each(desk, lambda old: captions.with_trigger(old, token, class_word) if old else "")


def replace(desk: Desk, find: str, by: str) -> int:
    """Replace words in every caption; → how many changed. Raises BadInput for nothing to find."""
    if not find:
        raise BadInput("There is nothing to find.", "Write the words that shall be replaced.")
    return _each(desk, lambda old: old.replace(find, by))


def clear(desk: Desk) -> int:
    """Take every caption away, so that the template stands for all; → how many there were."""
    return _each(desk, lambda _: "")


def describe(desk: Desk, token: str, class_word: str) -> dict[str, Any]:
    """Let the captioner look at every photo without a caption; → the result of the job.

    Raises NotAvailable, naming the weights, where no captioner is installed.
    """
    reference = photos_set.own_copy(desk).reference
    spec = presets.build("caption", form={"photos": reference, "token": token, "class_word": class_word})
    done = desk.ask(spec)
    desk.touch(photos_set.NAME)
    return done


def _each(desk: Desk, fresh: Any) -> int:
    """Write what `fresh` makes of every caption; → how many changed."""
    photos = photos_set.own_copy(desk)
    folder = photos_set.folder_of(desk, photos)
    changed = 0
    for name in photos.names:
        old = read(folder, name)
        new = " ".join(fresh(old).split())
        if new != old:
            _put(folder / name, new)
            changed += 1
    desk.touch(photos_set.NAME)
    return changed


def _put(photo: Path, text: str) -> None:
    path, plain = photo.with_suffix(".txt"), " ".join(text.split())[:LONGEST]
    if plain:
        atomic_write(path, plain.encode() + b"\n")
    else:
        path.unlink(missing_ok=True)
