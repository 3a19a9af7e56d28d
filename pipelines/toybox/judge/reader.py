"""The judge's eyes: two small convolutional networks that read the attributes of a picture.

One looks at the whole picture at half its size: place, style, how many subjects there are and where. The
other looks at one subject at a time, cut out by that frame, so that everything else is read at one size
and in one place. Shapes: B pictures, R crops, h w grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.toybox.draw import to_pixels
from pipelines.toybox.world.labels import HEADS, SCENE_HEADS, SLOTS, SUBJECT_HEADS

SEEN = 64  # pixels a side that each network looks at
SCENE_WIDTHS = (24, 48, 96, 128)
SUBJECT_WIDTHS = (32, 64, 128, 192)


def _conv(width_in: int, width_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.SiLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_conv(width, width), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Trunk(nn.Module):
    """Pixels [R,3,64,64] → (fine grid [R,C,8,8], coarse grid [R,D,4,4])."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        first, second, fine, coarse = widths
        self.fine = nn.Sequential(
            _conv(3, first, 2),
            _conv(first, second, 2),
            _Residual(second),
            _conv(second, fine, 2),
            _Residual(fine),
        )
        self.coarse = nn.Sequential(_conv(fine, coarse, 2), _Residual(coarse))
        self.width = fine + coarse

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """→ both grids."""
        fine = self.fine(pixels)
        return fine, self.coarse(fine)


def _pooled(fine: Tensor, coarse: Tensor) -> Tensor:
    """The means of both grids, [R,C+D] float32."""
    return torch.cat([fine.float().mean((2, 3)), coarse.float().mean((2, 3))], 1)


class SceneReader(nn.Module):
    """The whole picture [B,3,64,64] → logits by head [B,n], and frames [B,SLOTS,3] (see labels.frames)."""

    def __init__(self, widths: tuple[int, int, int, int] = SCENE_WIDTHS) -> None:
        super().__init__()
        self.trunk = Trunk(widths)
        self.heads = nn.ModuleDict(
            {head: nn.Linear(self.trunk.width, len(names)) for head, names in SCENE_HEADS.items()}
        )
        self.maps = nn.Conv2d(self.trunk.width + 2, SLOTS, 1)
        self.side = nn.Linear(self.trunk.width, SLOTS)

    def forward(self, pixels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """→ (logits by head, frames)."""
        fine, coarse = self.trunk(pixels)
        seen = _pooled(fine, coarse)
        at = _positions(fine)
        wide = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")
        maps = self.maps(torch.cat([fine, wide, at.expand(len(fine), -1, -1, -1)], 1)).float()
        looks = maps.flatten(2).softmax(-1)  # [B,SLOTS,hw]
        centres = looks @ at.float().flatten(1).T  # [B,SLOTS,2]
        sides = 0.5 * torch.sigmoid(self.side(seen).float()) + 0.15
        logits = {head: layer(seen).float() for head, layer in self.heads.items()}
        return logits, torch.cat([centres, sides[..., None]], -1)


def _positions(grid: Tensor) -> Tensor:
    """Each cell's own centre (x, y) as shares of the picture, [2,h,w]."""
    rows, columns = (
        (torch.arange(size, device=grid.device, dtype=grid.dtype) + 0.5) / size for size in grid.shape[-2:]
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y])


class SubjectReader(nn.Module):
    """One subject's square [R,3,64,64] → logits by head [R,n]."""

    def __init__(self, widths: tuple[int, int, int, int] = SUBJECT_WIDTHS) -> None:
        super().__init__()
        self.trunk = Trunk(widths)
        self.heads = nn.ModuleDict(
            {head: nn.Linear(self.trunk.width, len(names)) for head, names in SUBJECT_HEADS.items()}
        )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """→ logits by head."""
        seen = _pooled(*self.trunk(pixels))
        return {head: layer(seen).float() for head, layer in self.heads.items()}


def whole(pixels: Tensor) -> Tensor:
    """Pictures [B,3,H,W] → [B,3,64,64], the mean of each block."""
    return F.adaptive_avg_pool2d(pixels, SEEN)


def cut(pixels: Tensor, frames: Tensor, pull: Tensor | None = None) -> Tensor:
    """The square of each frame [R,3] in the pictures [R,3,H,W] → [R,3,64,64]; a negative side mirrors it.

    `pull` [R,2,k,k] bends the squares, in shares of their half side.
    """
    x, y, half = frames.unbind(-1)
    matrix = pixels.new_zeros(len(pixels), 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 2] = 2 * half, 2 * x - 1
    matrix[:, 1, 1], matrix[:, 1, 2] = 2 * half.abs(), 2 * y - 1
    grid = F.affine_grid(matrix, [len(pixels), 3, SEEN, SEEN], align_corners=False)
    if pull is not None:
        bend = F.interpolate(pull, size=(SEEN, SEEN), mode="bicubic", align_corners=True)
        grid = grid + bend.permute(0, 2, 3, 1)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class Readers:
    """Both networks, ready to read."""

    scene: SceneReader
    subject: SubjectReader

    @torch.no_grad()
    def read(self, images: np.ndarray, batch: int = 64) -> dict[str, np.ndarray]:
        """Pictures uint8 [B,H,W,3] → class indices by head, [B] or [B,SLOTS].

        Slots from `count` on mean nothing. Each picture and each subject is also read in the mirror, and the
        two opinions are summed.
        """
        self.scene.eval()
        self.subject.eval()
        device = next(self.scene.parameters()).device
        found: dict[str, list[np.ndarray]] = {head: [] for head in HEADS}
        for start in range(0, len(images), batch):
            pixels = to_pixels(images[start : start + batch]).to(device)
            logits, frames = self.scene(whole(pixels))
            mirrored = self.scene(whole(pixels.flip(-1)))[0]
            for head in SCENE_HEADS:
                both = logits[head].log_softmax(-1) + mirrored[head].log_softmax(-1)
                found[head].append(both.argmax(-1).cpu().numpy())
            twice = pixels.repeat_interleave(SLOTS, 0)
            flat = frames.flatten(0, 1)
            across = flat * flat.new_tensor([1, 1, -1])
            plain, other = (self.subject(cut(twice, each)) for each in (flat, across))
            for head in SUBJECT_HEADS:
                both = plain[head].log_softmax(-1) + other[head].log_softmax(-1)
                found[head].append(both.argmax(-1).unflatten(0, (-1, SLOTS)).cpu().numpy())
        return {head: np.concatenate(parts) for head, parts in found.items()}
