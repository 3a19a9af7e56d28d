"""Bases of random weights that answer in milliseconds: a UNet that predicts ε or v, and a flow transformer.

The UNet's zero-initialised layers, and the transformer's, are filled, so that every attention site matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipelines.artifacts import assets
from pipelines.base.backbone import Backbone, Conditioning, Latent, Rows, Site
from pipelines.base.diffusion import vae_decode, vae_encode
from pipelines.base.noise import Predicts
from pipelines.base.sd import SD

CHANNELS, SIZE, WIDTH, WORDS = 4, 8, 16, 5
KINDS = ("unet-eps", "unet-v", "dit-flow")


def make(kind: str) -> Backbone:
    """A base of one of KINDS, the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if kind == "dit-flow":
            return Flow()
        return unet("v" if kind == "unet-v" else "eps")


def unet(predicts: Predicts = "eps", **schedule: Any) -> Backbone:
    """A UNet of 2 × 16 … 32 channels with Toybox's words."""
    net = UNet2DConditionModel(
        sample_size=SIZE, in_channels=CHANNELS, out_channels=CHANNELS, block_out_channels=(16, 32),
        layers_per_block=1, cross_attention_dim=WIDTH, norm_num_groups=4, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    tokenizer = CLIPTokenizer.from_pretrained(assets() / "toybox" / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.018, "clip_sample": False,
        "set_alpha_to_one": False, "timestep_spacing": "trailing",
        "prediction_type": "v_prediction" if predicts == "v" else "epsilon",
    }  # fmt: skip
    parts = {
        "unet": lively(net), "vae": autoencoder(), "text_encoder": CLIPTextModel(config).eval(),
        "tokenizer": tokenizer, "scheduler": DDIMScheduler(**(settings | schedule)),
    }  # fmt: skip
    return cast("Backbone", SD("tiny", "sd1", parts))


def autoencoder() -> nn.Module:
    """A small autoencoder of factor 8."""
    net = AutoencoderTiny(
        latent_channels=CHANNELS, encoder_block_out_channels=(8, 8, 8, 8), num_encoder_blocks=(1, 1, 1, 1),
        decoder_block_out_channels=(8, 8, 8, 8), num_decoder_blocks=(1, 1, 1, 1),
    )  # fmt: skip
    return net.eval().requires_grad_(False)


def lively(net: nn.Module) -> nn.Module:
    """The net, evaluating, with weights large enough that nothing in it is negligible."""
    with torch.no_grad():
        for each in net.parameters():
            if each.ndim > 1:
                each.normal_(0, 1.2 / each[0].numel() ** 0.5)
    return net.eval().requires_grad_(False)


class Flow:
    """A Backbone around a transformer in the manner of Stable Diffusion 3: image tokens first, then text."""

    predicts: Predicts = "flow"

    def __init__(self) -> None:
        self.name, self.family = "tiny-flow", "sd3"
        net = SD3Transformer2DModel(
            sample_size=SIZE, patch_size=2, in_channels=CHANNELS, out_channels=CHANNELS, num_layers=3,
            attention_head_dim=8, num_attention_heads=2, joint_attention_dim=WIDTH,
            caption_projection_dim=16, pooled_projection_dim=WIDTH, pos_embed_max_size=8,
        )  # fmt: skip
        self.net = lively(net)
        self.vae = autoencoder()
        self.texts: Mapping[str, nn.Module] = {}
        self.tokenizers: Mapping[str, Any] = {}
        self.scheduler_config: Mapping[str, Any] = {
            **FlowMatchEulerDiscreteScheduler(shift=3.0).config,
            "_class_name": "FlowMatchEulerDiscreteScheduler",
        }
        self.latent = Latent(CHANNELS, 8, SIZE * 8, 16)
        self.offers = frozenset({"uncond", "joint_attention", "pooled"})
        self.sites = tuple(
            Site(f"transformer_blocks.{i}.attn", i, "joint", slice(0, -WORDS), slice(-WORDS, None))
            for i in range(3)
        )
        self.targets: Mapping[str, tuple[str, ...]] = {}
        self.rows: Rows = {}

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        seeds = [sum(prompt.encode()) for prompt in prompts]
        return Conditioning.cat([words(self, 1, seed) for seed in seeds])

    def to_latents(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return vae_encode(self.vae, pixels, generator)

    def to_pixels(self, z: Tensor) -> Tensor:
        return vae_decode(self.vae, z)

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        return self.net(x, cond.tokens, cond.pooled, t, return_dict=False)[0]

    def shares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        b = (t / 1000).view(-1, 1, 1, 1)
        return 1 - b, b

    def timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, generator=generator) * 1000


def words(base: Backbone, count: int = 1, seed: int = 0) -> Conditioning:
    """Random text states, one row each."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, WORDS, WIDTH, generator=generator)
    pooled = torch.randn(count, WIDTH, generator=generator) if base.predicts == "flow" else None
    return Conditioning(tokens, pooled=pooled)


def noise(count: int = 2, seed: int = 3) -> Tensor:
    """Latents of noise [count, C, h, w]; row i is the same for every count."""
    rows = [
        torch.randn(1, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(seed + i))
        for i in range(count)
    ]
    return torch.cat(rows)


def network(base: Backbone) -> Any:
    """The base's network as diffusers knows it."""
    return cast("Any", base.net)


def residue(base: Backbone) -> list[str]:
    """What is left on a base that is not its own: wrapped forwards, hooks, modes, rows."""
    left = [
        name
        for name, each in base.net.named_modules()
        if "forward" in each.__dict__ or each._forward_hooks or each._forward_pre_hooks
    ]
    left += [type(mode).__name__ for mode in torch.overrides._get_current_function_mode_stack()]
    return [*left, *base.rows]
