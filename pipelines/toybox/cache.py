"""What is worked out once for every row of the world: `latents/` and `focus/` beside `world/`, one file for
every 2,048 rows.

The latents belong to one encoder (by the hash of its weights and scale) and one world; with another of
either they are made anew. The decoder may be trained on. The focus, `details.focus` of each row, belongs to
the world. Letters: N rows, C latent channels, h w latent size.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor

from pipelines.artifacts import atomic_write
from pipelines.errors import BrokenWeights
from pipelines.progress import Job
from pipelines.toybox import nets
from pipelines.toybox.stages import details
from pipelines.toybox.stages.world import World
from pipelines.toybox.world import sample_scene

ROWS = 2048
PART = 64
BATCH = {"cpu": 32, "cuda": 256}


def code_key(vae_folder: Path) -> str:
    """What the latents of an autoencoder depend on, as a hash: its encoder and its scaling factor."""
    tensors = nets.tensors_in(vae_folder)
    digest = hashlib.sha256(str(nets.read_json(vae_folder / "config.json").get("scaling_factor")).encode())
    for name in sorted(name for name in tensors if name.startswith("encoder.")):
        digest.update(name.encode() + tensors[name].half().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def encode(vae: AutoencoderTiny, images: np.ndarray, device: torch.device) -> Tensor:
    """Pictures uint8 [B, 128, 128, 3] → scaled latents float16 [B, C, h, w] on the device."""
    pixels = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2)  # channels last already
    pixels = pixels.to(torch.bfloat16).div_(127.5).sub_(1)
    code = vae.encoder(pixels)
    return (code.float() * float(vae.config["scaling_factor"])).half()


def ready(vae: AutoencoderTiny, device: torch.device) -> AutoencoderTiny:
    """The autoencoder as `encode` runs it fastest: bfloat16, channels last."""
    return vae.to(device=device, dtype=torch.bfloat16, memory_format=torch.channels_last)  # pyright: ignore


def build_latents(state: Path, vae_folder: Path, device: torch.device, job: Job) -> Path:
    """Encode the rows of the cached world that are not encoded yet; → the folder of latents."""
    world = World(state)
    folder = state / "latents"
    missing = _missing(folder, {"code": code_key(vae_folder), "world": world.key}, len(world), job)
    if missing:
        vae = ready(nets.load_vae(vae_folder), device)
        begun, count = time.monotonic(), 0
        for start in missing:
            stop = min(start + ROWS, len(world))
            parts: list[np.ndarray] = []
            for at in range(start, stop, BATCH[device.type]):
                job.check()
                images = world.images(slice(at, min(stop, at + BATCH[device.type])))
                parts.append(encode(vae, images, device).cpu().numpy())
                count += len(images)
                job.report(at, len(world), images_per_s=count / (time.monotonic() - begun))
            rows = np.concatenate(parts)
            atomic_write(_file(folder, start), lambda path, rows=rows: np.save(path, rows))
    return folder


def build_focus(state: Path, job: Job, processes: int | None = None) -> Path:
    """Work out the focus of the world's rows that lack it, several processes at a time; → its folder."""
    world = World(state)
    folder = state / "focus"
    how = f"{details.SIDE} {details.SEEN} {details.SHARE} {details.MOST}"
    missing = _missing(folder, {"how": how, "world": world.key}, len(world), job)
    if not missing:
        return folder
    job.note("Looking where the details of each picture are; this is done once.")
    # spawned, not forked: the parent may hold threads of torch
    with ProcessPoolExecutor(processes or os.cpu_count() or 1, multiprocessing.get_context("spawn")) as pool:
        try:
            for start in missing:
                stop = min(start + ROWS, len(world))
                parts = [pool.submit(_focus, at, min(stop, at + PART)) for at in range(start, stop, PART)]
                while wait(parts, timeout=1.0).not_done:
                    job.check()
                rows = np.concatenate([each.result() for each in parts])
                atomic_write(_file(folder, start), lambda path, rows=rows: np.save(path, rows))
                job.report(stop, len(world))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return folder


def _focus(start: int, stop: int) -> np.ndarray:
    return np.stack([details.focus(sample_scene(row)) for row in range(start, stop)])


def load(folder: Path, rows: int) -> np.ndarray:
    """What a folder holds of the first rows, in memory: latents float16 [N, C, h, w], or focus float16
    [N, h, w]. Raises BrokenWeights."""
    parts = []
    for start in range(0, rows, ROWS):
        path = _file(folder, start)
        try:
            parts.append(np.load(path))
        except (OSError, ValueError, EOFError) as error:
            remedy = f"Delete {path} and go on with --resume."
            raise BrokenWeights(path, f"it holds no {folder.name} ({error})", remedy) from None
    return np.concatenate(parts)[:rows]


def _missing(folder: Path, key: dict[str, str], rows: int, job: Job) -> list[int]:
    """Where the chunks start that are not there yet, once those that belong to another `key` are gone."""
    table = folder / f"{folder.name}.json"
    if folder.exists() and (not table.is_file() or _read(table) != key):
        job.note(f"{folder} belongs to another autoencoder or world: what is in it is made anew.")
        shutil.rmtree(folder)
    if not table.is_file():
        nets.write_json(table, key)
    return [start for start in range(0, rows, ROWS) if not _whole(folder, start, rows)]


def _file(folder: Path, start: int) -> Path:
    return folder / f"{folder.name}-{start:07d}.npy"


def _whole(folder: Path, start: int, rows: int) -> bool:
    """Whether the file of a chunk is there with as many rows as the world has for it."""
    path = _file(folder, start)
    if not path.is_file():
        return False
    try:
        return len(np.load(path, mmap_mode="r")) == min(ROWS, rows - start)
    except (OSError, ValueError, EOFError):
        return False


def _read(table: Path) -> dict[str, Any]:
    try:
        return json.loads(table.read_text())
    except ValueError:
        return {}
