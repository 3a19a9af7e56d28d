"""What a merge method is: a config whose `merge` makes one adapter of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.errors import BadInput
from pipelines.spec import Config

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.adapters.adapter import Adapter, Change
    from pipelines.base.backbone import Backbone

Weighted = list[tuple["Change", float]]


class Merge(Config):
    """A method defines `layer`; what one adapter lacks counts as 0 there."""

    def layer(self, changes: Weighted) -> Change:
        """The one change that stands for Σ w·ΔW of one layer; no DoRA comes in here."""
        raise NotImplementedError

    def merge(
        self, adapters: Sequence[Adapter], weights: Sequence[float], base: Backbone | None = None
    ) -> Adapter:
        """One adapter for all. `base` is needed only where DoRA is among them, whose ΔW depends on it.

        Raises AdapterMismatch for adapters of two families or two words of one name, BadInput for DoRA
        without a base or lists that do not match.
        """
        from pipelines.adapters.adapter import Adapter
        from pipelines.adapters.stack import words_of

        stack = _stack(adapters, weights)
        family = _family(adapters)
        changes = _changes(stack, base)
        layers = {name: self.layer(each) for name, each in changes.items()}
        words = words_of([(adapter, weight) for adapter, weight in stack if weight])
        triggers = dict.fromkeys(each.trigger for each in adapters if each.trigger)
        about = {
            "likeness.merged": ", ".join(f"{each.name}:{weight:g}" for each, weight in stack),
            "modelspec.merged_from": ", ".join(each.name for each in adapters),
        }
        if triggers:
            about["likeness.trigger"] = ", ".join(triggers)
        return Adapter("merged", family, layers, words, about | self.facts(changes, layers))

    def facts(self, changes: Mapping[str, Weighted], layers: Mapping[str, Change]) -> dict[str, str]:
        """What the header of the result should say about how it came to be."""
        return {}


def shaped(product: Tensor, down: Tensor) -> Tensor:
    """A matrix [r, …] in the shape that a layer's `down` has beside it."""
    return product.reshape(product.shape[0], *down.shape[1:])


def _stack(adapters: Sequence[Adapter], weights: Sequence[float]) -> list[tuple[Adapter, float]]:
    from math import isfinite

    if not adapters or len(adapters) != len(weights) or not all(map(isfinite, weights)):
        raise BadInput(
            f"{len(adapters)} adapters and the weights {list(weights)} make no merge.",
            "Give one number per adapter: a.safetensors:0.8 b.safetensors:0.5.",
        )
    return list(zip(adapters, weights, strict=True))


def _family(adapters: Sequence[Adapter]) -> str | None:
    from pipelines.adapters.adapter import AdapterMismatch
    from pipelines.adapters.families import kin, title

    known = [each for each in adapters if each.family]
    for each in known[1:]:
        first = known[0]
        if not kin(str(first.family), str(each.family)):
            raise AdapterMismatch(
                f"{first.name} was made for {title(first.family)}, {each.name} for {title(each.family)}.",
                "Merge adapters of one base.",
            )
    return known[0].family if known else None


def _changes(stack: Sequence[tuple[Adapter, float]], base: Backbone | None) -> dict[str, Weighted]:
    """The changes of each layer by its name, DoRA as the ΔW it is on this base."""
    from pipelines.adapters.adapter import AdapterMismatch, Full, LowRank
    from pipelines.adapters.layers import delta, placed

    found: dict[str, Weighted] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for adapter, weight in stack:
        on_base = placed(adapter, base) if base is not None else {}
        layers = {name: change for name, (_, change) in on_base.items()} or adapter.layers
        for name, own in layers.items():
            dora = isinstance(own, LowRank) and own.magnitude is not None
            weight_there = on_base[name][0].weight.detach() if name in on_base else None
            change = Full(delta(own, weight_there)) if dora else own
            shape = _shape(change)
            if shapes.setdefault(name, shape) != shape:
                raise AdapterMismatch(
                    f"{adapter.name} has another shape of {name} than the others.",
                    "Merge adapters of one base.",
                )
            found.setdefault(name, []).append((change, weight))
    return found


def _shape(change: Change) -> tuple[int, ...]:
    from pipelines.adapters.adapter import Full

    if isinstance(change, Full):
        return tuple(change.delta.shape)
    return (change.up.shape[0], *change.down.shape[1:])
