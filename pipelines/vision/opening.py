"""Networks from local folders: safetensors only, whole, in float32, in evaluation."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from pipelines.artifacts import read_safetensors_header
from pipelines.errors import BrokenWeights, MissingAsset

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def open_model(kind: type[ModelT], folder: Path, where: torch.device) -> ModelT:
    """A transformers model, ready to look at pictures.

    Raises MissingAsset without a folder, BrokenWeights where it is damaged, pickled or lacks tensors:
    transformers would fill those with random numbers, and the readouts would be noise.
    """
    if not (folder / "config.json").is_file():
        raise MissingAsset(folder / "config.json", "Restore the folder from where it came.")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BrokenWeights(folder, "it holds no safetensors file", "Fetch the safetensors version of it.")
    for file in files:
        read_safetensors_header(file)
    opener: Any = kind  # its return type knows nothing of the loading info
    try:
        with _no_bars():
            model, info = opener.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BrokenWeights(folder, str(error).splitlines()[0] if str(error) else repr(error)) from None
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise BrokenWeights(folder, f"{len(lacking)} tensors are missing ({lacking[0]} …)")
    return model.requires_grad_(False).eval().to(where)


@contextmanager
def _no_bars() -> Generator[None]:
    """Without transformers' own progress bar: a second of loading is not news."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
