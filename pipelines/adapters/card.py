"""What an adapter file says of itself: its header, its page on the Hub, and `likeness info`.

`describe` reads the header alone and imports no torch.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.adapters.families import ARCHITECTURES, KOHYA, family_of, title
from pipelines.artifacts import Header, read_safetensors_header, sha256

if TYPE_CHECKING:
    from pipelines.adapters.adapter import Adapter

_IMPLEMENTATION = "https://github.com/huggingface/diffusers"
_LICENCE = """The licence of the photos that it was trained on is not known to this program, so neither is
that of this file: whoever publishes it must state one. The base model's own licence holds as well. It may
repeat its photos; a person shown in them should agree before it is shared."""
_DOWN = re.compile(
    r"(lora_A(\.\w+)?|lora\.down|lora_linear_layer\.down|lora_down|_lora\.down)\.weight$|:down$"
)
_ROLES = re.compile(
    r"\.(lora_A|lora_B|lora\.|lora_linear_layer|lora_down|lora_up|lora_mid|lora_magnitude_vector|alpha|dora_scale|"
    r"hada_|lokr_|diff|oft_).*$|:(up|down)$"
)
_KINDS = {
    "LoHa": "hada_", "LoKr": "lokr_", "OFT": "oft_", "DoRA": ("dora_scale", "lora_magnitude_vector"),
    "full": ".diff",
}  # fmt: skip


def header_for(adapter: Adapter) -> dict[str, str]:
    """Header entries for other programs: ModelSpec 1.0.1 and kohya's minimum; writing adds the hashes."""
    from pipelines.adapters.adapter import Full

    ranks = Counter(each.rank for each in adapter.layers.values() if not isinstance(each, Full))
    alphas = Counter(each.alpha for each in adapter.layers.values() if not isinstance(each, Full))
    family = adapter.family or ""
    kind = "lora" if adapter.layers else "textual-inversion"
    about = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": _IMPLEMENTATION,
        "modelspec.title": adapter.metadata.get("modelspec.title", adapter.trigger or adapter.name),
        "modelspec.date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if family:
        about["likeness.family"] = family
        about["modelspec.architecture"] = f"{ARCHITECTURES.get(family, family)}/{kind}"
    if adapter.trigger:
        about["modelspec.trigger_phrase"] = adapter.trigger
    if ranks:
        about |= {
            "ss_v2": str(family == "sd2"),
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(ranks.most_common(1)[0][0]),
            "ss_network_alpha": str(alphas.most_common(1)[0][0]),
            "ss_network_args": json.dumps(_network_args(adapter)),
        }
        if family in KOHYA:
            about["ss_base_model_version"] = KOHYA[family]
    return about


def _network_args(adapter: Adapter) -> dict[str, Any]:
    dora = any(getattr(each, "magnitude", None) is not None for each in adapter.layers.values())
    return {"algo": "lora", "dora_wd": "True"} if dora else {}


def describe(path: Path | str) -> dict[str, Any]:
    """What a weights file is, from its header alone, in plain JSON values: for `likeness info FILE`.

    Keys: path, bytes, sha256, layout (None where it is no adapter), family, base, kinds, parameters, rank,
    alpha, modules (part → count), words (word → vectors), trigger, dtypes, metadata, hashes.
    Raises MissingAsset or BrokenWeights.
    """
    path = Path(path)
    header = read_safetensors_header(path)
    family = family_of(header)
    about = header.metadata
    ranks = sorted(
        {each.shape[0] for name, each in header.tensors.items() if _DOWN.search(name) and each.shape}
    )
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "layout": layout(header),
        "family": family,
        "base": title(family) if family else None,
        "kinds": [kind for kind, marks in _KINDS.items() if _any(header, marks)],
        "parameters": header.parameters,
        "rank": ranks[0] if len(ranks) == 1 else ranks or None,
        "alpha": _alpha(header),
        "modules": dict(Counter(_part(each) for each in {_ROLES.sub("", name) for name in _layers(header)})),
        "words": _words(path, header),
        "trigger": about.get("likeness.trigger") or about.get("modelspec.trigger_phrase") or None,
        "dtypes": sorted({each.dtype for each in header.tensors.values()}),
        "metadata": {key: _short(value) for key, value in about.items() if not _is_hash(key)},
        "hashes": {key: value for key, value in about.items() if _is_hash(key)},
    }


def layout(header: Header) -> str | None:
    """The name of a file's layout, or None where it is no adapter."""
    names = list(header.tensors)
    if any(re.match(r"(unet|text_encoder):\d+:", each) for each in names):
        return "cloneofsimo"
    if any(
        each.startswith(("lora_unet_", "lora_te", "lora_transformer_", "lycoris_", "bundle_"))
        for each in names
    ):
        return (
            "lycoris" if any(re.search(r"\.(hada|lokr|oft)_|\.lora_mid", each) for each in names) else "kohya"
        )
    if _layers(header) or any(each.startswith("words.lora.") for each in names):
        return "diffusers"
    return "textual inversion" if _words(Path("x"), header) else None


def card(
    adapter: Adapter,
    *,
    base_model: str,
    method: str,
    settings: Mapping[str, Any] | None = None,
    readings: Mapping[str, float] | None = None,
    pictures: Sequence[str] = (),
    class_word: str = "",
) -> str:
    """A README.md for the Hub: front matter, how to use it, how it was made, how it reads, and its limits.

    `base_model` is a Hub id or a name; `pictures` are paths relative to the card; `readings` by their names.
    """
    words = ", ".join(f"`{each}`" for each in adapter.words)
    front = {
        "base_model": base_model,
        "library_name": "diffusers",
        "tags": ["text-to-image", "diffusers", "lora" if adapter.layers else "textual_inversion", method],
        "instance_prompt": adapter.trigger or None,
        "license": "other",
        "license_name": "unknown",
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items() if value]
    parts = [
        "\n".join(["---", *lines, "---"]),
        f"# {adapter.trigger or adapter.name}",
        f"A {method} adapter for {base_model} ({title(adapter.family)}).",
        f"New words: {words}." if words else "",
        *(f"![sample {index}]({each})" for index, each in enumerate(pictures, 1)),
        "## Use",
        _usage(adapter, base_model, f"a photo of {adapter.trigger or class_word or 'the subject'}"),
        "## Settings" if settings else "",
        _table(settings or {}),
        "## Readings",
        _table({key: f"{value:.3f}" for key, value in (readings or {}).items()}) or "None were taken.",
        "## Licence and limits",
        _LICENCE,
    ]
    return "\n\n".join(each for each in parts if each) + "\n"


def _usage(adapter: Adapter, base_model: str, prompt: str) -> str:
    load = [f"pipe = DiffusionPipeline.from_pretrained({json.dumps(base_model)})"]
    if adapter.layers:
        load.append('pipe.load_lora_weights(".", weight_name="adapter.safetensors")')
    elif adapter.words:
        load.append('pipe.load_textual_inversion("adapter.safetensors")')
    code = [
        "from diffusers import DiffusionPipeline",
        "",
        *load,
        f"image = pipe({json.dumps(prompt)}).images[0]",
    ]
    own = f"likeness generate {json.dumps(prompt)} --adapter adapter.safetensors"
    return "\n".join(["```python", *code, "```", "", "```sh", own, "```"])


def _table(values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    rows = [f"| {key} | {str(value).replace('|', '/')} |" for key, value in values.items()]
    return "\n".join(["| | |", "| --- | --- |", *rows])


def _any(header: Header, marks: str | tuple[str, ...]) -> bool:
    wanted = (marks,) if isinstance(marks, str) else marks
    return any(mark in name for name in header.tensors for mark in wanted)


def _layers(header: Header) -> list[str]:
    return [
        name
        for name in header.tensors
        if _ROLES.search(name) and not name.startswith(("bundle_emb.", "words.lora."))
    ]


def _part(layer: str) -> str:
    for mark, part in (
        ("lora_te2_", "text_encoder_2"), ("text_encoder_2.", "text_encoder_2"),
        ("lora_te3_", "text_encoder_3"), ("text_encoder_3.", "text_encoder_3"),
        ("lora_te", "text_encoder"), ("text_encoder", "text_encoder"),
    ):  # fmt: skip
        if layer.startswith(mark):
            return part
    return "network"


def _alpha(header: Header) -> float | list[float] | None:
    """What the header tells of alpha: kohya's own entry, or peft's settings; tensors are not read."""
    try:
        table = json.loads(header.metadata.get("lora_adapter_metadata", "{}"))
        found = {float(each) for key, each in table.items() if key.endswith(".lora_alpha")}
        found = found or {float(header.metadata["ss_network_alpha"])}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    return found.pop() if len(found) == 1 else sorted(found)


def _words(path: Path, header: Header) -> dict[str, int]:
    """Word → how many vectors; the file's name stands for a word that the file does not name."""
    words: dict[str, int] = {}
    bare = not _layers(header)
    for name, info in header.tensors.items():
        count = info.shape[0] if len(info.shape) > 1 else 1
        if name.startswith("words.lora."):
            words[name.removeprefix("words.lora.").partition(".")[2]] = count
        elif name.startswith("bundle_emb."):
            words[re.sub(r"\.(string_to_param.*|clip_[lg]|t5xxl)$", "", name.removeprefix("bundle_emb."))] = (
                count
            )
        elif bare and len(info.shape) in (1, 2) and not name.endswith((".weight", ".bias", ".alpha")):
            nameless = name in ("clip_l", "clip_g", "t5xxl", "emb_params") or name.startswith(
                "string_to_param"
            )
            words[header.metadata.get("likeness.token", path.stem) if nameless else name] = count
    return words


def _is_hash(key: str) -> bool:
    return "hash" in key


def _short(value: str) -> str:
    return value if len(value) <= 2000 else f"{value[:2000]}…"
