"""Latency: seconds a picture, the first one apart, since it also pays for warming up.

Study 001 (636-653) mixes both in its means, which is how 17 s beside 0.1 s became "4.3 s".
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from pipelines.metrics._base import CannotMeasure, Metric, Reading, ScoreContext

if TYPE_CHECKING:
    from PIL.Image import Image


class Latency(Metric):
    """Needs the seconds that the drawing took, from whoever drew."""

    title = "Latency"
    source = "study 001, tables 5 and 6"
    better = "lower"

    def score(self, images: Sequence[Image], context: ScoreContext) -> list[Reading]:
        """`latency`: the median of the warm ones; `latency_cold`: the first."""
        if context.cold is None and not context.warm:
            raise CannotMeasure("Nobody timed these pictures.", "Draw them here, or run likeness bench.")
        readings: list[Reading] = []
        if context.warm:
            each = tuple(context.warm)
            readings.append(Reading("latency", median(each), "lower", unit="s", each=each))
        if context.cold is not None:
            note = "the first picture, with warming up"
            readings.append(Reading("latency_cold", context.cold, "lower", unit="s", note=note))
        return readings
