"""The studio on a free port with a replaying runner, and a headless Chromium in front of it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.jobs.spec import from_table
from pipelines.jobs.workspace import ENV
from studio.settings import Settings
from tests.browser.replay import Replay

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDE, NARROW = (1440, 900), (390, 844)
PACE = 100
"""A person's, in ms between two acts: of two answers within some 50 ms Gradio's page may lose one."""
SECONDS = 90_000
"""Milliseconds until a condition that never comes true fails its test; nothing waits longer than it must."""
LEFT = ("signal is aborted", "Connection errored out", "Failed to fetch")
"""What a page says of its own open requests while it is being left."""


@dataclass
class Served:
    """A running studio."""

    url: str
    replay: Replay
    hall: Any
    workspace: Path

    @property
    def desk(self) -> Any:
        """The desk that every page of this studio shows."""
        return self.hall.desk(None)

    def do(self, **table: Any) -> int:
        """Submit a job, given as a table, and wait until it ended; → its number."""
        ident = self.desk.submit(from_table(table))
        until(lambda: self.desk.store.get(ident).status not in ("queued", "running"))
        return ident

    def newest(self, kind: str) -> Any:
        """The newest job of a kind that reached the runner."""
        return next(each for each in reversed(self.replay.seen) if each.kind == kind)


def until(true: Callable[[], Any]) -> None:
    """Wait until something behind the page came true."""
    end = time.monotonic() + SECONDS / 1000
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def serve(settings: Settings, runners: dict[str, Any] | None) -> Generator[tuple[str, Any]]:
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
    while not running[0].started and thread.is_alive():  # until then the splash answers
        time.sleep(0.02)
    yield f"http://127.0.0.1:{halls[0].settings.port}", halls[0]
    running[0].should_exit = True
    thread.join(timeout=15)


def launched(playwright: Any) -> Any:
    """The browser that this machine has, at a person's pace."""
    return playwright.chromium.launch(
        executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"], slow_mo=PACE
    )


@pytest.fixture(scope="session")
def browser() -> Generator[Any]:
    """One browser for all tests; skipped where none is installed."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with sync.sync_playwright() as playwright:
        found = launched(playwright)
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


@pytest.fixture
def concept(studio: Served) -> str:
    """A trained concept in the library; → its reference."""
    from studio import library

    if not library.adapters(studio.desk):
        studio.replay.pause = 0.01
        studio.do(
            kind="train",
            data={"photos": "asset:subjects/rabbit", "token": "sks", "class_word": "rabbit"},
            concept={"method": "dreambooth_lora", "steps": 4},
        )
    return library.adapters(studio.desk)[0].reference


@pytest.fixture(autouse=True)
def calm(request: pytest.FixtureRequest) -> None:
    """Every test finds an idle queue, a quick runner and empty forms."""
    if "studio" not in request.fixturenames:
        return
    served: Served = request.getfixturevalue("studio")
    served.replay.pause, served.replay.fails = 0.01, None
    for row in served.desk.active():
        served.desk.cancel(row.id)
    until(lambda: not served.desk.active())
    for name in ("photos", "train", "train-chooser", "train-view", "compose", "edit", "identity", "compare"):
        served.desk.keep(name, {})


@dataclass
class Tab:
    """One page of a browser, and what went wrong on it."""

    page: Any
    errors: list[str]
    foreign: list[str]

    def open(self, url: str, tab: str = "") -> None:
        """Go there and wait until the studio stands and follows its store; then choose a tab by its name."""
        before = len(self.errors)
        self.page.goto(url, wait_until="domcontentloaded")
        self.page.wait_for_selector("#status .chip")
        self.errors[before:] = [
            each for each in self.errors[before:] if not any(word in each for word in LEFT)
        ]
        if tab:
            self.go(tab)

    def go(self, tab: str) -> None:
        """Choose a tab by its name."""
        self.page.locator("#tabs > .tab-wrapper, #tabs .tab-container").first.get_by_role(
            "tab", name=tab, exact=True
        ).click()

    def says(self, place: str, words: str) -> None:
        """Wait until a place shows these words, in whatever case."""
        self.page.wait_for_function(
            "([place, words]) => [...document.querySelectorAll(place)]"
            ".some((each) => each.innerText.toLowerCase().includes(words.toLowerCase()))",
            arg=[place, words],
        )

    def holds(self, field: str, words: str) -> None:
        """Wait until a field holds these words."""
        self.page.wait_for_function(
            "([field, words]) => (document.querySelector(field)?.value ?? '').includes(words)",
            arg=[field, words],
        )

    def sees(self, place: str) -> None:
        """Wait until a place begins in the upper half of the window."""
        self.page.wait_for_function(
            "(place) => document.querySelector(place).getBoundingClientRect().top < innerHeight / 2",
            arg=place,
        )

    def unfold(self, ident: str) -> None:
        """Open an accordion, where it is not open already."""
        head = self.page.locator(f"#{ident} > .label-wrap")
        head.wait_for()
        if "open" not in (head.get_attribute("class") or ""):
            head.click()

    def act(self, place: str, name: str, value: str = "") -> None:
        """Press a button of our own HTML by its act, the first one; `value` narrows it down."""
        more = f'[data-value="{value}"]' if value else ""
        self.page.locator(f'{place} [data-act="{name}"]{more}').first.click()

    def fits(self) -> bool:
        """Whether nothing hangs out of the window sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"))


def opened(browser: Any, width: int, height: int) -> tuple[Any, Tab]:
    """A fresh context with one page, which writes down what goes wrong on it."""
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
    return context, found


@pytest.fixture
def tab(browser: Any, request: pytest.FixtureRequest) -> Generator[Tab]:
    """A fresh context; parametrise indirectly with WIDE or NARROW. Fails on errors in the console."""
    context, found = opened(browser, *getattr(request, "param", WIDE))
    yield found
    errors = list(found.errors)
    context.close()
    assert not found.foreign, found.foreign
    assert not errors, errors


@pytest.fixture
def other(browser: Any) -> Generator[Tab]:
    """A second visitor of the same studio, in a context of its own."""
    context, found = opened(browser, *WIDE)
    yield found
    errors = list(found.errors)
    context.close()
    assert not errors, errors
