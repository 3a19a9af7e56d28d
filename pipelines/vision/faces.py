"""Faces and whose they are: ArcFace (arXiv:1801.07698) through the package insightface.

The package is imported only when a face is looked for. Its code is MIT; its model packs are for
non-commercial research only, so nothing is fetched here: the user puts a pack into the workspace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipelines.base.memory import pick
from pipelines.errors import NotAvailable
from pipelines.vision.weights import home

PACK = "antelopev2"
_SIDE = 640  # pixels a side that the detector looks at


@dataclass(frozen=True)
class Face:
    """One face: left, top, right, bottom in pixels of the picture, how surely, and a unit vector [512]."""

    left: float
    top: float
    right: float
    bottom: float
    score: float
    identity: Tensor

    @property
    def area(self) -> float:
        """Pixels of its box."""
        return (self.right - self.left) * (self.bottom - self.top)


class FaceReader:
    """Detector and recogniser of one model pack."""

    def __init__(self, folder: Path, where: torch.device) -> None:
        analysis = _package()
        gpu = where.type == "cuda"
        providers = ["CUDAExecutionProvider"] if gpu else []
        self._app: Any = analysis(
            name=str(folder),
            allowed_modules=["detection", "recognition"],
            providers=[*providers, "CPUExecutionProvider"],
        )
        self._app.prepare(ctx_id=0 if gpu else -1, det_size=(_SIDE, _SIDE))

    def find(self, image: Image.Image) -> list[Face]:
        """The faces of a picture, largest first; an empty list where there is none."""
        blue_first = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
        found = [
            _face(
                each.bbox,
                float(each.det_score),
                torch.nn.functional.normalize(torch.as_tensor(each.embedding).float(), dim=-1),
            )
            for each in self._app.get(blue_first)
        ]
        return sorted(found, key=lambda face: -face.area)

    def identities(self, images: Sequence[Image.Image]) -> list[Tensor | None]:
        """The largest face of each picture as a unit vector [512]; None where there is none."""
        faces = [self.find(image) for image in images]
        return [each[0].identity if each else None for each in faces]


def face_reader(device: str = "auto", pack: str = PACK) -> FaceReader:
    """The reader of a model pack, loaded once. Raises NotAvailable without the package or the pack."""
    _package()
    folder = home("insightface") / pack
    if not any(folder.glob("*.onnx")):
        raise NotAvailable(
            f"The face model pack {pack}",
            f"there are no .onnx files in {folder}",
            "Get the pack from the insightface project and put its files there. "
            "Its licence allows non-commercial research only.",
        )
    return _opened(folder, pick(device).where or torch.device("cpu"))


def _face(box: Sequence[float], score: float, identity: Tensor) -> Face:
    left, top, right, bottom = (float(side) for side in box)
    return Face(left, top, right, bottom, score, identity)


@lru_cache(maxsize=1)
def _opened(folder: Path, where: torch.device) -> FaceReader:
    return FaceReader(folder, where)


def _package() -> Any:
    try:
        from insightface.app import FaceAnalysis  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise NotAvailable(
            "Reading faces",
            f"the package insightface cannot be imported ({error})",
            "Install it: pip install insightface. Its model packs are for non-commercial research only.",
        ) from None
    return FaceAnalysis
