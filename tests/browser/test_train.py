"""Train Concept in a browser, over a replaying runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import NARROW, WIDE, Served, Tab, until

RABBIT = "asset:subjects/rabbit"


def photos_of(studio: Served, tab: Tab) -> None:
    """Open the tab with the sample photos of the rabbit."""
    tab.open(studio.url)
    tab.act("#train-photos", "sample-set", RABBIT)
    tab.page.wait_for_selector("#train-photos .tag.poor")
    tab.holds("#train-class input, #train-class textarea", "rabbit")


@pytest.mark.parametrize("tab", [WIDE, NARROW], indirect=True, ids=["wide", "narrow"])
def test_from_sample_photos_to_a_concept_in_compose(studio: Served, tab: Tab) -> None:
    photos_of(studio, tab)
    tab.says("#train-set", "6 of 6 photos")
    assert tab.page.locator("#train-photos .card").count() == 6
    tab.says("#train-photos", "blurred")
    tab.act("#train-set", "out-poor")
    tab.says("#train-set", "5 of 6 photos")
    field = tab.page.locator("#train-photos textarea").first
    field.fill("a sks rabbit in a field")
    field.blur()
    until(lambda: list((studio.workspace / "uploads").glob("*/*.txt")))
    tab.says("#train-how", "DreamBooth")
    assert tab.fits()

    studio.replay.pause = 0.1
    tab.page.click("#train-go")
    tab.says("#train-state", "step")
    tab.says("#train-anatomy", "learns")
    tab.act("#train-state", "sample")
    tab.page.wait_for_selector("#train-strip .look img")
    tab.page.wait_for_selector("#train-curves svg path")
    tab.act("#train-state", "save")
    tab.says("#train-result", "saved on the way")
    tab.act("#train-state", "pause")
    tab.says("#train-state", "Paused at step")
    studio.replay.pause = 0.002
    tab.act("#train-state", "again")
    tab.says("#train-state", "It is done")
    tab.says("#train-result", "is kept")
    job: Any = studio.newest("train")
    assert job.resume
    assert job.data.exclude == ("2.png",)
    assert tab.fits()

    tab.act("#train-result", "compose")
    tab.holds("#compose-prompt textarea", "sks rabbit")
    tab.page.wait_for_selector("#compose-stack .stack-row", state="visible")
    before = sum(each.kind == "compose" for each in studio.replay.seen)
    tab.page.click("#compose-go")
    until(lambda: sum(each.kind == "compose" for each in studio.replay.seen) > before)
    tab.page.wait_for_selector("#compose-gallery .readout")
    drawn: Any = studio.newest("compose")
    assert drawn.adapters[0].adapter.startswith("run:")
    assert drawn.references == job.data.photos
    assert tab.fits()


def test_two_tabs_press_train_at_once(studio: Served, tab: Tab, other: Tab) -> None:
    photos_of(studio, tab)
    studio.replay.pause = 0.5  # both wait for as long as it takes to see it
    other.open(studio.url)
    other.page.wait_for_selector("#train-photos .card")
    tab.page.click("#train-go")
    other.page.click("#train-go")
    for each in (tab, other):
        each.page.wait_for_selector("#train-state .waits")
    until(lambda: len([row for row in studio.desk.active() if row.spec.kind == "train"]) == 2)
    first, second = studio.desk.active()
    assert first.spec.out != second.spec.out
    studio.replay.pause = 0.001
    until(lambda: not studio.desk.active())
    assert {studio.desk.store.get(each.id).status for each in (first, second)} == {"done"}


def test_without_photos_the_page_says_what_to_do(studio: Served, tab: Tab) -> None:
    tab.open(studio.url)
    tab.page.wait_for_selector("#train-photos .sample")
    tab.page.click("#train-go")
    tab.says(".toast-body", "no photos yet")
    assert not studio.desk.active()


def test_photos_of_a_person_ask_for_their_leave(studio: Served, tab: Tab, tmp_path: Path) -> None:
    from pipelines.artifacts import assets

    tab.open(studio.url)
    tab.page.set_input_files(
        "#train-files input[type=file]",
        [str(each) for each in sorted((assets() / "subjects/bearded_man").glob("*.png"))],
    )
    tab.page.wait_for_selector("#train-photos .card")
    tab.page.get_by_label("A person", exact=True).first.check()
    tab.page.wait_for_selector("#train-rights input")
    tab.page.fill("#train-class input, #train-class textarea", "man")
    until(lambda: studio.desk.draft("train").get("data.class_word") == "man")
    tab.page.click("#train-go")
    tab.says(".toast-body", "may use photos of this person")
    tab.page.check("#train-rights input")
    tab.page.click("#train-go")
    tab.says("#train-state", "It is done")


def test_a_whole_folder_is_brought_and_a_photo_cropped_by_mouse_and_keys(studio: Served, tab: Tab) -> None:
    from pipelines.artifacts import assets

    tab.open(studio.url)
    with tab.page.expect_file_chooser() as chooser:
        tab.page.click("#train-folder")
    chooser.value.set_files(str(assets() / "photos/dog"))
    tab.says("#train-set", "5 of 5 photos")
    tab.page.wait_for_selector("#train-photos .card .tag")  # looked at: the cards are not drawn anew now
    until(lambda: not studio.desk.active())
    tab.page.locator("#train-photos [data-crop]").first.click()
    stage = tab.page.locator(".cropper .stage")
    box: Any = stage.bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] * 3 / 4, box["y"] + box["height"] * 3 / 4, steps=4)
    tab.page.mouse.up()
    tab.says(".cropper output", "50 % of the width")
    for key in ("ArrowLeft", "ArrowUp", "Enter"):
        tab.page.keyboard.press(key)
    tab.page.wait_for_selector("#train-photos [data-crop]:has-text('Change crop')")
    assert not tab.page.locator(".cropper").count()
    tab.page.fill("#train-class input, #train-class textarea", "dog")
    until(lambda: studio.desk.draft("train").get("data.class_word") == "dog")
    before = sum(each.kind == "train" for each in studio.replay.seen)
    tab.page.click("#train-go")
    until(lambda: sum(each.kind == "train" for each in studio.replay.seen) > before)
    tab.says("#train-state", "It is done")
    job: Any = studio.newest("train")
    assert list(job.data.crops.values()) == [pytest.approx((0.23, 0.23, 0.73, 0.73), abs=0.02)]
