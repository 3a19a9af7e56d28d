"""One step of the integration, x_t = a·x0 + b·ε, and what a guide is.

Shapes: B batch, C latent channels, h w latent size. Every base predicts one of three things, and only this
file knows the difference (methods/guidance: Karras et al., arXiv:2206.00364, appendix; Lipman et al.,
arXiv:2210.02747 for flow):

- "eps": the noise ε
- "v": a/s·ε − b/s·x0 with s = √(a² + b²) (arXiv:2202.00512; s = 1 on a variance-preserving schedule)
- "flow": ε − x0
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, overload

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.base.backbone import Backbone

Predicts = Literal["eps", "v", "flow"]


@dataclass(frozen=True)
class Step:
    """Where the loop stands: step `index` of `count`, timestep `t` [B], noisy latents `x` [B, C, h, w].

    `a`, `b` are the shares of picture and noise in `x`; `next_a`, `next_b` those after this step.
    """

    index: int
    count: int
    t: Tensor
    a: float
    b: float
    x: Tensor
    predicts: Predicts = "eps"
    next_a: float = 1.0
    next_b: float = 0.0

    @property
    def sigma(self) -> float:
        """The ratio of noise to picture, b/a; infinite where no picture is left."""
        return self.b / self.a if self.a else float("inf")

    def at(self, x: Tensor) -> Step:
        """The same step for other latents: what a second forward at another x must convert with."""
        return replace(self, x=x)

    def x0(self, out: Tensor) -> Tensor:
        """The picture that a prediction implies, [B, C, h, w]."""
        if self.predicts == "flow":
            # x = a·x0 + b·ε and out = ε − x0
            return (self.x - self.b * out) / (self.a + self.b)
        if self.predicts == "v":
            square = self.a**2 + self.b**2
            return self.a / square * self.x - self.b / square**0.5 * out
        return (self.x - self.b * out) / self.a

    def eps(self, out: Tensor) -> Tensor:
        """The noise that a prediction implies, [B, C, h, w]."""
        if self.predicts == "flow":
            return (self.x + self.a * out) / (self.a + self.b)
        if self.predicts == "v":
            square = self.a**2 + self.b**2
            return self.b / square * self.x + self.a / square**0.5 * out
        return out

    def velocity(self, out: Tensor) -> Tensor:
        """A prediction as a velocity: the base's own for v and flow, else the v that the noise implies.

        Spreads are compared here, not in ε, whose spread hardly changes while there is much noise.
        """
        if self.predicts != "eps":
            return out
        spread = (self.a**2 + self.b**2) ** 0.5
        return (spread * out - self.b / spread * self.x) / self.a

    def from_velocity(self, velocity: Tensor) -> Tensor:
        """The prediction, in the base's own space, with this velocity: undoes `velocity`."""
        if self.predicts != "eps":
            return velocity
        square = self.a**2 + self.b**2
        return self.b / square * self.x + self.a / square**0.5 * velocity

    def output(self, *, x0: Tensor | None = None, eps: Tensor | None = None) -> Tensor:
        """The prediction, in the base's own space, that implies this picture or this noise."""
        if (x0 is None) == (eps is None):
            raise ValueError("give x0 or eps")
        if eps is None:
            assert x0 is not None  # noqa: S101 (for the type checker)
            if self.predicts == "flow":
                return (self.x - (self.a + self.b) * x0) / self.b
            if self.predicts == "v":
                square = self.a**2 + self.b**2
                return (self.a / square * self.x - x0) * square**0.5 / self.b
            return (self.x - self.a * x0) / self.b
        if self.predicts == "flow":
            return ((self.a + self.b) * eps - self.x) / self.a
        if self.predicts == "v":
            square = self.a**2 + self.b**2
            return (eps - self.b / square * self.x) * square**0.5 / self.a
        return eps


def target(predicts: Predicts, x0: Tensor, eps: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """What a base is trained to predict, [B, C, h, w]; `a`, `b` are [B, 1, 1, 1]."""
    if predicts == "flow":
        return eps - x0
    if predicts == "v":
        return a * eps - b * x0
    return eps


@dataclass(frozen=True)
class Guided:
    """A prediction with an edit of the next latents: `after(next_x, step) → next_x`."""

    pred: Tensor
    after: Callable[[Tensor, Step], Tensor] | None = None


class Denoise(Protocol):
    """Predictions of named branches ("cond", "uncond", "negative", …), each [B, C, h, w].

    The loop forwards all branches that a guide declares in one batch and keeps them for the step. `at` asks
    at another Step, `base` asks another network, `within` runs the forward inside a context (a door).
    One branch gives a tensor, several a tuple in the order asked. Raises UnknownName for a branch without a
    condition.
    """

    @overload
    def __call__(
        self,
        branch: str,
        /,
        *,
        at: Step | None = None,
        base: Backbone | None = None,
        within: AbstractContextManager[object] | None = None,
    ) -> Tensor: ...

    @overload
    def __call__(
        self,
        first: str,
        second: str,
        /,
        *others: str,
        at: Step | None = None,
        base: Backbone | None = None,
        within: AbstractContextManager[object] | None = None,
    ) -> tuple[Tensor, ...]: ...

    def __call__(
        self,
        *branches: str,
        at: Step | None = None,
        base: Backbone | None = None,
        within: AbstractContextManager[object] | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Predict."""
        ...


Guide = Callable[[Denoise, Step], "Tensor | Guided"]


class Guides(Protocol):
    """A guidance method as the loop sees it: `pipelines.guidance` holds them."""

    def branches(self) -> tuple[str, ...]:
        """The branches that the loop forwards in one batch at every step."""
        ...

    def start(self, base: Backbone) -> Guide:
        """A fresh guide for one run. Raises LikenessError where the base lacks what the method needs."""
        ...
