"""LyCORIS' other parametrisations (arXiv:2309.14859), read as the ΔW they stand for.

    LoHa    ΔW = α/r · (w1a·w1b) ⊙ (w2a·w2b)
    LoKr    ΔW = α/r · w1 ⊗ w2, either of them perhaps a product; the scale is 1 where both are full
    Tucker  a core [r, r, k, k] between the two factors of a convolution

Shapes: r rank, k kernel size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pipelines.errors import NotAvailable

REFUSED = {
    "oft_blocks": "OFT", "oft_diag": "diagonal OFT", "a1.weight": "GLoRA", "a2.weight": "GLoRA",
    "on_input": "IA³", "w_norm": "a norm layer's full weight",
}  # fmt: skip
BAKED = ("hada_", "lokr_", "lora_mid")


def refuse(path: object, roles: Mapping[str, Tensor]) -> None:
    """Raises NotAvailable, by name, for a parametrisation that cannot be read."""
    for role, what in REFUSED.items():
        if role in roles:
            raise NotAvailable(
                f"{what} in {path}",
                "it is no sum with the base's weights that this program knows",
                "Convert it to LoRA with LyCORIS' own tools, or use another file.",
            )


def bake(roles: Mapping[str, Tensor], alpha: float | None, shape: torch.Size) -> Tensor:
    """ΔW [out, in, …] in float32 of one layer of weight `shape`; alpha None or 0 means the rank.

    Raises KeyError for a missing factor, RuntimeError for factors that do not go together.
    """
    own = {key: each.float() for key, each in roles.items()}
    if "lora_mid.weight" in own:
        up, down = own["lora_up.weight"].flatten(1), own["lora_down.weight"].flatten(1)
        whole, rank = _tucker(own["lora_mid.weight"], up.T, down), down.shape[0]
    elif any(key.startswith("hada_") for key in own):
        rank = own["hada_w1_b"].shape[0]
        whole = _hada(own, "1", shape) * _hada(own, "2", shape)
    else:
        first, second = _factor(own, "1"), _factor(own, "2")
        lows = [own[each].shape[0] for each in ("lokr_w1_b", "lokr_w2_b") if each in own]
        rank = lows[0] if lows else 1
        if not lows:
            alpha = 1.0
        whole = torch.kron(first, second.flatten(1))
    return (alpha or rank) / rank * whole.reshape(shape)


def _hada(own: Mapping[str, Tensor], which: str, shape: torch.Size) -> Tensor:
    a, b = own[f"hada_w{which}_a"], own[f"hada_w{which}_b"]
    core = own.get(f"hada_t{which}")
    return (a @ b).reshape(shape) if core is None else _tucker(core, a, b)


def _factor(own: Mapping[str, Tensor], which: str) -> Tensor:
    if f"lokr_w{which}" in own:
        return own[f"lokr_w{which}"]
    a, b = own[f"lokr_w{which}_a"], own[f"lokr_w{which}_b"]
    core = own.get(f"lokr_t{which}")
    return a @ b.flatten(1) if core is None else _tucker(core, a, b)


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """core [r, r, …], a [r, out], b [r, in] → [out, in, …]."""
    return torch.einsum("xy...,xo,yi->oi...", core, a, b)
