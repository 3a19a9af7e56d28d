"""Line charts: every figure is where it belongs, nothing is lost that is seen, and it can be heard."""

import re
from itertools import pairwise
from math import inf, nan
from xml.etree import ElementTree

import pytest

from studio import charts
from studio.charts import Series, curves, number, thinned, ticks


def drawing(markup: str) -> ElementTree.Element:
    found = re.search(r"<svg.*</svg>", markup, re.DOTALL)
    assert found
    return ElementTree.fromstring(found[0])  # noqa: S314 -- our own


def points(markup: str) -> list[list[tuple[float, float]]]:
    """The corners of every line."""
    paths = [each.get("d", "") for each in drawing(markup).iter("path")]
    return [
        [(float(x), float(y)) for x, y in (pair.split() for pair in path[1:].split("L"))] for path in paths
    ]


def test_points_are_where_their_figures_are():
    shown = curves("Loss", [Series("loss", [(0, 1.0), (5, 0.5), (10, 0.0)])])
    ((first, middle, last),) = points(shown)
    assert first[0] == charts.LEFT
    assert last[0] == charts.WIDTH - charts.RIGHT
    assert middle[0] == pytest.approx((first[0] + last[0]) / 2, abs=0.1)
    assert middle[1] == pytest.approx((first[1] + last[1]) / 2, abs=0.1)
    assert first[1] < middle[1] < last[1]  # up is more


def test_the_axis_ends_where_the_training_will():
    ((_, last),) = points(curves("Loss", [Series("loss", [(0, 1.0), (5, 0.5)])], total=10))
    assert last[0] == pytest.approx((charts.LEFT + charts.WIDTH - charts.RIGHT) / 2, abs=0.1)


def test_it_can_be_heard_and_read_without_the_drawing():
    shown = curves("Loss", [Series("each", [(1, 9.0)], faint=True), Series("mean", [(1, 0.3), (2, 0.25)])])
    assert drawing(shown).get("role") == "img"
    assert "mean from 0.3 to 0.25" in drawing(shown).get("aria-label", "")
    table = re.search(r"<table.*</table>", shown, re.DOTALL)
    assert table
    rows = ElementTree.fromstring(table[0])  # noqa: S314 -- our own
    cells = [each.text for each in rows.iter("td")]
    assert cells == ["0.3", "0.25"]


def test_a_mark_has_its_name_and_one_outside_is_left_out():
    series = [Series("loss", [(0, 1.0), (10, 0.5)])]
    assert ">kept<" in curves("Loss", series, mark=(5, "kept"))
    assert ">kept<" not in curves("Loss", series, mark=(50, "kept"))


@pytest.mark.parametrize("broken", [[], [(1, nan)], [(1, inf), (nan, 1.0)]])
def test_nothing_to_draw_is_a_sentence(broken):
    shown = curves("Loss", [Series("loss", broken)])
    assert "No figures yet" in shown
    assert "<svg" not in shown


@pytest.mark.parametrize("single", [[(3, 0.5)], [(3, 0.0)], [(1, 2.0), (2, 2.0)]])
def test_one_point_and_flat_lines_are_drawn(single):
    for line in points(curves("x", [Series("a", single)])):
        for x, y in line:
            assert charts.LEFT <= x <= charts.WIDTH - charts.RIGHT
            assert charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM


def test_words_are_text():
    shown = curves("<script>", [Series("<b>${x}", [(1, 2.0)])])
    assert "<script>" not in shown
    assert "<b>$" not in shown


def test_thinning_keeps_peaks():
    many = [(float(x), 100.0 if x == 777 else (x % 7) / 7) for x in range(10_000)]
    kept = thinned(many, 400)
    assert len(kept) <= 402
    assert (777.0, 100.0) in kept
    assert kept == sorted(kept)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.013, 0.29), (0, 150), (-1, 1), (2e-5, 9e-5), (0, 3000)])
def test_ticks_are_round_inside_and_few(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 5
    assert all(low - 1e-9 <= each <= high + 1e-9 for each in found)
    widths = {round(b - a, 12) for a, b in pairwise(found)}
    assert len({f"{each:.6g}" for each in widths}) == 1


def test_numbers_as_an_axis_writes_them():
    assert [number(each) for each in (0.25, 1500.0, 2e-5, 0.0, 1.0)] == ["0.25", "1,500", "2e-05", "0", "1"]
