"""Size: what a training saved, counted from the headers of its safetensors files without reading them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from pipelines.artifacts import read_safetensors_header
from pipelines.metrics._base import CannotMeasure, Metric, Reading, ScoreContext

if TYPE_CHECKING:
    from PIL.Image import Image


class Size(Metric):
    """Needs the files."""

    title = "Parameters and file size"
    source = "study 001, table 8"
    better = "lower"

    def score(self, images: Sequence[Image], context: ScoreContext) -> list[Reading]:
        """`size`: bytes on disk; `parameters`: how many numbers were trained."""
        if not context.files:
            raise CannotMeasure("There is no file to measure.", "Name the adapter.")
        size = sum(path.stat().st_size for path in context.files if path.is_file())
        headers = [read_safetensors_header(path) for path in context.files]
        trained = sum(
            prod(info.shape)
            for header in headers
            for name, info in header.tensors.items()
            # a rank's alpha is a setting that is stored as a tensor
            if not name.endswith(".alpha")
        )
        return [
            Reading("size", float(size), "lower", unit="bytes"),
            Reading("parameters", float(trained), "lower"),
        ]
