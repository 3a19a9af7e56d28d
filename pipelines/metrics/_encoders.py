"""What the readouts with an encoder share: which one measures, and likeness as a mean of pairwise cosines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.metrics._base import CannotMeasure, Metric, Reading, ScoreContext, mean

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.vision.encoder import Encoder


def clip_for(name: str, context: ScoreContext) -> Encoder:
    """The named CLIP, or that of the context's base family. Raises NotAvailable without its weights."""
    from pipelines.vision.encoder import encoder, encoders_of

    return encoder(name or encoders_of(context.base_family)[0], context.device)


def dino_for(name: str, context: ScoreContext) -> Encoder:
    """The named DINO, or that of the context's base family. Raises NotAvailable without its weights."""
    from pipelines.vision.encoder import encoder, encoders_of

    return encoder(name or encoders_of(context.base_family)[1], context.device)


def likeness(
    name: str, metric: Metric, encoder: Encoder, images: Sequence[Image], context: ScoreContext
) -> Reading:
    """The mean cosine of every picture to every reference. Raises CannotMeasure without references."""
    if not context.references:
        raise CannotMeasure(
            "There are no references to be like.", "Give photos of the subject: --references."
        )
    each = (encoder.images(images) @ encoder.images(context.references).T).mean(1).tolist()  # [n,r] → [n]
    value = mean(each)
    return Reading(
        name=name,
        value=value,
        better=metric.better,
        band=metric.band(encoder.name, value),
        encoder=encoder.name,
        note=unstated(metric, encoder.name),
        each=tuple(each),
    )


def unstated(metric: Metric, encoder: str) -> str:
    """Why there is no word beside the value; empty where there may be one."""
    if encoder in metric.bands:
        return ""
    return (
        "The encoders that measure here have scales of their own: compare figures with one another, not with "
        "published ones."
    )
