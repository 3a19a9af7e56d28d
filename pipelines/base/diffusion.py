"""What every latent diffusion model has in common, whatever network denoises: its parts, its place, its VAE.

Shapes: B batch, C latent channels, h w latent size, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.base.backbone import Conditioning, Rows
from pipelines.base.memory import UNMANAGED, Device


class DiffusionBase(ABC):
    """A loaded model without its text encoding and its noise schedule, which each family adds.

    `parts` are the components of a pipeline folder by their names in it; those that are None are left out.
    """

    memory: Device = UNMANAGED

    def __init__(self, name: str, family: str, net: nn.Module, parts: Mapping[str, Any]) -> None:
        self.name, self.family = name, family  # "toybox", "sd1", "sd2", "sdxl", "sd3" …
        self.net = net
        self.vae: nn.Module = parts["vae"]
        self.texts: Mapping[str, nn.Module] = {
            key: each for key, each in parts.items() if key.startswith("text_encoder") and each is not None
        }
        scheduler = parts["scheduler"]
        self.scheduler_config: Mapping[str, Any] = {
            **scheduler.config,
            "_class_name": type(scheduler).__name__,
        }
        self.rows: Rows = {}

    @property
    def device(self) -> torch.device:
        """Where the network computes: under an offloading policy not where it waits."""
        if self.memory.where is not None and self.memory.policy != "resident":
            return self.memory.where
        return next(self.net.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's weights."""
        return next(self.net.parameters()).dtype

    def to_latents(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[B, 3, H, W] in [−1, 1] → [B, C, h, w], scaled; the mean of the posterior without a generator."""
        with self.memory.use(self, "vae"):
            return vae_encode(self.vae, pixels, generator).to(self.device, self.dtype)

    def to_pixels(self, z: Tensor) -> Tensor:
        """[B, C, h, w] → [B, 3, H, W], in [−1, 1] up to overshoot."""
        with self.memory.use(self, "vae"):
            return vae_decode(self.vae, z)

    @abstractmethod
    def feed(self, x: Tensor, t: Tensor, cond: Conditioning) -> dict[str, Any]:
        """What the family's network is called with: the keywords of its forward."""

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """[B, C, h, w] at timesteps [B] → [B, C, h, w] in the base's own space."""
        with self.memory.use(self, "net"):
            return self.net(**self.feed(x, t, cond))[0].to(x.dtype)


def text_targets(texts: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """The layers of text encoders that adapters train: attention, by name in any of the encoders."""
    ends = ("q_proj", "k_proj", "v_proj", "out_proj", "SelfAttention.q", "SelfAttention.k",
            "SelfAttention.v", "SelfAttention.o")  # fmt: skip
    found = [
        name
        for encoder in texts.values()
        for name, each in encoder.named_modules()
        if isinstance(each, nn.Linear) and name.endswith(ends)
    ]
    return tuple(dict.fromkeys(found))


def vae_encode(vae: Any, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Pixels → scaled latents in float32, for any of diffusers' image autoencoders."""
    own = next(vae.parameters())
    with torch.no_grad():
        out = vae.encode(pixels.to(own.device, own.dtype))
        if hasattr(out, "latent_dist"):
            spread = out.latent_dist
            z = spread.mode() if generator is None else spread.sample(generator)
        else:
            z = out.latents
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return (z.float() - shift) * vae.config.scaling_factor


def vae_decode(vae: Any, z: Tensor) -> Tensor:
    """Scaled latents → pixels in float32. Gradients flow where they are enabled."""
    own = next(vae.parameters())
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return vae.decode((z.float() / vae.config.scaling_factor + shift).to(own.device, own.dtype))[0].float()
