"""Compare in a browser, over a replaying runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import NARROW, WIDE, Served, Tab


def drawn(studio: Served, prompt: str) -> int:
    """A finished drawing."""
    return studio.do(kind="compose", prompts=[prompt], count=2, seed=1, references="asset:subjects/rabbit")


@pytest.mark.parametrize("tab", [WIDE, NARROW], indirect=True, ids=["wide", "narrow"])
def test_runs_stand_side_by_side_sort_and_are_taken_away(studio: Served, tab: Tab) -> None:
    one, two = drawn(studio, "a red dog"), drawn(studio, "a blue dog on the beach")
    tab.open(studio.url, "Compare")
    for each in (one, two):
        tab.page.locator(
            f'#compare-list [data-act="pick"][data-value="{each}"][aria-pressed="false"]'
        ).click()
        tab.page.wait_for_selector(f'#compare-list [data-value="{each}"][aria-pressed="true"]')
    tab.says("#compare-board", "a blue dog on the beach")
    table = tab.page.locator("#compare-board table.sortable").first
    heads = table.locator("th[aria-sort]")
    heads.first.locator("button").click()
    assert heads.first.get_attribute("aria-sort") == "ascending"
    rising = table.locator("tbody tr").all_inner_texts()
    heads.first.locator("button").click()
    assert table.locator("tbody tr").all_inner_texts() == rising[::-1]
    assert tab.page.locator("#compare-board svg").count() >= 1
    for form in ("csv", "json"):
        with tab.page.expect_download() as told:
            tab.page.locator(f'#compare-board a[href$=".{form}"]').click()
        assert Path(told.value.path()).stat().st_size > 50
    with tab.page.expect_download() as told:
        tab.page.locator("#compare-board [data-png]").click()
    assert Path(told.value.path()).read_bytes().startswith(b"\x89PNG")
    assert tab.fits()


@pytest.mark.parametrize("tab", [WIDE, NARROW], indirect=True, ids=["wide", "narrow"])
def test_a_grid_over_two_settings(studio: Served, tab: Tab) -> None:
    drawn(studio, "a red dog")
    tab.open(studio.url, "Compare")
    tab.page.get_by_role("tab", name="A grid over settings").click()
    tab.page.click("#compare-newest")
    tab.says("#compare-about", "a red dog")
    for index, (path, values) in enumerate((("seed", "1, 2, 3"), ("guidance.scale", "2, 5"))):
        tab.unfold(f"compare-axis-{index}")
        field = tab.page.locator(f"#compare-path-{index} input")
        field.fill(path)
        field.press("Enter")
        box = tab.page.locator(f"#compare-values-{index}").locator("textarea, input")
        box.fill(values)
        box.blur()
    tab.says("#compare-cost", "6 cells")
    tab.page.click("#compare-go")
    tab.page.wait_for_selector("#compare-result .sheet-frame img")
    assert tab.page.locator("#compare-result table.sortable tbody tr").count() == 6
    job: Any = studio.newest("compare")
    assert [axis.path for axis in job.axes] == ["seed", "guidance.scale"]
    with tab.page.expect_download() as told:
        tab.page.locator('#compare-result a[href$=".toml"]').click()
    assert "guidance.scale" in Path(told.value.path()).read_text(encoding="utf-8")
    assert tab.fits()
