"""The prompts that the judge draws: test-split scenes in the world's own words, and what each one asks for.

Identities and (kind, colour, place) combinations of these scenes were never trained on. A scene's full
caption names everything that its style can show, so the scene's truth is also the prompt's demand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from pipelines.toybox.world import (
    ACCESSORIES,
    ACCESSORY_COLOURS,
    ANIMALS,
    KINDS,
    PLACES,
    STYLE_NOUNS,
    STYLE_TAILS,
    STYLES,
    Scene,
    caption,
    colour_shows,
    held_out,
    sample_scene,
)
from pipelines.toybox.world.labels import PEOPLE, subject_truth

THINGS = tuple(kind for kind in KINDS if kind != "person")
GROUPS = ("thing", "person", "pair", "thing", "pair", "thing", "place", "person", "pair", "thing")
"""The order in which prompts are dealt: any ten in a row hold 4 things, 2 people, 3 pairs and a place."""


_WORN = tuple(head for item in ACCESSORIES for head in (item, f"{item} colour"))
JUDGED = {
    "thing": ("kind", "colour", "pattern", *_WORN),
    "person": ("kind", *PEOPLE),
    "pair": ("kind", "colour"),
    "place": (),
}
"""The heads that read the subjects of each group; a pair is about who has which colour."""


@dataclass(frozen=True)
class Prompt:
    """A caption, the scene it was made from (one picture among many that would be right), and its group."""

    text: str
    scene: Scene
    group: str

    @property
    def names_style(self) -> bool:
        """Whether the words say the style; flat pictures often go without."""
        words = (*STYLE_NOUNS[self.scene.style], *STYLE_TAILS[self.scene.style])
        return any(phrase in self.text for phrase in words)

    @property
    def names_sides(self) -> bool:
        """Whether the words say who stands left and who right."""
        return " left" in self.text or " right" in self.text

    def asked(self, slot: int = 0) -> dict[str, str]:
        """What the words demand of one subject, by head; what they leave open is absent."""
        return {head: name for head, name in self.shown(slot).items() if name not in ("no", "plain")}

    def shown(self, slot: int = 0) -> dict[str, str]:
        """What a right picture would show of one subject, by those heads that are judged in its group."""
        seen = subject_truth(self.scene.subjects[slot], self.scene.style)
        return {head: name for head, name in seen.items() if head in JUDGED[self.group]}


def judge_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """`count` prompts of all groups; a pure function of its arguments."""
    return [_MAKERS[GROUPS[index % len(GROUPS)]](index, seed) for index in range(count)]


def seed_prompts(count: int, seed: int = 0) -> list[Prompt]:
    """Single things whose words leave size and side open, so that other scenes fit them too."""
    found: list[Prompt] = []
    index = 0
    while len(found) < count:
        prompt = _thing(index, seed + 1)
        index += 1
        if not {"small", "large", "left", "right", "middle"} & set(prompt.text.split()):
            found.append(prompt)
    return found


def renderings(prompt: Prompt, count: int, seed: int = 0) -> list[Scene]:
    """Other scenes of one thing that the same words would be right for: new identities, poses, backdrops."""
    source = prompt.scene
    subject = source.subjects[0]
    who = subject.identity
    scenes: list[Scene] = []
    number = _number(seed, f"again/{prompt.text}", count)
    while len(scenes) < count:
        scene = sample_scene(
            number, "test", n_subjects=1, kind=who.kind, colour=who.colour, pattern=who.pattern,
            accessories=subject.accessories, place=source.place, style=source.style,
        )  # fmt: skip
        number += 1
        if scene.subjects[0].size == "medium":
            scenes.append(scene)
    return scenes


def _number(seed: int, name: str, index: int) -> int:
    """A scene number of its own for every (seed, name, index)."""
    return Random(f"prompt/{seed}/{name}/{index}").randrange(1 << 40)


def _prompt(
    group: str, index: int, seed: int, good: Callable[[Scene], bool] = lambda scene: True, **fixed: Any
) -> Prompt:
    """The first scene of its number and those after it that is new and `good`, under its full caption."""
    number = _number(seed, group, index)
    while not (_new(scene := sample_scene(number, "test", **fixed)) and good(scene)):
        number += 1
    return Prompt(caption(scene, seed, full=True), scene, group)


def _new(scene: Scene) -> bool:
    """Whether every (kind, colour, place) in it was held out; some (kind, place) have none."""
    return all(held_out(each.identity.kind, each.identity.colour, scene.place) for each in scene.subjects)


def _worn(rng: Random) -> tuple[tuple[str, str], ...]:
    return ((rng.choice(ACCESSORIES), rng.choice(ACCESSORY_COLOURS)),)


def _thing(index: int, seed: int) -> Prompt:
    """One animal or object; most animals wear something, in another colour than their own."""
    rng = Random(f"thing/{seed}/{index}")
    kind = rng.choice(THINGS)
    worn = _worn(rng) if kind in ANIMALS and rng.random() < 0.6 else ()

    def told_apart(scene: Scene) -> bool:
        return all(colour != scene.subjects[0].identity.colour for _, colour in worn)

    return _prompt("thing", index, seed, told_apart, n_subjects=1, kind=kind, accessories=worn)


def _person(index: int, seed: int) -> Prompt:
    """A portrait without anything that hides hair or face."""
    return _prompt("person", index, seed, n_subjects=1, kind="person", accessories=())


def _pair(index: int, seed: int) -> Prompt:
    """Two subjects of different kinds and different colours that can both be seen: a swap would show."""

    def distinct(scene: Scene) -> bool:
        left, right = (subject.identity for subject in scene.subjects)
        shown = all(colour_shows(scene.style, who.colour) for who in (left, right))
        return shown and left.kind != right.kind and left.colour != right.colour

    return _prompt("pair", index, seed, distinct, n_subjects=2)


def _place(index: int, seed: int) -> Prompt:
    """A place with nobody in it."""
    rng = Random(f"place/{seed}/{index}")
    return _prompt("place", index, seed, n_subjects=0, place=rng.choice(PLACES), style=rng.choice(STYLES))


_MAKERS = {"thing": _thing, "person": _person, "pair": _pair, "place": _place}
