"""Adapters in and out of a base: beside its layers (`attached`), or inside its weights (`merged`).

The effect of an adapter is linear in its strength w, whatever it is made of: the layer's weight becomes
W + Σ w·ΔW, where ΔW of DoRA is m·V/‖V‖ − W. At strength 1 this is what peft computes; in between, peft
moves V instead, which does not return to W at 0. New words have no strength: they are there or not.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.adapters.adapter import Adapter, AdapterMismatch, Change, Full
from pipelines.adapters.layers import Layer, delta, gain_of, placed
from pipelines.base.backbone import Backbone
from pipelines.base.features import wrapped_forward
from pipelines.base.text import added
from pipelines.errors import BadInput

Stack = Sequence[tuple[Adapter, float]]
Words = dict[str, dict[str, Tensor]]


@contextmanager
def attached(base: Backbone, stack: Stack) -> Generator[None]:
    """Let the adapters act, each at its weight; on exit the base is bitwise what it was.

    Nothing of the base is written to: touched layers get another `forward` for the while, so parameters,
    names, flags and modules stay the same objects. Weight 0 leaves the adapter out, words included. DoRA
    refers to the weights found on entry. Raises AdapterMismatch (another family or shape, two adapters with
    one word) or BadInput before anything is changed.
    """
    with _entered(base, stack, _wrapped):
        yield


@contextmanager
def merged(base: Backbone, stack: Stack) -> Generator[None]:
    """The same function as `attached`, folded into the weights: no cost per step.

    The original tensors are kept aside and put back, since subtracting what was added is not exact.
    """
    with _entered(base, stack, _folded):
        yield


@contextmanager
def _entered(
    base: Backbone, stack: Stack, door: Callable[[Layer, Iterable[Weighted]], AbstractContextManager[None]]
) -> Generator[None]:
    """The words of the adapters, and every touched layer through a door."""
    live = _live(stack)
    plan, words = _plan(base, live), words_of(live)
    with ExitStack() as undo:
        if words:
            undo.enter_context(added(base, words))
        for layer, changes in plan.values():
            undo.enter_context(door(layer, changes))
        yield


def words_of(stack: Stack) -> Words:
    """All new words of a stack. Raises AdapterMismatch where two adapters give one word different vectors."""
    words: Words = {}
    owner: dict[str, str] = {}
    for adapter, _ in stack:
        for word, rows in adapter.words.items():
            if word in words and not _same_rows(words[word], rows):
                raise AdapterMismatch(
                    f'Both {owner[word]} and {adapter.name} bring the word "{word}".',
                    "Give one of them another word (likeness merge --rename OLD=NEW), or use one at a time.",
                )
            words[word] = dict(rows)
            owner.setdefault(word, adapter.name)
    return words


def renamed(adapter: Adapter, old: str, new: str) -> Adapter:
    """The adapter with one of its words under another name. Raises BadInput if it has no such word."""
    if old not in adapter.words or new in adapter.words or not new or new.split() != [new]:
        raise BadInput(
            f'{adapter.name} cannot call its word "{old}" "{new}" (its words: {", ".join(adapter.words)}).',
            "Name one of its words, and a new one without spaces that it does not have.",
        )
    words = {new if each == old else each: rows for each, rows in adapter.words.items()}
    trigger = " ".join(new if each == old else each for each in adapter.trigger.split())
    about = {**adapter.metadata, "likeness.trigger": trigger} if trigger else adapter.metadata
    return replace(adapter, words=words, metadata=about)


def notes(stack: Stack) -> list[str]:
    """What a person should know about a stack that works: shared triggers, and what files left unused."""
    found: list[str] = []
    triggers: dict[str, str] = {}
    for adapter, weight in stack:
        if adapter.unused:
            shown = ", ".join(adapter.unused[:3]) + (" …" if len(adapter.unused) > 3 else "")
            found.append(f"{adapter.name}: {len(adapter.unused)} tensors were not used ({shown}).")
        if weight and adapter.trigger:
            if adapter.trigger in triggers:
                other = triggers[adapter.trigger]
                found.append(f'{other} and {adapter.name} answer to the same words "{adapter.trigger}".')
            triggers[adapter.trigger] = adapter.name
    return found


def _live(stack: Stack) -> Stack:
    for adapter, weight in stack:
        if not isfinite(weight):
            raise BadInput(f"The weight of {adapter.name} is {weight}.", "Use a number such as 0.8.")
        if not adapter.layers and not adapter.words:
            raise BadInput(f"{adapter.name} changes nothing.", "Choose another adapter file.")
    return [(adapter, weight) for adapter, weight in stack if weight]


Weighted = tuple[Change, float]


def _plan(base: Backbone, stack: Stack) -> dict[str, tuple[Layer, list[Weighted]]]:
    plan: dict[str, tuple[Layer, list[Weighted]]] = {}
    for adapter, weight in stack:
        for name, (layer, change) in placed(adapter, base).items():
            plan.setdefault(name, (layer, []))[1].append((change, weight))
    return plan


def _same_rows(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@dataclass
class _Branch:
    """What one change adds to the output of its layer, without the layer's bias."""

    layer: Layer
    tensors: dict[str, Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        if next(iter(self.tensors.values())).device != x.device:  # the base was moved after it was attached
            self.tensors = {key: each.to(x.device) for key, each in self.tensors.items()}
        own = self.tensors
        if "delta" in own:
            return self._through(x, own["delta"])
        low = self._through(x, own["down"])
        out = (
            functional.conv2d(low, own["up"]) if low.ndim == 4 and own["up"].ndim == 4 else low @ own["up"].T
        )
        if "gain" not in own:
            return out
        # m/‖V‖·(Wx + sBAx) − Wx; the strength w stands in both `up` and `rest`
        return own["gain"] * out + own["rest"] * self._through(x, self.layer.weight)

    def _through(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer with another weight and no bias: same stride, padding and dilation."""
        if isinstance(self.layer, nn.Conv2d):
            return self.layer._conv_forward(x, weight, None)  # it knows all padding modes
        return functional.linear(x, weight)


def _branch(layer: Layer, change: Change, weight: float) -> _Branch:
    own = layer.weight
    if isinstance(change, Full):
        tensors = {"delta": weight * change.delta.float()}
    else:
        tensors = {"down": change.down, "up": weight * change.scale * change.up.float()}
    if not isinstance(change, Full) and change.magnitude is not None:
        whole = own.detach().float()
        plain = replace(change, magnitude=None)
        gain = gain_of(whole + delta(plain).to(whole.device), change.magnitude)
        shape = (-1, 1, 1) if isinstance(layer, nn.Conv2d) else (-1,)
        tensors |= {"gain": gain.view(shape), "rest": (weight * (gain - 1)).view(shape)}
    return _Branch(layer, {key: each.detach().to(own.device, own.dtype) for key, each in tensors.items()})


def _wrapped(layer: Layer, changes: Iterable[Weighted]) -> AbstractContextManager[None]:
    branches = [_branch(layer, change, weight) for change, weight in changes]

    def make(before: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(input: Tensor) -> Tensor:
            out = before(input)
            for each in branches:
                out = out + each(input)
            return out

        return forward

    return wrapped_forward(layer, make)


@contextmanager
def _folded(layer: Layer, changes: Iterable[Weighted]) -> Generator[None]:
    original = layer.weight.data
    whole = original.float()
    total = sum(weight * delta(change, whole).to(whole.device) for change, weight in changes)
    layer.weight.data = (whole + total).to(original)
    try:
        yield
    finally:
        layer.weight.data = original.to(layer.weight.device)
