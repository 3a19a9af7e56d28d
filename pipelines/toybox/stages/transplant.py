"""toybox-dino from toybox-clip: the vision tower's weights as the first layers of a Dinov2Model.

On a CPU learning to see costs more than learning to tell individuals apart; the vision tower already sees.
Both are pre-norm ViTs of one width with the same patches. What differs: CLIP normalises its embeddings before
the first layer. That step is folded into the embeddings with the mean deviation of patches over some pictures
in place of each patch's own: an approximation that a few training steps repair.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPVisionModel, Dinov2Model

_NAMES = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attention.q_proj": "self_attn.q_proj",
    "attention.k_proj": "self_attn.k_proj",
    "attention.v_proj": "self_attn.v_proj",
    "attention.o_proj": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_FRESH_SCALE = 0.1  # of the layers that CLIP lacks: they start by changing little


@torch.no_grad()
def transplant(tower: CLIPVisionModel, into: Dinov2Model, pixels: Tensor) -> None:
    """Fill `into` with the tower's weights; `pixels` [n, 3, H, W] are pictures, normalised as for the tower.

    `into` has the tower's width, heads, patches and activation, and at least its number of layers.
    """
    found = tower.state_dict()
    target = into.state_dict()
    depth = tower.config.num_hidden_layers
    for layer in range(into.config.num_hidden_layers):
        for own, theirs in _NAMES.items():
            for part in ("weight", "bias"):
                if layer < depth:
                    target[f"encoder.layer.{layer}.{own}.{part}"].copy_(
                        found[f"encoder.layers.{layer}.{theirs}.{part}"]
                    )
        for scale in ("layer_scale1", "layer_scale2"):
            target[f"encoder.layer.{layer}.{scale}.lambda1"].fill_(1.0 if layer < depth else _FRESH_SCALE)
    for part in ("weight", "bias"):
        target[f"layernorm.{part}"].copy_(found[f"post_layernorm.{part}"])
    _fold_embeddings(tower, target, pixels)


def _fold_embeddings(tower: CLIPVisionModel, target: dict[str, Tensor], pixels: Tensor) -> None:
    """Embeddings whose sums are about what CLIP's are after its first normalisation."""
    found, eps = tower.state_dict(), tower.config.layer_norm_eps
    gain, bias = found["pre_layrnorm.weight"], found["pre_layrnorm.bias"]
    tokens = tower.embeddings(pixels)[:, 1:]  # [n, patches, D]
    deviation = (tokens.var(-1, correction=0) + eps).sqrt().mean()
    factor = gain / deviation
    patch = found["embeddings.patch_embedding.weight"]  # [D, 3, side, side]
    position = found["embeddings.position_embedding.weight"]  # [1 + patches, D]
    first = found["embeddings.class_embedding"] + position[0]
    first = (first - first.mean()) / (first.var(correction=0) + eps).sqrt() * gain + bias
    target["embeddings.patch_embeddings.projection.weight"].copy_(
        (patch - patch.mean(0)) * factor[:, None, None, None]
    )
    target["embeddings.patch_embeddings.projection.bias"].zero_()
    target["embeddings.position_embeddings"][0].copy_(
        (position - position.mean(1, keepdim=True)) * factor + bias
    )
    target["embeddings.cls_token"][0, 0].copy_(first - target["embeddings.position_embeddings"][0, 0])
