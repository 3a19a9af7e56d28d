"""Edit pairs: a picture, an instruction, and the picture after it, equal outside the edited region."""

from dataclasses import dataclass, replace
from random import Random
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from pipelines.toybox.world.captions import caption, colour_shows, pattern_shows
from pipelines.toybox.world.drawing import Drawing, render
from pipelines.toybox.world.scene import Scene, Split, Subject, sample_scene
from pipelines.toybox.world.styles import REACH
from pipelines.toybox.world.vocabulary import (
    ACCESSORIES,
    ACCESSORY_COLOURS,
    ANIMALS,
    COLOURS,
    OBJECTS,
    PATTERNS,
    PLACE_PHRASES,
    PLACES,
    STYLE_NOUNS,
    STYLES,
)

EditKind = Literal["colour", "pattern", "add", "remove", "replace", "style", "place"]
EDITS: tuple[EditKind, ...] = ("colour", "pattern", "add", "remove", "replace", "style", "place")


@dataclass(frozen=True)
class EditPair:
    """Before and after; `region` bool [H, W] holds every pixel that may differ."""

    before: Drawing
    after: Drawing
    instruction: str
    kind: EditKind
    region: np.ndarray
    before_caption: str
    after_caption: str


def edit_pair(seed: int, split: Split = "train", kind: EditKind | None = None) -> EditPair:
    """The edit pair of a seed: a pure function of its arguments."""
    rng = Random(f"edit/{split}/{seed}")
    kind = kind or rng.choice(EDITS)
    scene = _source(rng, seed, split, kind)
    changed, instruction = _CHANGES[kind](rng, scene)
    before, after = render(scene), render(changed)
    region = _region(kind, before, after)
    joined = np.where(region[..., None], after.image, before.image)
    return EditPair(
        before=before,
        after=replace(after, image=joined),
        instruction=instruction,
        kind=kind,
        region=region,
        before_caption=caption(scene, seed, full=True),
        after_caption=caption(changed, seed, full=True),
    )


def _source(rng: Random, seed: int, split: Split, kind: EditKind) -> Scene:
    """A scene with a first subject on which this kind of edit can be seen."""
    style = "flat" if kind == "style" else rng.choice(("flat", "flat", "watercolour"))
    what = rng.choice(ANIMALS) if kind in ("add", "remove") else rng.choice((*ANIMALS, *OBJECTS))
    worn = None
    if kind == "add":
        worn = ()
    elif kind == "remove":
        worn = ((rng.choice(ACCESSORIES), rng.choice(ACCESSORY_COLOURS)),)
    count = 2 if rng.random() < 0.25 else 1
    return sample_scene(seed, split, kind=what, n_subjects=count, style=style, accessories=worn)


def _with_first(scene: Scene, subject: Subject) -> Scene:
    return replace(scene, subjects=(subject, *scene.subjects[1:]))


def _name(scene: Scene, rng: Random) -> str:
    """How the instruction calls the first subject: "it" only where there is one."""
    who = scene.subjects[0].identity.kind
    return "it" if len(scene.subjects) == 1 and rng.random() < 0.35 else f"the {who}"


def _other(rng: Random, options, current: str) -> str:
    return rng.choice([option for option in options if option != current])


def _colour(rng: Random, scene: Scene) -> tuple[Scene, str]:
    first = scene.subjects[0]
    options = [name for name in COLOURS if colour_shows(scene.style, name)]
    new = _other(rng, options, first.identity.colour)
    words = rng.choice(("make {} {}", "turn {} {}", "change the color of {} to {}"))
    changed = replace(first, identity=replace(first.identity, colour=new))
    return _with_first(scene, changed), words.format(_name(scene, rng), new)


def _pattern(rng: Random, scene: Scene) -> tuple[Scene, str]:
    first = scene.subjects[0]
    options = PATTERNS if pattern_shows(scene.style) else ("plain",)
    new = _other(rng, options, first.identity.pattern)
    changed = replace(first, identity=replace(first.identity, pattern=new))
    return _with_first(scene, changed), f"make {_name(scene, rng)} {new}"


def _add(rng: Random, scene: Scene) -> tuple[Scene, str]:
    item, colour = rng.choice(ACCESSORIES), rng.choice(ACCESSORY_COLOURS)
    changed = replace(scene.subjects[0], accessories=((item, colour),))
    thing = f"{colour} {item}" if item == "sunglasses" else f"a {colour} {item}"
    name = _name(scene, rng)
    words = rng.choice((f"give {name} {thing}", f"put {thing} on {name}"))
    if len(scene.subjects) == 1 and rng.random() < 0.5:
        words = f"add {thing}"
    return _with_first(scene, changed), words


def _remove(rng: Random, scene: Scene) -> tuple[Scene, str]:
    item = scene.subjects[0].accessories[0][0]
    changed = replace(scene.subjects[0], accessories=())
    words = rng.choice((f"remove the {item}", f"take off the {item}"))
    if len(scene.subjects) == 2:
        words += f" of the {scene.subjects[0].identity.kind}"
    return _with_first(scene, changed), words


def _replace(rng: Random, scene: Scene) -> tuple[Scene, str]:
    first = scene.subjects[0]
    family = ANIMALS if first.identity.kind in ANIMALS else OBJECTS
    new = _other(rng, family, first.identity.kind)
    changed = replace(first, identity=replace(first.identity, kind=new))
    return _with_first(scene, changed), f"turn {_name(scene, rng)} into a {new}"


def _style(rng: Random, scene: Scene) -> tuple[Scene, str]:
    new = _other(rng, STYLES, scene.style)
    words = rng.choice(("make it a {}", "turn it into a {}"))
    return replace(scene, style=new), words.format(rng.choice(STYLE_NOUNS[new]))


def _place(rng: Random, scene: Scene) -> tuple[Scene, str]:
    new = _other(rng, PLACES, scene.place)
    name = "them" if len(scene.subjects) == 2 else _name(scene, rng)
    return replace(scene, place=new), f"put {name} {rng.choice(PLACE_PHRASES[new])}"


_CHANGES = {
    "colour": _colour,
    "pattern": _pattern,
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "style": _style,
    "place": _place,
}


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    image = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * pixels + 1))
    return np.asarray(image) > 0


def _region(kind: EditKind, before: Drawing, after: Drawing) -> np.ndarray:
    if kind == "style":
        return np.ones(before.image.shape[:2], bool)
    reach = REACH[before.scene.style] + 1
    if kind == "place":
        return _grown(~np.logical_or.reduce(before.masks), reach)
    return _grown(before.footprints[0] | after.footprints[0], reach)
