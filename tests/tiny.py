"""Tiny random models in the published layout of each family, built in a second.

The text is read by Toybox's tokenizer, cut to `LENGTH` tokens; T5's is a unigram model of letters.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from pipelines.toybox.tokenizer import EOS, build_tokenizer

LENGTH = 16
WIDTH = 32
Predicts = Literal["epsilon", "v_prediction"]
# their annotations deny what they take: None for a part, any scheduler, tuples of any length
SD1, SDXL, SD3, KL = (
    cast("Any", each)
    for each in (StableDiffusionPipeline, StableDiffusionXLPipeline, StableDiffusion3Pipeline, AutoencoderKL)
)


def sd1(folder: Path, predicts: Predicts = "epsilon", eos: int = EOS) -> Path:
    """Stable Diffusion 1 (ε) or, with predicts="v_prediction", 2: a UNet and one CLIP."""
    torch.manual_seed(0)
    pipeline = SD1(
        vae=_vae(4),
        text_encoder=CLIPTextModel(_clip(WIDTH, eos)).eval(),
        tokenizer=_tokenizer(),
        unet=_unet(cross_attention_dim=WIDTH),
        scheduler=_ddim(predicts),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _saved(pipeline, folder)


def sdxl(folder: Path, eos: int = EOS, zeros: bool = True) -> Path:
    """Stable Diffusion XL: a UNet that takes sizes, and two CLIPs."""
    torch.manual_seed(0)
    pipeline = SDXL(
        vae=_vae(4),
        text_encoder=CLIPTextModel(_clip(WIDTH, eos)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_clip(48, eos)).eval(),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=_unet(
            cross_attention_dim=WIDTH + 48,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=48 + 6 * 8,
        ),
        scheduler=_ddim("epsilon"),
        force_zeros_for_empty_prompt=zeros,
    )
    return _saved(pipeline, folder)


def sd3(folder: Path, t5: bool = True, dual: bool = False) -> Path:
    """Stable Diffusion 3: a flow transformer, two CLIPs, and T5 or none; `dual` as in 3.5 medium."""
    torch.manual_seed(0)
    net = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=96,
        caption_projection_dim=32,
        pooled_projection_dim=WIDTH + 48,
        out_channels=4,
        pos_embed_max_size=16,
        qk_norm="rms_norm" if dual else None,
        dual_attention_layers=(0,) if dual else (),
    )
    long = T5Config(vocab_size=200, d_model=96, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0)
    pipeline = SD3(
        transformer=net.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(4, shift_factor=0.1),
        text_encoder=CLIPTextModelWithProjection(_clip(WIDTH, EOS)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_clip(48, EOS)).eval(),
        text_encoder_3=T5EncoderModel(long).eval() if t5 else None,
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        tokenizer_3=_t5_tokenizer() if t5 else None,
    )
    return _saved(pipeline, folder)


def sd1_file(folder: Path, path: Path) -> Path:
    """The pipeline in `folder`, one that `sd1` built, as a single file in the original layout."""
    unet = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(folder / "text_encoder" / "model.safetensors")
    tensors = {f"model.diffusion_model.{_ldm_unet(key)}": each for key, each in unet.items()}
    for key, each in vae.items():
        wide = each[..., None, None] if ".attentions." in key and each.ndim == 2 else each
        tensors[f"first_stage_model.{_ldm_vae(key)}"] = wide
    for key, each in text.items():
        tensors[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = each
    save_file({key: each.contiguous() for key, each in tensors.items()}, path)
    return path


_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def _ldm_unet(key: str) -> str:
    """A parameter of a UNet with one layer a block, by its name in the original layout."""
    part, *rest = key.split(".")
    for new, old in _UNET_ENDS.items():
        if key.startswith(f"{new}."):
            return key.replace(new, old)
    if part == "mid_block":
        kind, index, *rest = rest
        place = f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}"
    else:
        block, kind, index, *rest = rest
        down = part == "down_blocks"
        first = 1 + 2 * int(block) if down else 2 * int(block)
        if kind == "downsamplers":
            return f"input_blocks.{first + 1}.0.op.{rest[-1]}"
        if kind == "upsamplers":
            return f"output_blocks.{first + 1}.1.conv.{rest[-1]}"
        stack = "input_blocks" if down else "output_blocks"
        place = f"{stack}.{first + int(index)}.{1 if kind == 'attentions' else 0}"
    if kind == "resnets":
        rest[0] = _RESNET[rest[0]]
    return ".".join([place, *rest])


def _ldm_vae(key: str) -> str:
    """A parameter of an autoencoder with two blocks, by its name in the original layout."""
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    for new, old in (
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
    ):
        key = key.replace(new, old)
    key = key.replace("mid_block.attentions.0", "mid.attn_1")
    key = key.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    key = key.replace("up_blocks.0", "up.X").replace("up_blocks.1", "up.0").replace("up.X", "up.1")
    key = key.replace("down_blocks", "down").replace("resnets", "block")
    return key.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")


def _saved(pipeline: Any, folder: Path) -> Path:
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _tokenizer() -> CLIPTokenizer:
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = LENGTH
    return tokenizer


def _t5_tokenizer() -> T5Tokenizer:
    letters = [(each, -3.0) for each in "▁" + string.ascii_letters + string.punctuation]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), *letters], extra_ids=2)


def _clip(width: int, eos: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=1016, hidden_size=width, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=LENGTH, projection_dim=width, bos_token_id=512, eos_token_id=eos,
    )  # fmt: skip


def _unet(**settings: Any) -> UNet2DConditionModel:
    net = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=4, norm_num_groups=8,
        **settings,
    )  # fmt: skip
    return net.eval()


def _vae(channels: int, **settings: Any) -> AutoencoderKL:
    return KL(
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=channels, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=16, **settings,
    ).eval()  # fmt: skip


def _ddim(predicts: Predicts) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type=predicts,
    )  # fmt: skip
