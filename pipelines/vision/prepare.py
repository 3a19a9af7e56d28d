"""Pictures as an encoder wants them, by the preprocessor_config.json that stands beside its weights.

Done with Pillow's antialiased filters, as the published numbers of these encoders were; transformers' default
processors resize with torchvision, which moves scores in the third digit. Letters: B pictures, S side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.errors import BrokenWeights


@dataclass(frozen=True)
class Preparation:
    """Resize the short side to `resize`, cut the middle `crop` square, scale to [0, 1], normalise."""

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = Image.Resampling.BICUBIC

    @classmethod
    def read(cls, folder: Path) -> Preparation:
        """From preprocessor_config.json of a CLIP or DINOv2 folder. Raises BrokenWeights."""
        path = folder / "preprocessor_config.json"
        try:
            table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            crop, size = table["crop_size"], table["size"]
            return cls(
                resize=int(size["shortest_edge"] if isinstance(size, dict) else size),
                crop=int(crop["height"] if isinstance(crop, dict) else crop),
                mean=tuple(table["image_mean"]),
                std=tuple(table["image_std"]),
                resample=int(table.get("resample", Image.Resampling.BICUBIC)),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BrokenWeights(path, f"it does not say how to prepare pictures ({error})") from None

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of any size → float32 [B,3,S,S]."""
        rows = np.stack([self._square(image) for image in images]).astype(np.float32) / 255
        mean, std = (np.asarray(each, np.float32) for each in (self.mean, self.std))
        return torch.from_numpy((rows - mean) / std).permute(0, 3, 1, 2).contiguous()

    def _square(self, image: Image.Image) -> np.ndarray:
        image = image.convert("RGB")
        # the long side is cut to whole pixels, as in CLIP's and DINOv2's own code
        width, height = (int(self.resize * side / min(image.size)) for side in image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), Image.Resampling(self.resample))
        left, top = (width - self.crop) // 2, (height - self.crop) // 2
        return np.asarray(image.crop((left, top, left + self.crop, top + self.crop)))
