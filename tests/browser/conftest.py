"""The studio on a free port with a replaying runner, and a headless Chromium in front of it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.jobs.workspace import ENV
from studio.settings import Settings
from tests.browser.replay import Replay

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDE, NARROW = (1440, 900), (390, 844)
SECONDS = 20_000


@dataclass
class Served:
    """A running studio."""

    url: str
    replay: Replay
    hall: Any
    workspace: Path


def serve(settings: Settings, runners: dict[str, Any]) -> Generator[tuple[str, Any]]:
    """The studio as `likeness studio` serves it, in a thread; gives its address and its hall."""
    from studio import launch
    from studio.hall import Hall

    halls: list[Any] = []

    def make(given: Settings) -> Any:
        halls.append(Hall(given, runners))
        return halls[0]

    running: list[Any] = []
    ready = threading.Event()

    def told(server: Any) -> None:
        running.append(server)
        ready.set()

    thread = threading.Thread(target=launch.serve, args=(settings, None, make, None, told), daemon=True)
    thread.start()
    assert ready.wait(60), "the studio did not start"
    yield f"http://127.0.0.1:{halls[0].settings.port}", halls[0]
    running[0].should_exit = True
    thread.join(timeout=15)


@pytest.fixture(scope="session")
def browser() -> Generator[Any]:
    """One browser for all tests; skipped where none is installed."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with sync.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """The studio over a replaying runner, with a workspace of its own."""
    folder = tmp_path_factory.mktemp("workspace")
    replay = Replay()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV, str(folder))
        settings = Settings(workspace=folder, port=0, browser=False)
        for url, hall in serve(settings, {"cpu": replay}):
            yield Served(url, replay, hall, folder)


@dataclass
class Tab:
    """One page of a browser, and what went wrong on it."""

    page: Any
    errors: list[str]
    foreign: list[str]

    def open(self, url: str, tab: str = "") -> None:
        """Go there and wait until the studio stands; then choose a tab by its name."""
        self.page.goto(url, wait_until="domcontentloaded")
        self.page.wait_for_selector("#tabs button[role=tab]", timeout=SECONDS)
        if tab:
            self.page.get_by_role("tab", name=tab, exact=True).click()

    def fits(self) -> bool:
        """Whether nothing hangs out of the window sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"))


@pytest.fixture
def tab(browser: Any, request: pytest.FixtureRequest) -> Generator[Tab]:
    """A fresh context; parametrise indirectly with WIDE or NARROW. Fails on errors in the console."""
    width, height = getattr(request, "param", WIDE)
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    found = Tab(page, [], [])
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("console", lambda each: found.errors.append(each.text) if each.type == "error" else None)
    page.on(
        "request",
        lambda each: (
            found.foreign.append(each.url)
            if each.url.startswith("http") and "127.0.0.1" not in each.url
            else None
        ),
    )
    yield found
    context.close()
    assert not found.foreign, found.foreign
    assert not found.errors, found.errors
