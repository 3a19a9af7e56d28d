"""kohya's layout, which A1111, ComfyUI and Forge read too; LyCORIS files share its names.

    lora_unet_<layer's path joined by _>.lora_down.weight [r, in(, k, k)]
                                        .lora_up.weight [out, r(, 1, 1)], .alpha, .dora_scale

A joined name cannot be split without guessing, so reading needs the base: its own layers are joined the same
way and looked up, in diffusers' and in the original code's words (SDXL files use the latter).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from pipelines.adapters.adapter import Adapter, Change, Full, LowRank
from pipelines.adapters.families import family_of
from pipelines.adapters.formats import lycoris
from pipelines.adapters.formats._file import File, Names, low_rank, open_file, save_file
from pipelines.adapters.formats._sgm import sgm_name, sgm_names
from pipelines.adapters.formats.diffusers import network_part
from pipelines.adapters.layers import Layer, decomposed, delta
from pipelines.base.backbone import Backbone
from pipelines.errors import BadInput, BrokenWeights

_PARTS = {
    "lora_unet": "net", "lora_transformer": "net", "lycoris": "net", "lora_te": "text_encoder",
    "lora_te1": "text_encoder", "lora_te2": "text_encoder_2", "lora_te3": "text_encoder_3",
}  # fmt: skip
_WORD = "bundle_emb."
_CLIPS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"}


def matches(names: list[str]) -> bool:
    """Whether tensors of these names are of this layout."""
    return any(_prefix(each) for each in names)


def read(path: Path | str, base: Backbone | None = None) -> Adapter:
    """A file as an Adapter. What the base has no layer for is `unused`; LyCORIS kinds become Full changes.

    Raises BadInput without a base, BrokenWeights for damage, NotAvailable for kinds that cannot be read.
    """
    file = open_file(path)
    if base is None:
        raise BadInput(
            f"{file.name} joins the parts of its layers' names, which only the base can take apart.",
            "Name the base that it was made for.",
        )
    names = _lookup(base)
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in file.tensors.items():
        stem, _, role = key.partition(".")
        if not key.startswith(_WORD):
            groups.setdefault(stem, {})[role] = tensor
    layers: dict[str, Change] = {}
    unused: list[str] = []
    for stem, roles in groups.items():
        lycoris.refuse(file.name, roles)
        name = names.joined.get(_spaced(stem))
        change = None if name is None else _change(file, stem, roles, names.layers[name])
        if name is None or change is None:
            unused += [f"{stem}.{role}" for role in roles]
        else:
            layers[name] = change
            unused += [f"{stem}.diff_b"] if "diff_b" in roles else []
    words = _words(file, names)
    return Adapter(file.name, family_of(file.header), layers, words, file.header.metadata, tuple(unused))


def write(
    path: Path | str,
    adapter: Adapter,
    metadata: Mapping[str, str] | None = None,
    base: Backbone | None = None,
) -> Path:
    """Write an adapter; `metadata` joins its own. An SDXL UNet gets the original code's names.

    `base` is needed only for UNets whose blocks are not those of the published ones.
    """
    tensors: dict[str, Tensor] = {}
    for name, change in adapter.layers.items():
        stem = _stem(name, adapter, base)
        if isinstance(change, Full):
            tensors[f"{stem}.diff"] = change.delta
            continue
        tensors[f"{stem}.lora_down.weight"] = change.down
        tensors[f"{stem}.lora_up.weight"] = change.up
        tensors[f"{stem}.alpha"] = torch.tensor(change.alpha)
        if change.magnitude is not None:
            tensors[f"{stem}.dora_scale"] = change.magnitude.reshape(-1, *[1] * (change.down.ndim - 1))
    for word, rows in adapter.words.items():
        if set(rows) == {"text_encoder"}:
            tensors[f"{_WORD}{word}.string_to_param.*"] = rows["text_encoder"]
        else:
            tensors |= {f"{_WORD}{word}.{_CLIPS[encoder]}": each for encoder, each in rows.items()}
    about = {**adapter.metadata, **(metadata or {})}
    about.pop("lora_adapter_metadata", None)  # it speaks of the other layout's names
    return save_file(path, tensors, about)


def _prefix(key: str) -> str | None:
    if key.startswith(_WORD):
        return _WORD
    longest_first = sorted(_PARTS, key=len, reverse=True)
    return next((each for each in longest_first if key.startswith(f"{each}_")), None)


def _spaced(stem: str) -> str:
    """ "lora_te1_text_model_…" → "text_encoder text_model_…", as `Names.joined` has it."""
    prefix = _prefix(stem) or ""
    return f"{_PARTS.get(prefix, '?')} {stem.removeprefix(prefix + '_')}"


def _lookup(base: Backbone) -> Names:
    names = Names.of(base)
    inside = [name.removeprefix("net.") for name in names.layers if name.startswith("net.")]
    for name, original in sgm_names(inside).items():
        names.joined.setdefault(f"net {original.replace('.', '_')}", f"net.{name}")
    return names


def _change(file: File, stem: str, roles: Mapping[str, Tensor], layer: Layer) -> Change | None:
    alpha = float(roles["alpha"].flatten()[0]) if "alpha" in roles and roles["alpha"].numel() else None
    if alpha is not None and not isfinite(alpha):
        raise file.broken(f"the alpha of {stem} is {alpha}")
    scale = roles.get("dora_scale")
    if any(role.startswith(lycoris.BAKED) for role in roles):
        try:
            change: Change = Full(lycoris.bake(roles, alpha, layer.weight.shape))
        except KeyError as missing:
            raise file.broken(f"{stem} has no {missing.args[0]}") from None
        except (RuntimeError, IndexError):
            shape = list(layer.weight.shape)
            raise file.broken(f"the factors of {stem} do not make a weight of {shape}") from None
    elif "diff" in roles:
        change = Full(roles["diff"])
    elif "lora_down.weight" in roles or "lora_up.weight" in roles:
        pair = {
            each: roles[f"lora_{each}.weight"] for each in ("down", "up") if f"lora_{each}.weight" in roles
        }
        change = low_rank(file, stem, pair, alpha)
        if scale is not None and scale.numel() == scale.shape[0]:
            return LowRank(change.down, change.up, change.alpha, scale.flatten())
    else:
        return None
    return change if scale is None else _baked_dora(file, stem, change, scale, layer)


def _baked_dora(file: File, stem: str, change: Change, scale: Tensor, layer: Layer) -> Full:
    """DoRA that no pair of factors with one magnitude per output can hold, as ΔW on this base.

    Old LyCORIS files have one magnitude per *input*: [1, in, …].
    """
    weight = layer.weight.detach().float().cpu()
    try:
        whole = weight + delta(change).reshape(weight.shape)
        if scale.shape[0] == weight.shape[0] and scale.numel() == scale.shape[0]:
            return Full(decomposed(whole, scale) - weight)
        if scale.numel() != weight.shape[1]:
            raise RuntimeError
    except RuntimeError:
        raise file.broken(f"the dora_scale of {stem} is {list(scale.shape)}") from None
    return Full(decomposed(whole.transpose(0, 1), scale).transpose(0, 1).contiguous() - weight)


def _words(file: File, names: Names) -> dict[str, dict[str, Tensor]]:
    """Words bundled into the file, as A1111 keeps them: bundle_emb.<word>.<string_to_param.* or clip_…>."""
    words: dict[str, dict[str, Tensor]] = {}
    encoders = {clip: encoder for encoder, clip in _CLIPS.items()}
    for key, tensor in file.tensors.items():
        if not key.startswith(_WORD):
            continue
        word, found, kind = key.removeprefix(_WORD).partition(".string_to_param")
        if not found:
            word, _, kind = word.rpartition(".")
        vectors = tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim else tensor
        if not word or vectors.ndim != 2:
            raise BrokenWeights(file.path, f"{key} is no embedding")
        words.setdefault(word, {})[encoders.get(kind) or names.encoder(vectors.shape[1])] = vectors
    return words


def _stem(name: str, adapter: Adapter, base: Backbone | None) -> str:
    part, _, rest = name.partition(".")
    if part == "net":
        if network_part(adapter) == "transformer":
            return f"lora_transformer_{rest.replace('.', '_')}"
        return f"lora_unet_{_unet_name(rest, adapter, base).replace('.', '_')}"
    if part == "text_encoder":
        # readers know the first encoder only with the `text_model.` that current libraries dropped
        bare = rest.removeprefix("text_model.")
        inner = f"text_model.{bare}" if bare.startswith("encoder.") else bare
        number = "1" if (adapter.family or (base.family if base else "")) in ("sdxl", "sd3", "flux") else ""
        return f"lora_te{number}_{inner.replace('.', '_')}"
    if part not in ("text_encoder_2", "text_encoder_3"):
        raise BadInput(f"kohya's layout has no name for {part}.", "Write it in diffusers' layout.")
    return f"lora_te{part[-1]}_{rest.replace('.', '_')}"


def _unet_name(rest: str, adapter: Adapter, base: Backbone | None) -> str:
    if (adapter.family or (base.family if base else "")) != "sdxl":
        return rest
    if base is None:
        return sgm_name(rest) or rest
    whole = [name for name, _ in base.net.named_modules()]
    return sgm_names(whole).get(rest, rest)
