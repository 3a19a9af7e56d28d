"""Several readouts at once: what can be measured is, and what cannot says why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from pipelines.errors import BadInput, LikenessError, UnknownName
from pipelines.metrics._base import CannotMeasure, Metric, Reading, ScoreContext
from pipelines.spec import catalog

if TYPE_CHECKING:
    from PIL.Image import Image


def score(images: Sequence[Image], context: ScoreContext, names: Sequence[str] = ()) -> list[Reading]:
    """The readings of these pictures by the named readouts, or by all that the context allows.

    A readout that was named but cannot be measured, or whose encoder is missing, gives a reading without a
    value whose note says why; one that was not named and lacks its context is passed over. Raises BadInput
    without pictures, UnknownName for an unknown readout.
    """
    if not images:
        raise BadInput("There are no pictures to measure.", "Give at least one.")
    methods = cast("dict[str, type[Metric]]", catalog("metrics"))
    for name in names:
        if name not in methods:
            raise UnknownName("readout", name, methods)
    readings: list[Reading] = []
    for name in names or methods:
        try:
            readings += methods[name]().score(images, context)
        except CannotMeasure as error:
            if names:
                readings.append(_without(name, methods[name], error))
        except BadInput:
            raise
        except LikenessError as error:
            readings.append(_without(name, methods[name], error))
    return readings


def _without(name: str, method: type[Metric], error: LikenessError) -> Reading:
    return Reading(name, None, method.better, note=f"{error.message} {error.remedy}")
