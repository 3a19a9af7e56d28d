"""All weights of the denoising network, as DreamBooth trains them (arXiv:2208.12242).

The carrier owns float32 copies. While attached they stand in the modules in place of the base's own
parameters, which are kept aside untouched and put back as the objects they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.concepts._base import ParamGroup

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipelines.base.backbone import Backbone


@dataclass
class FullCarrier:
    """Copies of every parameter of `base.net`, by name."""

    base: Backbone
    rate: float
    touches: frozenset[str] = frozenset({"net"})
    weights: dict[str, nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        import torch
        from torch import nn

        self.weights = {
            name: nn.Parameter(each.detach().to(self.base.device, torch.float32, copy=True))
            for name, each in self.base.net.named_parameters()
        }

    def start(self, seed: int) -> None:
        """The base's own weights; nothing is drawn."""
        import torch

        with torch.no_grad():
            for name, each in self.base.net.named_parameters():
                self.weights[name].copy_(each)

    @contextmanager
    def attached(self, base: Backbone) -> Iterator[None]:
        """Let the network compute with the copies."""
        places = [(*_place(base.net, name), own) for name, own in self.weights.items()]
        kept = [module._parameters[leaf] for module, leaf, _ in places]
        try:
            for module, leaf, own in places:
                module._parameters[leaf] = own
            yield
        finally:
            for (module, leaf, _), before in zip(places, kept, strict=True):
                module._parameters[leaf] = before

    def groups(self) -> list[ParamGroup]:
        """One group."""
        return [ParamGroup("net", dict(self.weights), self.rate)]

    def state(self) -> dict[str, Tensor]:
        """All weights."""
        return {name: each.detach() for name, each in self.weights.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take all weights back."""
        from pathlib import Path

        from pipelines.concepts.checkpoint import fill

        fill(self.state(), state, Path("weights.safetensors"))

    def adapter(self, name: str, metadata: Mapping[str, str]) -> None:
        """None: the result is a network."""
        return


def _place(net: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that owns a parameter, and the parameter's name there."""
    path, _, leaf = name.rpartition(".")
    return net.get_submodule(path), leaf
