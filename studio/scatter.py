"""A scatter plot as SVG: two readouts against each other, points with names, readable without seeing it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from studio.markup import Markup, empty, tag

WIDTH, HEIGHT = 560, 400
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 16, 50
TINTS = 6
LABEL_GAP = 13
LONGEST = 22


@dataclass(frozen=True)
class Point:
    """One thing to plot. `group` gives its tint; `small` ones are single pictures of a larger point."""

    x: float
    y: float
    label: str = ""
    group: int = 0
    small: bool = False


def scatter(points: Sequence[Point], title: str, x_title: str, y_title: str, *, waiting: str = "") -> Markup:
    """The plot, with a table of the same figures for screen readers; `waiting` is said without points."""
    sound = [each for each in points if math.isfinite(each.x) and math.isfinite(each.y)]
    if not sound:
        return empty(title, waiting or "There is nothing to plot yet.")
    xs, ys = ticks([each.x for each in sound]), ticks([each.y for each in sound])

    def place(point: Point) -> tuple[float, float]:
        across = (point.x - xs[0]) / (xs[-1] - xs[0])
        up = (point.y - ys[0]) / (ys[-1] - ys[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    drawn = sorted(sound, key=lambda each: not each.small)
    dots = [_dot(each, *place(each)) for each in drawn]
    named = [(each.label, *place(each)) for each in sound if each.label and not each.small]
    plot = tag(
        "svg",
        tag("title", title),
        *_frame(xs, ys, x_title, y_title),
        *dots,
        *(tag("text", _short(label), x=round(x, 1), y=round(y, 1), cls="name", text_anchor=anchor)
          for label, x, y, anchor in spread(named)),
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=_spoken(title, sound, x_title, y_title),
    )  # fmt: skip
    return tag("figure", plot, _table(sound, title, x_title, y_title), cls="scatter")


def ticks(values: Sequence[float], count: int = 5) -> list[float]:
    """Round numbers at even distances that take in all values; two at least."""
    low, high = min(values), max(values)
    if high - low < 1e-6:
        low, high = low - 0.05, high + 0.05
    rough = (high - low) / max(1, count - 1)
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(each * scale for each in (1, 2, 2.5, 5, 10) if each * scale >= rough - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def spread(labels: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float, str]]:
    """Places of labels beside their points, (text, x, y, anchor), so that none lies over another.

    A label goes right of its point, left where the plot ends; of two that would touch the later moves down.
    """
    placed: list[tuple[str, float, float, str]] = []
    for label, x, y in sorted(labels, key=lambda each: (each[2], each[1])):
        left = x > WIDTH * 0.72
        spot_x, spot_y = (x - 10 if left else x + 10), y + 4
        for _, other_x, other_y, _ in placed:
            if abs(other_x - spot_x) < 7 * LONGEST and abs(other_y - spot_y) < LABEL_GAP:
                spot_y = other_y + LABEL_GAP
        placed.append((label, spot_x, min(spot_y, HEIGHT - BOTTOM - 3), "end" if left else "start"))
    return placed


def _frame(xs: Sequence[float], ys: Sequence[float], x_title: str, y_title: str) -> list[Markup]:
    """Grid lines with their numbers, and the names of both axes."""
    right, low = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts: list[Markup] = []
    for value in xs:
        x = round(LEFT + (value - xs[0]) / (xs[-1] - xs[0]) * (right - LEFT), 1)
        parts.append(tag("line", x1=x, x2=x, y1=TOP, y2=low, cls="rule"))
        parts.append(tag("text", f"{value:g}", x=x, y=low + 17, text_anchor="middle", cls="tick"))
    for value in ys:
        y = round(low - (value - ys[0]) / (ys[-1] - ys[0]) * (low - TOP), 1)
        parts.append(tag("line", x1=LEFT, x2=right, y1=y, y2=y, cls="rule"))
        parts.append(tag("text", f"{value:g}", x=LEFT - 8, y=y + 4, text_anchor="end", cls="tick"))
    middle = (low + TOP) / 2
    parts.append(tag("text", x_title, x=(LEFT + right) / 2, y=HEIGHT - 8, text_anchor="middle", cls="axis"))
    parts.append(
        tag("text", y_title, x=14, y=middle, text_anchor="middle", cls="axis",
            transform=f"rotate(-90 14 {middle:g})")
    )  # fmt: skip
    return parts


def _dot(point: Point, x: float, y: float) -> Markup:
    tint = f"tint-{point.group % TINTS}"
    said = tag("title", f"{point.label}: {point.x:.3f}, {point.y:.3f}" if point.label else f"{point.x:.3f}")
    return tag(
        "circle", said, cx=round(x, 1), cy=round(y, 1), r=3 if point.small else 6.5,
        cls=f"dot-{'small' if point.small else 'large'} {tint}",
    )  # fmt: skip


def _short(label: str) -> str:
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"


def _spoken(title: str, points: Sequence[Point], x_title: str, y_title: str) -> str:
    large = [each for each in points if not each.small]
    return f"{title}: {len(large)} points. Across: {x_title}. Up: {y_title}. The figures follow as a table."


def _table(points: Sequence[Point], title: str, x_title: str, y_title: str) -> Markup:
    head = tag("tr", *(tag("th", each, scope="col") for each in ("Name", x_title, y_title)))
    rows = [
        tag("tr", tag("td", each.label), tag("td", f"{each.x:.3f}"), tag("td", f"{each.y:.3f}"))
        for each in points
        if not each.small
    ]
    return tag("table", tag("caption", title), tag("thead", head), tag("tbody", *rows), cls="sr")
