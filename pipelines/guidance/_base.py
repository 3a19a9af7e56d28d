"""What a guidance method is: a config whose `start` gives the guide of one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from pipelines.spec import Config

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone
    from pipelines.base.noise import Guide


class Guidance(Config):
    """State of a run lives in the closure that `start` returns; two runs share nothing."""

    after: ClassVar[bool] = False
    """Whether its guide edits the next latents."""

    def branches(self) -> tuple[str, ...]:
        """The branches that the loop forwards in one batch at every step."""
        return ("cond", "uncond")

    def rows(self) -> int:
        """Network rows a step and image, as declared; the conformance suite counts them."""
        return len(self.branches())

    def start(self, base: Backbone) -> Guide:
        """A fresh guide. Raises LikenessError where `base` does not offer what the method needs."""
        raise NotImplementedError


Starter = Callable[["Backbone"], "Guide"]
