"""DINOv2 (arXiv:2304.07193): what a picture shows, learned without words, so strict on who it is.

The CLS token after the last layer norm, scaled to length 1. Shapes: n pictures, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import Dinov2Model

from pipelines.errors import NotAvailable
from pipelines.vision.encoder import unit_pictures
from pipelines.vision.features import Features
from pipelines.vision.opening import open_model
from pipelines.vision.prepare import Preparation


class Dino:
    """A `Dinov2Model` with its way to prepare pictures."""

    def __init__(self, name: str, folder: Path, where: torch.device, features: Features) -> None:
        self.name = name
        self._model = open_model(Dinov2Model, folder, where)
        self._prepare = Preparation.read(folder)
        self._features = features

    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of any size → unit vectors [n,D]."""
        return unit_pictures(self._features, self._seen, images)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Raises NotAvailable: it never learned to read."""
        raise NotAvailable(f"Reading texts with {self.name}", "it knows pictures only", "Use a CLIP encoder.")

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Nothing: it reads no texts."""
        return []

    def _seen(self, images: Sequence[Image.Image]) -> Tensor:
        return self._model(pixel_values=self._prepare(images).to(self._model.device)).pooler_output


def open_encoder(name: str, folder: Path, where: torch.device, features: Features) -> Dino:
    """The encoder in a folder. Raises MissingAsset, BrokenWeights."""
    return Dino(name, folder, where, features)
