"""The networks of Toybox: stock classes in small sizes, and the pipeline folder that they make together.

Shapes: B batch, C latent channels, h w latent size (16 at 128 px), L text tokens, D width, H heads.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from pipelines.artifacts import atomic_write, load_safetensors, save_safetensors
from pipelines.concepts.checkpoint import fill
from pipelines.errors import BadInput, BrokenWeights, MissingAsset

LATENT = 16
TEXT_WIDTH = 128
BASE_WIDTHS = (64, 128, 160)
WEAK_WIDTHS = (32, 32, 48)
HEAD_WIDTH = 32
SHARD = 15 * 2**20  # bytes; no tracked file is larger than 16 MiB
WEIGHTS = "diffusion_pytorch_model.safetensors"


def vae(channels: int) -> AutoencoderTiny:
    """The autoencoder: stock AutoencoderTiny, f = 8, 1.2M parameters each way."""
    return AutoencoderTiny(latent_channels=channels)


def unet(channels: int) -> UNet2DConditionModel:
    """The base, 8.9M parameters: self- and cross-attention at 16×16, 8×8 and 4×4, heads of 32."""
    return _unet(channels, BASE_WIDTHS)


def weak_unet(channels: int) -> UNet2DConditionModel:
    """The weak sibling, 0.96M parameters on the same latents and text, with the base's layers but narrow."""
    return _unet(channels, WEAK_WIDTHS, norm_groups=16)


def _unet(channels: int, widths: tuple[int, ...], norm_groups: int = 32) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        cross_attention_dim=TEXT_WIDTH,
        # a number of heads, under its old name; annotated as a tuple of one
        attention_head_dim=tuple(-(-width // HEAD_WIDTH) for width in widths),  # pyright: ignore[reportArgumentType]
        norm_num_groups=norm_groups,
    )


def text_encoder() -> CLIPTextModel:
    """The text encoder: 4 layers of 128, 48 positions; it reads the toybox tokenizer's ids."""
    from pipelines.toybox import tokenizer

    config = CLIPTextConfig(
        vocab_size=tokenizer.vocabulary_size(),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.LENGTH,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.BOS,
        eos_token_id=tokenizer.EOS,
        pad_token_id=tokenizer.EOS,
    )
    return CLIPTextModel(config)


def scheduler() -> DDIMScheduler:
    """The noise schedule: scaled linear, 1000 steps, ε, ending at β = 0.018 and drawn from its last step.

    Stable Diffusion's ends at 0.012, where 0.068 of the picture is left: at 64×64 latents that is little, but
    the noise in the mean of a 16×16 latent is only 1/16, so that a net learns to read two bits of the place
    from the noise and not from the words (of eight places, the drawn one was right by chance). Here 0.0225
    is left, worth 0.2 bits. What an error in ε does to x0 in the first steps is bounded by the clip: 99.9% of
    the latents lie within 3.7.
    """
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.018,
        clip_sample=True,
        clip_sample_range=4.0,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
        timestep_spacing="trailing",
    )


def seeded(build: Any, seed: int) -> Any:
    """What `build()` makes, with initial weights from a seed and no trace in the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


# ---- folders


def read_json(path: Path) -> dict[str, Any]:
    """A config file. Raises MissingAsset or BrokenWeights."""
    if not path.is_file():
        raise MissingAsset(path, "Check the path, or build the model: likeness toybox build --stage all.")
    try:
        table = json.loads(path.read_text())
    except ValueError:
        raise BrokenWeights(path, "it is not JSON") from None
    if not isinstance(table, dict):
        raise BrokenWeights(path, "it is not a table")
    return table


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table as indented JSON, atomically."""
    atomic_write(path, (json.dumps(table, indent=2, sort_keys=True) + "\n").encode())


def weights_in(path: Path) -> list[Path]:
    """The safetensors files meant by a path: itself, or those of a folder. Raises MissingAsset."""
    if path.is_file():
        return [path]
    for name in (WEIGHTS, "model.safetensors"):
        if (path / name).is_file():
            return [path / name]
    index = path / f"{WEIGHTS}.index.json"
    if not index.is_file():
        raise MissingAsset(path / WEIGHTS, "Name a safetensors file, or a folder that holds one.")
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise BrokenWeights(index, "it does not list files") from None
    return [path / str(name) for name in names]


def tensors_in(path: Path) -> dict[str, Tensor]:
    """Every tensor of the files meant by a path. Raises MissingAsset, BrokenWeights."""
    tensors: dict[str, Tensor] = {}
    for file in weights_in(path):
        tensors |= load_safetensors(file)
    return tensors


def load_into(module: nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file or folder. Raises BrokenWeights where it does not fit."""
    files = weights_in(path)
    fill(module.state_dict(), tensors_in(path), files[0] if len(files) == 1 else path)


def load_vae(folder: Path) -> AutoencoderTiny:
    """The autoencoder of an exported folder, float32, evaluating. Raises BrokenWeights, MissingAsset."""
    config = read_json(folder / "config.json")
    what = config.get("_class_name")
    if what != "AutoencoderTiny":
        raise BrokenWeights(folder / "config.json", f"it describes {what}, not AutoencoderTiny")
    config.pop("block_out_channels", None)  # some files have it; the class sets its own, and warns
    model = cast("AutoencoderTiny", AutoencoderTiny.from_config(config))
    load_into(model, folder)
    return model.eval().requires_grad_(False)


def export_diffusers(model: Any, folder: Path) -> None:
    """Write a diffusers model: half-precision safetensors and its config.json."""
    halves = {name: each.half() for name, each in model.state_dict().items()}
    shards = _shards(halves)
    if len(shards) == 1:
        save_safetensors(folder / WEIGHTS, halves)
    else:
        stem, suffix = WEIGHTS.split(".")
        total = sum(_size(each) for each in halves.values())
        where: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            file = f"{stem}-{number:05d}-of-{len(shards):05d}.{suffix}"
            save_safetensors(folder / file, shard)
            where |= dict.fromkeys(shard, file)
        index = {"metadata": {"total_size": total}, "weight_map": where}
        write_json(folder / f"{WEIGHTS}.index.json", index)
    config = {key: value for key, value in model.config.items() if key != "_name_or_path"}
    config |= {"_class_name": type(model).__name__, "_diffusers_version": _diffusers_version()}
    config.pop("_use_default_values", None)
    if isinstance(model, AutoencoderTiny):
        config.pop("block_out_channels")  # it sets this one itself, and warns where a file does
    write_json(folder / "config.json", config)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _shards(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors in order, as few even shards as keep each below SHARD bytes."""
    total = sum(_size(each) for each in tensors.values())
    count = -(-total // SHARD)
    shards: list[dict[str, Tensor]] = [{} for _ in range(count)]
    position = 0
    for name, each in tensors.items():
        shards[min(count - 1, position * count // total)][name] = each
        position += _size(each)
    return shards


def plain_unet(model: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy of a UNet without the hooks and processors that its training added."""
    plain = cast("UNet2DConditionModel", UNet2DConditionModel.from_config(model.config))
    plain.load_state_dict(model.state_dict())
    return plain


def export_text_encoder(model: CLIPTextModel, folder: Path) -> None:
    """Write the text encoder: half-precision safetensors, and a config that loads it in float32.

    transformers' own writer gives the tensors their names on disk, which are not those in memory.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy.deepcopy(model).half().save_pretrained(scratch)
        atomic_write(folder / "model.safetensors", (Path(scratch) / "model.safetensors").read_bytes())
    config = model.config.to_diff_dict() | {"architectures": ["CLIPTextModel"], "dtype": "float32"}
    write_json(folder / "config.json", config)


def export_pipeline(folder: Path) -> None:
    """Complete a folder that holds unet/, vae/, text_encoder/ and tokenizer/ as a StableDiffusionPipeline."""
    for name in ("unet", "vae", "text_encoder", "tokenizer"):
        if not (folder / name).is_dir():
            raise BadInput(f"{folder} has no {name}/.", f"Build the stage that makes {name}/ first.")
    scheduler().save_config(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": _diffusers_version(),
        "vae": ["diffusers", "AutoencoderTiny"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
    write_json(folder / "model_index.json", index)


def _diffusers_version() -> str:
    import diffusers

    return diffusers.__version__
