"""What makes training quick on a CPU: the same layers, in forms whose backward pass is fast there.

Only used while training; what is exported has diffusers' and torch's own layers and the same weights.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn


def quicken(unet: UNet2DConditionModel) -> None:
    """Replace attention and 2-d group norms by the forms below, in place; parameters stay where they are."""
    unet.set_attn_processor(PlainAttention())  # pyright: ignore[reportArgumentType]
    for module in unet.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = ChannelsLastGroupNorm


class PlainAttention:
    """Attention as two batched products: on a CPU the fused kernel's backward is three to eight times slower.

    Only used while training there; what is exported has diffusers' own processors.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **ignored: Any,
    ) -> Tensor:
        """[B, hw, D] attending to itself or to [B, L, D'] → [B, hw, D]."""
        batch, length, _ = hidden_states.shape
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        heads = attn.heads
        to_key, to_value, to_out = (cast("nn.Module", each) for each in (attn.to_k, attn.to_v, attn.to_out))
        mix, dropout = to_out.children()

        def split(x: Tensor) -> Tensor:  # [B, n, D] → [B·H, n, D/H]
            width = x.shape[-1] // heads
            return x.view(batch, -1, heads, width).transpose(1, 2).reshape(batch * heads, -1, width)

        query = split(attn.to_q(hidden_states))
        key, value = split(to_key(context)), split(to_value(context))
        weights = torch.bmm(query * query.shape[-1] ** -0.5, key.transpose(1, 2))
        weights = weights.softmax(-1, dtype=query.dtype)
        mixed = torch.bmm(weights, value).view(batch, heads, length, -1)
        mixed = mixed.transpose(1, 2).reshape(batch, length, -1)
        return dropout(mix(mixed))


class ChannelsLastGroupNorm(nn.GroupNorm):
    """Group norm over [B, C, h, w] in channels-last memory; torch's own is five to ten times slower there."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, h, w] → the same, bfloat16 under autocast."""
        if input.ndim != 4:
            return super().forward(input)
        if torch.is_autocast_enabled("cpu"):
            input = input.bfloat16()
        return cast("Tensor", _GroupNorm.apply(input, self.weight, self.bias, self.num_groups, self.eps))


class _GroupNorm(torch.autograd.Function):
    """y = x·scale + shift, one scale and shift for every sample and channel, from per-channel sums."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels, high, wide = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(batch, high * wide, channels)
        count = rows.shape[1] * channels // groups

        def per_group(sums: Tensor) -> Tensor:  # [B, C] → [B, G, 1]
            return sums.view(batch, groups, -1).sum(2, keepdim=True)

        mean = per_group(rows.sum(1, dtype=torch.float32)) / count
        square = per_group((rows * rows).sum(1, dtype=torch.float32)) / count
        inverse = (square - mean * mean).clamp_(min=0).add_(eps).rsqrt_()
        scale = inverse * weight.view(1, groups, -1)
        shift = bias.view(1, groups, -1) - mean * scale
        ctx.save_for_backward(rows, weight, mean, inverse)
        ctx.size = (batch, groups, high, wide)
        return _planes(_mixed(rows, scale, shift), high, wide)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        rows, weight, mean, inverse = ctx.saved_tensors
        batch, groups, high, wide = ctx.size
        upper = gradients[0].permute(0, 2, 3, 1).reshape(rows.shape)
        total = upper.sum(1, dtype=torch.float32).view(batch, groups, -1)
        along = (upper * rows).sum(1, dtype=torch.float32).view(batch, groups, -1)
        along = (along - mean * total) * inverse  # Σ g·x̂ of every channel
        gains = weight.view(1, groups, -1)
        count = rows.shape[1] * gains.shape[2]
        level = (total * gains).sum(2, keepdim=True) / count
        slope = (along * gains).sum(2, keepdim=True) / count * inverse**2
        # dx = x̂'s share of g, less its mean and its part along x̂, as two products and a shift
        down = _mixed(upper, inverse * gains, mean * slope - inverse * level)
        down.addcmul_(rows, _channels(slope.expand_as(along), rows), value=-1)
        return _planes(down, high, wide), along.sum(0).flatten(), total.sum(0).flatten(), None, None


def _channels(values: Tensor, like: Tensor) -> Tensor:
    """[B, G, C/G] → [B, 1, C] in the type of `like`."""
    return values.reshape(like.shape[0], 1, like.shape[2]).to(like.dtype)


def _mixed(rows: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """rows·scale + shift, with rows [B, n, C], scale [B, G, C/G], shift [B, G, C/G or 1]."""
    return torch.addcmul(_channels(shift.expand_as(scale), rows), rows, _channels(scale, rows))


def _planes(rows: Tensor, high: int, wide: int) -> Tensor:
    """[B, h·w, C] → [B, C, h, w] in channels-last memory."""
    return rows.view(rows.shape[0], high, wide, rows.shape[2]).permute(0, 3, 1, 2)
