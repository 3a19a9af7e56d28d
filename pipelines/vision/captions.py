"""Captions for photos: BLIP (arXiv:2201.12086) or Florence-2 (arXiv:2311.06242), where the user has one.

Taken from `<workspace>/weights/captioner/`; nothing is fetched, since a captioner is a matter of taste and of
gigabytes. Without one, a photo's caption is a template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor, BlipForConditionalGeneration, Florence2ForConditionalGeneration

from pipelines.base.memory import pick
from pipelines.errors import BrokenWeights, NotAvailable
from pipelines.vision.opening import open_model
from pipelines.vision.weights import home

# the large one: of the base one only pickled weights are published
HUB, SIZE, LICENCE = "Salesforce/blip-image-captioning-large", "1.9 GB", "BSD-3-Clause"
_KINDS = {"blip": BlipForConditionalGeneration, "florence2": Florence2ForConditionalGeneration}
_TASK = "<CAPTION>"  # Florence-2 is told what to do by such a word
_BATCH = 4


class Captioner:
    """Pictures → one sentence each, the same every time (no sampling)."""

    def __init__(self, folder: Path, where: torch.device) -> None:
        self._kind = _kind(folder)
        self._model: Any = open_model(_KINDS[self._kind], folder, where)
        self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)

    @torch.inference_mode()
    def captions(self, images: Sequence[Image.Image], length: int = 40) -> list[str]:
        """A caption of at most `length` tokens for each picture."""
        out: list[str] = []
        for start in range(0, len(images), _BATCH):
            batch = [image.convert("RGB") for image in images[start : start + _BATCH]]
            told = {"text": [_TASK] * len(batch)} if self._kind == "florence2" else {}
            inputs = self._processor(images=batch, return_tensors="pt", **told).to(self._model.device)
            ids = self._model.generate(**inputs, max_new_tokens=length, do_sample=False)
            out += [text.strip() for text in self._processor.batch_decode(ids, skip_special_tokens=True)]
        return out


def captioner(device: str = "auto") -> Captioner:
    """The captioner in the workspace, loaded once. Raises NotAvailable without one, BrokenWeights."""
    folder = home("captioner")
    if not (folder / "config.json").is_file():
        raise NotAvailable(
            "Writing captions",
            f"there is no captioner in {folder}",
            "Write captions without one (likeness caption PHOTOS --plain), or put a folder of BLIP there "
            f"({SIZE}, {LICENCE}): hf download {HUB} --include '*.json' '*.txt' '*.safetensors' "
            f"--local-dir {folder}",
        )
    return _opened(folder, pick(device).where or torch.device("cpu"))


@lru_cache(maxsize=1)
def _opened(folder: Path, where: torch.device) -> Captioner:
    return Captioner(folder, where)


def _kind(folder: Path) -> str:
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise BrokenWeights(folder, f"its config.json cannot be read ({error})") from None
    if kind not in _KINDS:
        raise BrokenWeights(folder, f'it is a "{kind}"', f"Put one of these there: {', '.join(_KINDS)}.")
    return kind
