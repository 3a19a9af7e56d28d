"""LoRA (arXiv:2106.09685): W x becomes W x + alpha/r · B A x, A ~ N(0, 1/r²), B = 0.

Convolutions as in LoCon: A has the layer's kernel, B is 1×1. rsLoRA (arXiv:2312.03732) scales by alpha/√r.
DoRA (arXiv:2402.09353): W' = m · V/‖V‖ with V = W + alpha/r · B A, one norm an output; the norm takes no part
in the gradient (its section 4.3).

Layers get another `forward` while attached: modules, names and flags stay what they are. A fresh LoRA leaves
outputs bitwise equal; DoRA to rounding (1e-5 relative), since its gain multiplies what the layer computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any

from pipelines.concepts._base import ParamGroup
from pipelines.errors import BadInput, UnknownName

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pipelines.adapters.adapter import Adapter
    from pipelines.base.backbone import Backbone


@dataclass(frozen=True)
class Rates:
    """Learning rates of the network's layers and of the text encoders'."""

    net: float
    text: float


@dataclass
class Factors:
    """Trainable tensors of a layer: `down` [r, in(, k, k)], `up` [out, r(, 1, 1)], `magnitude` [out]."""

    down: Tensor
    up: Tensor
    magnitude: Tensor | None = None

    def tensors(self, name: str) -> dict[str, Tensor]:
        """By name."""
        own = {f"{name}.down": self.down, f"{name}.up": self.up}
        return own if self.magnitude is None else {**own, f"{name}.magnitude": self.magnitude}


@dataclass
class LowRankCarrier:
    """LoRA on groups of `base.targets`, and on the text encoders' attention where `text` is set."""

    base: Backbone
    targets: Sequence[str]
    rank: int
    alpha: float
    rates: Rates
    text: bool = False
    dora: bool = False
    rslora: bool = False
    touches: frozenset[str] = field(init=False)
    factors: dict[str, Factors] = field(init=False, default_factory=dict[str, Factors])

    def __post_init__(self) -> None:
        self.touches = frozenset({"net", "text"} if self.text else {"net"})
        self.layers = dict(layers_of(self.base, self.targets, self.text))
        for name, layer in self.layers.items():
            self.factors[name] = _factors(layer, self.rank, self.dora, self.base.device)

    @property
    def scale(self) -> float:
        """What multiplies B A."""
        return self.alpha / (sqrt(self.rank) if self.rslora else self.rank)

    def start(self, seed: int) -> None:
        """A from a normal of spread 1/r, B zero, m the norms of W."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, own in self.factors.items():
                own.down.copy_(torch.randn(own.down.shape, generator=generator) / self.rank)
                own.up.zero_()
                if own.magnitude is not None:
                    own.magnitude.copy_(_norms(self.layers[name].weight.float()))

    @contextmanager
    def attached(self, base: Backbone) -> Iterator[None]:
        """Let the layers add their low rank."""
        with ExitStack() as stack:
            for name, layer in layers_of(base, self.targets, self.text):
                stack.enter_context(_beside(layer, self._changed(layer, self.factors[name])))
            yield

    def groups(self) -> list[ParamGroup]:
        """ "net", and "text" where text encoders are trained."""
        parts: dict[str, dict[str, Tensor]] = {"net": {}, "text": {}}
        for name, own in self.factors.items():
            parts["net" if name.startswith("net.") else "text"] |= own.tensors(name)
        rates = {"net": self.rates.net, "text": self.rates.text}
        return [ParamGroup(part, tensors, rates[part]) for part, tensors in parts.items() if tensors]

    def state(self) -> dict[str, Tensor]:
        """All factors."""
        return {
            key: each.detach()
            for name, own in self.factors.items()
            for key, each in own.tensors(name).items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back all factors."""
        from pathlib import Path

        from pipelines.concepts.checkpoint import fill

        fill(self.state(), state, Path("weights.safetensors"))

    def adapter(self, name: str, metadata: Mapping[str, str]) -> Adapter:
        """The factors with rsLoRA's √r inside alpha, on the CPU."""
        from pipelines.adapters.adapter import Adapter, LowRank

        def out(tensor: Tensor) -> Tensor:
            return tensor.detach().float().cpu().clone()

        layers = {
            key: LowRank(
                out(own.down),
                out(own.up),
                self.scale * self.rank,
                None if own.magnitude is None else out(own.magnitude),
            )
            for key, own in self.factors.items()
        }
        return Adapter(name, self.base.family, layers, metadata=metadata)

    def _changed(self, layer: Any, own: Factors) -> Callable[[Tensor, Tensor], Tensor]:
        """(x, what the layer gives) → what it gives with its low rank."""
        import torch

        def low_rank(x: Tensor) -> Tensor:
            if not torch.is_autocast_enabled(x.device.type):
                x = x.to(own.down.dtype)
            return self.scale * _apply(layer, _apply(layer, x, own.down, inner=True), own.up)

        if own.magnitude is None:
            return lambda x, out: out + low_rank(x).to(out.dtype)
        magnitude = own.magnitude
        shape = (1, -1, 1, 1) if own.down.ndim == 4 else (-1,)

        def dora(x: Tensor, out: Tensor) -> Tensor:
            with torch.no_grad():
                delta = (own.up.flatten(1) @ own.down.flatten(1)).view(layer.weight.shape)
                norms = _norms(layer.weight.float() + self.scale * delta)
            gain = (magnitude / norms).view(shape)
            bias = 0 if layer.bias is None else layer.bias.view(shape)
            return (gain * (out - bias + low_rank(x)) + bias).to(out.dtype)

        return dora


def layers_of(base: Backbone, targets: Sequence[str], text: bool) -> Iterator[tuple[str, Any]]:
    """Layers to train as (name with its part, module), each once. Raises UnknownName, BadInput."""
    names: dict[str, None] = {}
    for group in targets:
        if group not in base.targets:
            raise UnknownName(f"group of layers of {base.name}", group, base.targets)
        names |= dict.fromkeys(base.targets[group])
    modules = dict(base.net.named_modules())
    yield from ((f"net.{name}", modules[name]) for name in names)
    for part, encoder in base.texts.items() if text else ():
        own = dict(encoder.named_modules())
        yield from ((f"{part}.{name}", own[name]) for name in base.targets.get("text", ()) if name in own)
    if not names and not text:
        raise BadInput("No layers are chosen to be trained.", 'Choose targets, for example ["attention"].')


def _factors(layer: Any, rank: int, dora: bool, device: torch.device) -> Factors:
    import torch

    out, inner, *kernel = layer.weight.shape
    make: dict[str, Any] = {"device": device, "dtype": torch.float32}
    down = torch.zeros(rank, inner, *kernel, **make)
    up = torch.zeros(out, rank, *(1 for _ in kernel), **make)
    magnitude = torch.zeros(out, **make) if dora else None
    for each in (down, up, magnitude):
        if each is not None:
            each.requires_grad_(True)
    return Factors(down, up, magnitude)


def _norms(weight: Tensor) -> Tensor:
    """One norm an output, [out]."""
    return weight.flatten(1).norm(dim=1)


def _apply(layer: Any, x: Tensor, weight: Tensor, inner: bool = False) -> Tensor:
    """x through a factor: linear, or a convolution, which has the layer's own stride only once (`inner`)."""
    from torch.nn import functional

    if weight.ndim == 2:
        return functional.linear(x, weight)
    if not inner:
        return functional.conv2d(x, weight)
    return functional.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation)


def _beside(layer: nn.Module, change: Callable[[Tensor, Tensor], Tensor]) -> AbstractContextManager[None]:
    """Let a layer give change(its input, its output) for the while."""
    from pipelines.base.features import wrapped_forward

    return wrapped_forward(layer, lambda before: lambda x: change(x, before(x)))
