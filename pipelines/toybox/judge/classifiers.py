"""The judge's classifiers, trained on rendered pictures only and kept in the user's cache.

The cache is keyed by all that they depend on: the world's code, the judge's, the autoencoder that softens
part of the pictures, and the seed. An interrupted training goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.artifacts import (
    atomic_write,
    cache_dir,
    is_complete,
    load_safetensors,
    save_safetensors,
    sha256,
)
from pipelines.concepts.checkpoint import fill
from pipelines.progress import Job
from pipelines.toybox.judge import prompts
from pipelines.toybox.judge.pictures import Batch, Pictures, softened
from pipelines.toybox.judge.reader import Readers, SceneReader, SubjectReader
from pipelines.toybox.nets import seeded
from pipelines.toybox.stages.encoders import entropy, render_all
from pipelines.toybox.training import Plan, train
from pipelines.toybox.world.labels import HEADS, IGNORE, SUBJECT_HEADS, labels

WEIGHTS = "readers.safetensors"
CODE = ("pictures", "reader", "classifiers")
"""The judge's files whose change asks for a new training."""
TRUSTED = 0.97  # the held-out accuracy that a head should have before it judges
ABANDONED = 24 * 3600.0  # seconds after which an unfinished training of other code is removed
TEST_SEED = 90_001  # of the scenes that the classifiers are tested on; prompts use the user's seed


@dataclass(frozen=True)
class Size:
    """How much is rendered and learned; the defaults take about half an hour of one free core."""

    pages: int = 100  # of 256 rendered pictures
    soft_pages: int = 3  # pages that also go through the autoencoder
    views: int = 360_000
    tests: int = 600


PLAN = Plan(views=0, batch=32, lr=3e-3, warmup=200, tail=0.8, betas=(0.9, 0.98), weight_decay=0.03, clip=10.0,
            ema=0.99, checkpoint_seconds=60.0)  # fmt: skip


class ReaderStage:
    """Trains both networks side by side on one engine."""

    name = "judge"

    def __init__(self, pictures: Pictures, plan: Plan, device: torch.device) -> None:
        self.pictures, self.plan, self.device = pictures, plan, device
        scene, subject = seeded(lambda: (SceneReader(), SubjectReader()), plan.seed)
        layout = torch.channels_last
        self.scene, self.subject = (
            scene.to(device, memory_format=layout),
            subject.to(device, memory_format=layout),
        )
        self.modules: dict[str, nn.Module] = {"scene": self.scene, "subject": self.subject}

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        return self.pictures.batch(step, self.plan.batch)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Cross-entropies of all heads and the distance of the frames, []."""
        logits, found = self.scene(self._placed(batch.whole))
        where = batch.frames.to(self.device)
        present = where[..., 2] > 0
        off = (found - where).abs().sum(-1)[present].mean() if present.any() else found.sum() * 0
        scene = entropy(logits, batch.scene_truth, len(batch.whole))
        subject = entropy(self.subject(self._placed(batch.squares)), batch.subject_truth, len(batch.squares))
        return scene + 5 * off + subject, {
            "scene": scene.detach(),
            "subject": subject.detach(),
            "off": off.detach(),
        }

    def sample(self, job: Job) -> None:
        """There is nothing to look at."""

    def export(self, folder: Path) -> None:
        """Write both networks, float32."""
        save_safetensors(folder / WEIGHTS, _named(self.modules))

    def close(self) -> None:
        """Let go of the thread that makes batches."""
        self.pictures.close()

    def _placed(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.device).contiguous(memory_format=torch.channels_last)


def _named(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": each for name, module in modules.items() for key, each in module.state_dict().items()
    }


def obtain(
    vae_files: Sequence[Path],
    vae: nn.Module | None,
    device: torch.device,
    job: Job,
    seed: int = 0,
    size: Size = Size(),
) -> tuple[Readers, dict[str, Any]]:
    """The trained classifiers and the report on them, from the cache or trained now.

    `vae_files` are the weights of `vae`. The report is {"plain": {head: accuracy}, "soft": {head: accuracy}}:
    held-out accuracy on rendered test-split scenes as they are, and through the autoencoder.
    """
    home = cache_dir() / "judge" / key_of(vae_files, seed, size)
    report = home / f"report-{sha256(Path(prompts.__file__))[:8]}.json"
    if not is_complete(home / "readers"):
        _train(home, vae, device, job, replace(PLAN, seed=seed, views=size.views), size)
    readers = load(home / "readers", device)
    if not report.is_file():
        job.note("The judge measures its own classifiers on scenes that they have not seen.")
        table = measure(readers, vae, job, size.tests)
        atomic_write(report, json.dumps(table, indent=1).encode())
    shutil.rmtree(home / "training", ignore_errors=True)
    return readers, json.loads(report.read_text())


def key_of(vae_files: Sequence[Path], seed: int, size: Size) -> str:
    """A name for all that the classifiers depend on."""
    digest = hashlib.sha256(f"{seed} {asdict(size)} {asdict(PLAN)}".encode())
    here = Path(__file__).resolve().parent
    code = [*sorted((here.parent / "world").glob("*.py")), *(here / f"{name}.py" for name in CODE)]
    for path in code:
        digest.update(path.read_bytes())
    for path in vae_files:
        digest.update(sha256(path).encode())
    return digest.hexdigest()[:16]


def load(folder: Path, device: torch.device) -> Readers:
    """Classifiers from a finished folder. Raises BrokenWeights."""
    readers = Readers(SceneReader(), SubjectReader())
    path = folder / WEIGHTS
    fill(_named({"scene": readers.scene, "subject": readers.subject}), load_safetensors(path), path)
    return Readers(readers.scene.to(device).eval(), readers.subject.to(device).eval())


def _train(home: Path, vae: nn.Module | None, device: torch.device, job: Job, plan: Plan, size: Size) -> None:
    """Train into home/readers; what it needs on the way stands in home/training."""
    training = home / "training"
    for other in home.parent.glob("*/training"):  # what judges of older code left unfinished
        if other != training and time.time() - other.stat().st_mtime > ABANDONED:
            shutil.rmtree(other, ignore_errors=True)
    pictures = Pictures(training / "pictures", size.pages, size.soft_pages, plan.seed)
    try:
        job.note("The judge renders the pictures that its classifiers learn from.")
        pictures.prepare(vae, job)
        job.note("The judge trains its classifiers.")
        stage = ReaderStage(pictures, plan, device)
        train(stage, plan, training / "state", device, job, export=home / "readers", resume=True)
    finally:
        pictures.close()


def measure(readers: Readers, vae: nn.Module | None, job: Job, count: int) -> dict[str, dict[str, float]]:
    """Held-out accuracy by head on scenes of prompts like the judge's own, plain and softened."""
    asked = prompts.judge_prompts(count, TEST_SEED)
    scenes = [prompt.scene for prompt in asked]
    truth = labels(scenes)
    for row, prompt in enumerate(asked):
        for slot in range(len(prompt.scene.subjects)):
            judged = prompt.shown(slot)
            for head in SUBJECT_HEADS:
                if head not in judged:
                    truth[head][row, slot] = IGNORE
    plain = render_all(scenes)
    return {
        name: accuracy(readers.read(images), truth)
        for name, images in (("plain", plain), ("soft", softened(plain, vae, job)))
    }


def accuracy(found: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Share of right answers by head, where there is one."""
    known = {head: truth[head] != IGNORE for head in HEADS}
    return {
        head: round(float((found[head] == truth[head])[known[head]].mean()), 4)
        for head in HEADS
        if known[head].any()
    }
