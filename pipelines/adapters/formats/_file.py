"""What all formats share: a checked file, pairs of factors, and the names of a base's layers."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from pipelines.adapters.adapter import LowRank
from pipelines.adapters.layers import embedding_width, layers_of, spelling
from pipelines.artifacts import Header, load_safetensors, read_safetensors_header, save_safetensors
from pipelines.base.backbone import Backbone
from pipelines.errors import BadInput, BrokenWeights

GENERIC = ("adapter", "pytorch_lora_weights", "learned_embeds", "adapter_model")


@dataclass(frozen=True)
class File:
    """One adapter file: where it is, its header, and its tensors, all finite."""

    path: Path
    header: Header
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        """What people call it: its file name, with the folder's where the file's says nothing."""
        return f"{self.path.parent.name}/{self.path.name}" if self.path.stem in GENERIC else self.path.name

    def broken(self, reason: str) -> BrokenWeights:
        """The error about this file."""
        return BrokenWeights(self.path, reason)


def open_file(path: Path | str) -> File:
    """Read and check a safetensors file.

    Raises MissingAsset without a file; BrokenWeights for pickles, damage, no tensors, or NaN and infinity.
    """
    path = Path(path)
    header = read_safetensors_header(path)
    if not header.tensors:
        raise BrokenWeights(path, "it holds no tensors")
    try:
        tensors = load_safetensors(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BrokenWeights(path, f"its tensors cannot be read ({error})") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor.float()).all():
            raise BrokenWeights(path, f"{name} holds NaN or infinite numbers")
    return File(path, header, tensors)


def save_file(path: Path | str, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> Path:
    """Write tensors and header, with the hashes by which ModelSpec and kohya's tools know a file.

    `modelspec.hash_sha256` is over the bytes of the tensors; kohya's two are over the file as it would be
    with its own `ss_` entries alone.
    """
    from safetensors.torch import save  # pyright: ignore[reportUnknownVariableType]

    ready = {name: each.detach().cpu().clone().contiguous() for name, each in tensors.items()}
    kohya = {key: value for key, value in about.items() if key.startswith("ss_")}
    content = save(ready, metadata=kohya or None)
    digest = hashlib.sha256(content[8 + struct.unpack("<Q", content[:8])[0] :]).hexdigest()
    hashes = {
        "modelspec.hash_sha256": f"0x{digest}",
        "sshs_model_hash": digest,
        "sshs_legacy_hash": hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8],
    }
    return save_safetensors(path, ready, {**about, **hashes})


def low_rank(file: File, name: str, pair: Mapping[str, Tensor], alpha: float | None) -> LowRank:
    """The change that `down`, `up` and perhaps `magnitude` of one layer make; alpha None or 0 means the rank.

    Raises BrokenWeights for half a pair, rank 0, or factors that do not multiply.
    """
    missing = [each for each in ("down", "up") if each not in pair]
    if missing:
        raise file.broken(f'{name} has no "{missing[0]}" factor')
    down, up = pair["down"], pair["up"]
    if down.ndim < 2 or up.ndim != down.ndim or up.shape[1] != down.shape[0]:
        raise file.broken(
            f"the factors of {name} do not go together: {list(up.shape)} and {list(down.shape)}"
        )
    if 0 in (*down.shape, *up.shape):
        raise file.broken(f"{name} has rank 0")
    magnitude = pair.get("magnitude")
    return LowRank(
        down, up, float(alpha or down.shape[0]), None if magnitude is None else magnitude.flatten()
    )


@dataclass
class Names:
    """A base's layers by dotted and by joined ("down_blocks_0_…_to_q") names; empty without a base."""

    base: Backbone | None = None
    layers: dict[str, Any] = field(default_factory=dict[str, Any])
    joined: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, base: Backbone | None) -> Names:
        """The names of one base."""
        if base is None:
            return cls()
        layers = layers_of(base)
        joined: dict[str, str] = {}
        for name in layers:
            part, _, rest = name.partition(".")
            joined[f"{part} {rest.replace('.', '_')}"] = name
            if part.startswith("text_encoder"):  # CLIP's `text_model` came and went with the libraries
                bare = rest.removeprefix("text_model.").replace(".", "_")
                joined[f"{part} {bare}"] = joined[f"{part} text_model_{bare}"] = name
        return cls(base, layers, joined)

    def dotted(self, name: str) -> str | None:
        """The base's own spelling, or None where it has no such layer; without a base the name itself."""
        return name if self.base is None else spelling(name, self.layers)

    def encoder(self, width: int, order: int = 0) -> str:
        """The text encoder whose vectors are `width` wide, the `order`-th of several."""
        if self.base is None:
            return "text_encoder_2" if width == 1280 else "text_encoder"
        fitting = [name for name, each in self.base.texts.items() if embedding_width(each) == width]
        return fitting[min(order, len(fitting) - 1)] if fitting else "text_encoder"


def json_table(file: File, text: str, what: str) -> dict[str, Any]:
    """A JSON object out of a header. Raises BrokenWeights where it is none."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise file.broken(f"its {what} is not a JSON object")
    return table


def one_token(name: str) -> str:
    """`name`, checked to be usable as a word of a prompt. Raises BadInput."""
    if not name or name.split() != [name] or len(name) > 100:
        raise BadInput(f'"{name[:100]}" cannot be a word of a prompt.', "Use up to 100 signs without spaces.")
    return name
