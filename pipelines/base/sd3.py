"""Stable Diffusion 3 and 3.5: a flow, a transformer over image and text together (MMDiT, arXiv:2403.03206).

Text states are both CLIPs' last but one layers side by side, padded with zeros to T5's width, then T5's:
[B, 77 + 256, 4096]. Where T5 is left out its states are zeros, as the base was trained to bear. In the joint
attention the image stands first and the text last; slices count from the end, so they hold for every size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.base.backbone import Conditioning, Latent, Site
from pipelines.base.diffusion import DiffusionBase, text_targets
from pipelines.base.noise import Predicts
from pipelines.base.sdxl import penultimate
from pipelines.base.text import encoded, fix_pooling, tokenizer_of
from pipelines.errors import BadInput

T5_LENGTH = 256
_IMAGE = ("to_q", "to_k", "to_v", "to_out.0")
_TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


class SD3(DiffusionBase):
    """A loaded SD3, which predicts ε − x0.

    `shares` and `timesteps` count t from 0 (picture) to 1000 (noise), as samplers do.
    """

    predicts: Predicts = "flow"

    def __init__(self, name: str, family: str, parts: Mapping[str, Any]) -> None:
        super().__init__(name, family, parts["transformer"], parts)
        self.tokenizers: Mapping[str, Any] = {
            tokenizer_of(key): parts[tokenizer_of(key)] for key in self.texts
        }
        for key in ("text_encoder", "text_encoder_2"):
            fix_pooling(self.texts[key], self.tokenizers[tokenizer_of(key)])
        config: Any = self.net.config
        vae: Any = self.vae.config
        factor = 2 ** (len(vae.block_out_channels) - 1)
        size = int(config.sample_size) * factor
        self.latent = Latent(int(config.in_channels), factor, size, factor * int(config.patch_size))
        self.text_limits = {"text_encoder_3": T5_LENGTH}
        self.text_length = self.tokenizers["tokenizer"].model_max_length + T5_LENGTH
        self.sites = sites_of(self.net, self.text_length)
        self.targets: Mapping[str, tuple[str, ...]] = {
            **targets_of(self.net),
            "text": text_targets(self.texts),
        }
        self.offers = frozenset({"uncond", "joint_attention", "pooled"})

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Texts → states and pooled states, one row each. `(word:1.2)` weighs a word."""
        with self.memory.use(self, "text"):
            clips = [encoded(self, key, prompts, penultimate) for key in ("text_encoder", "text_encoder_2")]
            long = None
            if "text_encoder_3" in self.texts:
                long, _ = encoded(self, "text_encoder_3", prompts, _t5, T5_LENGTH)
        config: Any = self.net.config
        short = torch.cat([states for states, _ in clips], -1)
        short = nn.functional.pad(short, (0, int(config.joint_attention_dim) - short.shape[-1]))
        if long is None:
            long = short.new_zeros(len(short), T5_LENGTH, short.shape[-1])
        pooled = torch.cat([each for _, each in clips if each is not None], -1)
        return Conditioning(torch.cat([short, long.to(short.dtype)], 1), pooled=pooled)

    def feed(self, x: Tensor, t: Tensor, cond: Conditioning) -> dict[str, Any]:
        """What the network is called with. Raises BadInput for texts of several lengths: it has no mask."""
        if cond.mask is not None and not bool(cond.mask.all()):
            raise BadInput(
                f"{self.name} cannot draw texts of several lengths in one batch: its attention has no mask.",
                "Give every prompt the same number of extra tokens, or draw them one by one.",
            )
        cond = cond.to(self.device, self.dtype)
        return {
            "hidden_states": x.to(self.device, self.dtype),
            "timestep": t.to(self.device),
            "encoder_hidden_states": cond.tokens,
            "pooled_projections": cond.pooled,
            "return_dict": False,
        }

    def shares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Training timesteps [B] → (a, b) = (1 − σ, σ), each [B, 1, 1, 1], with σ = t / 1000."""
        sigma = t.float().view(-1, 1, 1, 1) / 1000
        return 1 - sigma, sigma

    def timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Random training timesteps [count]: σ is logit-normal (section 3.1 of the paper), then shifted."""
        sigma = torch.randn(count, generator=generator).sigmoid()
        shift = float(self.scheduler_config.get("shift", 1.0))
        return 1000 * shift * sigma / (1 + (shift - 1) * sigma)


def sites_of(net: nn.Module, text_length: int) -> tuple[Site, ...]:
    """One joint site a block, and the image-only second one where SD3.5 has it."""
    sites: list[Site] = []
    for name, _ in net.named_modules():
        if name.endswith(".attn"):
            joint = (slice(0, -text_length), slice(-text_length, None))
            sites.append(Site(name, len(sites), "joint", *joint))
        elif name.endswith(".attn2"):
            sites.append(Site(name, len(sites), "self"))
    return tuple(sites)


def targets_of(net: nn.Module) -> dict[str, tuple[str, ...]]:
    """Groups of layers that adapters train; "attention" is both streams, "joint.text" the text's alone."""
    layers = [name for name, each in net.named_modules() if isinstance(each, nn.Linear)]

    def inside(owners: tuple[str, ...], ends: tuple[str, ...]) -> tuple[str, ...]:
        wanted = tuple(f".{owner}.{end}" for owner in owners for end in ends)
        return tuple(name for name in layers if name.endswith(wanted))

    return {
        "attention": inside(("attn", "attn2"), (*_IMAGE, *_TEXT)),
        "self": inside(("attn", "attn2"), _IMAGE),
        "joint.text": inside(("attn",), _TEXT),
        "feedforward": inside(("ff", "ff_context"), ("net.0.proj", "net.2")),
        "conv": (),
    }


def _t5(encoder: Any, ids: Tensor) -> tuple[Tensor, None]:
    return encoder(ids)[0], None
