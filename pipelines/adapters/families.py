"""Which base an adapter was made for, read off its file's header alone. Imports no torch.

Said outright by our own, ModelSpec's or kohya's metadata; else the widths of the layers tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipelines.artifacts import Header

TITLES = {
    "toybox": "Toybox", "sd1": "SD 1.5", "sd2": "SD 2", "sdxl": "SDXL", "sd3": "SD 3", "flux": "FLUX.1",
    "flux2": "FLUX.2", "qwen": "Qwen-Image", "z_image": "Z-Image",
}  # fmt: skip
ARCHITECTURES = {
    "toybox": "toybox", "sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2",
    "sdxl": "stable-diffusion-xl-v1-base", "sd3": "stable-diffusion-3", "flux": "flux-1-dev",
}  # fmt: skip
"""ModelSpec's names of architectures (also its prefixes: `stable-diffusion-v2-768-v` is a v2)."""
KOHYA = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0", "sd3": "sd3_m", "flux": "flux1"}
"""kohya's `ss_base_model_version`."""
_BY_CONTEXT = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
_BY_WORD = {(768,): "sd1", (1024,): "sd2", (768, 1280): "sdxl"}
_CONTEXT = re.compile(r"attn2[._](?:processor\.)?to_[kv](?:_lora)?\.(?:lora[._])*(?:lora_)?(?:down|A)\b")


def title(family: str | None) -> str:
    """A family's name for people."""
    return TITLES.get(family or "", family or "an unknown base")


def kin(one: str, other: str) -> bool:
    """Whether two names mean one architecture: "flux_dev" and "flux" do, "sd1" and "sdxl" do not."""
    return one == other or one.startswith(f"{other}_") or other.startswith(f"{one}_")


def family_of(header: Header) -> str | None:
    """The family that a file was made for, or None where neither metadata nor shapes say."""
    return _by_metadata(header) or _by_shapes(header)


def _by_metadata(header: Header) -> str | None:
    about = header.metadata
    if own := about.get("likeness.family"):
        return own
    architecture = about.get("modelspec.architecture", "").partition("/")[0]
    longest_first = sorted(ARCHITECTURES.items(), key=lambda each: -len(each[1]))
    for family, prefix in longest_first:
        if architecture.startswith(prefix):
            return family
    version = about.get("ss_base_model_version", "")
    for family, prefix in KOHYA.items():
        if version.startswith(prefix.partition("_base")[0]):
            return family
    return None


def _by_shapes(header: Header) -> str | None:
    names = list(header.tensors)
    if any(re.search(r"single_(transformer_)?blocks", each) for each in names):
        return "flux"
    if any(re.search(r"joint_blocks|add_[qkv]_proj", each) for each in names):
        return "sd3"
    for name, info in header.tensors.items():
        numbered = re.match(r"unet:\d+:down$", name)  # no names, but only text is 768 or 1024 wide in a UNet
        if (numbered or _CONTEXT.search(name)) and len(info.shape) >= 2 and info.shape[1] in _BY_CONTEXT:
            return _BY_CONTEXT[info.shape[1]]
    if any(each.startswith(("lora_te2_", "text_encoder_2.")) for each in names):
        return "sdxl"
    return _by_words(header, names)


def _by_words(header: Header, names: Iterable[str]) -> str | None:
    names = set(names)
    if names == {"clip_l", "clip_g"}:
        return "sdxl"
    shapes = [header.tensors[each].shape for each in names]
    if len(shapes) == 1 and 1 <= len(shapes[0]) <= 2:
        return _BY_WORD.get((shapes[0][-1],))
    return None
