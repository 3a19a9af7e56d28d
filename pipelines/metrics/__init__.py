"""Readouts: what came of it, one measure a file."""

from pipelines.metrics._base import Band, CannotMeasure, Metric, Reading, ScoreContext
from pipelines.metrics._score import score

__all__ = ["Band", "CannotMeasure", "Metric", "Reading", "ScoreContext", "score"]
