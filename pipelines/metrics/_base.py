"""What a readout is: a config whose `score` turns pictures and their context into readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pipelines.errors import BadInput, LikenessError
from pipelines.spec import Config

if TYPE_CHECKING:
    from PIL.Image import Image

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Band:
    """A range of values with its word: from `low` up to, but not including, `high`."""

    word: str
    low: float
    high: float


@dataclass(frozen=True)
class Reading:
    """One figure: `value` over all pictures (None: could not be measured, and `note` says why).

    `each` holds the values of the single pictures, in order, where there are any. `band` is a word such as
    "good", only for the encoder that the ranges were stated for. `unit` is empty for a cosine.
    """

    name: str
    value: float | None
    better: Better
    band: str = ""
    encoder: str = ""
    note: str = ""
    unit: str = ""
    each: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The reading in plain JSON values."""
        return asdict(self) | {"each": list(self.each)}


@dataclass(frozen=True)
class ScoreContext:
    """What pictures are measured against.

    `prompts`: one a picture, or one for all; the new word should be replaced by its class word, since no
    encoder knows it. `references`: photos of the subject. `base_family` decides which encoders measure.
    `files`: what was saved of a training. `cold` is the seconds of the first picture, `warm` those of each
    later one; `peak` the bytes of memory that were in use at most.
    """

    prompts: Sequence[str] = ()
    references: Sequence[Image] = ()
    base_family: str = "toybox"
    files: Sequence[Path] = ()
    cold: float | None = None
    warm: Sequence[float] = ()
    peak: int | None = None
    device: str = "auto"


class CannotMeasure(LikenessError):
    """A readout lacks something that it is measured against."""


class Metric(Config):
    """A pure function of pictures and context. Raises CannotMeasure where the context lacks what it needs."""

    better: ClassVar[Better] = "higher"
    bands: ClassVar[dict[str, tuple[Band, ...]]] = {}
    """By encoder: the ranges stated for it."""

    def score(self, images: Sequence[Image], context: ScoreContext) -> list[Reading]:
        """The readings of these pictures."""
        raise NotImplementedError

    def band(self, encoder: str, value: float) -> str:
        """The word for a value of this encoder; empty where no range was stated for it."""
        stated = self.bands.get(encoder, ())
        if not stated:
            return ""
        inside = (each.word for each in stated if each.low <= value < each.high)
        return next(inside, "")


def prompts_for(count: int, prompts: Sequence[str]) -> list[str]:
    """One prompt a picture. Raises BadInput where their numbers do not fit."""
    if len(prompts) == 1:
        return list(prompts) * count
    if prompts and len(prompts) != count:
        raise BadInput(
            f"There are {count} pictures and {len(prompts)} prompts.",
            "Give one prompt a picture, or one for all.",
        )
    return list(prompts) or [""] * count


def mean(values: Sequence[float]) -> float:
    """The average of at least one value."""
    return sum(values) / len(values)
