"""Compose in a browser, over a replaying runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import NARROW, WIDE, Served, Tab, until

PROMPT = "#compose-prompt textarea"


def draw(tab: Tab, prompt: str) -> None:
    """Write a prompt, draw, and wait for its pictures."""
    tab.page.fill(PROMPT, prompt)
    tab.page.click("#compose-go")
    tab.says("#compose-gallery .card", prompt)


@pytest.mark.parametrize("tab", [WIDE, NARROW], indirect=True, ids=["wide", "narrow"])
def test_a_prompt_becomes_pictures_that_survive_a_reload(studio: Served, tab: Tab) -> None:
    tab.open(studio.url, "Compose")
    draw(tab, "a red dog on the beach")
    assert tab.page.locator("#compose-gallery .readout").count() >= 4
    assert tab.fits()
    until(lambda: studio.desk.draft("compose").get("prompts"))
    tab.open(studio.url, "Compose")
    tab.says("#compose-gallery .card", "a red dog on the beach")
    tab.holds(PROMPT, "red dog")


@pytest.mark.parametrize("tab", [NARROW], indirect=True, ids=["narrow"])
def test_on_a_phone_what_is_drawn_comes_into_view_and_a_refusal_does_not_leave_the_prompt(
    studio: Served, tab: Tab
) -> None:
    tab.open(studio.url, "Compose")
    tab.page.click("#compose-go")
    tab.says(".toast-body", "nothing to draw")
    below = "document.querySelector('#compose-results').getBoundingClientRect().top > innerHeight"
    assert tab.page.evaluate(below)
    draw(tab, "a red dog on the beach")
    tab.sees("#compose-results")


def test_a_concept_is_stacked_warned_of_and_swept(studio: Served, tab: Tab, concept: str) -> None:
    tab.open(studio.url, "Compose")
    tab.page.fill(PROMPT, "a (zorgle:1.4) in the forest")
    tab.says("#compose-words", "never learned")
    tab.says("#compose-words", "zorgle")
    tab.act("#compose-tray", "add", concept)
    row = tab.page.locator("#compose-stack .stack-row")
    row.wait_for()
    assert not row.locator(".burn").is_visible()
    row.locator("input[type=range]").fill("1.2")
    row.locator(".burn").wait_for()
    tab.act("#compose-stack", "insert")
    tab.holds(PROMPT, "sks rabbit")
    until(lambda: [each["weight"] for each in studio.desk.draft("compose").get("adapters") or ()] == [1.2])
    tab.act("#compose-stack", "sweep")
    tab.page.wait_for_selector("#compare-result .sheet-frame img", state="visible")
    job: Any = studio.newest("compare")
    assert job.axes[0].path == "adapters.0.weight"


def test_a_picture_goes_on_to_every_other_tab_and_brings_its_settings_back(studio: Served, tab: Tab) -> None:
    tab.open(studio.url, "Compose")
    draw(tab, "a green cat in the snow")
    picture = str(studio.desk.latest("compose").result["pictures"][0]["path"])
    tab.act("#compose-gallery", "edit")
    tab.page.wait_for_selector("#edit-mask canvas", state="visible")
    tab.go("Compose")
    tab.act("#compose-gallery", "identity")
    tab.page.wait_for_selector("#identity-tray .tile", state="visible")
    tab.go("Compose")
    tab.act("#compose-gallery", "compare")
    tab.says("#compare-about", "a green cat in the snow")
    tab.go("Compose")
    tab.page.fill(PROMPT, "something else")
    tab.act("#compose-gallery", "use")
    tab.holds(PROMPT, "a green cat in the snow")
    tab.page.fill(PROMPT, "something else")
    tab.page.set_input_files("#compose-drop input[type=file]", picture)
    tab.holds(PROMPT, "a green cat in the snow")


def test_a_preset_is_kept_under_a_name_of_any_kind(studio: Served, tab: Tab) -> None:
    tab.open(studio.url, "Compose")
    tab.page.fill("#compose-negative textarea, #compose-negative input", "blurry")
    tab.unfold("compose-presets-fold")
    tab.unfold("compose-preset-keep")
    tab.page.fill("#compose-preset-name input, #compose-preset-name textarea", "Soft <b>ink</b>")
    tab.page.click("#compose-preset-save")
    tab.page.wait_for_selector("#compose-preset-link a")
    assert list((studio.workspace / "presets/compose").glob("*.toml"))
    assert tab.page.locator("#compose-preset-link b").count() == 0


def test_a_start_with_a_painted_mask(studio: Served, tab: Tab) -> None:
    from pipelines.artifacts import assets

    tab.open(studio.url, "Compose")
    tab.unfold("compose-start-fold")
    tab.page.set_input_files("#compose-start input[type=file]", str(assets() / "samples/house.png"))
    canvas = tab.page.locator("#compose-mask canvas")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    box: Any = canvas.bounding_box()
    tab.page.mouse.move(box["x"] + 30, box["y"] + 30)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 90, box["y"] + 60, steps=4)
    tab.page.mouse.up()
    until(lambda: studio.desk.draft("compose").get("mask"))
    draw(tab, "a house with a green door")
    job: Any = studio.newest("compose")
    assert job.mask.startswith("upload:masks/")
    assert Path(studio.desk.path(job.start)).is_file()
    tab.act("#compose-start-about", "nothing")
    until(lambda: not studio.desk.draft("compose").get("start"))
    canvas.wait_for(state="hidden")


def test_nothing_to_draw_is_said_in_words(studio: Served, tab: Tab) -> None:
    tab.open(studio.url, "Compose")
    tab.page.fill(PROMPT, "")
    tab.page.click("#compose-go")
    tab.says(".toast-body", "nothing to draw")
