"""Reference methods with random weights in their published layouts, small enough to run in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pipelines.artifacts import save_safetensors
from tests import bases

EMBED, HIDDEN, INNER, QUERIES = 12, 16, 128, 5


def encoder(folder: Path) -> Path:
    """A random image encoder in transformers' layout."""
    torch.manual_seed(4)
    config = CLIPVisionConfig(
        hidden_size=HIDDEN, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=EMBED,
    )  # fmt: skip
    net = CLIPVisionModelWithProjection(config)
    for each in net.parameters():
        torch.nn.init.normal_(each, 0, 0.3)
    net.save_pretrained(folder)
    return folder


def published(
    path: Path, unet: Any, variant: str = "base", seed: int = 0, context: int = bases.WIDTH
) -> Path:
    """A random file in the published layout for a UNet; numbers from diffusers' list of processors."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random) / shape[-1] ** 0.5

    state: dict[str, Tensor] = {}
    if variant == "base":
        state |= {
            "image_proj.proj.weight": draw(4 * context, EMBED), "image_proj.proj.bias": draw(4 * context),
            "image_proj.norm.weight": 1 + 0.1 * draw(context), "image_proj.norm.bias": draw(context),
        }  # fmt: skip
    else:
        state |= resampler(draw, context)
    for number, name in enumerate(unet.attn_processors):  # self and cross in turn: the cross ones are odd
        if name.endswith("attn2.processor"):
            inner = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
            for half in "kv":
                state[f"ip_adapter.{number}.to_{half}_ip.weight"] = draw(inner, context)
    return save_safetensors(path, state)


def resampler(draw: Callable[..., Tensor], context: int) -> dict[str, Tensor]:
    state = {
        "latents": draw(1, QUERIES, INNER),
        "proj_in.weight": draw(INNER, HIDDEN), "proj_in.bias": draw(INNER),
        "proj_out.weight": draw(context, INNER), "proj_out.bias": draw(context),
        "norm_out.weight": 1 + 0.1 * draw(context), "norm_out.bias": draw(context),
    }  # fmt: skip
    for layer in range(4):
        parts = {
            "0.norm1.weight": 1 + 0.1 * draw(INNER), "0.norm1.bias": draw(INNER),
            "0.norm2.weight": 1 + 0.1 * draw(INNER), "0.norm2.bias": draw(INNER),
            "0.to_q.weight": draw(INNER, INNER), "0.to_kv.weight": draw(2 * INNER, INNER),
            "0.to_out.weight": draw(INNER, INNER),
            "1.0.weight": 1 + 0.1 * draw(INNER), "1.0.bias": draw(INNER),
            "1.1.weight": draw(4 * INNER, INNER), "1.3.weight": draw(INNER, 4 * INNER),
        }  # fmt: skip
        state |= {f"layers.{layer}.{name}": each for name, each in parts.items()}
    return {f"image_proj.{name}": each for name, each in state.items()}
