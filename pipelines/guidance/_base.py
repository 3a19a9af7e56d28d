"""What a guidance method is: a config that makes the guide of one run.

A method combines branches (`guide`), or stands around another guide (`around`): then it may also be stacked
on a base method, `[guidance.with.NAME]`. State of a run lives in the closure; two runs share nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from pipelines.base.needs import require
from pipelines.base.noise import Guided
from pipelines.errors import BadInput
from pipelines.spec import Config

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.base.backbone import Backbone
    from pipelines.base.noise import Denoise, Guide, Step

Stage = Literal["combine", "contrast", "gradient", "rescale", "tangent", "schedule", "measure"]
"""When a method acts, from the inside out: additions to the combined branches, then the rescaling of their
sum, then what turns, replaces or pins it (methods/guidance, section 8)."""

STAGES: tuple[str, ...] = get_args(Stage)
_BRANCHES = frozenset({"uncond"})


class Guidance(Config):
    """A method defines `guide` if it combines branches, `around` if it acts at a later stage."""

    stage: ClassVar[Stage] = "combine"
    neutral: ClassVar[Mapping[str, object]]
    """Settings at which it is the conditional prediction alone, or leaves the guide inside it alone."""
    after: ClassVar[bool] = False
    """Whether its guide edits the next latents."""

    def branches(self) -> tuple[str, ...]:
        """The branches that the loop forwards in one batch at every step."""
        return ("cond", "uncond")

    def extra_rows(self) -> int:
        """Network rows a step and image beside those of the branches."""
        return 0

    def rows(self) -> int:
        """Network rows a step and image, as declared; the conformance suite counts them."""
        return len(self.branches()) + self.extra_rows()

    def guide(self, base: Backbone) -> Guide:
        """The combination of branches; for a later stage, the method around the conditional prediction."""
        return self.around(base, conditional)

    def around(self, base: Backbone, inner: Guide) -> Guide:
        """The method around another guide. Raises BadInput for one that combines branches itself."""
        raise BadInput(
            f"{self.title} combines the branches itself and cannot be added to another method.",
            'Name it as the base method: guidance.method = "…", and put additions such as "pag" under with.',
        )

    def finish(self, denoise: Denoise, step: Step, out: Tensor) -> Tensor:
        """What the method does to its result once everything is added to it; nothing by default."""
        return out

    def needed(self) -> frozenset[str]:
        """`needs`, without branches that these settings do not ask for."""
        return frozenset(need for need in self.needs if need not in _BRANCHES or need in self.branches())

    def start(self, base: Backbone) -> Guide:
        """A fresh guide for one run. Raises NotAvailable where `base` lacks what the method needs."""
        return assemble(base, self)


def conditional(denoise: Denoise, step: Step) -> Tensor:
    """No guidance: the prediction for the prompt."""
    return denoise("cond")


def assemble(base: Backbone, method: Guidance, extras: Iterable[Guidance] = ()) -> Guide:
    """The guide of `method` with `extras` around it, in the order of STAGES whatever theirs is."""
    ordered = sorted(extras, key=lambda each: STAGES.index(each.stage))
    for each in (method, *ordered):
        require(each.title, each.needed(), base)
    guide = method.guide(base)
    rescale = STAGES.index("rescale")
    for each in ordered:
        if STAGES.index(each.stage) < rescale:
            guide = each.around(base, guide)
    guide = _finished(guide, method.finish)
    for each in ordered:
        if STAGES.index(each.stage) >= rescale:
            guide = each.around(base, guide)
    return guide


def _finished(guide: Guide, finish: Callable[[Denoise, Step, Tensor], Tensor]) -> Guide:
    def finished(denoise: Denoise, step: Step) -> Tensor | Guided:
        return edit(guide(denoise, step), lambda out: finish(denoise, step, out))

    return finished


def edit(guided: Tensor | Guided, change: Callable[[Tensor], Tensor]) -> Tensor | Guided:
    """What a guide returned, with its prediction changed."""
    if isinstance(guided, Guided):
        return replace(guided, pred=change(guided.pred))
    return change(guided)
