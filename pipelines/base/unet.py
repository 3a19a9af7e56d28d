"""What the families that denoise with a UNet have in common: sites in execution order, targets, the VAE.

Shapes: B batch, C latent channels, h w latent size, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.base.backbone import Conditioning, Latent, Rows, Site
from pipelines.base.memory import UNMANAGED, Device
from pipelines.base.noise import Predicts

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def sites_of(unet: nn.Module) -> tuple[Site, ...]:
    """The attention sites: down, middle, up. `named_modules` itself gives the middle last."""
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    found = [name for name, _ in unet.named_modules() if name.endswith((".attn1", ".attn2"))]
    found.sort(key=lambda name: order[name.partition(".")[0]])  # stable: inside a part the order is right
    return tuple(
        Site(name, index, "self" if name.endswith("attn1") else "cross") for index, name in enumerate(found)
    )


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


def targets_of(unet: nn.Module) -> dict[str, tuple[str, ...]]:
    """Groups of layers that adapters train, as module names inside the UNet."""
    layers = {name: each for name, each in unet.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)}

    def ending(*ends: str) -> tuple[str, ...]:
        return tuple(name for name in layers if name.endswith(ends))

    return {
        "attention": ending(
            *(f"attn1.{each}" for each in ATTENTION), *(f"attn2.{each}" for each in ATTENTION)
        ),
        "self": ending(*(f"attn1.{each}" for each in ATTENTION)),
        "cross": ending(*(f"attn2.{each}" for each in ATTENTION)),
        "cross.kv": ending("attn2.to_k", "attn2.to_v"),
        "feedforward": ending("ff.net.0.proj", "ff.net.2"),
        "conv": tuple(
            name
            for name, each in layers.items()
            if isinstance(each, nn.Conv2d) and ".resnets." in name and each.kernel_size == (3, 3)
        ),
    }


class UNetBase:
    """A loaded UNet model; a family adds `encode` and what its network wants beside text states."""

    predicts: Predicts
    extra_offers: frozenset[str] = frozenset()
    memory: Device = UNMANAGED

    def __init__(self, name: str, family: str, parts: Mapping[str, Any]) -> None:
        self.name, self.family = name, family  # "toybox", "sd1", "sd2", "sdxl" …
        self.net: nn.Module = parts["unet"]
        self.vae: nn.Module = parts["vae"]
        self.texts: Mapping[str, nn.Module] = {
            key: each for key, each in parts.items() if key.startswith("text_encoder") and each is not None
        }
        self.tokenizers: Mapping[str, Any] = {
            key: each for key, each in parts.items() if key.startswith("tokenizer") and each is not None
        }
        scheduler = parts["scheduler"]
        self.scheduler_config: Mapping[str, Any] = {
            **scheduler.config,
            "_class_name": type(scheduler).__name__,
        }
        self.predicts = "v" if self.scheduler_config.get("prediction_type") == "v_prediction" else "eps"
        config: Any = self.net.config
        factor = 2 ** (len(_config(self.vae, "block_out_channels", "encoder_block_out_channels")) - 1)
        size = int(config.sample_size or 64) * factor
        multiple = factor * 2 ** (len(config.block_out_channels) - 1)
        self.latent = Latent(int(config.out_channels), factor, size, multiple)
        self.sites = sites_of(self.net)
        self.targets: Mapping[str, tuple[str, ...]] = {
            **targets_of(self.net),
            "text": text_targets(self.texts),
        }
        offers = {"uncond", "cross_attention", "self_attention", *self.extra_offers}
        if int(config.in_channels) == 2 * self.latent.channels + 1:
            offers.add("inpaint")
        self.offers = frozenset(offers)
        self.rows: Rows = {}
        products = parts["scheduler"].alphas_cumprod
        self._products: Tensor = torch.as_tensor(products).float()

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return device_of(self.memory, self.net)

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

    def added(self, x: Tensor, cond: Conditioning) -> dict[str, Tensor] | None:
        """What the family's network wants beside text states."""
        return None

    def feed(self, x: Tensor, t: Tensor, cond: Conditioning) -> dict[str, Any]:
        """What the network is called with."""
        cond = cond.to(self.device, self.dtype)
        mask = None if cond.mask is None or bool(cond.mask.all()) else cond.mask
        return {
            "sample": x.to(self.device, self.dtype),
            "timestep": t.to(self.device),
            "encoder_hidden_states": cond.tokens,
            "encoder_attention_mask": mask,
            "added_cond_kwargs": self.added(x, cond),
            "return_dict": False,
        }

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """[B, C, h, w] at timesteps [B] → [B, C, h, w] in the base's own space."""
        with self.memory.use(self, "net"):
            return self.net(**self.feed(x, t, cond))[0].to(x.dtype)

    def shares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Training timesteps [B] → (a, b), each [B, 1, 1, 1]."""
        products = self._products.to(t.device)[t.long()].view(-1, 1, 1, 1)
        return products.sqrt(), (1 - products).sqrt()

    def timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Random training timesteps [count], uniform over the schedule."""
        return torch.randint(0, len(self._products), (count,), generator=generator)


def device_of(memory: Device, net: nn.Module) -> torch.device:
    """Where a network computes: under an offloading policy not where it waits."""
    if memory.where is not None and memory.policy != "resident":
        return memory.where
    return next(net.parameters()).device


def _config(module: Any, *names: str) -> Any:
    for name in names:
        if (value := getattr(module.config, name, None)) is not None:
            return value
    raise KeyError(names[0])


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
