"""Compose in a browser, over a replaying runner."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import NARROW, WIDE, Served, Tab


@pytest.mark.parametrize("tab", [WIDE, NARROW], indirect=True, ids=["wide", "narrow"])
def test_a_prompt_becomes_pictures_that_survive_a_reload(studio: Served, tab: Tab) -> None:
    tab.open(studio.url, "Compose")
    tab.page.fill("#compose-prompt textarea", "a red dog on the beach")
    tab.page.click("#compose-go")
    gallery = "document.querySelector('#compose-gallery').innerText"
    tab.page.wait_for_function(f"{gallery}.includes('a red dog on the beach')")
    assert tab.fits()
    tab.open(studio.url, "Compose")
    tab.page.wait_for_selector("#compose-gallery .card")
    tab.page.wait_for_function("document.querySelector('#compose-prompt textarea').value.includes('red dog')")


def test_markup_in_a_prompt_is_text(studio: Served, tab: Tab) -> None:
    tab.open(studio.url, "Compose")
    probe = '<img src=x onerror="window.__xss=1">{{7*7}}${window.__xss=2}'
    tab.page.fill("#compose-prompt textarea", probe)
    tab.page.click("#compose-go")
    tab.page.wait_for_function("document.querySelector('#compose-gallery').innerText.includes('onerror')")
    assert tab.page.evaluate("window.__xss") is None


def test_nothing_to_draw_is_said_in_words(studio: Served, tab: Tab) -> None:
    tab.open(studio.url, "Compose")
    tab.page.fill("#compose-prompt textarea", "")
    tab.page.click("#compose-go")
    toast: Any = tab.page.wait_for_selector(".toast-body")
    assert "nothing to draw" in toast.inner_text().lower()
