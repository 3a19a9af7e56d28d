"""What the two encoder stages (CLIP and DINO) share: pages of pictures, light augmentation, prefetch, export.

Letters: B batch, H W picture size.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipelines.artifacts import atomic_write, read_safetensors_header
from pipelines.errors import BrokenWeights
from pipelines.toybox.nets import write_json
from pipelines.toybox.stages.world import CELLS, N_COLOURS, N_KINDS, fingerprint, truth
from pipelines.toybox.world import Scene, render, render_image
from pipelines.toybox.world.labels import IGNORE

SIZE = 128
PAGE = 256  # pictures in a page
_FORMAT = "picture, cells"  # what a row of a page holds
BACKGROUND = 0.2  # weight of an empty cell: most are

_SHIFT = 6  # pixels that a training picture may be moved by
_GAIN, _OFFSET = 0.10, 0.05  # brightness by channel, as a factor and as a share of the range
_BLURRED = (
    0.25  # share of training pictures that are softened: a decoder's pictures are softer than drawn ones
)

T = TypeVar("T")


class Pages:
    """Pictures of scenes and their coarse truth, rendered when first asked for and kept, 256 to a file.

    `scenes(page)` must be a pure function of the page number; so what a training step sees does not depend on
    which pages happen to exist. The folder is named after what the world draws and which scenes these are:
    another version of either starts afresh. A page is written whole or not at all.
    """

    def __init__(self, folder: Path, scenes: Callable[[int], Sequence[Scene]]) -> None:
        key = hashlib.sha256((_FORMAT + fingerprint() + repr(scenes(0))).encode()).hexdigest()[:12]
        self.folder = folder.with_name(f"{folder.name}-{key}")
        self._scenes = scenes
        self._open: dict[int, np.ndarray] = {}

    def __getitem__(self, page: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 [256, H, W, 3] and the truth of their cells uint8 [256, 2, 8, 8], from disk."""
        if page not in self._open:
            path = self.folder / f"{page:05d}.npy"
            if not path.is_file():
                rows = np.stack([_row(scene) for scene in self._scenes(page)])
                atomic_write(path, lambda temporary: np.save(temporary, rows))
            try:
                self._open[page] = np.load(path, mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:
                remedy = f"Delete {path}; it is made anew."
                raise BrokenWeights(path, f"it holds no pictures ({error})", remedy) from None
        rows = self._open[page]
        images, cells = rows[:, : SIZE * SIZE * 3], rows[:, SIZE * SIZE * 3 :]
        return images.reshape(-1, SIZE, SIZE, 3), cells.reshape(-1, 2, CELLS, CELLS)


def _row(scene: Scene) -> np.ndarray:
    """A picture and its cells behind each other, as one row of a page's one array."""
    drawing = render(scene, SIZE)
    return np.concatenate([drawing.image.ravel(), truth(drawing.masks, scene).ravel()])


class Prefetch(Generic[T]):
    """Makes the next step's batch in a thread while this one is trained on.

    `make(step)` must be a pure function of the step; then what is handed out is one too, whatever was
    guessed ahead. A batch that was not foreseen is made on the spot.
    """

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="toybox-batch")
        self._ahead: tuple[int, Future[T]] | None = None

    def __call__(self, step: int) -> T:
        """The batch of a step; work on step + 1 begins."""
        if self._ahead is not None and self._ahead[0] == step:
            batch = self._ahead[1].result()
        else:
            # through the same single thread: two makers at once could render a page twice
            batch = self._pool.submit(self._make, step).result()
        self._ahead = (step + 1, self._pool.submit(self._make, step + 1))
        return batch

    def close(self) -> None:
        """Let go of the thread and of the batch made ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def render_all(scenes: Iterable[Scene]) -> np.ndarray:
    """The pictures of many scenes. → uint8 [n, H, W, 3]"""
    return np.stack([render_image(scene, SIZE) for scene in scenes])


def pixel_values(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pictures as the encoders want them: uint8 [B, H, W, 3] → float32 [B, 3, H, W], normalised."""
    scaled = (images.astype(np.float32) / 255 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Augmentation:
    """The dice of a batch, thrown on the CPU so that a GPU sees the same: shifts, gains, offsets, blurs.

    `shift` int [B, 2], `gain` and `offset` float32 [B, 3], `blur` bool [B].
    """

    shift: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    blur: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int) -> Augmentation:
        """The dice of `count` pictures."""
        return cls(
            shift=rng.integers(-_SHIFT, _SHIFT + 1, (count, 2)),
            gain=np.exp(rng.normal(0, _GAIN, (count, 3)) / 2 + rng.normal(0, _GAIN, (count, 1))).astype(
                np.float32
            ),
            offset=rng.normal(0, _OFFSET, (count, 1)).repeat(3, 1).astype(np.float32),
            blur=rng.random(count) < _BLURRED,
        )

    def moved(self, images: np.ndarray) -> np.ndarray:
        """Every picture shifted by a few pixels, its border repeated. uint8 [B, H, W, 3] → the same"""
        out = np.empty_like(images)
        rows, columns = np.arange(images.shape[1]), np.arange(images.shape[2])
        for index, (down, right) in enumerate(self.shift):
            y, x = np.clip(rows - down, 0, len(rows) - 1), np.clip(columns - right, 0, len(columns) - 1)
            out[index] = images[index].take(y, 0).take(x, 1)
        return out

    def tinted(self, images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """uint8 [B, H, W, 3] on any device → float32 [B, 3, H, W], recoloured, some softened, normalised."""
        deviation = np.asarray(std, np.float32)
        factor = torch.from_numpy(self.gain / 255 / deviation).to(images.device)[..., None, None]
        summand = torch.from_numpy((self.offset - np.asarray(mean, np.float32)) / deviation).to(images.device)
        pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        pixels = pixels.mul_(factor).add_(summand[..., None, None])
        soft = torch.from_numpy(np.flatnonzero(self.blur)).to(images.device)
        # edges repeated, so that the border does not darken
        pixels[soft] = F.avg_pool2d(F.pad(pixels[soft], (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return pixels


class Cells(nn.Module):
    """Reads from each patch which kind and colour it shows. Trained beside an encoder, and not exported.

    One picture then teaches 64 things: a ViT learns shapes from it many times sooner than from the contrast
    between whole pictures.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.names = nn.Linear(width, N_KINDS + N_COLOURS)
        background = torch.full((max(N_KINDS, N_COLOURS),), 1.0)
        background[0] = BACKGROUND
        self.register_buffer("weight", background, persistent=False)

    def forward(self, patches: Tensor, cells: Tensor) -> Tensor:
        """patches [B, 64, D], cells uint8 [B, 2, 8, 8] → the loss []."""
        weight = cast("Tensor", self.weight)
        kinds, colours = (
            self.names(self.norm(patches)).float().flatten(0, 1).split([N_KINDS, N_COLOURS], dim=1)
        )
        wanted = cells.flatten(2).long()
        loss = F.cross_entropy(kinds, wanted[:, 0].flatten(), weight[:N_KINDS])
        return loss + F.cross_entropy(colours, wanted[:, 1].flatten(), weight[:N_COLOURS])


def entropy(logits: Mapping[str, Tensor], truth: Mapping[str, Tensor], rows: int) -> Tensor:
    """Cross-entropies of the heads, each summed over the rows that show it, by √(these rows · all rows).

    By these rows alone, a mean, the noise of rare attributes would drown the common ones: kinds were then
    read at 33 % where they are now at 78 %; by all rows alone, rare attributes would learn last.
    """
    total = torch.zeros((), device=next(iter(logits.values())).device)
    for head, values in truth.items():
        target = values.to(total.device)
        shown = (target != IGNORE).sum().clamp_min(1)
        each = F.cross_entropy(logits[head], target, ignore_index=IGNORE, reduction="sum")
        total = total + each / (shown * rows).sqrt()
    return total


def attention_for(device: torch.device) -> str:
    """Which of transformers' attentions trains faster: on a CPU the fused backward is three times slower."""
    return "eager" if device.type == "cpu" else "sdpa"


def export_model(model: PreTrainedModel, folder: Path, processor: Mapping[str, object]) -> None:
    """Write a transformers model as a folder that loads in float32 from half-precision weights.

    The tensors get the names that transformers gives them on disk, which are not always those in memory;
    config.json says "dtype": "float32"; the processor is written as preprocessor_config.json.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy.deepcopy(model).half().save_pretrained(scratch)
        atomic_write(folder / "model.safetensors", (Path(scratch) / "model.safetensors").read_bytes())
    config = model.config.to_diff_dict() | {"architectures": [type(model).__name__], "dtype": "float32"}
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", processor)


def load_model(model: PreTrainedModel, folder: Path) -> None:
    """Fill a model from an exported folder. Raises MissingAsset, and BrokenWeights where it does not fit."""
    path = folder / "model.safetensors"
    read_safetensors_header(path)
    try:
        kind = cast("Any", type(model))
        loaded, about = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        model.load_state_dict(loaded.state_dict())
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BrokenWeights(path, f"it does not fit this model ({error})") from None
    if lacking := sorted(about["missing_keys"]):
        raise BrokenWeights(path, f"it lacks {lacking[0]}")


def processor_config(kind: str, mean: Sequence[float], std: Sequence[float]) -> dict[str, object]:
    """preprocessor_config.json of an image processor class for 128-pixel squares."""
    return {
        "image_processor_type": kind,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": SIZE},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": SIZE, "width": SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
