"""What a picture shows, attribute by attribute: the names that a head may read, and the true one of a scene.

A value is an index into the head's names, or IGNORE where the picture does not show the attribute
(colours in a pencil sketch, the hair of a mug). Heads of the whole picture are read once; heads of
subjects in slot 0 (the only subject, or the left one) and in slot 1 (the right one).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.toybox.world.captions import colour_shows, pattern_shows
from pipelines.toybox.world.scene import Scene, Subject
from pipelines.toybox.world.vocabulary import (
    ACCESSORIES,
    ACCESSORY_COLOURS,
    COLOURS,
    HAIR_COLOURS,
    HAIR_STYLES,
    KINDS,
    PATTERNS,
    PLACES,
    STYLES,
)

IGNORE = -100
SLOTS = 2
NO_YES = ("no", "yes")

SUBJECT_HEADS: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "colour": tuple(COLOURS),
    "pattern": PATTERNS,
    **dict.fromkeys(ACCESSORIES, NO_YES),
    **{f"{item} colour": ACCESSORY_COLOURS for item in ACCESSORIES},
    "hair style": HAIR_STYLES,
    "hair colour": tuple(HAIR_COLOURS),
    "beard": NO_YES,
    "glasses": NO_YES,
}
SCENE_HEADS: dict[str, tuple[str, ...]] = {"count": ("0", "1", "2"), "place": PLACES, "style": STYLES}
HEADS = SCENE_HEADS | SUBJECT_HEADS
PEOPLE = ("hair style", "hair colour", "beard", "glasses")
REACH = 0.41  # half the side of the square around a medium subject, as a share of the picture's
PERSON_REACH = 0.5


def subject_truth(subject: Subject, style: str) -> dict[str, str]:
    """What can be seen of one subject in a style, by head."""
    who = subject.identity
    truth = {"kind": who.kind}
    if colour_shows(style, who.colour):
        truth["colour"] = who.colour
    if pattern_shows(style) and who.kind != "person":
        truth["pattern"] = who.pattern
    worn = dict(subject.accessories)
    for item in ACCESSORIES:
        truth[item] = NO_YES[item in worn]
        if item in worn and colour_shows(style, worn[item]):
            truth[f"{item} colour"] = worn[item]
    if who.kind == "person":
        truth |= {"hair style": who.hair_style, "beard": NO_YES[who.beard]}
        if who.hair_style != "bald" and colour_shows(style, who.hair_colour):
            truth["hair colour"] = who.hair_colour
        if "sunglasses" not in worn:  # they hide glasses
            truth["glasses"] = NO_YES[who.glasses]
    return truth


def labels(scenes: Sequence[Scene]) -> dict[str, np.ndarray]:
    """Scenes → class indices int64 by head, [B] for the picture's heads and [B,SLOTS] for subjects'."""
    found = {head: np.full((len(scenes), SLOTS), IGNORE) for head in SUBJECT_HEADS}
    for row, scene in enumerate(scenes):
        for slot, subject in enumerate(scene.subjects):
            for head, name in subject_truth(subject, scene.style).items():
                found[head][row, slot] = SUBJECT_HEADS[head].index(name)
    found["count"] = np.array([len(scene.subjects) for scene in scenes])
    found["place"] = np.array([PLACES.index(scene.place) for scene in scenes])
    found["style"] = np.array([STYLES.index(scene.style) for scene in scenes])
    return found


def frames(scenes: Sequence[Scene]) -> np.ndarray:
    """The square around each slot's subject, float32 [B,SLOTS,3]: centre x, y and half the side, as shares of
    the picture's side; zeros where there is nobody."""
    found = np.zeros((len(scenes), SLOTS, 3), np.float32)
    for row, scene in enumerate(scenes):
        for slot, subject in enumerate(scene.subjects):
            reach = PERSON_REACH if subject.identity.kind == "person" else REACH
            found[row, slot] = subject.x, subject.y, reach * subject.scale
    return found
