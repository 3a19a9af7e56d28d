"""Masks from boxes and points: SAM (arXiv:2304.02643).

transformers' own class is the default; Meta's package `segment-anything` is taken where asked for, with its
weights converted to safetensors. Shapes: H W size of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import SamModel, SamProcessor

from pipelines.artifacts import load_safetensors
from pipelines.base.memory import pick
from pipelines.errors import BadInput, BrokenWeights, NotAvailable
from pipelines.vision.opening import open_model
from pipelines.vision.weights import Weights, find, home

BASE = Weights("sam-vit-base", "SAM (base)", "facebook/sam-vit-base", size="375 MB", licence="Apache-2.0")
PACKAGE = "segment-anything"
Corners = tuple[float, float, float, float]
Point = tuple[float, float]


class Segmenter:
    """transformers' SAM."""

    def __init__(self, folder: Path, where: torch.device) -> None:
        self._model: Any = open_model(SamModel, folder, where)
        self._processor: Any = SamProcessor.from_pretrained(folder, local_files_only=True)

    @torch.inference_mode()
    def mask(self, image: Image.Image, box: Corners | None = None, points: Sequence[Point] = ()) -> Tensor:
        """The thing inside a box (left, top, right, bottom) or under points (x, y), in pixels.

        → bool [H,W] on the CPU, the best of SAM's three answers by its own opinion. Raises BadInput without
        box and points.
        """
        _refuse_nothing(box, points)
        inputs = self._processor(
            image.convert("RGB"),
            input_boxes=None if box is None else [[list(box)]],
            input_points=[[[list(point) for point in points]]] if points else None,
            return_tensors="pt",
        ).to(self._model.device)
        out = self._model(**inputs, multimask_output=True)
        masks = self._processor.image_processor.post_process_masks(
            out.pred_masks.cpu(), inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        )[0][0]  # [3,H,W]
        return masks[int(out.iou_scores[0, 0].argmax())].bool()


class PackageSegmenter:
    """The package's SAM, from a safetensors file with the tensor names of its own weights."""

    def __init__(self, path: Path, where: torch.device, kind: str = "vit_b") -> None:
        registry, predictor = _package()
        model = registry[kind]()
        wanted, given = model.state_dict(), load_safetensors(path)
        lacking = sorted(set(wanted) - set(given))
        if lacking:
            raise BrokenWeights(path, f"{len(lacking)} tensors are missing ({lacking[0]} …)")
        model.load_state_dict(given, strict=False)
        self._predictor: Any = predictor(model.requires_grad_(False).eval().to(where))

    def mask(self, image: Image.Image, box: Corners | None = None, points: Sequence[Point] = ()) -> Tensor:
        """As `Segmenter.mask`."""
        _refuse_nothing(box, points)
        self._predictor.set_image(np.asarray(image.convert("RGB")))
        masks, scores, _ = self._predictor.predict(
            box=None if box is None else np.asarray(box),
            point_coords=np.asarray(points) if points else None,
            point_labels=np.ones(len(points), int) if points else None,
            multimask_output=True,
        )
        return torch.from_numpy(masks[int(scores.argmax())]).bool()


def segmenter(device: str = "auto", package: bool = False) -> Segmenter | PackageSegmenter:
    """The segmenter of this process; with `package` that of segment-anything.

    Raises NotAvailable without weights or package, BrokenWeights.
    """
    where = pick(device).where or torch.device("cpu")
    if package:
        _package()
        path = home("segment-anything") / "sam_vit_b.safetensors"
        if not path.is_file():
            raise NotAvailable(
                PACKAGE,
                f"{path} does not exist",
                "Convert its published pickle to safetensors elsewhere, or use transformers' SAM.",
            )
        return _opened_package(path, where)
    return _opened(find(BASE), where)


@lru_cache(maxsize=1)
def _opened(folder: Path, where: torch.device) -> Segmenter:
    return Segmenter(folder, where)


@lru_cache(maxsize=1)
def _opened_package(path: Path, where: torch.device) -> PackageSegmenter:
    return PackageSegmenter(path, where)


def _refuse_nothing(box: Corners | None, points: Sequence[Point]) -> None:
    if box is None and not points:
        raise BadInput("There is nothing to cut out.", "Give a box around it, or a point on it.")


def _package() -> tuple[Any, Any]:
    try:
        from segment_anything import (  # pyright: ignore[reportMissingImports]
            SamPredictor,
            sam_model_registry,
        )
    except ImportError as error:
        remedy = f"Use transformers' SAM, or: pip install {PACKAGE}."
        raise NotAvailable(PACKAGE, f"it is not installed ({error})", remedy) from None
    return sam_model_registry, SamPredictor
