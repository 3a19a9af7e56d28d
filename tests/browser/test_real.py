"""One path with nothing replayed: the real worker draws and trains with the embedded base."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from pipelines.jobs.workspace import ENV
from studio.settings import Settings
from tests.browser.conftest import Tab, serve

STEPS = 12
MINUTES = 6 * 60_000
"""How long a busy machine may take for one of them."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The studio with its own worker, and forms that ask for little."""
    folder = tmp_path_factory.mktemp("workspace")
    drafts = {
        "train": {"concept": {"method": "dreambooth_lora", "steps": STEPS, "rank": 4, "prior_weight": 0.0},
                  "watch.every": STEPS, "watch.count": 1},
        "compose": {"count": 1, "sampler.steps": 6},
    }  # fmt: skip
    (folder / "drafts.json").write_text(json.dumps(drafts), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV, str(folder))
        served = serve(Settings(workspace=folder, port=0, browser=False), None)
        yield from (url for url, _ in served)


def test_from_photos_to_a_comparison(real: str, tab: Tab) -> None:
    tab.page.set_default_timeout(MINUTES)
    tab.open(real)
    tab.act("#train-photos", "sample-set", "asset:subjects/rabbit")
    tab.page.wait_for_selector("#train-photos .card .tag")
    tab.holds("#train-class input, #train-class textarea", "rabbit")
    tab.unfold("train-how-fold")
    steps = tab.page.get_by_label("Steps", exact=True).locator("visible=true").first
    steps.fill(str(STEPS))
    steps.blur()
    tab.says("#train-how", f"{STEPS} steps")
    tab.page.click("#train-go")
    tab.says("#train-state", "It is done")
    tab.page.wait_for_selector("#train-strip .look img")
    tab.act("#train-result", "compose")
    tab.holds("#compose-prompt textarea", "sks rabbit")
    tab.page.click("#compose-go")
    tab.says("#compose-gallery .readout", "likeness")
    tab.open(real, "Compare")
    for each in tab.page.locator('#compare-list [data-act="pick"]').all()[:2]:
        value = each.get_attribute("data-value")
        each.click()
        tab.page.wait_for_selector(f'#compare-list [data-value="{value}"][aria-pressed="true"]')
    tab.says("#compare-board", "2 runs chosen")
    tab.says("#compare-board", "likeness")
    picture = tab.page.locator("#compare-board .side-run img").first.get_attribute("src")
    assert picture
    assert Path(picture).suffix == ".png"
