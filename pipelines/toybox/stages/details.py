"""Where the details of a picture are: the cells that would change if a subject wore a hat, or other stripes.

A hat covers some ten cells of the latents' 256, so of the noise error it is a twenty-fifth, and a net learns
it last. A training may look there more closely. What counts is the difference that a change *would* make,
whether the picture shows the detail or not: only then does looking closer not also say that it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pipelines.toybox.world.captions import colour_shows, pattern_shows
from pipelines.toybox.world.drawing import render_image
from pipelines.toybox.world.scene import Scene, Subject
from pipelines.toybox.world.vocabulary import ACCESSORIES, ANIMALS

SIDE = 64  # pixels of the pictures that are compared: their differences are those of 128, in half the time
SEEN = 24  # levels of 255 by which a pixel must change
SHARE = 0.2  # of all cells: what one detail weighs in sum, however few cells it covers
MOST = 8.0  # what a cell may weigh


def otherwise(subject: Subject, style: str) -> Iterator[Subject]:
    """The subject with one detail changed at a time, as far as the style shows it: what it wears, its
    pattern, its hair's shape and colour, its beard, its glasses."""
    who = subject.identity
    if who.kind == "person" or who.kind in ANIMALS:
        worn = dict(subject.accessories)
        for item in ACCESSORIES:
            rest = tuple(each for each in subject.accessories if each[0] != item)
            more = () if item in worn else ((item, "red"),)
            yield replace(subject, accessories=(*rest, *more))
    changes: list[dict[str, object]] = []
    if who.kind == "person":
        dark = who.hair_colour in ("black", "brown")
        if who.hair_style != "bald" and colour_shows(style, who.hair_colour):
            changes.append({"hair_colour": "blonde" if dark else "black"})
        changes += [
            {"hair_style": "long" if who.hair_style != "long" else "bald"},
            {"beard": not who.beard},
            {"glasses": not who.glasses},
        ]
    elif pattern_shows(style):
        changes.append({"pattern": "checkered" if who.pattern == "plain" else "plain"})
    for change in changes:
        yield replace(subject, identity=replace(who, **change))


def focus(scene: Scene, size: int = SIDE, cells: int = 16) -> np.ndarray:
    """How much more each cell of a scene should count for its details, float16 [cells, cells], 0 to MOST.

    Each detail weighs SHARE of the picture in all, spread over the cells by the share of their pixels that
    change with it.
    """
    total = np.zeros((cells, cells), np.float32)
    if not scene.subjects:
        return total.astype(np.float16)
    drawn = render_image(scene, size).astype(np.int16)
    for slot, subject in enumerate(scene.subjects):
        for other in otherwise(subject, scene.style):
            subjects = (*scene.subjects[:slot], other, *scene.subjects[slot + 1 :])
            changed = render_image(replace(scene, subjects=subjects), size)
            seen = np.abs(changed - drawn).max(-1) > SEEN
            side = size // cells
            shares = seen.reshape(cells, side, cells, side).mean((1, 3), dtype=np.float32)
            if (sum_ := shares.sum()) > 0.25:  # a quarter of a cell: less is noise of the style
                total += shares * (SHARE * cells**2 / sum_)
    return np.minimum(total, MOST).astype(np.float16)
