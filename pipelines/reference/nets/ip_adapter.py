"""The networks of an IP-Adapter file under their published names, read from safetensors.

`image_proj.*` turns what an image encoder says into tokens; `ip_adapter.N.to_{k,v}_ip.weight` are keys and
values of the N-th attention. N counts as the first release walked the UNet: self- and cross-attention in
turn (so cross-attention has 1, 3, 5 …) over the down blocks, then the up blocks, and the *middle last*,
although it runs between them. Numbers are therefore matched to sites by name, never by the order they run in.

Shapes: n pictures, E width of an embedding, S H tokens and width of the encoder's hidden states, N image
tokens, C width of the base's text states, D inner width of the resampler.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pipelines.artifacts import load_safetensors
from pipelines.base.backbone import Backbone
from pipelines.errors import BadInput, BrokenWeights

HEAD = 64
"""Width of a head in the published resamplers."""
_LAYER = re.compile(r"ip_adapter\.(\d+)\.to_([kv])_ip\.weight")
_MADE_FOR = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL"}
_NOT_ONE = "Choose an IP-Adapter in the published layout, as safetensors."

Layers = dict[int, tuple[Tensor, Tensor]]


class Plain(nn.Module):
    """The base variant: the picture's embedding [n, E] → [n, N, C]."""

    hidden = False

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        total, self.reads = state["proj.weight"].shape
        width = len(state["norm.weight"])
        self.count = total // width
        self.proj = nn.Linear(self.reads, total)
        self.norm = nn.LayerNorm(width)

    def forward(self, embeds: Tensor) -> Tensor:
        """[n, E] → [n, N, C]."""
        return self.norm(self.proj(embeds).unflatten(-1, (self.count, -1)))


class Resampler(nn.Module):
    """The plus variant: N learned queries read the encoder's hidden states [n, S, H] → [n, N, C]."""

    hidden = True

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        _, self.count, inner = state["latents"].shape
        self.reads, width = state["proj_in.weight"].shape[1], len(state["norm_out.weight"])
        depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("layers."))
        self.latents = nn.Parameter(torch.empty(1, self.count, inner))
        self.proj_in, self.proj_out = nn.Linear(self.reads, inner), nn.Linear(inner, width)
        self.norm_out = nn.LayerNorm(width)
        heads = len(state["layers.0.0.to_q.weight"])
        grown = len(state["layers.0.1.1.weight"])
        self.layers = nn.ModuleList(
            nn.ModuleList([_Perceive(inner, heads), _feed_forward(inner, grown)]) for _ in range(depth)
        )

    def forward(self, states: Tensor) -> Tensor:
        """[n, S, H] → [n, N, C]."""
        x, latents = self.proj_in(states), self.latents.expand(len(states), -1, -1)
        for attend, feed in self.layers:  # pyright: ignore[reportGeneralTypeIssues]
            latents = attend(x, latents) + latents
            latents = feed(latents) + latents
        return self.norm_out(self.proj_out(latents))


class _Perceive(nn.Module):
    """Queries look at the picture and at each other."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        """[n, S, D], [n, N, D] → [n, N, D]."""
        x, latents = self.norm1(x), self.norm2(latents)
        keys, values = self.to_kv(torch.cat([x, latents], 1)).chunk(2, -1)
        q, k, v = (
            each.unflatten(-1, (-1, HEAD)).transpose(1, 2) for each in (self.to_q(latents), keys, values)
        )
        return self.to_out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _feed_forward(width: int, inner: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, inner, bias=False),
        nn.GELU(),
        nn.Linear(inner, width, bias=False),
    )


@dataclass(frozen=True)
class Published:
    """One file: its projector, and (W'k, W'v), each [site width, C], by published number."""

    path: Path
    projector: Plain | Resampler
    layers: Layers

    @property
    def width(self) -> int:
        """C."""
        return next(iter(self.layers.values()))[0].shape[1]

    def at_sites(self, base: Backbone) -> dict[str, tuple[Tensor, Tensor]]:
        """Site name → (W'k, W'v). Raises BadInput, naming both, where it was made for another base."""
        names = numbered(base)
        fits = self.layers.keys() == names.keys()
        for number, name in names.items():
            if not fits:
                break
            own = _keys(base, name).shape
            fits = all(each.shape == own for each in self.layers[number])
        if not fits:
            made = _MADE_FOR.get(self.width, "another base")
            raise BadInput(
                f"{self.path.name} was made for {made}: {len(self.layers)} attention layers on text states "
                f"of width {self.width}. The loaded base {base.name}, family {base.family}, has "
                f"{len(names)} on width {text_width(base)}.",
                f"Choose the IP-Adapter made for {base.family}, or load a base of {made}.",
            )
        return {name: self.layers[number] for number, name in names.items()}


def numbered(base: Backbone) -> dict[int, str]:
    """Published number → name of a cross-attention site: down, up, and the middle last."""
    order = {"down_blocks": 0, "up_blocks": 1, "mid_block": 2}
    names = [site.name for site in base.sites if site.kind == "cross"]
    names.sort(key=lambda name: order[name.partition(".")[0]])
    return {2 * place + 1: name for place, name in enumerate(names)}


def text_width(base: Backbone) -> int:
    """The width of the states that the base's cross-attention reads."""
    return _keys(base, next(site.name for site in base.sites if site.kind == "cross")).shape[1]


def _keys(base: Backbone, site: str) -> Tensor:
    attention: Any = base.net.get_submodule(site)
    return attention.to_k.weight


def read(path: Path) -> Published:
    """An IP-Adapter file. Raises MissingAsset, BrokenWeights (also for pickles), BadInput for other kinds."""
    state = load_safetensors(path)
    halves: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if match := _LAYER.fullmatch(key):
            halves.setdefault(int(match[1]), {})[match[2]] = value
    image = {
        key.removeprefix("image_proj."): each for key, each in state.items() if key.startswith("image_proj.")
    }
    if not halves or not image:
        raise BrokenWeights(
            path, "it holds no image_proj.* and ip_adapter.N.to_k_ip.weight tensors", _NOT_ONE
        )
    if any("_lora." in key for key in state) or "perceiver_resampler.proj_in.weight" in image:
        raise BadInput(
            f"{path.name} is a FaceID adapter: it reads face embeddings, not pictures.",
            "Choose a base or plus variant.",
        )
    if any(each.keys() != {"k", "v"} for each in halves.values()):
        raise BrokenWeights(path, "some of its layers have keys without values, or the reverse")
    layers = {number: (each["k"], each["v"]) for number, each in sorted(halves.items())}
    if any(key.ndim != 2 or key.shape != value.shape for key, value in layers.values()):
        raise BrokenWeights(path, "its keys and values are not matrices of one shape")
    return Published(path, _projector(path, image), layers)


def _projector(path: Path, state: dict[str, Tensor]) -> Plain | Resampler:
    kinds = {"proj.weight": Plain, "latents": Resampler}
    kind = next((each for key, each in kinds.items() if key in state), None)
    if kind is None:
        raise BrokenWeights(path, "its image_proj is of a variant other than base and plus", _NOT_ONE)
    try:
        with torch.device("meta"):
            net = kind(state)
        net.load_state_dict(state, assign=True)
    except (RuntimeError, KeyError, IndexError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise BrokenWeights(path, f"its image_proj does not fit together ({reason})") from None
    return net.eval().requires_grad_(False)
