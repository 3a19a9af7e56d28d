"""Edit and Identity in a browser, over a replaying runner."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import NARROW, WIDE, Served, Tab, until


@pytest.mark.parametrize("tab", [WIDE, NARROW], indirect=True, ids=["wide", "narrow"])
def test_a_mask_is_painted_and_the_result_compared_by_keyboard(studio: Served, tab: Tab) -> None:
    tab.open(studio.url, "Edit")
    tab.act("#edit-samples", "edit-sample", "asset:samples/house.png")
    canvas = tab.page.locator("#edit-mask canvas")
    canvas.wait_for()
    tab.holds("#edit-source textarea, #edit-source input", "house")
    canvas.scroll_into_view_if_needed()
    box: Any = canvas.bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.4)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.5, steps=6)
    tab.page.mouse.up()
    tab.says("#edit-mask .mask-said", "of the picture may change")
    until(lambda: studio.desk.draft("edit").get("mask"))
    tab.page.fill("#edit-prompt textarea", "a blue house in the meadow")
    tab.page.click("#edit-go")
    dial = tab.page.locator("#edit-result .wipe input")
    dial.wait_for()
    tab.says("#edit-result", "a blue house in the meadow")
    tab.sees("#edit-results")  # on a phone too, where it stands below the form
    job: Any = studio.newest("edit")
    assert job.mask.startswith("upload:masks/")
    assert job.image == "asset:samples/house.png"
    dial.focus()
    before = tab.page.evaluate("document.querySelector('#edit-result .wipe').style.getPropertyValue('--at')")
    for _ in range(5):
        tab.page.keyboard.press("ArrowLeft")
    after = tab.page.evaluate("document.querySelector('#edit-result .wipe').style.getPropertyValue('--at')")
    assert (before, after) == ("50%", "45%")
    assert tab.fits()


def test_an_edit_without_a_picture_is_refused_in_words(studio: Served, tab: Tab) -> None:
    tab.open(studio.url, "Edit")
    tab.page.fill("#edit-prompt textarea", "a blue house")
    tab.page.click("#edit-go")
    tab.says(".toast-body", "no picture yet")


@pytest.mark.parametrize("tab", [WIDE, NARROW], indirect=True, ids=["wide", "narrow"])
def test_what_a_method_lacks_is_named_with_size_licence_and_place(studio: Served, tab: Tab) -> None:
    tab.open(studio.url, "Identity")
    tab.act("#identity-sources", "sample", "asset:subjects/rabbit")
    tab.page.wait_for_selector("#identity-tray .tile")
    tab.says("#identity-weights", "cannot draw with this base")
    base = tab.page.locator("#identity-base input")
    base.fill("Stable Diffusion 1.5")
    tab.page.get_by_role("option", name="Stable Diffusion 1.5").first.click()
    for words in ("not installed", "licence", "MB", "put it at"):
        tab.says("#identity-weights", words)
    tab.page.fill("#identity-prompt textarea", "a rabbit on the beach")
    tab.page.click("#identity-go")
    tab.says(".toast-body", "is not on this machine")
    assert not studio.desk.active()
    assert tab.fits()
