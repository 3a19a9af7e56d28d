"""Three questions that choose how to train: what is it, how faithful, how small.

The answers are weighed against the [for] tables of the presets in presets/concepts, so that a method that is
added tomorrow only needs a preset with one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pipelines.errors import LikenessError
from pipelines.jobs import presets

KINDS = (
    ("A thing", "thing"),
    ("An animal", "animal"),
    ("A person", "person"),
    ("A style", "style"),
    ("Only a word", "word"),
)
FAITHFUL = (("The idea of it", 1), ("Clearly it", 2), ("As close as can be", 3))
SMALL = (("Any size", 1), ("Some MB", 2), ("Some KB", 3))
DEFAULT = {"kind": "thing", "faithful": 2, "small": 2}
TOO_LARGE, TOO_FAR, SPARE = 3.0, 1.0, 0.5
"""What a step costs by which a preset misses an answer: a size is a limit, likeness a wish, more than asked
for costs least."""


@dataclass(frozen=True)
class Rule:
    """A preset that says when to choose it."""

    name: str
    title: str
    kinds: tuple[str, ...]
    faithful: int
    small: int
    why: str
    not_on: tuple[str, ...] = ()
    table: dict[str, Any] = field(default_factory=dict[str, Any])
    """What it sets of a training: its method and, where they belong to it, words."""


@dataclass(frozen=True)
class Choice:
    """The preset that fits best, and why, in sentences."""

    rule: Rule
    why: str


def rules(workspace: Path | None = None) -> list[Rule]:
    """Every preset for training with a sound [for] table; the others can still be chosen by hand."""
    found: list[Rule] = []
    for name in presets.names("concepts", workspace):
        try:
            table = presets.load("concepts", name, workspace)
            told = cast("Mapping[str, Any]", table["for"])
            found.append(
                Rule(
                    name,
                    str(table.get("title", name)),
                    tuple(str(each) for each in told.get("kinds", ())),
                    int(told.get("faithful", 2)),
                    int(told.get("small", 2)),
                    str(told["why"]),
                    tuple(str(each) for each in told.get("not_on", ())),
                    {key: table[key] for key in ("concept", "data") if key in table},
                )
            )
        except (LikenessError, KeyError, TypeError, ValueError, AttributeError):
            continue  # a preset that says nothing of this is no suggestion
    return found


def choose(known: Sequence[Rule], kind: str, faithful: int, small: int, base: str = "") -> Choice | None:
    """The rule that misses the answers by least; None where none is for that kind of subject."""
    fit = [each for each in known if kind in each.kinds and base not in each.not_on]
    if not fit:
        return None
    best = min(fit, key=lambda each: (_missed(each, faithful, small), each.name))
    return Choice(best, " ".join([best.why, *_regrets(best, faithful, small)]))


def _missed(rule: Rule, faithful: int, small: int) -> float:
    larger, plainer = max(0, small - rule.small), max(0, faithful - rule.faithful)
    spare = max(0, rule.small - small) + max(0, rule.faithful - faithful)
    return TOO_LARGE * larger + TOO_FAR * plainer + SPARE * spare


def _regrets(rule: Rule, faithful: int, small: int) -> list[str]:
    """What of the answers it cannot keep."""
    if rule.small < small:
        return ["Nothing smaller suits this kind of subject."]
    if rule.faithful < faithful and small > 1:
        return ["Allow a larger file for more likeness."]
    return []


def table_for(choice: Choice, native: Mapping[str, Any]) -> dict[str, Any]:
    """The partial job of a choice on a base: where both name one method, what suits the base stands below."""
    below = {"concept": native["concept"]} if isinstance(native.get("concept"), Mapping) else {}
    return presets.merge(below, choice.rule.table)


def answers(table: Mapping[str, Any]) -> tuple[str, int, int]:
    """Answers as they were kept; the usual ones where they make no sense."""
    kind, faithful, small = (table.get(name, DEFAULT[name]) for name in ("kind", "faithful", "small"))
    kinds, degrees = [value for _, value in KINDS], (1, 2, 3)
    return (
        cast("str", kind if kind in kinds else DEFAULT["kind"]),
        cast("int", faithful if faithful in degrees else DEFAULT["faithful"]),
        cast("int", small if small in degrees else DEFAULT["small"]),
    )
