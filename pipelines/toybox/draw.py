"""Plain sampling with a pipeline folder's own parts: prompts to images, nothing else.

The judge, the contact sheet and the trainer's sample grids all draw through this file, so that
what a bar measures is what a user of `StableDiffusionPipeline.from_pretrained(folder)` gets (a
test holds the two equal). The network is any ε-predictor called as
`net(x, timestep=t, encoder_hidden_states=tokens)`: nothing here knows that it is a UNet.

DDIM (arXiv:2010.02502, η = 0) and classifier-free guidance (arXiv:2207.12598). Letters in
brackets: B batch, C latent channels, h w latent size, L text tokens, D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from pipelines.artifacts import read_safetensors_header
from pipelines.errors import BrokenWeights, MissingAsset
from pipelines.progress import Job
from pipelines.toybox.nets import weights_in

REBUILD = "Build it with `likeness toybox build --stage all`, or name a finished pipeline folder."


@dataclass(frozen=True)
class Sampling:
    """How to draw: denoising steps, the scale of guidance (1 is none), pictures at a time."""

    steps: int = 20
    guidance: float = 4.0
    batch: int = 32


@dataclass
class Painter:
    """What it takes to draw: network, text encoder, tokenizer, schedule and autoencoder."""

    net: nn.Module
    text_encoder: nn.Module
    tokenizer: Any
    schedule: Any
    vae: Any
    device: torch.device
    dtype: torch.dtype = torch.float32

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latents this network was made for."""
        config: Any = self.net.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    def computing(self) -> AbstractContextManager:
        """Autocast when drawing in bf16; nothing at all in float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def quick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it faster than in float32, else float32."""
    if device.type == "cuda":
        return torch.bfloat16
    has = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") else torch.float32


def open_painter(
    folder: Path, device: torch.device, dtype: torch.dtype = torch.float32, net: str = "unet"
) -> Painter:
    """Load the parts of a pipeline folder in Hugging Face layout; `net` names the network's folder.

    Weights are held in float32 whatever the files say; `dtype` is what the forward passes compute in.
    Raises MissingAsset for an absent part, BrokenWeights for an unreadable one.
    """
    index = _index(folder)
    tokenizer = folder / "tokenizer"
    return Painter(
        net=load_part(folder, net, device, index.get(net) or index.get("unet")),
        text_encoder=load_part(folder, "text_encoder", device, index.get("text_encoder")),
        tokenizer=_loaded(_maker(tokenizer, "transformers", "CLIPTokenizer"), tokenizer),
        schedule=ddim(folder),
        vae=load_part(folder, "vae", device, index.get("vae")),
        device=device,
        dtype=dtype,
    )


def _index(folder: Path) -> dict[str, list[str]]:
    """The pipeline's own table of (library, class) per part."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise MissingAsset(path, REBUILD)
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BrokenWeights(path, f"it is not readable JSON ({error})", REBUILD) from error


def load_part(folder: Path, name: str, device: torch.device, kind: Sequence[str] | None = None) -> Any:
    """One network of the folder, float32, in eval mode and without gradients.

    `kind` is (library, class); without it the part's own config.json must name its class. Missing, extra
    or misshapen tensors are refused: transformers would fill them with noise.
    """
    part = folder / name
    maker = _maker(part, *(kind or ("diffusers", _class_in_config(part))))
    for file in weights_in(part):
        read_safetensors_header(file)  # names the very file that is damaged
    dtype = "dtype" if maker.__module__.startswith("transformers") else "torch_dtype"
    module, report = _loaded(
        maker, part, **{dtype: torch.float32}, use_safetensors=True, output_loading_info=True
    )
    wrong = {key: sorted(map(str, names)) for key, names in report.items() if names and key != "error_msgs"}
    if wrong:
        detail = "; ".join(f"{key}: {', '.join(names[:3])}" for key, names in wrong.items())
        reason = f"its tensors are not those of its own {maker.__name__} config ({detail})"
        raise BrokenWeights(part, reason, REBUILD)
    return module.to(device).eval().requires_grad_(False)


def _class_in_config(part: Path) -> str:
    path = part / "config.json"
    if not path.is_file():
        raise MissingAsset(path, REBUILD)
    try:
        return json.loads(path.read_text("utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError) as error:
        raise BrokenWeights(path, "it does not name the class of its weights", REBUILD) from error


def _maker(part: Path, library: str, made_by: str) -> Any:
    """The class that a part asks for."""
    if not part.is_dir():
        raise MissingAsset(part, REBUILD)
    if library not in ("diffusers", "transformers") or not hasattr(import_module(library), made_by):
        raise BrokenWeights(part, f"it asks for {library}.{made_by}, which is not installed here", REBUILD)
    return getattr(import_module(library), made_by)


def _loaded(maker: Any, part: Path, **options: Any) -> Any:
    """`from_pretrained` from local files, whose many kinds of error become one."""
    try:
        return maker.from_pretrained(part, local_files_only=True, **options)
    except Exception as error:
        raise BrokenWeights(part, f"it does not load as {maker.__name__} ({error})", REBUILD) from error


def ddim(folder: Path) -> DDIMScheduler:
    """A DDIM scheduler on the folder's own noise schedule, whatever scheduler its config names."""
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        raise MissingAsset(path, REBUILD)
    try:
        schedule: Any = DDIMScheduler.from_config(json.loads(path.read_text("utf-8")))
        return schedule
    except (OSError, ValueError, TypeError) as error:
        raise BrokenWeights(path, f"it is not readable JSON ({error})", REBUILD) from error


@torch.no_grad()
def encode_prompts(painter: Painter, prompts: Sequence[str]) -> Tensor:
    """Prompts → the text encoder's last hidden states [B,L,D]."""
    limit = painter.tokenizer.model_max_length
    tokens = painter.tokenizer(
        list(prompts), padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
    )
    uses_mask = getattr(painter.text_encoder.config, "use_attention_mask", False)
    mask = tokens.attention_mask.to(painter.device) if uses_mask else None
    with painter.computing():
        return painter.text_encoder(tokens.input_ids.to(painter.device), attention_mask=mask)[0]


def noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal noise [B,C,h,w], one CPU generator a seed: row i never depends on its batch."""
    return torch.cat(
        [torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.no_grad()
def draw(
    painter: Painter,
    prompts: Sequence[str],
    seeds: Sequence[int],
    how: Sampling = Sampling(),
    job: Job | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Prompts → images, uint8 [B,H,W,3]; `seeds` names the noise of each.

    `on_batch(done, total)` is called after each batch of images; `job.check()` once a step.
    """
    images = []
    for start in range(0, len(prompts), how.batch):
        part = slice(start, start + how.batch)
        images.append(decode(painter, sample_latents(painter, prompts[part], seeds[part], how, job)))
        if on_batch is not None:
            on_batch(min(start + how.batch, len(prompts)), len(prompts))
    return np.concatenate(images)


@torch.no_grad()
def sample_latents(
    painter: Painter, prompts: Sequence[str], seeds: Sequence[int], how: Sampling, job: Job | None = None
) -> Tensor:
    """One batch of prompts → denoised latents [B,C,h,w], still scaled as the network sees them."""
    guided = how.guidance != 1.0
    tokens = encode_prompts(painter, prompts)
    if guided:
        tokens = torch.cat([encode_prompts(painter, [""]).expand_as(tokens), tokens])
    schedule = type(painter.schedule).from_config(painter.schedule.config)  # its step state is ours alone
    schedule.set_timesteps(how.steps)
    x = noise(seeds, painter.latent_shape).to(painter.device) * schedule.init_noise_sigma
    for t in schedule.timesteps:
        if job is not None:
            job.check()
        rows = schedule.scale_model_input(torch.cat([x, x]) if guided else x, t)
        times = t.to(painter.device).expand(len(rows))
        with painter.computing():
            out = painter.net(rows, timestep=times, encoder_hidden_states=tokens, return_dict=False)[
                0
            ].float()
        if guided:
            without, given = out.chunk(2)
            out = without + how.guidance * (given - without)
        x = schedule.step(out, t, x).prev_sample
    return x


@torch.no_grad()
def decode(painter: Painter, latents: Tensor) -> np.ndarray:
    """Latents [B,C,h,w] → images, uint8 [B,H,W,3]."""
    config: Any = painter.vae.config
    latents = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
    with painter.computing():
        pixels = painter.vae.decode(latents).sample.float()
    return to_uint8(pixels)


@torch.no_grad()
def round_trip(
    vae: Any, images: np.ndarray, job: Job | None = None, *, exact: bool = True, batch: int = 32
) -> np.ndarray:
    """Images uint8 [B,H,W,3] through the autoencoder and back: what its softness does to them.

    Unless `exact`, it computes in bfloat16: five times quicker on a CPU that has it.
    """
    device = next(vae.parameters()).device
    layout = torch.channels_last
    vae = vae.to(memory_format=layout)
    softened = []
    for start in range(0, len(images), batch):
        if job is not None:
            job.check()
        pixels = to_pixels(images[start : start + batch]).to(device, memory_format=layout)
        with torch.autocast(device.type, torch.bfloat16, enabled=not exact):
            encoded = vae.encode(pixels)
            # AutoencoderTiny gives latents, AutoencoderKL a distribution whose mode we take
            latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
            softened.append(to_uint8(vae.decode(latents).sample.float()))
    return np.concatenate(softened)


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 [B,H,W,3] → float [B,3,H,W] in [-1,1]."""
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(pixels: Tensor) -> np.ndarray:
    """float [B,3,H,W] in [-1,1] → uint8 [B,H,W,3]."""
    scaled = (pixels / 2 + 0.5).clamp(0, 1) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
