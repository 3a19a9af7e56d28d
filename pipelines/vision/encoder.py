"""What every encoder here is: pictures, and for some also texts, as unit vectors.

Shapes: n pictures or texts, D width of the space they are compared in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipelines.base.memory import pick
from pipelines.errors import UnknownName
from pipelines.vision.features import Features, picture_key
from pipelines.vision.weights import Weights, find

BATCH = 32

# name → the module of this package that reads it, and its weights. Sizes are of the safetensors.
_CATALOG: dict[str, tuple[str, Weights]] = {
    "toybox-clip": ("clip", Weights("toybox-clip", "Toybox's CLIP", asset="toybox/clip")),
    "toybox-dino": ("dino", Weights("toybox-dino", "Toybox's DINO", asset="toybox/dino")),
    "clip-vit-l14": (
        "clip",
        Weights(
            "clip-vit-l14", "CLIP ViT-L/14", "openai/clip-vit-large-patch14", size="1.7 GB", licence="MIT"
        ),
    ),
    "clip-vit-b32": (
        "clip",
        Weights(
            "clip-vit-b32", "CLIP ViT-B/32", "openai/clip-vit-base-patch32", size="0.6 GB", licence="MIT"
        ),
    ),
    "dinov2-vits14": (
        "dino",
        Weights(
            "dinov2-vits14", "DINOv2 ViT-S/14", "facebook/dinov2-small", size="88 MB", licence="Apache-2.0"
        ),
    ),
}
NAMES = tuple(_CATALOG)


class Encoder(Protocol):
    """Pictures and texts as unit vectors on the CPU, float32; the same in any batch, to rounding."""

    name: str

    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of any size → [n,D]."""
        ...

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts → [n,D] in the space of the pictures. Raises NotAvailable where the encoder reads none."""
        ...

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than the encoder reads."""
        ...


def encoder(name: str, device: str = "auto") -> Encoder:
    """The encoder of that name, loaded once a process and device.

    Raises UnknownName, NotAvailable without its weights, BrokenWeights for damaged ones.
    """
    if name not in _CATALOG:
        raise UnknownName("encoder", name, _CATALOG)
    module, weights = _CATALOG[name]
    folder = find(weights)
    where = pick(device).where or torch.device("cpu")
    return _loaded(name, module, folder, _stamp(folder), where)


def encoders_of(family: str) -> tuple[str, str]:
    """The names of the CLIP and the DINO that measure pictures of a base family."""
    return ("toybox-clip", "toybox-dino") if family == "toybox" else ("clip-vit-l14", "dinov2-vits14")


@lru_cache(maxsize=4)
def _loaded(name: str, module: str, folder: Path, stamp: str, where: torch.device) -> Encoder:
    return import_module(f"pipelines.vision.{module}").open_encoder(name, folder, where, Features(stamp))


def _stamp(folder: Path) -> str:
    """What changes when weights are replaced under a running process: names, sizes and times."""
    files = sorted(folder.glob("*.safetensors"))
    about = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    return f"{folder} {about}"


def unit_pictures(
    features: Features, forward: Callable[[Sequence[Image.Image]], Tensor], images: Sequence[Image.Image]
) -> Tensor:
    """Unit features [n,D] of pictures, the unknown ones through `forward` ([b] → [b,D]) in batches."""
    if not images:
        return torch.zeros(0, 0)
    return features.rows(images, picture_key, lambda new: unit_rows(forward, new))


def unit_rows(forward: Callable[[Sequence], Tensor], items: Sequence) -> Tensor:
    """`forward` over batches, each row scaled to length 1. → float32 [n,D] on the CPU"""
    with torch.inference_mode():
        parts = [forward(items[start : start + BATCH]).float() for start in range(0, len(items), BATCH)]
        rows = F.normalize(torch.cat(parts), dim=-1).cpu()
    return rows.clone()  # outside inference mode, so that it may take part in gradients
