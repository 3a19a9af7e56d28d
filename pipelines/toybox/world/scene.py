"""What a picture shows, as data: identities, subjects and scenes, sampled from seeds.

An identity is what stays the same between pictures of one subject (proportions, exact colours,
markings); everything else of a Subject, and the rest of a Scene, is nuisance.
"""

import zlib
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from pipelines.toybox.world.vocabulary import (
    ACCESSORIES,
    ACCESSORY_COLOURS,
    ANIMALS,
    COLOURS,
    HAIR_COLOURS,
    HAIR_STYLES,
    KINDS,
    PATTERNS,
    PLACES,
    SIZES,
    STYLES,
)

HELD_OUT = 1 << 20
"""Identities from this id on are never drawn in split "train": they are the photo folders of tests."""

Split = Literal["train", "test"]
N_PARAMS = 16


@dataclass(frozen=True)
class Identity:
    """One subject: `params` are N_PARAMS proportions in [0, 1] whose meaning each kind's drawing decides.

    For a person, `colour` is the shirt's, and the hair, beard and glasses fields are part of who it is.
    """

    kind: str
    id: int
    colour: str
    pattern: str
    params: tuple[float, ...]
    man: bool = False
    hair_style: str = ""
    hair_colour: str = ""
    beard: bool = False
    glasses: bool = False


@dataclass(frozen=True)
class Subject:
    """An identity as it stands in one picture: centre (x, y) in [0, 1], scale 1 = medium, facing ±1."""

    identity: Identity
    x: float
    y: float
    scale: float = 1.0
    size: str = "medium"
    facing: int = 1
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)
    expression: str = "smile"
    accessories: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Scene:
    """Everything that a picture is drawn from; the light comes from `light` in [-1, 1], left to right."""

    seed: int
    subjects: tuple[Subject, ...]
    place: str
    style: str
    light: float
    backdrop: int


def held_out(kind: str, colour: str, place: str) -> bool:
    """Whether this combination appears only in split "test" (about one in eight)."""
    return zlib.crc32(f"{kind}/{colour}/{place}".encode()) % 8 == 0


def sample_identity(kind: str, id: int, **fixed: Any) -> Identity:
    """The identity number `id` of a kind; `fixed` overrides fields (colour, pattern, hair_style …)."""
    rng = Random(f"identity/{kind}/{id}")
    colour = rng.choice(tuple(COLOURS))
    pattern = rng.choice(PATTERNS[1:]) if rng.random() < 0.6 and kind != "person" else "plain"
    params = tuple(rng.random() for _ in range(N_PARAMS))
    identity = Identity(kind, id, colour, pattern, params)
    if kind == "person":
        man = rng.random() < 0.5
        style = rng.choice(HAIR_STYLES if man else HAIR_STYLES[:-1])
        identity = replace(
            identity,
            man=man,
            hair_style=style,
            hair_colour=rng.choice(tuple(HAIR_COLOURS)),
            beard=man and rng.random() < 0.5,
            glasses=rng.random() < 0.4,
        )
    return replace(identity, **fixed)


def _accessories(rng: Random, kind: str, many: bool) -> tuple[tuple[str, str], ...]:
    if kind not in ANIMALS and kind != "person":
        return ()
    share = 0.55 if many else 0.35
    count = 0 if rng.random() > share else (2 if rng.random() < 0.2 else 1)
    items = rng.sample(ACCESSORIES, count)
    return tuple((item, rng.choice(ACCESSORY_COLOURS)) for item in ACCESSORIES if item in items)


def _subject(rng: Random, identity: Identity, slot: str, place: str) -> Subject:
    """A subject posed for a slot: "alone", "left" or "right"."""
    size = rng.choices(tuple(SIZES), (0.2, 0.5, 0.3))[0] if slot == "alone" else "medium"
    if identity.kind == "person" and size == "small":
        size = "medium"
    most = 1.12 if identity.kind == "person" else 2.0  # a larger head would leave the picture
    scale = min(SIZES[size], most) * rng.uniform(0.96, 1.04) * (1.0 if slot == "alone" else 0.74)
    if slot == "alone":
        x = rng.choices((0.5, 0.33, 0.67), (0.6, 0.2, 0.2))[0] if size != "large" else 0.5
    else:
        x = 0.27 if slot == "left" else 0.73
    x += rng.uniform(-0.03, 0.03)
    if identity.kind == "person":
        y = 1.0 - 0.42 * scale + rng.uniform(-0.015, 0.03)
    elif place == "space":
        y = rng.uniform(0.46, 0.58)
    else:
        y = rng.uniform(0.86, 0.93) - 0.33 * scale
    return Subject(
        identity=identity,
        x=x,
        y=y,
        scale=scale,
        size=size,
        facing=rng.choice((-1, 1)),
        pose=(rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(-1, 1)),
        expression=rng.choice(("smile", "calm", "surprised")),
        accessories=_accessories(rng, identity.kind, slot == "alone"),
    )


def _stranger(rng: Random, split: Split, place: str, kind: str | None = None, **fixed: str) -> Identity:
    """Somebody of this split for a place; where what is fixed allows no combination, any will do."""
    rolls = 0
    while True:
        # People are one kind among fourteen, yet faces need more practice than mugs.
        name = kind or (rng.choice(KINDS) if rng.random() > 0.12 else "person")
        who = sample_identity(name, rng.randrange(HELD_OUT) + (HELD_OUT if split == "test" else 0), **fixed)
        rolls += 1
        if rolls == 64 or held_out(who.kind, who.colour, place) == (split == "test"):
            return who


def sample_scene(  # noqa: PLR0913 (everything that a test may want to fix)
    seed: int,
    split: Split = "train",
    *,
    n_subjects: int | None = None,
    kind: str | None = None,
    identity: Identity | None = None,
    colour: str | None = None,
    pattern: str | None = None,
    accessories: tuple[tuple[str, str], ...] | None = None,
    place: str | None = None,
    style: str | None = None,
) -> Scene:
    """The scene of a seed: a pure function of its arguments.

    A third of the scenes hold two subjects, one in sixteen none. In split "train" no held-out identity
    and no held-out (kind, colour, place) is drawn; in split "test" identities are held out and, where
    nothing is fixed, so are the combinations.
    """
    rng = Random(f"{split}/{seed}")
    count = rng.choices((0, 1, 2), (0.06, 0.61, 0.33))[0] if n_subjects is None else n_subjects
    if identity is not None or kind is not None:
        count = max(count, 1)
    where = place or rng.choice(PLACES)
    look = style or rng.choices(STYLES, (0.52, 0.12, 0.12, 0.12, 0.12))[0]
    slots = ("alone",) if count == 1 else ("left", "right")
    fixed = {"kind": kind, "colour": colour, "pattern": pattern}
    first = {key: value for key, value in fixed.items() if value is not None}
    chosen: list[Subject] = []
    for index in range(count):
        if index == 0 and identity is not None:
            who = identity
        else:
            who = _stranger(rng, split, where, **(first if index == 0 else {}))
        chosen.append(_subject(rng, who, slots[index], where))
    if accessories is not None and chosen:
        chosen[0] = replace(chosen[0], accessories=accessories)
    light = rng.choice((-1, 1)) * rng.uniform(0.5, 1.0)
    return Scene(seed, tuple(chosen), where, look, light, rng.randrange(1 << 30))
