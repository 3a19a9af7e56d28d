"""The judge of Toybox: what a folder of weights can do, measured on prompts and identities never trained on.

Pictures are read by classifiers that the judge trains on rendered pictures only, the first time that it
runs (about half an hour of one core, kept in the user's cache).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.artifacts import assets
from pipelines.errors import MissingAsset
from pipelines.jobs.spec import ToyboxJudge
from pipelines.progress import Job
from pipelines.toybox.draw import Painter, Sampling, draw, load_part, open_painter, quick_dtype
from pipelines.toybox.judge import bars, classifiers
from pipelines.toybox.judge.prompts import judge_prompts
from pipelines.toybox.nets import weights_in
from pipelines.toybox.training import pick_device

DRAWING_PARTS = ("unet", "text_encoder", "tokenizer", "scheduler", "vae")
DRAWN_BARS = (
    ("class drawn is the class named", 0.95), ("colour", 0.90), ("pattern", 0.85),
    ("accessory present and right", 0.85), ("place", 0.95), ("style", 0.90),
    ("two subjects, attributes not swapped", 0.70), ("people: attributes named", 0.85),
)  # fmt: skip


def judge(spec: ToyboxJudge, job: Job) -> dict[str, Any]:
    """Measure the weights in `spec.folder` → {"rows", "passed", "classifiers", "seconds", …}.

    A part that is not in the folder gives rows without a value; one that is damaged raises BrokenWeights.
    """
    start = time.monotonic()
    folder = spec.folder or assets() / "toybox"
    if not folder.is_dir():
        raise MissingAsset(
            folder, "Build it with `likeness toybox build --stage all`, or name another folder."
        )
    device = pick_device(spec.device)
    vae = _part(folder, "vae", device, "diffusers", "AutoencoderTiny")
    clip = _part(folder, "clip", device, "transformers", "CLIPModel")
    dino = _part(folder, "dino", device, "transformers", "Dinov2Model")
    painter = _painter(folder, device)
    how = Sampling(spec.steps, spec.guidance)
    rows = [*bars.autoencoder(vae, job), bars.clip(clip), bars.dino(dino), bars.one_image(painter, how)]
    report: dict[str, Any] = {}
    if painter is None:
        lacking = next(name for name in (*DRAWING_PARTS, "model_index.json") if not (folder / name).exists())
        stage = "vae" if lacking == "vae" else "unet"
        drawn = [bars.missing(bar, least, lacking, stage) for bar, least in DRAWN_BARS]
    else:
        readers, report = classifiers.obtain(weights_in(folder / "vae"), vae, device, job)
        drawn = _drawn(painter, readers, report, how, spec, job)
    rows = [*rows[:2], *drawn, *rows[2:4], bars.seeds_matter(painter, dino, how, spec.seed, job), rows[4]]
    return {
        "rows": rows,
        "passed": f"{sum(bool(each['ok']) for each in rows)} of {len(rows)}",
        "classifiers": in_words(report),
        "folder": str(folder),
        "prompts": spec.prompts,
        "seconds": round(time.monotonic() - start, 1),
    }


def _part(folder: Path, name: str, device: torch.device, library: str, made_by: str) -> nn.Module | None:
    return load_part(folder, name, device, (library, made_by)) if (folder / name).is_dir() else None


def _painter(folder: Path, device: torch.device) -> Painter | None:
    if not all((folder / name).exists() for name in (*DRAWING_PARTS, "model_index.json")):
        return None
    return open_painter(folder, device, quick_dtype(device))


def _drawn(
    painter: Painter, readers: Any, report: dict[str, Any], how: Sampling, spec: ToyboxJudge, job: Job
) -> list[bars.Row]:
    """Draw the prompts and read what came of them."""
    prompts = judge_prompts(spec.prompts, spec.seed)
    job.note(f"The judge draws {len(prompts)} pictures.")
    seeds = [spec.seed + index for index in range(len(prompts))]
    images = draw(painter, [prompt.text for prompt in prompts], seeds, how, job, job.report)
    job.preview(_preview(images, [prompt.text for prompt in prompts]))
    return bars.drawn(prompts, readers.read(images), report)


def _preview(images: np.ndarray, texts: list[str]) -> Any:
    from pipelines.toybox.sheet import grid

    return grid(list(images[:64]), texts[:64])


def in_words(report: dict[str, Any]) -> str:
    """The classifiers' own held-out accuracies in a line: as rendered, and through the autoencoder."""
    if not report:
        return "not needed"
    each = [f"{head} {share:.1%} ({report['soft'][head]:.1%})" for head, share in report["plain"].items()]
    low = [
        head
        for head in report["plain"]
        if min(report[kind][head] for kind in ("plain", "soft")) < classifiers.TRUSTED
    ]
    short = f"; below {classifiers.TRUSTED:.0%}: {', '.join(low)}" if low else ""
    return f"held-out accuracy, in brackets through the autoencoder: {', '.join(each)}{short}"
