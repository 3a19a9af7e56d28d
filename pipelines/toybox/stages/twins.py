"""Twins: the same scene with one attribute changed, in the picture and in its full caption.

What a contrastive model has to tell apart to know colours, patterns, accessories and which subject has which.
No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from pipelines.toybox.world import (
    ACCESSORIES,
    ACCESSORY_COLOURS,
    ANIMALS,
    COLOURS,
    HAIR_COLOURS,
    HAIR_STYLES,
    OBJECTS,
    PATTERNS,
    PLACES,
    STYLES,
    Identity,
    Scene,
    Subject,
    caption,
    colour_shows,
    held_out,
    pattern_shows,
    sample_identity,
)


def _other(rng: Random, options: Sequence[str], than: str) -> str:
    return rng.choice([option for option in options if option != than])


def _twin_subject(rng: Random, subject: Subject, style: str) -> Subject:
    """One attribute of a subject changed, of those that its style shows. May return it unchanged."""
    who = subject.identity
    changes: list[Callable[[], Subject]] = []

    def as_identity(**fields: Any) -> Subject:
        return replace(subject, identity=replace(who, **fields))

    if style != "pencil":
        seen = [name for name in COLOURS if colour_shows(style, name)]
        changes.append(lambda: as_identity(colour=_other(rng, seen, who.colour)))
    if who.kind == "person":
        changes += _person_changes(rng, subject, style, as_identity)
    else:
        changes.append(lambda: _twin_kind(rng, subject))
        if pattern_shows(style):
            changes.append(lambda: as_identity(pattern=_other(rng, PATTERNS, who.pattern)))
    if who.kind == "person" or who.kind in ANIMALS:
        changes.append(lambda: _twin_worn(rng, subject))
    return rng.choice(changes)()


def _twin_kind(rng: Random, subject: Subject) -> Subject:
    """Another animal in place of an animal, another thing in place of a thing."""
    who = subject.identity
    kind = _other(rng, ANIMALS if who.kind in ANIMALS else OBJECTS, who.kind)
    return replace(subject, identity=sample_identity(kind, who.id, colour=who.colour, pattern=who.pattern))


def _twin_worn(rng: Random, subject: Subject) -> Subject:
    """An accessory put on where there is none, taken off, or recoloured."""
    worn = subject.accessories
    if not worn:
        return replace(subject, accessories=((rng.choice(ACCESSORIES), rng.choice(ACCESSORY_COLOURS)),))
    if rng.random() < 0.5:
        return replace(subject, accessories=worn[1:])
    item, colour = worn[0]
    return replace(subject, accessories=((item, _other(rng, ACCESSORY_COLOURS, colour)), *worn[1:]))


def _person_changes(
    rng: Random, subject: Subject, style: str, as_identity: Callable[..., Subject]
) -> list[Callable[[], Subject]]:
    who: Identity = subject.identity
    styles = HAIR_STYLES if who.man else [name for name in HAIR_STYLES if name != "bald"]
    changes: list[Callable[[], Subject]] = [
        lambda: as_identity(hair_style=_other(rng, styles, who.hair_style)),
        lambda: as_identity(glasses=not who.glasses),
    ]
    if who.man:
        changes.append(lambda: as_identity(beard=not who.beard))
    if colour_shows(style, who.hair_colour) and who.hair_style != "bald":
        changes.append(lambda: as_identity(hair_colour=_other(rng, tuple(HAIR_COLOURS), who.hair_colour)))
    return changes


def twin(scene: Scene) -> Scene:
    """The scene with one attribute changed, never to a held-out combination; a pure function of the scene."""
    rng = Random(f"twin/{scene.seed}")
    for _ in range(32):
        changed = _changed(rng, scene)
        told_apart = caption(changed, 0, full=True) != caption(scene, 0, full=True)
        withheld = any(held_out(s.identity.kind, s.identity.colour, changed.place) for s in changed.subjects)
        if told_apart and not withheld:
            return changed
    return replace(scene, style=_other(rng, STYLES, scene.style))


def _changed(rng: Random, scene: Scene) -> Scene:
    die = rng.random()
    if not scene.subjects or die < 0.12:
        if rng.random() < 0.5:
            return replace(scene, place=_other(rng, PLACES, scene.place))
        return replace(scene, style=_other(rng, STYLES, scene.style))
    if len(scene.subjects) == 2 and die < 0.4:
        left, right = scene.subjects
        if left.identity.kind == "person" or right.identity.kind == "person":
            return scene  # a portrait stands lower than a thing: neither fits the other's place
        exchanged = (
            replace(left, identity=right.identity, accessories=right.accessories),
            replace(right, identity=left.identity, accessories=left.accessories),
        )
        return replace(scene, subjects=exchanged)
    index = rng.randrange(len(scene.subjects))
    subjects = list(scene.subjects)
    subjects[index] = _twin_subject(rng, subjects[index], scene.style)
    return replace(scene, subjects=tuple(subjects))
