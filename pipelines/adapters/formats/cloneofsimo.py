"""The first LoRA files for Stable Diffusion (cloneofsimo/lora): layers by number, `unet:17:up`.

Numbers count the linear layers of the attentions and of the feed-forward gates, in the order in which the
classes of that time held them: in a transformer block attn1, then the gate, then attn2; down, up, middle
blocks of the network; k, v, q, out in the text encoder. There is no alpha: the factors are taken as they are.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from torch import Tensor

from pipelines.adapters.adapter import Adapter, Change
from pipelines.adapters.formats._file import File, low_rank, open_file
from pipelines.adapters.layers import fitted, layers_of, mismatch
from pipelines.base.backbone import Backbone
from pipelines.errors import BadInput

_KEY = re.compile(r"^(unet|text_encoder):(\d+):(up|down)$")
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_BLOCK = (
    *(f"attn1.{each}" for each in _ATTENTION), "ff.net.0.proj", *(f"attn2.{each}" for each in _ATTENTION),
)  # fmt: skip
_CLIP = ("k_proj", "v_proj", "q_proj", "out_proj")
_KNOWN = {"unet": {"CrossAttention", "Attention", "GEGLU"}, "text_encoder": {"CLIPAttention"}}


def matches(names: list[str]) -> bool:
    """Whether tensors of these names are of this layout."""
    return any(_KEY.match(each) for each in names)


def read(path: Path | str, base: Backbone | None = None) -> Adapter:
    """A file as an Adapter. Raises BadInput without a base, AdapterMismatch where numbers do not fit it."""
    file = open_file(path)
    if base is None:
        raise BadInput(
            f"{file.name} calls layers by number, which means nothing without the base.",
            "Name the base that it was made for (Stable Diffusion 1.5).",
        )
    _check_classes(file)
    pairs: dict[tuple[str, int], dict[str, Tensor]] = {}
    unused: list[str] = []
    for key, tensor in file.tensors.items():
        if found := _KEY.match(key):
            pairs.setdefault((found[1], int(found[2])), {})[found[3]] = tensor
        else:
            unused.append(key)
    order = numbered(base)
    layers: dict[str, Change] = {}
    every = layers_of(base)
    adapter = Adapter(file.name, "sd1", layers, {}, file.header.metadata, tuple(unused))
    for (part, number), pair in sorted(pairs.items()):
        name = order[part][number] if number < len(order[part]) else None
        change = low_rank(file, f"{part}:{number}", pair, None)
        if name is None or fitted(change, every[name]) is None:
            raise mismatch(adapter, base, f"its layer {part}:{number} is not the base's {name or 'any'}")
        layers[name] = change
    return adapter


def numbered(base: Backbone) -> dict[str, list[str]]:
    """The layers in the order of their numbers, for the network and the text encoder."""
    every = layers_of(base)
    blocks = list(
        dict.fromkeys(
            name.partition(".attn1.")[0] for name in every if name.startswith("net.") and ".attn1." in name
        )
    )
    heads = list(
        dict.fromkeys(
            name.rpartition(".")[0]
            for name in every
            if name.startswith("text_encoder.") and name.endswith("q_proj")
        )
    )
    unet = [f"{block}.{each}" for block in blocks for each in _BLOCK if f"{block}.{each}" in every]
    return {"unet": unet, "text_encoder": [f"{head}.{each}" for head in heads for each in _CLIP]}


def _check_classes(file: File) -> None:
    """The header names the classes whose layers were counted; other classes mean other numbers."""
    for part, known in _KNOWN.items():
        try:
            classes = set(json.loads(file.header.metadata.get(part, "null")) or known)
        except (ValueError, TypeError):
            raise file.broken(f'its list of classes of "{part}" is damaged') from None
        if not classes <= known:
            raise file.broken(f"it counts layers of {', '.join(sorted(map(str, classes - known)))}")
