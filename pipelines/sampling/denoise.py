"""Named branches → one forward of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import overload

import torch
from torch import Tensor

from pipelines.base.backbone import Backbone, Condition, Conditioning, rows_in_flight
from pipelines.base.noise import Step
from pipelines.errors import UnknownName


class Denoiser:
    """`Denoise` for one step: the branches declared by the guide run as one batch, and are kept.

    `rows` counts network rows spent so far, `calls` forwards.
    """

    def __init__(
        self,
        base: Backbone,
        conditions: Mapping[str, Condition],
        declared: Sequence[str] = (),
        *,
        grad: bool = False,
    ) -> None:
        self.base, self.conditions = base, conditions
        self.declared = tuple(dict.fromkeys(declared))
        self.grad = grad
        self.step: Step | None = None
        self.rows = self.calls = 0
        self._kept: dict[str, Tensor] = {}
        self._kept_joined: dict[tuple[tuple[str, ...], int], Conditioning] = {}

    def begin(self, step: Step) -> None:
        """Forget the last step."""
        self.step = step
        self._kept = {}

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
        """Predictions of the named branches. Raises UnknownName for one without a condition."""
        for name in branches:
            if name not in self.conditions:
                raise UnknownName("branch", name, self.conditions)
        assert self.step is not None  # noqa: S101 (the loop calls begin)
        plain = at is None and base is None and within is None
        if not plain:
            found = self._forward(branches, at or self.step, base or self.base, within)
        else:
            missing = [name for name in branches if name not in self._kept]
            if missing:
                wanted = [*missing, *(each for each in self.declared if each not in missing)]
                wanted = [each for each in wanted if each in self.conditions and each not in self._kept]
                self._kept |= self._forward(wanted, self.step, self.base, None)
            found = self._kept
        outs = tuple(found[name] for name in branches)
        return outs[0] if len(outs) == 1 else outs

    def _forward(
        self,
        branches: Sequence[str],
        step: Step,
        base: Backbone,
        within: AbstractContextManager[object] | None,
    ) -> dict[str, Tensor]:
        batch = len(step.x)
        joined = self._joined(branches, step)
        rows = {name: slice(i * batch, (i + 1) * batch) for i, name in enumerate(branches)}
        self.rows += batch * len(branches)
        self.calls += 1
        x = torch.cat([step.x] * len(branches)) if len(branches) > 1 else step.x
        if step.predicts != "flow":  # the network was trained on inputs of unit variance
            square = step.a**2 + step.b**2
            if abs(square - 1) > 1e-4:
                x = x / square**0.5
        with (
            torch.set_grad_enabled(self.grad and torch.is_grad_enabled()),
            rows_in_flight(base, rows),
            within if within is not None else nullcontext(),
        ):
            out = base.predict(x, step.t.repeat(len(branches)), joined)
        return {name: out[slot] for name, slot in rows.items()}

    def _joined(self, branches: Sequence[str], step: Step) -> Conditioning:
        """The rows of all branches in one batch; made once where none of them changes with the step."""
        key = (tuple(branches), len(step.x))
        if (found := self._kept_joined.get(key)) is not None:
            return found
        conditions = [self.conditions[name] for name in branches]
        fixed = all(isinstance(each, Conditioning) for each in conditions)
        now = [each if isinstance(each, Conditioning) else each(step) for each in conditions]
        joined = Conditioning.cat([each.expand(len(step.x)) for each in now])
        if fixed:
            self._kept_joined[key] = joined
        return joined
