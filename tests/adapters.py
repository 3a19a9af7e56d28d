"""Random adapters for random bases, and what a base answers, for the tests of adapters."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from pipelines.adapters.adapter import Adapter, Change, Full, LowRank
from pipelines.adapters.layers import delta, layers_of
from pipelines.base.backbone import Backbone
from pipelines.base.sd import SD
from pipelines.base.sd3 import SD3
from pipelines.base.sdxl import SDXL
from tests import tiny

FAMILIES = {"sd1": SD, "sdxl": SDXL, "sd3": SD3}
_ENDS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.2", "conv1", "conv_shortcut", "proj_in")
_TEXT = ("q_proj", "v_proj", "fc1")


@cache
def _pipeline(family: str) -> Any:
    with TemporaryDirectory() as folder:
        getattr(tiny, family)(Path(folder))
        return DiffusionPipeline.from_pretrained(folder)


def pipeline(family: str) -> Any:
    """A fresh pipeline of tiny random models, the same weights every time."""
    one = _pipeline(family)
    return type(one)(**{**copy.deepcopy(dict(one.components)), **_flags(one)})


def _flags(one: Any) -> dict[str, Any]:
    keys = ("requires_safety_checker", "force_zeros_for_empty_prompt")
    return {key: one.config[key] for key in keys if key in one.config}


def base_of(pipe: Any, family: str) -> Backbone:
    """The pipeline's models as a base."""
    return FAMILIES[family]("tiny", family, dict(pipe.components))


def base(family: str = "sd1") -> Backbone:
    """A fresh base."""
    return base_of(pipeline(family), family)


def answer(base: Backbone, prompt: str = "a photo of a red dog") -> Tensor:
    """What the network says to fixed noise and a prompt, [2, C, h, w]; text encoders take part."""
    x = torch.randn(2, base.latent.channels, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return base.predict(x, torch.tensor([500.0, 20.0]), base.encode([prompt, "night"]))


def adapter(
    base: Backbone,
    seed: int = 0,
    rank: int = 3,
    alpha: float = 3.0,
    dora: bool = False,
    net: tuple[str, ...] = _ENDS,
    text: tuple[str, ...] = _TEXT,
    full: tuple[str, ...] = (),
) -> Adapter:
    """Random changes, large enough to see, of the layers that end so; `full` ones without low rank."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    layers: dict[str, Change] = {}
    for name, layer in layers_of(base).items():
        if not name.endswith(net if name.startswith("net.") else text):
            continue
        shape = layer.weight.shape
        size = layer.weight.detach().std() * 0.5
        if name.endswith(full or ("nothing",)):
            layers[name] = Full(rand(*shape) * size)
            continue
        down = rand(rank, *shape[1:]) / shape[1:].numel() ** 0.5
        up = rand(shape[0], rank, *[1] * (len(shape) - 2)) * 0.4
        change = LowRank(down, up, alpha)
        if dora:
            norms = (layer.weight.detach() + delta(change)).flatten(1).norm(dim=1)
            change = LowRank(down, up, alpha, norms * (0.7 + rand(len(norms)).abs()))
        layers[name] = change
    return Adapter(f"random{seed}", base.family, layers)


def state(base: Backbone) -> dict[str, Any]:
    """Everything that must come back: tensors by value and identity, flags, modules, own attributes."""
    parts: dict[str, nn.Module] = {"net": base.net, **base.texts}
    return {
        f"{part}.{name}": (id(each), each.requires_grad, each.data_ptr(), each.detach().clone())
        for part, whole in parts.items()
        for name, each in whole.named_parameters()
    } | {
        f"{part}.{name} module": (id(each), type(each), "forward" in vars(each), sorted(vars(each)))
        for part, whole in parts.items()
        for name, each in whole.named_modules()
    }


def same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether two `state`s are bitwise equal."""
    if before.keys() != after.keys():
        return False
    return all(
        torch.equal(one[-1], other[-1]) and one[:-1] == other[:-1]
        if isinstance(one[-1], Tensor)
        else one == other
        for one, other in zip(before.values(), after.values(), strict=True)
    )


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, against the size of the first."""
    one, other = one.detach(), other.detach()
    return float((one - other).abs().max() / one.abs().max())


def worst(one: Adapter, other: Adapter, base: Backbone) -> float:
    """The largest difference of ΔW over all layers of two adapters; infinite where layers are missing."""
    if one.layers.keys() != other.layers.keys():
        return float("inf")
    layers = layers_of(base)
    return max(
        float((delta(one.layers[name], w) - delta(other.layers[name], w).reshape(w.shape)).abs().max())
        for name, w in ((name, layers[name].weight.detach()) for name in one.layers)
    )
