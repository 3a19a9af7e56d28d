"""The part "studio" of `likeness bench`: how soon the page answers, and how fast it stays with many runs.

The studio is started as a user starts it, in a process and a workspace of its own, and asked over HTTP. Where
a Chromium and playwright are installed, a headless one says when the form can be used; else the first
whole page and its description count.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psutil
from PIL import Image

from pipelines.artifacts import write_png
from pipelines.errors import LikenessError
from pipelines.jobs import workspace
from pipelines.jobs.queries import Bench
from pipelines.jobs.spec import Compose
from pipelines.jobs.store import FILE, Store
from pipelines.progress import Job

Row = dict[str, Any]
HISTORY = (10, 100, 1000)
CLICKS, PATIENCE = 15, 120.0
USABLE = "#tabs button[role=tab]", "#train-class textarea, #train-class input"
"""What a page shows that can be used: its tabs, and a field of the first one."""
PULSE = "pulse"
"""The part of the page whose click makes it follow the store, as every click of a person does too."""
ANSWER, LOAD = "click to response", "slowest part of a page load"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Start:
    """Seconds since the process began, and what a start was measured to be."""

    first_byte: float = 0.0
    usable: float = 0.0
    second: float = 0.0
    weight: int = 0
    clicks: dict[str, list[float]] = field(default_factory=dict[str, list[float]])


def studio_rows(spec: Bench, job: Job, row: Callable[..., Row]) -> list[Row]:
    """Start the studio a few times, with few and with many runs; → rows of the table."""
    starts: dict[int, list[Start]] = {}
    with _browser() as browser, tempfile.TemporaryDirectory() as scratch:
        for runs in HISTORY:
            folder = Path(scratch) / f"runs-{runs}"
            _fill(folder, runs, job)
            # the first start of all writes the bytecode, and is not counted
            times = (spec.repeats + 1) if runs == HISTORY[0] else 1
            starts[runs] = [_started(folder, browser, job) for _ in range(times)]
    cold = starts[HISTORY[0]][1:]
    how = "in Chromium, 1440 px" if browser is not None else "first whole page; no Chromium is installed"
    medians = {
        name: statistics.median(getattr(each, name) for each in cold)
        for name in ("first_byte", "usable", "second", "weight")
    }
    rows = [
        _row(row, "studio: first byte after the start", medians["first_byte"], "s", 0.5),
        _row(
            row, "studio: form usable after a cold start", medians["usable"], "s", 4, f"with bytecode; {how}"
        ),
        _row(row, "studio: form usable for a second visitor", medians["second"], "s", 1, how),
        row("studio: the page over the wire", medians["weight"] / 1000, "kB"),
    ]
    for runs, measured in starts.items():
        for name, values in measured[-1].clicks.items():
            what = f"studio: {name}, {runs:,} runs in the history"
            rows.append(_row(row, what, statistics.median(values) * 1000, "ms", 200))
    return rows


def _row(row: Callable[..., Row], name: str, value: float, unit: str, most: float, note: str = "") -> Row:
    return row(name, value, unit, f"≤ {most:g} {unit}", value <= most, note)


def _fill(folder: Path, runs: int, job: Job) -> None:
    """A workspace with so many finished drawings, each with its picture."""
    workspace.ready(folder)
    store = Store(folder / FILE)
    image = Image.new("RGB", (128, 128), "#c9d8d8")
    try:
        for number in range(runs):
            job.check()
            spec = Compose(prompts=(f"a dog on the beach, number {number}",), seed=number)
            ident = store.add(spec, device="cpu")
            store.claim("cpu", ident)
            out = folder / "runs" / f"compose-{number:04d}"
            path = write_png(out / "0001.png", image, spec.shareable())
            readings = {"clip_t": 0.2 + number % 7 / 100, "dino_i": 0.5 + number % 11 / 100}
            picture = {"path": str(path), "prompt": spec.prompts[0], "seed": number, "readings": readings}
            result = {"out": str(out), "pictures": [picture], "readings": readings, "notes": []}
            workspace.write_run(out, spec, "done", result)
            store.finish(ident, "done", result)
    finally:
        store.close()


# ---- one start


def _started(folder: Path, browser: Any, job: Job) -> Start:
    """Start the studio over a workspace, measure it, and end it. Raises LikenessError where it fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, found = f"http://127.0.0.1:{port}", Start()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    words = ["studio", "--port", str(port), "--no-browser", "--workspace", str(folder)]
    begun = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 -- our own interpreter and module, no shell
        [sys.executable, "-m", "studio", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        _wait_for(url, process, job, lambda answer: True, 0.01)
        found.first_byte = time.perf_counter() - begun
        if browser is None:
            _wait_for(url, process, job, lambda answer: answer.status_code == 200, 0.05)
            found.weight = _fetched(url)
            found.usable = time.perf_counter() - begun
            again = time.perf_counter()
            _fetched(url)
            found.second = time.perf_counter() - again
        else:
            found.weight = _looked(browser, url, process, job)
            found.usable = time.perf_counter() - begun
            again = time.perf_counter()
            _looked(browser, url, process, job)
            found.second = time.perf_counter() - again
        _rest(process, job)
        found.clicks = _clicked(url, job)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        process.kill()
        process.wait()
    return found


def _wait_for(
    url: str,
    process: subprocess.Popen[bytes],
    job: Job,
    enough: Callable[[httpx.Response], bool],
    every: float,
) -> None:
    deadline = time.perf_counter() + PATIENCE
    with httpx.Client(timeout=10) as client:
        while time.perf_counter() < deadline:
            job.check()
            if process.poll() is not None:
                raise LikenessError("The studio ended before it answered.", "See why with: likeness studio")
            with suppress(httpx.HTTPError):
                if enough(client.get(url)):
                    return
            time.sleep(every)
    raise LikenessError("The studio did not answer.", "See why with: likeness studio")


def _rest(process: subprocess.Popen[bytes], job: Job) -> None:
    """Wait until the worker has warmed up, which it begins to do when the first page was served."""
    deadline = time.perf_counter() + PATIENCE
    own = psutil.Process(process.pid)
    while time.perf_counter() < deadline:
        job.check()
        before, begun = _worked(own), time.perf_counter()
        time.sleep(1)
        if _worked(own) - before < 0.2 * (time.perf_counter() - begun):
            return


def _worked(process: psutil.Process) -> float:
    """Seconds that a process and its children have spent on a processor."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def _fetched(url: str) -> int:
    """Fetch the page and its description; → bytes."""
    with httpx.Client(timeout=30) as client:
        answers = [client.get(url), client.get(f"{url}/config")]
    return sum(each.num_bytes_downloaded for each in answers)


@contextmanager
def _browser() -> Generator[Any]:
    """A headless Chromium; None where there is none."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None or find_spec("playwright") is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


def _looked(browser: Any, url: str, process: subprocess.Popen[bytes], job: Job) -> int:
    """Open the page as a new visitor and wait until it can be used; → bytes that came over the wire."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    received = 0

    def came(event: dict[str, Any]) -> None:
        nonlocal received
        received += int(event.get("encodedDataLength", 0))

    wire = context.new_cdp_session(page)
    wire.send("Network.enable")
    wire.on("Network.loadingFinished", came)
    try:
        page.goto(url, wait_until="commit")
        for each in USABLE:
            page.wait_for_selector(each, timeout=PATIENCE * 1000)
        job.check()
    finally:
        context.close()
    return received


# ---- clicks


def _clicked(url: str, job: Job) -> dict[str, list[float]]:
    """Seconds from a request of the page to its answer, through HTTP as the browser sends it."""
    with httpx.Client(base_url=url, timeout=60) as client:
        config = client.get("/config").json()
        parts = {each["id"]: each for each in config["components"]}
        listeners = [each for each in config["dependencies"] if each["queue"] is False and each["backend_fn"]]
        pulses = {each["id"] for each in config["components"] if each["props"].get("elem_id") == PULSE}
        quiet = [each for each in listeners if any(target in pulses for target, _ in each["targets"])]
        loads = [each for each in listeners if any(event == "load" for _, event in each["targets"])]

        def ask(listener: dict[str, Any], session: str) -> float:
            data = [parts[each]["props"].get("value") for each in listener["inputs"]]
            body = {"fn_index": listener["id"], "session_hash": session, "data": data}
            begun = time.perf_counter()
            answer = client.post("/gradio_api/run/predict", json=body)
            took = time.perf_counter() - begun
            if answer.status_code != 200:
                raise LikenessError("A listener of the studio failed.", "See why with: likeness studio")
            return took

        found: dict[str, list[float]] = {ANSWER: [], LOAD: []}
        for number in range(CLICKS):
            job.check()
            session = f"bench{number}"
            found[LOAD].append(max(ask(each, session) for each in loads))
            # what has been drawn by then stays: this is what every click costs, whatever else it does
            found[ANSWER].append(max(ask(each, session) for each in quiet))
    return found
