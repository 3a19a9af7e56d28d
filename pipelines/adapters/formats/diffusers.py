"""diffusers' `pytorch_lora_weights.safetensors`: dotted names, peft's factors.

The tensors do not say alpha; without more a reader takes the rank for it. The header's JSON
`lora_adapter_metadata` (peft's settings per part: r, lora_alpha, rank_pattern, alpha_pattern, use_dora)
does, and so alpha ≠ r, rsLoRA and DoRA come back exactly. New words ride along under names that diffusers
passes over: `words.lora.<encoder>.<token>`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.adapters.adapter import Adapter, Change, Full, LowRank
from pipelines.adapters.families import family_of
from pipelines.adapters.formats._file import File, Names, json_table, low_rank, open_file, save_file
from pipelines.base.backbone import Backbone
from pipelines.errors import BadInput

CONFIG = "lora_adapter_metadata"
_WORD = "words.lora."
_NETS = ("unet", "transformer")
_ROLE = re.compile(
    r"^(?P<path>.+?)\.(?:"
    r"(?P<down>lora_A(?:\.\w+)?\.weight|lora\.down\.weight|lora_linear_layer\.down\.weight|lora_down\.weight)|"
    r"(?P<up>lora_B(?:\.\w+)?\.weight|lora\.up\.weight|lora_linear_layer\.up\.weight|lora_up\.weight)|"
    r"(?P<magnitude>lora_magnitude_vector(?:\.\w+)?(?:\.weight)?|dora_scale)|"
    r"(?P<alpha>alpha))$"
)
_PROCESSOR = re.compile(r"\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight$")


def matches(names: list[str]) -> bool:
    """Whether tensors of these names are of this layout."""
    return any(each.startswith(_WORD) or ((own := _split(each)) and own[1] != "alpha") for each in names)


def read(path: Path | str, base: Backbone | None = None) -> Adapter:
    """A file as an Adapter; with `base` its layers get the base's names, and what it lacks is `unused`.

    Raises MissingAsset or BrokenWeights.
    """
    file = open_file(path)
    names = Names.of(base)
    pairs: dict[str, dict[str, Tensor]] = {}
    words: dict[str, dict[str, Tensor]] = {}
    unused: list[str] = []
    for key, tensor in file.tensors.items():
        if key.startswith(_WORD):
            encoder, _, word = key.removeprefix(_WORD).partition(".")
            words.setdefault(word, {})[encoder] = tensor
        elif (found := _split(key)) is None or names.dotted(found[0]) is None:
            unused.append(key)
        else:
            pairs.setdefault(found[0], {})[found[1]] = tensor
    alphas = _Alphas.of(file)
    layers: dict[str, Change] = {}
    for name, pair in pairs.items():
        own = float(pair.pop("alpha").flatten()[0]) if "alpha" in pair else None
        change = low_rank(file, name, pair, own or alphas.alpha(name, pair))
        layers[names.dotted(name) or name] = change
    alphas.check()
    return Adapter(file.name, family_of(file.header), layers, words, file.header.metadata, tuple(unused))


def write(path: Path | str, adapter: Adapter, metadata: Mapping[str, str] | None = None) -> Path:
    """Write an adapter; `metadata` joins its own. A Full change becomes two factors of full rank.

    Raises BadInput for a part that mixes DoRA with plain layers (its header has one flag for all).
    """
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    for part, layers in _parts(adapter).items():
        for name, change in layers.items():
            tensors |= {f"{part}.{name}.{role}": each for role, each in _roles(part, change).items()}
        config |= {f"{part}.{key}": each for key, each in _config(adapter, layers).items()}
    for word, rows in adapter.words.items():
        tensors |= {f"{_WORD}{encoder}.{word}": vectors for encoder, vectors in rows.items()}
    about = {**adapter.metadata, **(metadata or {})}
    about.pop(CONFIG, None)
    if adapter.family:
        about.setdefault("likeness.family", adapter.family)
    if config:
        about[CONFIG] = json.dumps(config, sort_keys=True)
    return save_file(path, tensors, about)


def _roles(part: str, change: LowRank) -> dict[str, Tensor]:
    """One layer's tensors by the names that diffusers' two loaders ask for: that of text encoders knows the
    older ones, and passes DoRA on to transformers, which wants a `.weight`.
    """
    text = part.startswith("text_encoder")
    down, up = ("lora_linear_layer.down", "lora_linear_layer.up") if text else ("lora_A", "lora_B")
    found = {f"{down}.weight": change.down, f"{up}.weight": change.up}
    if change.magnitude is not None:
        shape = (-1,) if change.down.ndim == 2 else (1, -1, 1, 1)
        found["lora_magnitude_vector.weight" if text else "lora_magnitude_vector"] = change.magnitude.reshape(
            shape
        )
    return found


def factored(change: Change) -> LowRank:
    """A change as two factors: of ΔW itself and an identity, so that nothing is lost."""
    if not isinstance(change, Full):
        return change
    out = change.delta.shape[0]
    identity = torch.eye(out, dtype=change.delta.dtype).reshape(out, out, *[1] * (change.delta.ndim - 2))
    return LowRank(change.delta, identity, float(out))


def network_part(adapter: Adapter) -> str:
    """What diffusers calls the network: "transformer" for a DiT, else "unet"."""
    paths = [name.removeprefix("net.") for name in adapter.layers if name.startswith("net.")]
    dit = any(re.match(r"(single_|joint_)?(transformer_)?blocks\.|layers\.", each) for each in paths)
    return "transformer" if dit else "unet"


def _split(key: str) -> tuple[str, str] | None:
    """A tensor's name → (layer as we name it, role), or None where it is none of a LoRA."""
    key = key.removeprefix("base_model.model.")
    old = _PROCESSOR.search(key)
    if old:
        site = "to_out.0" if old[1] == "to_out" else old[1]
        key = f"{key[: old.start()]}.{site}.lora.{old[2]}.weight"
    found = _ROLE.match(key)
    if found is None:
        return None
    role = next(each for each in ("down", "up", "magnitude", "alpha") if found[each])
    part, _, rest = found["path"].partition(".")
    if part in _NETS:
        return f"net.{rest}", role
    return (found["path"] if part.startswith("text_encoder") else f"net.{found['path']}"), role


def _parts(adapter: Adapter) -> dict[str, dict[str, LowRank]]:
    parts: dict[str, dict[str, LowRank]] = {}
    for name, change in adapter.layers.items():
        part, _, rest = name.partition(".")
        parts.setdefault(network_part(adapter) if part == "net" else part, {})[rest] = factored(change)
    return parts


def _config(adapter: Adapter, layers: Mapping[str, LowRank]) -> dict[str, Any]:
    """peft's LoraConfig of one part; what most layers have is the rule, the others are patterns."""
    kinds = {change.magnitude is not None for change in layers.values()}
    if len(kinds) > 1:
        raise BadInput(
            f"{adapter.name} has DoRA layers beside plain ones; diffusers' layout cannot say which is which.",
            'Export it to "kohya", or merge it first.',
        )
    rank = Counter(change.rank for change in layers.values()).most_common(1)[0][0]
    alpha = Counter(change.alpha for change in layers.values()).most_common(1)[0][0]
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: each.rank for name, each in layers.items() if each.rank != rank},
        "alpha_pattern": {name: each.alpha for name, each in layers.items() if each.alpha != alpha},
        "target_modules": sorted(layers),
        "use_dora": kinds == {True},
        "lora_bias": False,
        "bias": "none",
    }


class _Alphas:
    """The alphas that a header tells."""

    def __init__(self, file: File, table: Mapping[str, Any]) -> None:
        self.file, self.table = file, table
        self.patterns: set[str] = set()
        self.used: set[str] = set()

    @classmethod
    def of(cls, file: File) -> _Alphas:
        if CONFIG in file.header.metadata:
            return cls(file, json_table(file, file.header.metadata[CONFIG], CONFIG))
        beside = file.path.with_name("adapter_config.json")  # peft's own `save_pretrained`
        if file.path.stem == "adapter_model" and beside.is_file():
            table = json_table(file, beside.read_text("utf-8"), beside.name)
            return cls(file, {f"unet.{key}": each for key, each in table.items()})
        return cls(file, {})

    def alpha(self, name: str, pair: Mapping[str, Tensor]) -> float | None:
        """alpha of a layer, rsLoRA's √r included; None where the header does not say."""
        part, _, rest = name.partition(".")
        prefix = (
            part if part != "net" else next((e for e in _NETS if f"{e}.lora_alpha" in self.table), "unet")
        )
        value = self.table.get(f"{prefix}.lora_alpha")
        patterns = self.table.get(f"{prefix}.alpha_pattern") or {}
        if not isinstance(patterns, dict):
            raise self.file.broken(f"its {CONFIG} has an alpha_pattern that is no table")
        self.patterns |= patterns.keys()
        for pattern, own in patterns.items():
            # peft reads these as regular expressions; what it writes are names, or their ends
            if rest == pattern or rest.endswith(f".{pattern}"):
                self.used.add(pattern)
                value = own
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            raise self.file.broken(f"its {CONFIG} has the alpha {str(value)[:40]!r}")
        rank = pair["down"].shape[0] if "down" in pair else 1
        return value * sqrt(rank) if self.table.get(f"{prefix}.use_rslora") else float(value)

    def check(self) -> None:
        """Refuse alphas given by a real regular expression: to pass over them would be silently wrong."""
        for each in sorted(self.patterns - self.used):
            if re.search(r"[\\*+?|^$\[\](){}]", each):
                raise self.file.broken(f'its alpha_pattern "{each[:60]}" is a regular expression')
