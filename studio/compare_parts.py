"""What comparisons are made of: means with their uncertainty, sortable tables, verdicts in a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from studio.history import Entry
from studio.markup import Markup, tag
from studio.words import READOUTS

# two-sided 95 % quantiles of Student's t by degrees of freedom; beyond them the approximation below
_T = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Mean:
    """The mean of a readout over `count` pictures; `give` is half its 95 % interval, None for one picture."""

    value: float
    give: float | None
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f}" if self.give is None else f"{self.value:.3f} ± {self.give:.3f}"


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what it shows, and by what it is sorted (None goes last)."""

    shown: object
    value: float | str | None = None
    number: bool = False


def quantile(freedom: int) -> float:
    """Student's t for a 95 % interval with so many degrees of freedom, one at least."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.5 / freedom


def mean(values: Sequence[float]) -> Mean | None:
    """The mean of readings with its 95 % interval; None without any."""
    if not values:
        return None
    if len(values) == 1:
        return Mean(values[0], None, 1)
    give = quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Mean(fmean(values), give, len(values))


def reading(entry: Entry, name: str) -> Mean | None:
    """A readout of a run: over its pictures where they were read one by one, else as the run tells it."""
    values = [shot.readings[name] for shot in entry.shots if name in shot.readings]
    if values:
        return mean(values)
    return Mean(entry.readings[name], None, 1) if name in entry.readings else None


def verdict(found: Sequence[Entry], name: str) -> str:
    """Which of several runs leads in a readout, or that they cannot be told apart; "" with fewer than two."""
    word = READOUTS[name][0].capitalize()
    pairs = [(each, now) for each in found if (now := reading(each, name)) is not None]
    if len(pairs) < 2:
        return ""
    pairs.sort(key=lambda each: -each[1].value)
    (first, best), (second, next_) = pairs[:2]
    ahead = best.value - next_.value
    if best.give is None or next_.give is None:
        return (
            f"{word}: {first.name} reads {ahead:.3f} higher than {second.name}, but single figures say "
            "little. Draw four pictures or more of each."
        )
    errors = [now.give / quantile(now.count - 1) for now in (best, next_) if now.give is not None]
    give = quantile(min(best.count, next_.count) - 1) * math.hypot(*errors)
    if ahead <= give:
        return (
            f"{word}: {first.name} and {second.name} cannot be told apart ({best} and {next_}). "
            "More pictures would decide."
        )
    return f"{word}: {first.name} is ahead of {second.name} by {ahead:.3f} ± {give:.3f}."


def table(
    columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Cell]], caption: str, *, head: bool = True
) -> Markup:
    """A table whose columns sort on a click of their heads. `columns` are (name, help).

    With `head` the first cell of a row names it.
    """
    heads = [
        tag(
            "th",
            tag("button", name, tag("i", "", aria_hidden="true"), type="button", data_sort=index,
                title=about or None),
            scope="col", aria_sort="none",
        )
        for index, (name, about) in enumerate(columns)
    ]  # fmt: skip
    lines = [tag("tr", *(_cell(each, head and index == 0) for index, each in enumerate(row))) for row in rows]
    return tag(
        "div",
        tag(
            "table", tag("caption", caption, cls="sr"), tag("thead", tag("tr", *heads)),
            tag("tbody", *lines), cls="grid-table sortable",
        ),
        cls="scroll", tabindex="0", role="region", aria_label=caption,
    )  # fmt: skip


def _cell(cell: Cell, heads: bool) -> Markup:
    value = cell.shown if cell.value is None and isinstance(cell.shown, str) else cell.value
    kind = "num" if cell.number else ""
    return tag("th" if heads else "td", cell.shown, cls=kind, data_v=value, scope="row" if heads else None)


def number(value: float | None, shown: Callable[[float], str] = "{:.3f}".format) -> Cell:
    """A figure, or a dash where there is none: what was not measured is not zero."""
    return Cell("–" if value is None else shown(value), value, True)


def measured(now: Mean | None) -> Cell:
    """A mean with its interval."""
    return Cell("–" if now is None else str(now), None if now is None else now.value, True)


def told(value: Any) -> str:
    """A setting as people read it; a dash where a run has none of it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def downloads(links: Sequence[tuple[str, str, str]]) -> Markup:
    """Links (label, address, file name) that save a file."""
    return tag(
        "div",
        tag("span", "Save as", cls="quiet"),
        *(tag("a", label, href=where, download=name, cls="act") for label, where, name in links),
        cls="acts",
    )
