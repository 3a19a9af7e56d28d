"""The screenshots of the README: the real studio, driven through one story, at two widths.

    python -m tests.browser.shots [--steps 150] [--out assets/screenshots]

Trains on the drawn rabbit with the embedded base, draws with it, edits, compares; then walks over the tabs
and writes {train,compose,edit,identity,compare,panel}-{1440,390}.png and a dark compose-dark-1440.png.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.artifacts import atomic_write
from pipelines.jobs.spec import from_table
from pipelines.jobs.workspace import ENV
from tests.browser.conftest import NARROW, WIDE, Tab, launched, opened, serve

LARGEST = 300_000
"""Bytes a picture may have; beyond them it is written with fewer colours."""
PATIENCE = 30 * 60_000
HEIGHTS = {1440: 1100, 390: 1500}
"""What of a page is shown, from its top, in pixels."""
RABBIT = "asset:subjects/rabbit"


def story(desk: Any, steps: int) -> None:
    """Train, draw, edit and compare, so that every tab has something to show."""

    def do(**table: Any) -> Any:
        ident = desk.submit(from_table(table))
        while desk.store.get(ident).status in ("queued", "running"):
            time.sleep(0.5)
        row = desk.store.get(ident)
        print(f"{row.spec.kind}: {row.status}", row.error or "", flush=True)  # noqa: T201 -- a script
        return row

    native = desk.native("toybox")
    photos = {"photos": RABBIT, "token": "sks", "class_word": "rabbit"}
    trained = do(
        kind="train", data=photos, concept={**dict(native["concept"]), "steps": steps, "prior_weight": 0.0},
        watch={"every": max(1, steps // 5), "count": 4},
    )  # fmt: skip
    adapter = desk.reference(Path(trained.result["out"]))
    with_it = {"adapters": [{"adapter": adapter, "weight": 1.0}], "references": RABBIT}
    own = {name: native[name] for name in ("guidance", "sampler") if name in native}
    do(kind="compose", prompts=["a rabbit on the beach"], count=4, seed=3, references=RABBIT, **own)
    do(kind="compose", prompts=["a sks rabbit in the snow"], count=4, seed=3, **with_it, **own)
    do(kind="compose", prompts=["a sks rabbit on the beach"], count=4, seed=3, **with_it, **own)
    do(
        kind="edit", image="asset:samples/house.png", source="a red house in the meadow",
        prompts=["a blue house in the meadow"], edit={"method": "sdedit", "strength": 0.6}, **own,
    )  # fmt: skip
    job = {
        "kind": "compose",
        "prompts": ["a sks rabbit on the beach"],
        "count": 1,
        "seed": 3,
        **with_it,
        **own,
    }
    axes = [{"path": "adapters.0.weight", "values": [0.0, 0.5, 1.0]}, {"path": "seed", "values": [3, 4]}]
    do(kind="compare", title="How much of the rabbit", job=job, axes=axes)


def settle(tab: Tab) -> None:
    """Wait until all pictures that are in sight have come, and nothing is toasted any more."""
    tab.page.wait_for_function(
        "[...document.images].filter((one) => one.getClientRects().length"
        " && one.getBoundingClientRect().top < innerHeight).every((one) => one.complete)"
        " && !document.querySelector('.toast-body')"
    )


def walk(tab: Tab, url: str, save: Callable[[str], None]) -> None:
    """Go over the tabs as somebody would who looks at what came of it."""
    tab.open(url)
    tab.page.wait_for_selector("#train-strip .look img")
    if not tab.page.locator("#train-photos .card").count():
        tab.act("#train-photos", "sample-set", RABBIT)
        tab.page.wait_for_selector("#train-photos .card .tag")
    save("train")
    tab.act("#train-result", "compose")
    tab.holds("#compose-prompt textarea", "sks rabbit")
    tab.page.wait_for_selector("#compose-gallery .card")
    tab.page.wait_for_selector("#compose-stack .stack-row")
    save("compose")
    tab.go("Edit")
    tab.act("#edit-samples", "edit-sample", "asset:samples/house.png")
    tab.page.wait_for_selector("#edit-mask canvas")
    tab.page.fill("#edit-prompt textarea", "a blue house in the meadow")
    save("edit")
    tab.go("Identity")
    if not tab.page.locator("#identity-tray .tile").count():
        tab.act("#identity-sources", "sample", RABBIT)
    tab.page.wait_for_selector("#identity-tray .tile")
    save("identity")
    tab.go("Compare")
    while tab.page.locator('#compare-list [data-act="pick"][aria-pressed="true"]').count() < 2:
        chosen = tab.page.locator('#compare-list [data-act="pick"][aria-pressed="false"]')
        value = chosen.nth(2).get_attribute("data-value")
        chosen.nth(2).click()
        tab.page.wait_for_selector(f'#compare-list [data-value="{value}"][aria-pressed="true"]')
    tab.page.wait_for_selector("#compare-board .side-run img")
    save("compare")
    tab.go("Compose")
    tab.page.click('#status [data-panel="library"]')
    tab.page.wait_for_selector("#library-cards .adapter img")
    # until it has slid in
    tab.page.wait_for_function(
        "Math.abs(document.querySelector('#panel').getBoundingClientRect().right - innerWidth) < 2"
    )
    save("panel")


def written(picture: bytes, path: Path) -> None:
    """Write a screenshot, with fewer colours where it would be too large."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    for colours in (None, 256, 128, 64):
        small = image if colours is None else image.quantize(colours, dither=Image.Dither.FLOYDSTEINBERG)
        told = io.BytesIO()
        small.save(told, "PNG", optimize=True)
        if told.tell() <= LARGEST:
            break
    atomic_write(path, told.getvalue())


def main(arguments: list[str]) -> None:
    """Serve, tell the story, walk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150, help="of the training")
    parser.add_argument("--out", type=Path, default=Path("assets/screenshots"))
    parser.add_argument(
        "--workspace", type=Path, help="kept; with a story in it already, it is not told anew"
    )
    asked = parser.parse_args(arguments)
    from playwright.sync_api import sync_playwright

    from studio.settings import Settings

    folder = (asked.workspace or Path(tempfile.mkdtemp(prefix="likeness-shots-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[ENV] = str(folder)
    served = serve(Settings(workspace=folder, port=0, browser=False), None)
    url, hall = next(served)
    desk = hall.desk(None)
    if not desk.store.jobs(1, "done", "compare"):
        story(desk, asked.steps)
    with sync_playwright() as playwright:
        browser = launched(playwright)
        for width, dark in ((WIDE[0], False), (NARROW[0], False), (WIDE[0], True)):
            context, tab = opened(browser, width, HEIGHTS[width])
            tab.page.set_default_timeout(PATIENCE)
            if dark:
                tab.page.add_init_script("localStorage.setItem('likeness-theme', 'dark')")

            def save(name: str, tab: Tab = tab, width: int = width, dark: bool = dark) -> None:
                if dark and name != "compose":
                    return
                tab.page.mouse.move(0, 0)
                tab.page.evaluate("scrollTo(0, 0)")
                settle(tab)
                written(tab.page.screenshot(), asked.out / f"{name}{'-dark' if dark else ''}-{width}.png")

            walk(tab, url, save)
            context.close()
        browser.close()
    next(served, None)


if __name__ == "__main__":
    main(sys.argv[1:])
