"""How the original code of Stable Diffusion names the layers of a UNet, beside how diffusers does.

Blocks are numbered through: input_blocks 1, 2 are the layers of the first down block, 3 its downsampler.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_RESNET = {
    "conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
_FIXED = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_BLOCK = re.compile(
    r"^(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$"
)
_MIDDLE = re.compile(r"^mid_block\.(resnets|attentions)\.(\d+)\.(.+)$")


def layers_per_block(names: Iterable[str]) -> int:
    """Resnets of a down block, counted in a whole UNet's module names; 2 (all published ones) without any."""
    found = [int(match[4]) for name in names if (match := _BLOCK.match(name)) and match[1] == "down_blocks"]
    return max(found, default=1) + 1


def sgm_name(name: str, per_block: int = 2, attended: bool | None = None) -> str | None:
    """diffusers' name of a UNet layer → the original one; None for a layer it does not know.

    `attended`: whether the up block of an upsampler has attentions (None: as SDXL, the first two have).
    """
    if name in _FIXED:
        return _FIXED[name]
    if middle := _MIDDLE.match(name):
        kind, index, rest = middle.groups()
        return f"middle_block.{2 * int(index) + (kind == 'attentions')}.{_inside(kind, rest)}"
    block = _BLOCK.match(name)
    if block is None:
        return None
    side, number, kind, index, rest = block[1], int(block[2]), block[3], int(block[4]), block[5]
    place, inside = int(kind == "attentions"), _inside(kind, rest)
    if side == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{(per_block + 1) * (number + 1)}.0.op"
        return f"input_blocks.{1 + (per_block + 1) * number + index}.{place}.{inside}"
    if kind == "upsamplers":
        place = 1 + int(number < 2 if attended is None else attended)
        return f"output_blocks.{(per_block + 1) * number + per_block}.{place}.conv"
    return f"output_blocks.{(per_block + 1) * number + index}.{place}.{inside}"


def sgm_names(names: Iterable[str]) -> dict[str, str]:
    """Original name by diffusers' name, for the layers of one whole UNet."""
    names = list(names)
    per_block = layers_per_block(names)
    found: dict[str, str] = {}
    for name in names:
        block = name.partition(".upsamplers.")[0]
        attended = any(each.startswith(f"{block}.attentions.") for each in names)
        if original := sgm_name(name, per_block, attended):
            found[name] = original
    return found


def _inside(kind: str, rest: str) -> str:
    return _RESNET.get(rest, rest) if kind == "resnets" else rest
