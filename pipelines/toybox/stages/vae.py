"""The autoencoder: a stock AutoencoderTiny that carries the drawn world and real photographs.

It may start from another AutoencoderTiny, or from the halves of `taef2` (madebyollin/taesd, MIT): 32
channels, with pooled normalisations in the middle that AutoencoderTiny does not have and that are dropped.
A code that is wider than wanted is narrowed to the principal axes of its latents.

Shapes: B batch, H W picture size (128), C latent channels, h w latent size (16).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from PIL import Image
from torch import Tensor, nn

from pipelines.artifacts import load_safetensors
from pipelines.concepts.checkpoint import fill, rows_at
from pipelines.errors import BadInput
from pipelines.progress import Job
from pipelines.toybox import nets, photos
from pipelines.toybox.stages.encoders import Prefetch
from pipelines.toybox.stages.unet import sheet
from pipelines.toybox.stages.world import World
from pipelines.toybox.training import Plan
from pipelines.toybox.world import render_image, sample_scene

PHOTO_SHARE = 0.25
NOISE = 0.05  # added to the code, as a share of its spread: what a UNet leaves behind must not show
MEASURED = 256  # pictures that the spread of the finished code is measured on
HALVES = ("taef2_encoder.safetensors", "taef2_decoder.safetensors")

PLANS = {
    "cpu": Plan(
        views=24_000, batch=8, lr=4e-4, warmup=50, tail=0.6, weight_decay=0.0, ema=0.995,
        sample_every=500, checkpoint_seconds=120,
    ),
    "cuda": Plan(
        views=4_000_000, batch=64, lr=5e-4, warmup=200, tail=0.6, weight_decay=0.0, ema=0.999,
        sample_every=2000, checkpoint_seconds=120,
    ),
}  # fmt: skip


class VaeStage:
    """Trains `modules["vae"]` to return what it was given, through C channels at an eighth of the size."""

    name = "vae"

    def __init__(
        self,
        vae: AutoencoderTiny,
        data: World,
        plan: Plan,
        device: torch.device,
        *,
        decoder_only: bool = False,
    ) -> None:
        """With `decoder_only` the encoder stays as it is: latents, and nets trained on them, stay valid."""
        self.device, self.plan, self.data = device, plan, data
        self.vae = cast("AutoencoderTiny", vae.to(device=device, memory_format=torch.channels_last))  # pyright: ignore
        self.decoder_only = decoder_only
        if decoder_only:
            self.vae.encoder.requires_grad_(False)
        self.modules: dict[str, nn.Module] = {"vae": self.vae}
        self.n_photos = round(plan.batch * PHOTO_SHARE)
        self._through = self._forward
        self._prefetch = Prefetch(self._make)

    def compile(self) -> None:
        """Compile both halves, forward and backward."""
        self._through = torch.compile(self._forward, dynamic=False)

    def batch(self, step: int) -> Tensor:
        """Pictures uint8 [B, H, W, 3], photo crops last: a pure function of (seed, step)."""
        return self._prefetch(step)

    def _make(self, step: int) -> Tensor:
        rng = np.random.default_rng((self.plan.seed, step))
        rows = rows_at(self.plan.seed, step, self.plan.batch - self.n_photos, len(self.data))
        pictures = [self.data.images(np.sort(rows))]
        if self.n_photos:
            pictures.append(photos.photo_crops(rng, self.n_photos))
        return torch.from_numpy(np.concatenate(pictures))

    def _forward(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """[B, 3, H, W] in -1 … 1 and unit noise [B, C, h, w] → [B, 3, H, W]."""
        code = self.vae.encoder(pixels)
        return self.vae.decoder(code + NOISE * code.detach().std() * noise)

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        """L1 + squares + differences of neighbours (edges); PSNR in dB beside it."""
        pixels = batch.to(self.device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        high, wide = pixels.shape[-2] // 8, pixels.shape[-1] // 8
        noise = torch.randn(len(pixels), self.vae.config["latent_channels"], high, wide, device=self.device)
        error = self._through(pixels, noise.contiguous(memory_format=torch.channels_last)).float() - pixels
        across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
        squares = error.pow(2).mean((1, 2, 3))
        loss = error.abs().mean() + 2 * squares.mean() + 0.5 * (across.abs().mean() + down.abs().mean())
        worth = -10 * (squares.detach() / 4).log10()
        drawn = len(batch) - self.n_photos
        parts: dict[str, float | Tensor] = {"psnr_world": worth[:drawn].mean()}
        if self.n_photos:
            parts["psnr_photos"] = worth[drawn:].mean()
        return loss, parts

    def sample(self, job: Job) -> Image.Image | None:
        """Held-out scenes and held-out photographs above what comes back of them."""
        scenes = [render_image(sample_scene(index, "test")) for index in range(4)]
        held_out = [photos.subject_photos(name)[at] for name in photos.HELD_OUT for at in (0, 1)]
        shown = np.stack([*scenes, *held_out])
        back = through(self.vae, shown, self.device)
        world, photo = psnr(shown[:4], back[:4]), psnr(shown[4:], back[4:])
        job.note(f"Held out: world {world:.2f} dB, photographs {photo:.2f} dB.")
        return sheet(np.concatenate([shown, back]), columns=8)

    def export(self, folder: Path) -> None:
        """Write the autoencoder with the factor that brings the world's latents to unit spread."""
        if not self.decoder_only:
            images = self.data.images(slice(0, MEASURED))
            spread = torch.cat(
                [code(self.vae, part, self.device) for part in np.array_split(images, 8)]
            ).std()
            self.vae.register_to_config(scaling_factor=round(1 / float(spread), 5))
        nets.export_diffusers(self.vae, folder)


@torch.no_grad()
def code(vae: AutoencoderTiny, images: np.ndarray, device: torch.device) -> Tensor:
    """Pictures uint8 [B, H, W, 3] → unscaled latents float32 [B, C, h, w]."""
    pixels = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    with torch.autocast(device.type, torch.bfloat16):
        return vae.encoder(pixels).float()


@torch.no_grad()
def through(vae: AutoencoderTiny, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Pictures encoded and decoded again, uint8 [B, H, W, 3]."""
    latents = code(vae, images, device)
    with torch.autocast(device.type, torch.bfloat16):
        back = vae.decoder(latents).float()
    return back.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def psnr(images: np.ndarray, others: np.ndarray) -> float:
    """Mean over pictures uint8 [B, H, W, 3] of the peak signal to noise ratio, in dB."""
    squares = (images.astype(np.float32) - others.astype(np.float32)) ** 2
    return float((-10 * np.log10(squares.mean((1, 2, 3)) / 255**2 + 1e-10)).mean())


# ---- where it starts


def start(init: Path | None, channels: int, data: World, seed: int) -> AutoencoderTiny:
    """An autoencoder of `channels` channels: new, or narrowed from `init`. Raises BadInput, BrokenWeights."""
    if init is None:
        return nets.seeded(lambda: nets.vae(channels), seed)
    if all((init / name).is_file() for name in HALVES):
        wide = from_halves(init)
    else:
        wide = nets.load_vae(init).requires_grad_(True)
    have = wide.config["latent_channels"]
    if have < channels:
        raise BadInput(f"{init} has {have} channels, not {channels}.", f"Ask for --channels {have} or fewer.")
    if have == channels:
        return wide
    return narrowed(wide, channels, np.asarray(data.images(slice(0, MEASURED))))


def from_halves(folder: Path) -> AutoencoderTiny:
    """The two files of taef2 as one AutoencoderTiny of 32 channels, its pooled normalisations dropped."""
    tensors: dict[str, Tensor] = {}
    # the decoder's layer 0 is a clamp there and a function here, so its numbers are one higher
    for name, half, shift in ((HALVES[0], "encoder", 0), (HALVES[1], "decoder", -1)):
        for key, value in load_safetensors(folder / name).items():
            layer, _, rest = key.partition(".")
            if not rest.startswith("pool."):
                tensors[f"{half}.layers.{int(layer) + shift}.{rest}"] = value.float()
    vae = nets.vae(32)
    fill(vae.state_dict(), tensors, folder / HALVES[0])
    return vae


@torch.no_grad()
def narrowed(wide: AutoencoderTiny, channels: int, images: np.ndarray) -> AutoencoderTiny:
    """The autoencoder with its code projected to the first principal axes of its latents on some pictures.

    The projection is folded into the encoder's last and the decoder's first convolution, and scaled so
    that the code has unit spread (the decoder clamps softly at 3).
    """
    # latents as the decoder sees them, behind its clamp: 3 tanh(z / 3)
    latents = [code(wide, part, torch.device("cpu")) for part in np.array_split(images, 8)]
    seen = 3 * torch.tanh(torch.cat(latents) / 3)
    points = seen.permute(0, 2, 3, 1).flatten(0, 2).double()
    mean = points.mean(0)
    values, axes = torch.linalg.eigh((points - mean).T @ (points - mean) / len(points))
    axes = axes.flip(1)[:, :channels]  # [32, C], largest first
    scale = float(values.flip(0)[:channels].mean().sqrt())
    vae = nets.vae(channels)
    tensors = {name: value.clone() for name, value in wide.state_dict().items()}
    last = max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layers."))
    weight, bias = f"encoder.layers.{last}.weight", f"encoder.layers.{last}.bias"
    down = (axes / scale).T.to(tensors[weight].dtype)  # [C, 32]
    tensors[weight] = torch.einsum("cw,wihv->cihv", down, tensors[weight])
    tensors[bias] = down @ (tensors[bias] - mean.to(down.dtype))
    weight, bias = "decoder.layers.0.weight", "decoder.layers.0.bias"
    up = (axes * scale).to(tensors[weight].dtype)  # [32, C]
    tensors[bias] = tensors[bias] + torch.einsum("owhv,w->o", tensors[weight], mean.to(up.dtype))
    tensors[weight] = torch.einsum("owhv,wc->ochv", tensors[weight], up)
    fill(vae.state_dict(), tensors, Path("the wide autoencoder"))
    return vae
