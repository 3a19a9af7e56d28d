"""Boxes named by words: Grounding DINO (arXiv:2303.05499), open-set detection.

transformers' own class is the default. The package `groundingdino-py` is taken where asked for; its 0.4 calls
three methods of BertModel that transformers 5 no longer has, and `bert_shim` lends them while it works.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, BertModel, GroundingDinoForObjectDetection

from pipelines.artifacts import load_safetensors
from pipelines.base.memory import pick
from pipelines.errors import BadInput, BrokenWeights, NotAvailable
from pipelines.vision.opening import open_model
from pipelines.vision.weights import Weights, find, home

TINY = Weights(
    "grounding-dino-tiny",
    "Grounding DINO (tiny)",
    "IDEA-Research/grounding-dino-tiny",
    size="0.7 GB",
    licence="Apache-2.0",
)
PACKAGE = "groundingdino-py"
_TENSORS, _READER = "model.safetensors", "bert"
_MEAN, _STD, _SIDE, _LONGEST = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 800, 1333


@dataclass(frozen=True)
class Box:
    """What was found: left, top, right, bottom in pixels of the picture, how surely, and as which words."""

    left: float
    top: float
    right: float
    bottom: float
    score: float
    words: str


class Detector:
    """transformers' Grounding DINO."""

    def __init__(self, folder: Path, where: torch.device) -> None:
        self._model: Any = open_model(GroundingDinoForObjectDetection, folder, where)
        self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)

    @torch.inference_mode()
    def find(self, image: Image.Image, words: Sequence[str], threshold: float = 0.3) -> list[Box]:
        """The things that the words name, surest first. Raises BadInput without words."""
        inputs = self._processor(images=image.convert("RGB"), text=_caption(words), return_tensors="pt").to(
            self._model.device
        )
        found = self._processor.post_process_grounded_object_detection(
            self._model(**inputs),
            inputs["input_ids"],
            threshold=threshold,
            text_threshold=threshold,
            target_sizes=[(image.height, image.width)],
        )[0]
        rows = zip(found["boxes"].tolist(), found["scores"].tolist(), found["text_labels"], strict=True)
        return _sorted(_box(sides, score, label) for sides, score, label in rows)


class PackageDetector:
    """The package's Grounding DINO (Swin-T): a folder with model.safetensors, and bert/ with its tokenizer.

    Its settings are a Python file: that of the installed package is taken, never one beside weights.
    """

    def __init__(self, folder: Path, where: torch.device) -> None:
        build, config, self._phrases = _package()
        settings = config()
        settings.device, settings.text_encoder_type = str(where), str(folder / _READER)
        with bert_shim():
            self._model: Any = build(settings)
        wanted = self._model.state_dict()
        given = load_safetensors(folder / _TENSORS)
        lacking = sorted(set(wanted) - set(given) - {"bert.embeddings.position_ids"})
        if lacking:
            raise BrokenWeights(folder / _TENSORS, f"{len(lacking)} tensors are missing ({lacking[0]} …)")
        self._model.load_state_dict(given, strict=False)
        self._model.requires_grad_(False).eval().to(where)
        self._where = where

    @torch.inference_mode()
    def find(self, image: Image.Image, words: Sequence[str], threshold: float = 0.3) -> list[Box]:
        """The things that the words name, surest first. Raises BadInput without words."""
        caption = _caption(words)
        with bert_shim():
            out = self._model(_pixels(image).to(self._where)[None], captions=[caption])
        logits, boxes = out["pred_logits"][0].sigmoid().cpu(), out["pred_boxes"][0].cpu()  # [q,L], [q,4]
        tokens = self._model.tokenizer(caption)
        sure = logits.max(1).values > threshold
        found = []
        for row, (x, y, width, height) in zip(logits[sure], boxes[sure].tolist(), strict=True):
            label = self._phrases(row > threshold, tokens, self._model.tokenizer).replace(".", "").strip()
            sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            scaled = [side * size for side, size in zip(sides, image.size * 2, strict=True)]
            found.append(_box(scaled, float(row.max()), label))
        return _sorted(found)


def detector(device: str = "auto", package: bool = False) -> Detector | PackageDetector:
    """The detector of this process; with `package` that of groundingdino-py.

    Raises NotAvailable without weights or package, BrokenWeights.
    """
    where = pick(device).where or torch.device("cpu")
    if package:
        return _opened_package(_package_folder(), where)
    return _opened(find(TINY), where)


@contextmanager
def bert_shim() -> Generator[None]:
    """BertModel with the three methods that groundingdino-py 0.4 binds, where transformers lacks them.

    On exit they are gone again; a model built inside keeps what it bound.
    """
    lent = {
        name: method
        for name, method in (
            ("get_extended_attention_mask", _extended),
            ("invert_attention_mask", _inverted),
            ("get_head_mask", _head_mask),
        )
        if not hasattr(BertModel, name)
    }
    for name, method in lent.items():
        setattr(BertModel, name, method)
    try:
        yield
    finally:
        for name in lent:
            delattr(BertModel, name)


def _extended(self: BertModel, mask: Tensor, shape: Sequence[int], device: object = None) -> Tensor:
    """A mask of ones to look at, [B,L] or [B,L,L] → what is added to scores [B,heads,L,L]: 0, or −max."""
    return _inverted(self, mask)


def _inverted(self: BertModel, mask: Tensor) -> Tensor:
    lifted = mask[:, None] if mask.ndim == 3 else mask[:, None, None]
    dtype = next(self.parameters()).dtype
    return (1 - lifted.to(dtype)) * torch.finfo(dtype).min


def _head_mask(
    self: BertModel, mask: Tensor | None, layers: int, chunked: bool = False
) -> list[Tensor | None]:
    """Every head of every layer: the package never masks any."""
    if mask is not None:
        raise ValueError("head masks are gone from transformers 5")
    return [None] * layers


@lru_cache(maxsize=1)
def _opened(folder: Path, where: torch.device) -> Detector:
    return Detector(folder, where)


@lru_cache(maxsize=1)
def _opened_package(folder: Path, where: torch.device) -> PackageDetector:
    return PackageDetector(folder, where)


def _package() -> tuple[Any, Any, Any]:
    """The package's builder, its settings of Swin-T when called, and its reading of phrases."""
    try:
        import groundingdino  # pyright: ignore[reportMissingImports]
        from groundingdino.models import build_model  # pyright: ignore[reportMissingImports]
        from groundingdino.util.slconfig import SLConfig  # pyright: ignore[reportMissingImports]
        from groundingdino.util.utils import get_phrases_from_posmap  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise NotAvailable(
            PACKAGE,
            f"it is not installed ({error})",
            f"Use transformers' Grounding DINO, or: pip install {PACKAGE}.",
        ) from None
    settings = Path(groundingdino.__path__[0]) / "config" / "GroundingDINO_SwinT_OGC.py"
    return build_model, lambda: SLConfig.fromfile(str(settings)), get_phrases_from_posmap


def _package_folder() -> Path:
    folder = home("groundingdino")
    if not ((folder / _TENSORS).is_file() and (folder / _READER / "config.json").is_file()):
        raise NotAvailable(
            PACKAGE,
            f"{folder} does not hold {_TENSORS} and {_READER}/",
            "Convert its published pickle to safetensors elsewhere, or use transformers' Grounding DINO.",
        )
    return folder


def _caption(words: Sequence[str]) -> str:
    """Words as Grounding DINO reads them: lower case, each closed by a full stop."""
    kept = [each.strip().strip(".").lower() for each in words if each.strip(" .")]
    if not kept:
        raise BadInput("There is nothing to look for.", "Name the things to find.")
    return " . ".join(kept) + " ."


def _pixels(image: Image.Image) -> Tensor:
    """The picture with its short side at 800, its long one at most 1333, normalised. → [3,h,w]"""
    from torchvision.transforms.functional import normalize, pil_to_tensor

    factor = min(_SIDE / min(image.size), _LONGEST / max(image.size))
    width, height = (max(1, round(side * factor)) for side in image.size)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return normalize(pil_to_tensor(resized).float() / 255, list(_MEAN), list(_STD))


def _box(sides: Sequence[float], score: float, words: str) -> Box:
    left, top, right, bottom = sides
    return Box(left, top, right, bottom, score, words)


def _sorted(boxes: Any) -> list[Box]:
    return sorted(boxes, key=lambda box: -box.score)
