"""CLIP (arXiv:2103.00020): pictures and texts in one space.

The projected vectors, scaled to length 1. Shapes: n pictures or texts, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from pipelines.vision.encoder import unit_pictures, unit_rows
from pipelines.vision.features import Features, text_key
from pipelines.vision.opening import open_model
from pipelines.vision.prepare import Preparation


class Clip:
    """A `CLIPModel` with its tokenizer and its way to prepare pictures."""

    def __init__(self, name: str, folder: Path, where: torch.device, features: Features) -> None:
        self.name = name
        self._model: Any = open_model(CLIPModel, folder, where)
        self._prepare = Preparation.read(folder)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._length = int(self._model.config.text_config.max_position_embeddings)
        self._features = features

    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of any size → unit vectors [n,D]."""
        return unit_pictures(self._features, self._seen, images)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts, cut at the model's length → unit vectors [n,D]."""
        if not texts:
            return torch.zeros(0, 0)
        return self._features.rows(texts, text_key, lambda new: unit_rows(self._read, new))

    def cut(self, texts: Sequence[str]) -> list[str]:
        """The texts of more tokens than the model reads."""
        return [text for text in texts if len(self._tokenizer(text)["input_ids"]) > self._length]

    def _seen(self, images: Sequence[Image.Image]) -> Tensor:
        pixels = self._prepare(images).to(self._model.device)
        return self._model.get_image_features(pixel_values=pixels).pooler_output

    def _read(self, texts: Sequence[str]) -> Tensor:
        # always padded to the full length: a row is then the same in any batch
        batch = self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        ).to(self._model.device)
        return self._model.get_text_features(batch["input_ids"], batch["attention_mask"]).pooler_output


def open_encoder(name: str, folder: Path, where: torch.device, features: Features) -> Clip:
    """The encoder in a folder. Raises MissingAsset, BrokenWeights."""
    return Clip(name, folder, where, features)
