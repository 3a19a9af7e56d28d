"""What the families that denoise with a UNet have in common: sites in execution order, targets, the schedule.

Shapes: B batch, C latent channels, h w latent size, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.base.backbone import Conditioning, Latent, Site
from pipelines.base.diffusion import DiffusionBase, text_targets
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


class UNetBase(DiffusionBase):
    """A loaded UNet model; a family adds `encode` and what its network wants beside text states."""

    predicts: Predicts
    extra_offers: frozenset[str] = frozenset()

    def __init__(self, name: str, family: str, parts: Mapping[str, Any]) -> None:
        super().__init__(name, family, parts["unet"], parts)
        self.tokenizers: Mapping[str, Any] = {
            key: each for key, each in parts.items() if key.startswith("tokenizer") and each is not None
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
        products = parts["scheduler"].alphas_cumprod
        self._products: Tensor = torch.as_tensor(products).float()

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

    def shares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Training timesteps [B] → (a, b), each [B, 1, 1, 1]."""
        products = self._products.to(t.device)[t.long()].view(-1, 1, 1, 1)
        return products.sqrt(), (1 - products).sqrt()

    def timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Random training timesteps [count], uniform over the schedule."""
        return torch.randint(0, len(self._products), (count,), generator=generator)


def _config(module: Any, *names: str) -> Any:
    for name in names:
        if (value := getattr(module.config, name, None)) is not None:
            return value
    raise KeyError(names[0])
