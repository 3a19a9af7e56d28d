"""What a scene is called: captions whose wording varies and which leave attributes out at random."""

from dataclasses import dataclass
from random import Random

from pipelines.toybox.world.scene import Scene, Subject
from pipelines.toybox.world.vocabulary import (
    PLACE_NOUNS,
    PLACE_PHRASES,
    STYLE_NOUNS,
    STYLE_TAILS,
)


def colour_shows(style: str, colour: str) -> bool:
    """Whether a colour can be seen in a style: not in pencil, and in neon only where the hue glows."""
    return style != "pencil" and not (style == "neon" and colour in ("black", "white", "brown", "grey"))


def pattern_shows(style: str) -> bool:
    """Whether a pattern can be read in a style (four-pixel blocks swallow most)."""
    return style != "pixel"


@dataclass(frozen=True)
class _Wording:
    """One caption's dice: `keep(share)` says whether to name an attribute."""

    rng: Random
    full: bool

    def keep(self, share: float) -> bool:
        return self.full or self.rng.random() < share


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _worn(say: _Wording, subject: Subject, style: str, share: float) -> list[str]:
    named = []
    for item, colour in subject.accessories:
        if say.keep(share):
            tint = f"{colour} " if colour_shows(style, colour) and say.keep(0.85) else ""
            named.append(tint + item if item == "sunglasses" else _article(tint + item))
    return named


def _person(say: _Wording, subject: Subject, style: str, brief: bool) -> str:
    who = subject.identity
    noun = "person" if not say.full and say.rng.random() < 0.12 else ("man" if who.man else "woman")
    share = 0.55 if brief else 0.8
    parts: list[str] = []
    if who.hair_style == "bald":
        noun = f"bald {noun}" if say.keep(share) else noun
    elif say.keep(share):
        tint = f" {who.hair_colour}" if colour_shows(style, who.hair_colour) else ""
        shape = who.hair_style if tint == "" or say.keep(0.85) else ""
        parts.append(f"{shape}{tint} hair".strip())
    if who.beard and say.keep(share):
        parts.append("a beard")
    shaded = any(item == "sunglasses" for item, _ in subject.accessories)
    if who.glasses and not shaded and say.keep(share):
        parts.append("glasses")
    parts += _worn(say, subject, style, share)
    phrase = _article(noun) + (f" with {_listed(parts)}" if parts else "")
    if colour_shows(style, who.colour) and say.keep(share):
        phrase += f" in {_article(who.colour)} shirt"
    return phrase


def subject_phrase(
    subject: Subject, style: str, rng: Random, *, full: bool = False, brief: bool = False
) -> str:
    """A subject as a noun phrase with its article: "a small striped red dog with a green hat"."""
    say = _Wording(rng, full)
    who = subject.identity
    if who.kind == "person":
        return _person(say, subject, style, brief)
    words = []
    if subject.size != "medium" and say.keep(0.5):
        words.append(subject.size)
    if pattern_shows(style) and who.pattern != "plain" and say.keep(0.8):
        words.append(who.pattern)
    elif who.pattern == "plain" and not full and rng.random() < 0.1:
        words.append("plain")
    if colour_shows(style, who.colour) and say.keep(0.88):
        words.append(who.colour)
    worn = _worn(say, subject, style, 0.9)
    phrase = _article(" ".join([*words, who.kind]))
    if worn:
        phrase += (" wearing " if rng.random() < 0.3 else " with ") + _listed(worn)
    return phrase


def _position(scene: Scene, say: _Wording) -> str:
    x = scene.subjects[0].x
    where = " on the left" if x < 0.4 else " on the right" if x > 0.6 else " in the middle"
    named = 0.5 if where != " in the middle" else 0.1
    return where if say.rng.random() < named and scene.subjects[0].identity.kind != "person" else ""


def _together(scene: Scene, say: _Wording) -> str:
    left, right = (subject_phrase(s, scene.style, say.rng, full=say.full, brief=True) for s in scene.subjects)
    form = say.rng.randrange(7)
    if form <= 1:
        return f"{left} to the left of {right}"
    if form == 2:
        return f"{right} to the right of {left}"
    if form == 3:
        return f"{left} on the left and {right} on the right"
    if form == 4 and not say.full:
        return f"{right} next to {left}"
    if form == 5 and not say.full:
        return f"{left} next to {right}"
    return f"{left} and {right}"


def caption(scene: Scene, seed: int, full: bool = False) -> str:
    """A caption of the scene in lower case; `full` names every attribute that can be seen.

    The wording is a pure function of (scene.seed, seed). Attributes that a style hides (colour in a pencil
    sketch) are never named.
    """
    say = _Wording(Random(f"caption/{scene.seed}/{seed}"), full)
    rng = say.rng
    place = " " + rng.choice(PLACE_PHRASES[scene.place]) if say.keep(0.88) else ""
    if not scene.subjects:
        what = rng.choice(PLACE_NOUNS[scene.place])
        place = ""
    elif len(scene.subjects) == 1:
        what = subject_phrase(scene.subjects[0], scene.style, rng, full=full) + _position(scene, say)
    else:
        what = _together(scene, say)
    flat = scene.style == "flat"
    if rng.random() < (0.4 if flat else 0.55):
        return f"{_article(rng.choice(STYLE_NOUNS[scene.style]))} of {what}{place}"
    if say.keep(0.94) if not flat else rng.random() < 0.12:
        return f"{what}{place}, {rng.choice(STYLE_TAILS[scene.style])}"
    return f"{what}{place}"
