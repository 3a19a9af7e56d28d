"""A Runner that replays what jobs look like from outside, without torch: for the page's tests alone.

Every kind tells the events and writes the files that the real worker does, in a fraction of its time.
"""

from __future__ import annotations

import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.artifacts import assets, write_png
from pipelines.errors import BadInput, Cancelled, LikenessError
from pipelines.jobs import pictures, workspace
from pipelines.jobs.kinds import Check, Compare, Compose, Edit, Score, Train
from pipelines.jobs.spec import JobSpec, from_table
from pipelines.progress import Job

PAUSE = 0.02
SUBJECTS = assets() / "subjects"


class Replay:
    """One "device". `fails` is raised by the next job instead of a result; `pause` is a step's length."""

    def __init__(self) -> None:
        self.fails: LikenessError | None = None
        self.pause = PAUSE
        self.seen: list[JobSpec] = []

    def run(self, spec: JobSpec, job: Job, folder: Path | None = None) -> dict[str, Any]:
        """Replay a job."""
        self.seen.append(spec)
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error
        bodies: dict[str, Callable[[Any, Job], dict[str, Any]]] = {
            "check": self.check,
            "train": self.train,
            "compose": self.compose,
            "edit": self.compose,
            "compare": self.compare,
            "score": self.score,
            "doctor": self.doctor,
        }
        if spec.kind not in bodies:
            # listing methods and bases needs no torch: the worker's own code does it
            from pipelines.worker import run

            with workspace.at(folder):
                return run(spec, job)
        with workspace.at(folder):
            return bodies[spec.kind](spec, job)

    def check(self, spec: Check, job: Job) -> dict[str, Any]:
        """Every photo is good but the second, which is blurred."""
        home = workspace.resolve(spec.photos)
        photos = sorted(each for each in home.iterdir() if each.suffix in (".png", ".jpg"))
        rows: list[dict[str, Any]] = []
        for index, each in enumerate(photos):
            job.report(index + 1, len(photos))
            blurred = index == 1
            row: dict[str, Any] = {
                "name": each.name,
                "verdict": "poor" if blurred else "good",
                "reasons": ["blurred: no part of it is sharp"] if blurred else [],
                "width": 128,
                "height": 128,
            }
            if spec.out is not None:
                spec.out.mkdir(parents=True, exist_ok=True)
                Image.open(each).convert("RGB").save(spec.out / f"{each.name}.jpg")
                row["small"] = f"{each.name}.jpg"
            rows.append(row)
        kept = sum(row["verdict"] == "good" for row in rows)
        reasons = [f"{len(rows) - kept} of {len(rows)} should be left out"] if kept < len(rows) else []
        verdict = "usable" if reasons else "good"
        return {"verdict": verdict, "reasons": reasons, "size": spec.size, "kept": kept, "photos": rows}

    def train(self, spec: Train, job: Job) -> dict[str, Any]:
        """Steps with a falling loss, samples and readings on the way, and an adapter at the end."""
        steps = int(spec.concept.get("steps") or 60)
        every = max(1, min(spec.watch.every or steps, steps))
        folder = spec.out or workspace.new_run("train", spec.data.class_word)
        folder.mkdir(parents=True, exist_ok=True)
        anatomy = [
            _part("unet", "attention", 9_000_000, 150_000, 600_000),
            _part("text encoder", "all", 3_000_000),
            _part("autoencoder", "all", 1_400_000),
        ]
        workspace.write_run(folder, spec, "running")
        first = self._checkpoint(folder) if spec.resume else 0
        job.report(first, steps, anatomy=anatomy)
        curve: list[dict[str, Any]] = []
        for step in range(first + 1, steps + 1):
            try:
                self._rest(job)
            except Cancelled:
                kept = folder / "checkpoints" / f"step-{step - 1:06d}"
                kept.mkdir(parents=True, exist_ok=True)
                (kept / "complete").touch()
                raise
            loss = 0.3 / step**0.5 + 0.05
            left = (steps - step) * self.pause
            job.report(step, steps, loss=loss + 0.02 * (step % 3), smooth=loss, seconds_left=left)
            if job.take("save"):
                name = f"saved/step-{step:06d}.safetensors"
                self._adapter(folder / name, spec)
                job.report(step, steps, saved=name)
            if step % every == 0 or step == steps or job.take("sample"):
                curve.append(self._looked(folder, step, steps, job))
        adapter = self._adapter(folder / "adapter.safetensors", spec)
        (folder / "card.md").write_text("# A concept\n", encoding="utf-8")
        best = max(curve, key=lambda each: each["score"])
        result: dict[str, Any] = {
            "out": str(folder), "adapter": str(adapter),
            "trigger": f"{spec.data.token} {spec.data.class_word}", "steps": steps, "best_step": best["step"],
            "trainable_parameters": 150_000, "bytes": adapter.stat().st_size, "loss": 0.1,
            "curve": curve, "readings": best, "anatomy": anatomy,
            "alarms": [], "notes": [], "seconds": {"train": steps * self.pause},
        }  # fmt: skip
        workspace.write_run(folder, spec, "done", result)
        return result

    def compose(self, spec: Compose | Edit, job: Job) -> dict[str, Any]:
        """One embedded picture a prompt and seed, with its settings inside."""
        if not any(each.strip() for each in spec.prompts):
            raise BadInput("There is nothing to draw.", "Say what.")
        steps = min(spec.sampler.steps, 10)
        images = [Image.open(each).convert("RGB") for each in sorted(SUBJECTS.glob("*/*.png"))]
        for step in range(1, steps + 1):
            self._rest(job)
            job.report(step, steps)
            job.preview(images[step % len(images)])
        folder = spec.out or workspace.new_run(spec.kind, spec.prompts[0])
        rows: list[dict[str, Any]] = []
        for number, prompt in enumerate(each for each in spec.prompts for _ in range(spec.count)):
            seed = spec.seed + number % spec.count
            one = spec.model_copy(update={"prompts": (prompt,), "count": 1, "seed": seed})
            path = folder / f"{number + 1:03d}.png"
            pictures.save(path, images[seed % len(images)], one.shareable())
            readings = {"clip_t": 0.5 + 0.01 * number}
            if spec.references or spec.kind == "edit":
                readings["dino_i"] = 0.6 + 0.02 * number
            rows.append({"path": str(path), "prompt": prompt, "seed": seed, "readings": readings})
        result: dict[str, Any] = {
            "out": str(folder), "pictures": rows, "readings": rows[0]["readings"], "notes": [],
            "seconds": {"draw": 0.2}, "seconds_a_picture": 0.1,
        }  # fmt: skip
        workspace.write_run(folder, spec, "done", result)
        return result

    def compare(self, spec: Compare, job: Job) -> dict[str, Any]:
        """A grid picture, and a row for every cell."""
        first = from_table({"kind": "compose", **spec.job})
        assert isinstance(first, Compose | Edit)
        folder = spec.out or workspace.new_run("compare", spec.title or "grid")
        rows: list[dict[str, Any]] = [{}]
        for axis in spec.axes:
            rows = [{**row, axis.path: value} for row in rows for value in axis.values]
        for index, row in enumerate(rows):
            job.report(index, len(rows), cell=str(row))
            self._rest(job)
            row |= {"clip_t": 0.4 + 0.02 * index, "dino_i": 0.7 - 0.03 * index, "seconds": 0.2}
        sheet = write_png(
            folder / "grid.png", Image.new("RGB", (128 * len(rows), 150), "#c9d8d8"), spec.shareable()
        )
        (folder / "grid.csv").write_text("a,b\n1,2\n", encoding="utf-8")
        result = {"out": str(folder), "grids": [str(sheet)], "cells": rows, "notes": []}
        workspace.write_run(folder, spec, "done", result)
        return result

    def score(self, spec: Score, job: Job) -> dict[str, Any]:
        """The same figures for every picture."""
        rows = [{"path": each, "prompt": spec.prompt, "clip_t": 0.5} for each in spec.images]
        return {"clip_t": 0.5, "pictures": rows, "encoders": [], "notes": []}

    def doctor(self, spec: JobSpec, job: Job) -> dict[str, Any]:
        """Nothing is wrong; looking in earnest would import all of torch."""
        return {"ok": True, "rows": [{"check": "Python", "found": "3.11", "ok": True}]}

    def _rest(self, job: Job) -> None:
        """A step's length, as it is told now: a test may let a job stand still and go on."""
        began = time.monotonic()
        while time.monotonic() < began + self.pause:
            job.check()
            time.sleep(0.005)
        job.check()

    def _checkpoint(self, folder: Path) -> int:
        found = sorted((folder / "checkpoints").glob("step-*/complete"))
        return int(found[-1].parent.name.removeprefix("step-"))

    def _looked(self, folder: Path, step: int, steps: int, job: Job) -> dict[str, Any]:
        names: list[str] = []
        for number, source in enumerate(sorted(SUBJECTS.glob("rabbit/*.png"))[:4]):
            name = f"samples/step-{step:06d}-{number + 1}.png"
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, folder / name)
            names.append(name)
        share = step / steps
        figures = {"dino_i": 0.3 + 0.5 * share, "clip_t": 0.6 - 0.2 * share, "score": 0.6 + 0.1 * share}
        readings = {"step": step, **figures}
        job.report(step, steps, readings=readings, samples=names)
        return readings

    def _adapter(self, path: Path, spec: Train) -> Path:
        trigger = f"{spec.data.token} {spec.data.class_word}"
        words = {"token": spec.data.token, "trigger": trigger, "family": "toybox"}
        about = {"__metadata__": {f"likeness.{name}": word for name, word in words.items()}}
        header = json.dumps(about).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        return path


def _part(part: str, group: str, parameters: int, trained: int = 0, size: int = 0) -> dict[str, Any]:
    return {"part": part, "group": group, "parameters": parameters, "trained": trained, "bytes": size}
