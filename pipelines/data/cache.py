"""Class pictures for prior preservation: given, or drawn once by the base and kept by what made them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from pipelines.artifacts import atomic_dir, cache_dir, is_complete

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone
    from pipelines.progress import Job

Draw = Callable[[list[str], list[int]], list[Image.Image]]
"""(prompts, seeds) → pictures, in order."""
AT_ONCE = 16
_PROBES = 64


@dataclass(frozen=True)
class Wanted:
    """Class pictures to have: the prompts in turn, seeds 0 to `count` − 1, and settings of the drawing."""

    prompts: Sequence[str]
    count: int
    size: tuple[int, int]
    settings: str = ""


def drawn(base: Backbone, wanted: Wanted, draw: Draw, job: Job, root: Path | None = None) -> list[Path]:
    """The pictures' files, drawn now unless the same base drew the same ones before.

    Raises Cancelled; what was drawn until then is dropped.
    """
    folder = (root or cache_dir() / "priors") / key_of(base, wanted)
    if not is_complete(folder):
        with atomic_dir(folder) as place:
            for start in range(0, wanted.count, AT_ONCE):
                job.check()
                seeds = list(range(start, min(wanted.count, start + AT_ONCE)))
                prompts = [wanted.prompts[seed % len(wanted.prompts)] for seed in seeds]
                for seed, image in zip(seeds, draw(prompts, seeds), strict=True):
                    image.save(place / f"{seed:05d}.png")
                job.report(seeds[-1] + 1, wanted.count, drawn="class pictures")
    return sorted(folder.glob("*.png"))


def key_of(base: Backbone, wanted: Wanted) -> str:
    """A name for what would be drawn: base weights, prompts, count, size and settings."""
    about = [fingerprint(base), list(wanted.prompts), wanted.count, list(wanted.size), wanted.settings]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


def fingerprint(base: Backbone) -> str:
    """A hash of a base: what it predicts on which schedule, and its weights' names, shapes and some values.

    Some, not all, so that gigabytes stay quick.
    """
    about = [base.family, base.predicts, dict(base.scheduler_config)]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    parts: dict[str, Any] = {"net": base.net, "vae": base.vae, **base.texts}
    for part, module in sorted(parts.items()):
        for name, tensor in module.state_dict().items():
            values = tensor.detach().flatten()
            probes = values[:: max(1, len(values) // _PROBES)][:_PROBES]
            digest.update(f"{part}.{name}{tuple(tensor.shape)}".encode())
            digest.update(probes.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()
