"""What holds for every tab: trouble in words, text stays text, keys reach all, pictures have names."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from pipelines.artifacts import assets
from pipelines.errors import LikenessError
from tests.browser.conftest import Served, Tab, until

PROBE = '<img src=x onerror="window.__xss=1">{{7*7}}${window.__xss=2}'
TABS = ("Train Concept", "Compose", "Edit", "Identity", "Compare")


def test_a_failed_job_says_what_happened_and_the_way_out(studio: Served, tab: Tab, other: Tab) -> None:
    tab.open(studio.url, "Compose")
    studio.replay.fails = LikenessError(
        "The memory of the device is full.",
        "Make the picture smaller. " + "There is much to say of it. " * 40,
    )
    tab.page.fill("#compose-prompt textarea", "a red dog")
    tab.page.click("#compose-go")
    tab.says("#compose-progress", "memory")
    tab.says("#compose-progress", "Make the picture smaller")
    assert tab.fits()
    # somebody else's page shows the same, and can try again
    other.open(studio.url, "Compose")
    other.says("#compose-progress", "memory")
    other.act("#compose-progress", "again")
    other.page.wait_for_selector("#compose-gallery .card")
    tab.page.wait_for_selector("#compose-gallery .card")


def test_markup_in_words_of_people_is_text_everywhere(studio: Served, tab: Tab, tmp_path: Path) -> None:
    name = "<img src=x onerror=window.__xss=3>.png"
    photo = tmp_path / name
    photo.write_bytes((assets() / "subjects/rabbit/1.png").read_bytes())
    studio.do(kind="compose", prompts=[PROBE], count=1)
    run = studio.workspace / "runs/import-probe"
    run.mkdir(parents=True)
    header = json.dumps({"__metadata__": {"likeness.token": PROBE, "likeness.family": PROBE}}).encode()
    (run / "adapter.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (run / "about.json").write_text(json.dumps({"title": PROBE, "trigger": PROBE}), encoding="utf-8")
    studio.desk.touch("library")

    tab.open(studio.url)
    tab.page.set_input_files("#train-files input[type=file]", str(photo))
    tab.page.wait_for_selector("#train-photos .card")
    field = tab.page.locator("#train-photos textarea").first
    field.fill(PROBE)
    field.blur()
    until(lambda: list((studio.workspace / "uploads").glob("*/*.txt")))
    for ident in ("#train-token", "#train-class"):
        tab.page.fill(f"{ident} input, {ident} textarea", PROBE)
    tab.page.click("#train-go")
    tab.page.wait_for_selector(".toast-body")
    for each in TABS[1:]:
        tab.go(each)
        tab.page.locator(f"#tab-{each.lower()}").wait_for()
    tab.go("Compose")
    tab.says("#compose-tray", "onerror")
    tab.says("#compose-gallery", "onerror")
    tab.act("#compose-tray", "add", "run:import-probe")
    tab.says("#compose-stack", "onerror")
    tab.go("Compare")
    tab.says("#compare-list", "onerror")
    assert tab.page.evaluate("window.__xss") is None


def test_keys_reach_what_matters_and_focus_is_seen(studio: Served, tab: Tab) -> None:
    tab.open(studio.url, "Compose")
    tab.page.focus("#compose-prompt textarea")
    reached: list[str] = []
    for _ in range(60):
        tab.page.keyboard.press("Tab")
        ident, width, visible = tab.page.evaluate(
            "(() => { const one = document.activeElement, look = getComputedStyle(one);"
            " const box = one.closest('[id]'), ring = look.boxShadow !== 'none' ? 2 : 0;"
            " return [box ? box.id : '', Math.max(parseFloat(look.outlineWidth) || 0, ring),"
            " one.getClientRects().length > 0]; })()"
        )
        reached.append(ident)
        assert visible, ident
        assert width >= 2, f"no focus ring on {ident}"
        if ident == "compose-go":
            break
    assert "compose-go" in reached
    tab.page.fill("#compose-prompt textarea", "a purple bear")
    tab.page.press("#compose-prompt textarea", "Control+Enter")
    tab.says("#compose-gallery .card", "a purple bear")


def test_pictures_have_words_and_buttons_a_size(studio: Served, tab: Tab) -> None:
    tab.open(studio.url)
    tab.page.wait_for_selector("#train-photos .sample")
    for each in TABS:
        tab.go(each)
        tab.page.locator(f"#tab-{each.split()[0].lower()}").wait_for()
        assert tab.page.locator("img:not([alt])").count() == 0, each
        small = tab.page.evaluate(
            "[...document.querySelectorAll('[data-act], .act, .chip')]"
            ".filter((one) => one.getClientRects().length && one.getBoundingClientRect().height < 30)"
            ".map((one) => one.outerHTML.slice(0, 90))"
        )
        assert not small, (each, small)
