"""Memory: what was in use at most while drawing or training, in MiB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.metrics._base import CannotMeasure, Metric, Reading, ScoreContext

if TYPE_CHECKING:
    from PIL.Image import Image


class Memory(Metric):
    """Needs the peak, from whoever did the work."""

    title = "Peak memory"
    source = "torch.cuda.max_memory_allocated on a GPU, resident set size on a CPU"
    better = "lower"

    def score(self, images: Sequence[Image], context: ScoreContext) -> list[Reading]:
        """`memory`, in MiB."""
        if context.peak is None:
            raise CannotMeasure("Nobody measured the memory.", "Draw or train here, or run likeness bench.")
        return [Reading("memory", context.peak / 2**20, "lower", unit="MiB")]
