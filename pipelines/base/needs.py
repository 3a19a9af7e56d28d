"""What methods need from a base, checked in one place and before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipelines.errors import NotAvailable

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone

REASONS = {
    "uncond": (
        "was distilled to run without an unguided branch",
        'Use a method that does without one, such as "pag", or scale 1, or the undistilled base.',
    ),
    "cross_attention": (
        "has no attention from picture to words alone",
        "Use a base with a UNet, such as Stable Diffusion or Toybox.",
    ),
    "joint_attention": (
        "has no attention that joins picture and words",
        "Use a base with a transformer, such as Stable Diffusion 3 or Flux.",
    ),
    "pooled": ("has no pooled text states", "Use a base with them, such as SDXL or Stable Diffusion 3."),
    "inpaint": ("was not trained to fill masks", "Use an inpainting base, or a mask with an ordinary one."),
}


def require(title: str, needs: Iterable[str], base: Backbone) -> None:
    """Raise NotAvailable where `base` does not offer what `needs` lists; "a|b" is met by either."""
    for need in sorted(needs):
        if not base.offers.isdisjoint(need.split("|")):
            continue
        plain = need.replace("_", " ").replace("|", " or ")
        reason, remedy = REASONS.get(need, (f"does not offer {plain}", "Choose another method or base."))
        raise NotAvailable(title, f"{base.name} {reason}", remedy)
