"""The peer that our training is timed against: what diffusers' DreamBooth-LoRA example does at every step.

Written after examples/dreambooth/train_dreambooth_lora.py of diffusers (Apache-2.0), without its logging and
validation: photos are opened, scaled and encoded anew at every step, prompts tokenised and encoded anew,
instance and class pictures run as one batch, accelerate steps the optimiser. Only a benchmark uses it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from peft import LoraConfig
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


@dataclass(frozen=True)
class Work:
    """The same work for both: photos, class pictures (none: no prior), prompts, rank, rate, batch, size."""

    photos: Sequence[Path]
    priors: Sequence[Path]
    prompt: str
    prior_prompt: str
    rank: int
    rate: float
    batch: int
    size: int
    seed: int = 0


class Photos(Dataset[dict[str, Tensor]]):
    """Instance and class pictures with their prompts' token ids, read from disk each time."""

    def __init__(self, work: Work, tokenizer: Any) -> None:
        self.work, self.tokenizer = work, tokenizer
        self.prepare = transforms.Compose(
            [
                transforms.Resize(work.size, interpolation=transforms.InterpolationMode.BILINEAR),
                transforms.CenterCrop(work.size),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return max(len(self.work.photos), len(self.work.priors))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        own = self.work.photos[index % len(self.work.photos)]
        example = {"pixels": self._pixels(own), "ids": self._ids(self.work.prompt)}
        if self.work.priors:
            prior = self.work.priors[index % len(self.work.priors)]
            example |= {"prior": self._pixels(prior), "prior_ids": self._ids(self.work.prior_prompt)}
        return example

    def _pixels(self, path: Path) -> Tensor:
        with Image.open(path) as picture:
            return cast("Tensor", self.prepare(ImageOps.exif_transpose(picture).convert("RGB")))

    def _ids(self, text: str) -> Tensor:
        longest = self.tokenizer.model_max_length
        return self.tokenizer(
            text, truncation=True, padding="max_length", max_length=longest, return_tensors="pt"
        ).input_ids[0]


@contextmanager
def training(base: Any, work: Work) -> Iterator[Iterator[float]]:
    """Losses of the example's steps, one a `next`, without end; on leaving, the base is as it was."""
    unet, vae, text, tokenizer = base.net, base.vae, base.texts["text_encoder"], base.tokenizers["tokenizer"]
    flags = {name: each.requires_grad for name, each in unet.named_parameters()}
    unet.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(
            r=work.rank,
            lora_alpha=work.rank,
            init_lora_weights="gaussian",
            target_modules=["to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_v_proj"],
        ),
        adapter_name="peer",
    )
    try:
        yield _steps(unet, vae, text, tokenizer, base.scheduler_config, work)
    finally:
        unet.delete_adapters("peer")
        unet.unload_lora()
        for name, each in unet.named_parameters():
            each.requires_grad_(flags[name])


def _steps(unet: Any, vae: Any, text: Any, tokenizer: Any, schedule: Any, work: Work) -> Iterator[float]:
    torch.manual_seed(work.seed)
    accelerator = Accelerator(cpu=next(unet.parameters()).device.type == "cpu")
    keys = ("beta_start", "beta_end", "beta_schedule", "prediction_type", "num_train_timesteps")
    scheduler = DDPMScheduler(**{key: schedule[key] for key in keys if key in schedule})
    trained = [each for each in unet.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=work.rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    loader = DataLoader(Photos(work, tokenizer), work.batch, shuffle=True, collate_fn=_collate)
    unet, optimizer, loader = accelerator.prepare(unet, optimizer, loader)
    while True:
        for batch in loader:
            loss = _loss(unet, vae, text, scheduler, batch, bool(work.priors))
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            yield float(loss.detach())


def _collate(examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    pixels, ids = [each["pixels"] for each in examples], [each["ids"] for each in examples]
    if "prior" in examples[0]:
        pixels += [each["prior"] for each in examples]
        ids += [each["prior_ids"] for each in examples]
    return {"pixels": torch.stack(pixels), "ids": torch.stack(ids)}


def _loss(
    unet: Any, vae: Any, text: Any, scheduler: DDPMScheduler, batch: dict[str, Tensor], prior: bool
) -> Tensor:
    with torch.no_grad():
        encoded = vae.encode(batch["pixels"].to(next(vae.parameters()).dtype))
    z = encoded.latent_dist.sample() if hasattr(encoded, "latent_dist") else encoded.latents
    z = z * vae.config.scaling_factor
    noise = torch.randn_like(z)
    times = torch.randint(0, scheduler.config["num_train_timesteps"], (len(z),), device=z.device)
    noisy = scheduler.add_noise(z, noise, times)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        states = text(batch["ids"])[0]
    out = unet(noisy, times, states).sample
    aim = noise
    if scheduler.config["prediction_type"] == "v_prediction":
        aim = scheduler.get_velocity(z, noise, times)  # pyright: ignore[reportArgumentType]
    if not prior:
        return F.mse_loss(out.float(), aim.float())
    out, prior_out = out.chunk(2)
    aim, prior_aim = aim.chunk(2)
    return F.mse_loss(out.float(), aim.float()) + F.mse_loss(prior_out.float(), prior_aim.float())


def seconds_a_step(base: Any, work: Work, steps: int, warm: int = 2) -> float:
    """Mean seconds of one of the example's steps, after `warm` of them."""
    with training(base, work) as losses:
        for _ in range(warm):
            next(losses)
        begun = time.perf_counter()
        for _ in range(steps):
            next(losses)
        return (time.perf_counter() - begun) / steps
