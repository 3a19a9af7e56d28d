"""Line charts as SVG of our own: no library, light and dark, with a table for whoever hears the page.

    curves("Loss", [Series("each step", [(1, .3), (2, .2)])]) → Markup

Figures that are not finite are left out; thousands of points are thinned to what a screen can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from studio.markup import Markup, tag

Point = tuple[float, float]

WIDTH, HEIGHT = 520, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 30
MOST_POINTS, MOST_ROWS, DOTS = 400, 24, 40


@dataclass(frozen=True)
class Series:
    """One line. `faint` draws it behind the others, as what they are the mean of."""

    name: str
    points: Sequence[Point]
    faint: bool = False


@dataclass(frozen=True)
class Frame:
    """What is shown of both axes: (low, high) each."""

    x: Point
    y: Point

    def at(self, x: float, y: float) -> Point:
        """A point in pixels of the drawing."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )


def curves(
    title: str,
    series: Sequence[Series],
    *,
    across: str = "step",
    mark: tuple[float, str] | None = None,
    total: float | None = None,
    help: str = "",
) -> Markup:
    """A chart of lines over `across`; `total` is where the axis ends, `mark` an upright line with its name.

    Nothing to draw yet gives a sentence that says so.
    """
    kept = [Series(each.name, _finite(each.points), each.faint) for each in series]
    kept = [each for each in kept if each.points]
    heading = tag("figcaption", tag("b", title), tag("span", help) if help else None)
    if not kept:
        return tag("figure", heading, tag("p", "No figures yet.", cls="quiet"), cls="chart")
    frame = _frame(kept, total)
    lines = [_line(each, frame, index) for index, each in enumerate(kept, 1)]
    order = [line for each, line in zip(kept, lines, strict=True) if each.faint]
    order += [line for each, line in zip(kept, lines, strict=True) if not each.faint]
    drawing = tag(
        "svg",
        _axes(frame, across),
        _mark(mark, frame),
        *order,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}: {_told(kept)}",
    )
    return tag("figure", heading, _legend(kept), drawing, _table(title, kept, across), cls="chart")


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers inside a range, at most `most` of them, a step of 1, 2 or 5 times a power of ten."""
    width = high - low
    if width <= 0 or not isfinite(width):
        return [low]
    unit = 10.0 ** floor(log10(width / most))
    step = next(unit * each for each in (1, 2, 5, 10, 20) if width / (unit * each) <= most - 1)
    first = ceil(low / step - 1e-9)
    count = floor(high / step + 1e-9) - first + 1
    return [round((first + index) * step, 10) for index in range(count)]


def number(value: float) -> str:
    """A figure as an axis writes it: 0.25, 1,500, 2e-05."""
    if value and abs(value) < 1e-3:
        return f"{value:.1g}"
    return f"{value:,.3f}".rstrip("0").rstrip(".") if abs(value) < 100 else f"{value:,.0f}"


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most about `most` points: of every stretch the lowest and the highest, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    size = ceil(len(points) / (most / 2))
    kept: list[Point] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        ends = {min(part, key=lambda each: each[1]), max(part, key=lambda each: each[1])}
        kept += sorted(ends)
    return kept


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(x, y) for x, y in points if isfinite(x) and isfinite(y)]


def _frame(series: Sequence[Series], total: float | None) -> Frame:
    xs = [x for each in series for x, _ in each.points]
    ys = [y for each in series for _, y in each.points]
    low, high = min(ys), max(ys)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 0.1
    right = max(*xs, total or 0.0) if len(xs) > 1 or total else xs[0]
    left = min(0.0, *xs) if len(xs) > 1 else min(0.0, xs[0])
    return Frame((left, right if right > left else left + 1), (low - room, high + room))


def _line(series: Series, frame: Frame, index: int) -> Markup:
    points = [frame.at(x, y) for x, y in thinned(series.points)]
    path = "M" + "L".join(f"{x} {y}" for x, y in points)
    # single points and few of them are seen as dots: a line of one point is none
    dots = [tag("circle", cx=x, cy=y, r=3) for x, y in points] if len(points) <= DOTS else []
    return tag("g", tag("path", d=path), *dots, cls=f"line c{index}{' faint' if series.faint else ''}")


def _axes(frame: Frame, across: str) -> Markup:
    rows: list[Markup] = []
    for value in ticks(*frame.y):
        _, y = frame.at(frame.x[0], value)
        rows.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        rows.append(tag("text", number(value), x=LEFT - 6, y=y + 4, text_anchor="end"))
    for value in ticks(*frame.x, most=6):
        x, _ = frame.at(value, frame.y[0])
        words = f"{across} {number(value)}" if value == ticks(*frame.x, most=6)[-1] else number(value)
        end = "end" if x > WIDTH - 60 else "start" if x < LEFT + 8 else "middle"
        rows.append(tag("text", words, x=x, y=HEIGHT - 10, text_anchor=end))
    return tag("g", *rows, cls="axes", aria_hidden="true")


def _mark(mark: tuple[float, str] | None, frame: Frame) -> Markup | None:
    if mark is None or not frame.x[0] <= mark[0] <= frame.x[1]:
        return None
    x, _ = frame.at(mark[0], frame.y[0])
    end, aside = ("end", -5) if x > WIDTH / 2 else ("start", 5)
    return tag(
        "g",
        tag("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM),
        tag("text", mark[1], x=x + aside, y=TOP + 10, text_anchor=end),
        cls="mark",
    )


def _legend(series: Sequence[Series]) -> Markup:
    rows = [
        tag(
            "span",
            tag("i", cls=f"key c{index}{' faint' if each.faint else ''}", aria_hidden="true"),
            each.name,
            None if each.faint else tag("b", number(each.points[-1][1])),
        )
        for index, each in enumerate(series, 1)
    ]
    return tag("div", *rows, cls="legend")


def _told(series: Sequence[Series]) -> str:
    """What a chart shows, in a sentence for whoever hears it."""
    return "; ".join(
        f"{each.name} from {number(each.points[0][1])} to {number(each.points[-1][1])}" for each in series
    )


def _table(title: str, series: Sequence[Series], across: str) -> Markup:
    told = [each for each in series if not each.faint] or list(series)
    steps = sorted({x for each in told for x, _ in each.points})
    stride = ceil(len(steps) / MOST_ROWS)
    shown = steps[::-1][::stride][::-1]  # the last figure is always among them
    values = [dict(each.points) for each in told]
    head = tag("tr", tag("th", across, scope="col"), *(tag("th", each.name, scope="col") for each in told))
    rows = [
        tag(
            "tr",
            tag("th", number(x), scope="row"),
            *(tag("td", number(table[x]) if x in table else "–") for table in values),
        )
        for x in shown
    ]
    return tag("table", tag("caption", title), tag("thead", head), tag("tbody", *rows), cls="sr")
