"""`likeness bench`: speed as ratios, on the same work in the same run, medians of repeats.

Every row is {"row", "value", "unit", "goal", "ok", "note"}; nothing here asserts seconds, which belong to
the machine that is named beside them.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import torch

from pipelines.adapters.stack import attached, merged
from pipelines.artifacts import assets
from pipelines.base.backbone import Backbone
from pipelines.base.loading import open_base
from pipelines.concepts._base import Concept
from pipelines.concepts.trainer import train as train_concept
from pipelines.data import dataset
from pipelines.data.photos import list_photos
from pipelines.errors import LikenessError
from pipelines.guidance.cfg import CFG
from pipelines.jobs.kinds import PhotoSet
from pipelines.jobs.queries import Bench
from pipelines.progress import Job
from pipelines.sampling import schedulers
from pipelines.sampling.generate import Request, conditions_for, noise_for
from pipelines.sampling.loop import sample
from pipelines.spec import read
from pipelines.study import peer
from pipelines.worker.bench_studio import studio_rows

Row = dict[str, Any]
SUBJECT = "dog"
RANK, BATCH, TRAIN_STEPS = 8, 2, 12


def bench(spec: Bench, job: Job) -> dict[str, Any]:
    """Run every measurement, or those that `spec.parts` names; → rows and the machine."""
    base = open_base(spec.base, spec.device, job)
    parts: dict[str, Callable[[Backbone, Bench, Job], list[Row]]] = {
        "train": _training,
        "sample": _sampling,
        "merge": _merging,
        "start": _starting,
        "job": _whole_job,
        "studio": lambda base, spec, job: studio_rows(spec, job, row),
    }
    rows: list[Row] = []
    wanted = [name for name in parts if not spec.parts or name in spec.parts]
    for index, name in enumerate(wanted):
        job.check()
        job.report(index, len(wanted), part=name)
        rows += parts[name](base, spec, job)
    job.report(len(wanted), len(wanted))
    return {"rows": rows, "machine": machine(base)}


def machine(base: Backbone) -> str:
    """What the figures belong to."""
    device = str(base.device)
    if base.device.type == "cuda":
        device = torch.cuda.get_device_name(base.device)
    return (
        f"{device}, {torch.get_num_threads()} threads of {os.cpu_count()}, {platform.machine()}, "
        f"torch {torch.__version__}, {base.name} in {str(base.dtype).removeprefix('torch.')}"
    )


def row(name: str, value: float, unit: str, goal: str = "", ok: bool | None = None, note: str = "") -> Row:
    """One line of the table."""
    return {"row": name, "value": round(value, 3), "unit": unit, "goal": goal, "ok": ok, "note": note}


def _alternate(one: Callable[[], float], other: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Medians of two measurements taken in turn, so that a busy moment hits both."""
    ones, others = [], []
    for _ in range(repeats):
        ones.append(one())
        others.append(other())
    return statistics.median(ones), statistics.median(others)


# ---- training


def _training(base: Backbone, spec: Bench, job: Job) -> list[Row]:
    photos = list_photos(assets() / "photos" / SUBJECT)
    rows: list[Row] = []
    for prior in (False, True):
        with tempfile.TemporaryDirectory() as scratch:
            ours, theirs = _alternate(
                lambda scratch=scratch, prior=prior: _own_step(base, photos, prior, Path(scratch), job),
                lambda prior=prior: peer.seconds_a_step(base, _work(base, photos, prior), TRAIN_STEPS),
                spec.repeats,
            )
        what = "with prior preservation" if prior else "without prior preservation"
        rows.append(
            row(
                f"training against diffusers' DreamBooth-LoRA example, {what}",
                theirs / ours,
                "×",
                "≥ 2",
                theirs / ours >= 2,
                f"ours {BATCH / ours:.1f} photos/s, the example {BATCH / theirs:.1f}; rank {RANK}, batch "
                f"{BATCH}, {base.latent.size} px; latents and text states are encoded once, not every step",
            )
        )
    return rows


def _work(base: Backbone, photos: list[Path], prior: bool) -> peer.Work:
    # the same pictures stand in as class pictures: only the work counts here
    return peer.Work(
        photos,
        photos if prior else (),
        f"a photo of sks {SUBJECT}",
        f"a photo of a {SUBJECT}",
        RANK,
        1e-4,
        BATCH,
        base.latent.size,
    )


@dataclass
class _Stopwatch(Job):
    """A job that notes when each training step was reported."""

    def __post_init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def report(self, step: int, total: int | None = None, **values: Any) -> None:
        self.times.append(time.perf_counter())


def _own_step(base: Backbone, photos: list[Path], prior: bool, scratch: Path, job: Job) -> float:
    """Mean seconds of one step of ours, preparation left out as the example's model loading is."""
    table = {
        "method": "dreambooth_lora",
        "rank": RANK,
        "batch": BATCH,
        "steps": TRAIN_STEPS + 2,
        "learning_rate": 1e-4,
        "prior_weight": 1.0 if prior else 0.0,
        "prior_images": len(photos),
    }
    concept = cast("Concept", read("concepts", table))
    words = PhotoSet(photos=str(photos[0].parent), token="sks", class_word=SUBJECT)  # noqa: S106
    recipe = concept.recipe(base, words)
    own = [dataset.open_photo(each) for each in photos]
    data = dataset.build(base, photos, words, concept, Job(), draw=lambda prompts, seeds: own[: len(prompts)])
    watch = _Stopwatch()
    folder = Path(tempfile.mkdtemp(dir=scratch))
    train_concept(base, recipe, data, watch, folder, seed=0)
    times = watch.times[-TRAIN_STEPS - 1 :]
    return (times[-1] - times[0]) / (len(times) - 1)


# ---- sampling


def _sampling(base: Backbone, spec: Bench, job: Job) -> list[Row]:
    request = Request([f"a {SUBJECT} on the beach"] * 2, [0, 1], steps=10)
    guidance = CFG(scale=4.0)
    conditions = cast("Any", conditions_for(base, request, guidance, slice(0, 2)))
    noise = noise_for(
        base, [schedulers.seeded(seed) for seed in request.seeds], base.latent.size, base.latent.size
    )

    def ours() -> float:
        sampler = schedulers.make(base, "ddim", request.steps)
        begun = time.perf_counter()
        sample(base, conditions, guidance.start(base), sampler, noise, Job(), branches=guidance.branches())
        return time.perf_counter() - begun

    both = type(conditions["cond"]).cat([conditions["cond"], conditions["uncond"].expand(2)])
    times = schedulers.make(base, "ddim", request.steps).timesteps

    def bare() -> float:
        x = torch.cat([noise, noise])
        begun = time.perf_counter()
        with torch.no_grad():
            for t in times:
                base.predict(x, t.expand(len(x)), both)
        return time.perf_counter() - begun

    ours()
    bare()
    one, other = _alternate(ours, bare, max(5, spec.repeats))
    note = f"{request.steps} DDIM steps of 2 pictures with CFG: {one:.2f} s, the bare calls {other:.2f} s"
    return [
        row(
            "sampling loop against its bare denoiser calls",
            one / other,
            "×",
            "≤ 1.03",
            one / other <= 1.03,
            note,
        )
    ]


def _merging(base: Backbone, spec: Bench, job: Job) -> list[Row]:
    adapter = _random_adapter(base)
    request = Request(["a dog"], [0], steps=10)
    guidance = CFG(scale=4.0)
    conditions = cast("Any", conditions_for(base, request, guidance, slice(0, 1)))
    noise = noise_for(base, [schedulers.seeded(0)], base.latent.size, base.latent.size)

    def timed(door: Callable[[], Any]) -> float:
        sampler = schedulers.make(base, "ddim", request.steps)
        with door():
            begun = time.perf_counter()
            sample(
                base, conditions, guidance.start(base), sampler, noise, Job(), branches=guidance.branches()
            )
            return time.perf_counter() - begun

    stack = [(adapter, 1.0)]
    timed(nullcontext)
    none: list[float] = []
    seconds: dict[str, list[float]] = {"merged": [], "attached": []}
    for _ in range(max(5, spec.repeats)):
        none.append(timed(nullcontext))
        seconds["merged"].append(timed(lambda: merged(base, stack)))
        seconds["attached"].append(timed(lambda: attached(base, stack)))
    plain = statistics.median(none)
    into, beside = (statistics.median(seconds[name]) / plain for name in ("merged", "attached"))
    return [
        row("merged adapter against none", into, "×", "≤ 1.00, within noise", into <= 1.03, f"rank {RANK}"),
        row("attached adapter against none", beside, "×", "", None, f"rank {RANK}; merge to be rid of it"),
    ]


def _random_adapter(base: Backbone) -> Any:
    from pipelines.adapters.adapter import Adapter, LowRank

    generator = torch.Generator().manual_seed(0)
    modules = dict(base.net.named_modules())
    layers = {}
    for name in base.targets["attention"]:
        out, into = cast("torch.Tensor", modules[name].weight).shape[:2]
        down = torch.randn(RANK, into, generator=generator) * 0.01
        layers[f"net.{name}"] = LowRank(down, torch.randn(out, RANK, generator=generator) * 0.01, RANK)
    return Adapter("random", base.family, layers)


# ---- starting, and the whole job


def _starting(base: Backbone, spec: Bench, job: Job) -> list[Row]:
    def child(code: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)  # noqa: S603
        return time.perf_counter() - begun

    parts = {
        "python itself": "pass",
        "command line (no torch)": "import studio.cli",
        "engine (torch, diffusers)": "import pipelines.worker.compose",
    }
    return [
        row(f"import: {name}", statistics.median(child(code) for _ in range(spec.repeats)), "s")
        for name, code in parts.items()
    ]


def _whole_job(base: Backbone, spec: Bench, job: Job) -> list[Row]:
    """`likeness demo` in a fresh process: seconds until its first picture, start-up included."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "studio", "demo", "--out", f"{scratch}/demo", "--base", spec.base]
        process = subprocess.Popen(  # noqa: S603
            [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        peak, answer = _watched(process, job)
    if process.returncode:
        raise LikenessError(f"The demo failed: {answer.get('error')}", "Run: likeness demo")
    seconds = answer["result"]["seconds"]["to first picture"]
    note = "new process, start-up included; no prior preservation (λ = 0)"
    return [
        row("photo folder → LoRA → first picture", seconds, "s", "≤ 90 on 2 cores", seconds <= 90, note),
        row("its peak memory", peak / 2**20, "MiB"),
    ]


def _watched(process: subprocess.Popen[bytes], job: Job) -> tuple[int, dict[str, Any]]:
    """Wait for a process; → its highest resident size in bytes, and the JSON that it printed."""
    own, most = psutil.Process(process.pid), 0
    try:
        while process.poll() is None:
            job.check()
            with suppress(psutil.Error):
                most = max(most, own.memory_info().rss)
            time.sleep(0.1)
    finally:
        process.kill()
    text = process.communicate()[0].decode(errors="replace")
    return most, json.loads(text or "{}")
