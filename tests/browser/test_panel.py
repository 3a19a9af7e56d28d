"""The side panel in a browser: queue, library, bases, disk, settings."""

from __future__ import annotations

import pytest

from pipelines.jobs.spec import from_table
from tests.browser.conftest import NARROW, WIDE, Served, Tab, until


@pytest.mark.parametrize("tab", [WIDE, NARROW], indirect=True, ids=["wide", "narrow"])
def test_jobs_are_moved_and_stopped(studio: Served, tab: Tab) -> None:
    # what runs stands still, and the queue with it, until the test lets it go on
    studio.replay.pause = 600.0
    prompts = ("the first", "the second", "the third")
    first, second, third = (
        studio.desk.submit(from_table({"kind": "compose", "prompts": [each]})) for each in prompts
    )
    until(lambda: studio.desk.store.get(first).status == "running")
    tab.open(studio.url)
    tab.page.click('#status [data-panel="queue"]')
    tab.says("#queue-jobs", "the third")
    tab.act("#queue-jobs", "up", str(third))
    until(lambda: [row.id for row in studio.desk.active()][-2:] == [third, second])
    tab.page.wait_for_function(
        "(wanted) => [...document.querySelectorAll('#queue-jobs [data-act=up]')]"
        ".map((one) => one.dataset.value).join() === wanted",
        arg=f"{third},{second}",
    )
    tab.act("#queue-jobs", "stop", str(second))
    until(lambda: studio.desk.store.get(second).status == "cancelled")
    studio.replay.pause = 0.01
    until(lambda: studio.desk.store.get(third).status == "done")
    assert tab.fits()
    tab.page.locator("#queue-jobs [data-act]").first.focus()
    tab.page.keyboard.press("Escape")
    tab.page.wait_for_selector(".sidebar#panel:not(.open)", state="attached")


def test_a_concept_is_renamed_thrown_away_and_brought_back(studio: Served, tab: Tab, concept: str) -> None:
    from studio import library

    tab.page.on("dialog", lambda asked: asked.accept())
    tab.open(studio.url)
    tab.page.click('#status [data-panel="library"]')
    tab.says("#library-cards", "sks rabbit")
    card = tab.page.locator(
        "#library-cards .adapter", has=tab.page.locator(f'[data-value="{concept}"]')
    ).first
    card.locator("summary").click()
    card.locator("input").fill("Spot <i>the</i> rabbit")
    card.locator('[data-act="rename"]').click()
    tab.says("#library-cards", "Spot <i>the</i> rabbit")
    card.locator('[data-act="discard"]').click()
    until(lambda: concept not in [each.reference for each in library.adapters(studio.desk)])
    tab.unfold("panel-disk")
    tab.page.wait_for_selector('#disk-uses details[data-key="bin"] summary')
    tab.page.click('#disk-uses details[data-key="bin"] summary')
    tab.act("#disk-uses", "restore")
    until(lambda: concept in [each.reference for each in library.adapters(studio.desk)])


def test_bases_are_called_what_they_are_and_the_doctor_answers(studio: Served, tab: Tab) -> None:
    tab.open(studio.url)
    tab.page.click('#status [data-panel="bases"]')
    tab.says("#bases-list", "small demonstration base")
    tab.says("#bases-device", "CPU")
    tab.unfold("panel-settings")
    tab.page.click("#settings-doctor")
    tab.says("#settings-told", "Everything that is needed is here")
    tab.page.click('[data-preference="theme"][data-choice="dark"]')
    tab.page.wait_for_selector("body.dark", state="attached")
    tab.open(studio.url)
    tab.page.wait_for_selector("body.dark", state="attached")
