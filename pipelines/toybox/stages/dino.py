"""toybox-dino: a stock Dinov2Model whose CLS token says *who* is in the picture.

Trained with the supervised contrastive loss (Khosla et al., arXiv:2004.11362, their L_out) on the CLS token
itself, without a projection head, because the exported model's own CLS is what is judged: pictures of one
identity are near, across pose, place, style, light and accessories; everything else is far. Half of a batch
are *hard groups*: four identities of one kind, colour and pattern (people: of one sex, hair and shirt
colour too), told apart by their proportions, markings and exact shade only. Two crops of photographs of one
subject count as one identity.

Two things make it learn sooner: the weights start from the vision tower of toybox-clip where that is built
already, and while training linear heads that are not exported read who it is, which the drawn world knows
(names, proportions, the exact shade), from the CLS token and from each patch of the subject.
Letters: B batch, H W picture size, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from pipelines.toybox import nets, photos
from pipelines.toybox.stages import clip, encoders
from pipelines.toybox.stages.stem import sharpen
from pipelines.toybox.stages.transplant import transplant
from pipelines.toybox.stages.who import Reader, truth_of
from pipelines.toybox.training import Plan
from pipelines.toybox.world import (
    COLOURS,
    HAIR_COLOURS,
    HAIR_STYLES,
    HELD_OUT,
    KINDS,
    PATTERNS,
    Identity,
    Scene,
    sample_identity,
    sample_scene,
)

MEAN, STD = clip.MEAN, clip.STD  # its weights start from CLIP's vision tower
WIDTH = 160
TEMPERATURE = 0.1
MEMBERS = 4  # identities in a hard group
RENDERS = 4  # pictures of each identity
GROUPS = encoders.PAGE // (MEMBERS * RENDERS)  # hard groups in a page of pictures
PAGES = 256
HARD_GROUPS = 4  # whole groups in a batch of 128; the rest are single identities of other groups
AUX, CELLS = 0.2, 0.5  # weights of who it is and of what each cell shows, beside the contrastive loss
PORTRAITS = 0.2  # share of groups that are people: faces need more practice than mugs

PLANS = {
    # small batches on a CPU: at first it is the number of steps that counts, not of pictures
    "cpu": Plan(
        views=600_000,
        batch=64,
        lr=1e-3,
        warmup=150,
        tail=0.35,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        ema=0.998,
        seed=4,
    ),
    "cuda": Plan(
        views=6_000_000,
        batch=512,
        lr=2e-3,
        warmup=500,
        tail=0.35,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        seed=4,
    ),
}
PLAN = PLANS["cpu"]
SHARPENED_ON = 2  # pages of pictures whose patches open a blind stem


def going_on(plan: Plan) -> Plan:
    """The plan for weights that were trained before: the transformer's matrices by Muon."""
    return replace(plan, batch=max(128, plan.batch), lr=2e-3, tail=0.6, muon=True)


def new_model(seed: int) -> Dinov2Model:
    """The untrained model: 1.6M parameters; width, patches and activation of CLIP's vision tower."""
    config = Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=7,
        num_attention_heads=5,
        mlp_ratio=2,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        image_size=encoders.SIZE,
        patch_size=16,
        use_mask_token=False,
        initializer_range=0.06,  # a narrow net learns too slowly from DINOv2's own 0.02
    )
    return nets.seeded(lambda: Dinov2Model(config), seed)


def start_from_clip(model: Dinov2Model, towers: Path) -> None:
    """Give an untrained model the eyes of an exported toybox-clip. Raises MissingAsset, BrokenWeights."""
    seeing = clip.new_model(0)
    encoders.load_model(seeing, towers)
    pictures = encoders.render_all(sample_scene(seed) for seed in range(32))
    transplant(seeing.vision_model, model, encoders.pixel_values(pictures, MEAN, STD))


# ---- identities that are hard to tell apart


def hard_group(
    seed: int, members: int = MEMBERS, first: int = 0, colours_only: bool = False
) -> list[Identity]:
    """Identities of one kind and its colours (people: shirt and hair), and of one pattern or sex.

    With `colours_only` pattern and sex are each identity's own. A pure function of its arguments. Ids are
    drawn from [first, first + HELD_OUT): 0 for training, HELD_OUT for identities never trained on.
    """
    rng = Random(f"group/{seed}")
    kind = "person" if rng.random() < PORTRAITS else rng.choice([name for name in KINDS if name != "person"])
    shared: dict[str, Any] = {"colour": rng.choice(tuple(COLOURS))}
    if kind == "person":
        shared |= {"hair_colour": rng.choice(tuple(HAIR_COLOURS)), "man": rng.random() < 0.5}
    else:
        shared |= {"pattern": rng.choice(PATTERNS)}
    if colours_only:
        shared = {name: value for name, value in shared.items() if name not in ("man", "pattern")}
    found: list[Identity] = []
    while len(found) < members:
        identity = sample_identity(kind, first + rng.randrange(HELD_OUT), **shared)
        if kind == "person" and not identity.man:  # drawn for a man perhaps: what only men have goes
            hair = identity.hair_style if identity.hair_style != "bald" else rng.choice(HAIR_STYLES[:-1])
            identity = replace(identity, beard=False, hair_style=hair)
        found.append(identity)
    return found


def portraits(identity: Identity, seed: int, count: int, style: str | None = None) -> list[Scene]:
    """Scenes that show one identity alone, in `count` poses, places, lights and styles."""
    return [
        sample_scene(seed * 64 + index, identity=identity, n_subjects=1, style=style)
        for index in range(count)
    ]


def _page(page: int) -> list[Scene]:
    """The scenes of a page's hard groups, in the order group, member, render."""
    scenes: list[Scene] = []
    for group in range(page * GROUPS, (page + 1) * GROUPS):
        for index, identity in enumerate(hard_group(group)):
            scenes += portraits(identity, group * MEMBERS + index, RENDERS)
    return scenes


# ---- the stage


@dataclass(frozen=True)
class Batch:
    """Pictures uint8 [B, H, W, 3], whose they are int64 [B], and the pictures' augmentation.

    `truth` float32 [n, T], of `truth_of`, is what the readers should read in the first n, and `cells`
    uint8 [n, 2, 8, 8] what each of their patches shows; the rest are photographs.
    """

    images: np.ndarray
    who: Tensor
    truth: Tensor
    cells: Tensor
    augmentation: encoders.Augmentation


def supervised_contrastive(
    embedding: Tensor, who: Tensor, temperature: float = TEMPERATURE
) -> tuple[Tensor, Tensor]:
    """L_out of arXiv:2004.11362: each picture's positives against all others of the batch.

    embedding [B, D] of any length, who [B]; every label must occur twice. → the loss [], and the share of
    pictures whose nearest other picture is of the same identity [].
    """
    unit = F.normalize(embedding.float(), dim=-1)
    logits = unit @ unit.T / temperature
    itself = torch.eye(len(who), dtype=torch.bool, device=who.device)
    logits = logits.masked_fill(itself, float("-inf"))
    positive = (who[:, None] == who[None]) & ~itself
    log_share = logits.log_softmax(1).masked_fill(~positive, 0)
    loss = -(log_share.sum(1) / positive.sum(1)).mean()
    nearest = logits.detach().argmax(1, keepdim=True)
    return loss, positive.gather(1, nearest).float().mean()


class DinoStage:
    """Trains toybox-dino; `modules["dino"]` is the Dinov2Model."""

    name = "dino"

    def __init__(
        self, state: Path, seed: int = PLAN.seed, device: str | torch.device = "cpu", batch: int = PLAN.batch
    ):
        self.seed, self.size, self.device = seed, batch, torch.device(device)
        model = new_model(seed)
        if (towers := state / "export" / "clip").is_dir():
            start_from_clip(model, towers)
        self.model = model.to(device=self.device)  # pyright: ignore[reportCallIssue]
        self.model.set_attn_implementation(encoders.attention_for(self.device))
        heads = nets.seeded(lambda: (Reader(WIDTH), Reader(WIDTH)), seed)
        self.reader, self.parts = (each.to(self.device) for each in heads)
        self.cells = nets.seeded(lambda: encoders.Cells(WIDTH), seed).to(self.device)
        self.modules: dict[str, nn.Module] = {
            "dino": self.model, "reader": self.reader, "parts": self.parts, "cells": self.cells
        }  # fmt: skip
        self._pages = encoders.Pages(state / "pages" / "identities", _page)
        self._batches = encoders.Prefetch(self._make)

    def batch(self, step: int) -> Batch:
        """The batch of a step, a pure function of (seed, step)."""
        return self._batches(step)

    def _make(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        whole = HARD_GROUPS * self.size // 128  # hard groups, all of whose members are drawn
        n_photos = self.size // 16
        n_single = (self.size - n_photos) // RENDERS - whole * MEMBERS
        groups = rng.choice(self._grown(step) * GROUPS, whole + n_single, replace=False)
        people = [(int(group), member) for group in groups[:whole] for member in range(MEMBERS)]
        people += [(int(group), int(rng.integers(MEMBERS))) for group in groups[whole:]]
        shown = [self._renders(group, member) for group, member in people]
        pictures = [images for images, _ in shown]
        cells = np.concatenate([each for _, each in shown])
        who = np.repeat(np.arange(len(people)), RENDERS)
        truth = np.stack([truth_of(hard_group(group)[member]) for group, member in people]).repeat(RENDERS, 0)
        subjects = photos.training_subjects()
        drawn = rng.choice(len(subjects), min(len(subjects), n_photos // 2), replace=False)
        drawn = drawn.repeat(n_photos // len(drawn))
        pictures.append(photos.crops_of(rng, [subjects[index] for index in drawn], encoders.SIZE))
        who = np.concatenate([who, len(people) + drawn])
        images = np.concatenate(pictures)
        augmentation = encoders.Augmentation.draw(rng, len(images))
        moved = augmentation.moved(images)
        mirrored = rng.random(len(images)) < 0.5  # which way a subject faces is not who it is
        moved[mirrored] = moved[mirrored, :, ::-1]
        drawn_mirrored = mirrored[: len(cells)]
        cells[drawn_mirrored] = cells[drawn_mirrored, ..., ::-1]
        return Batch(
            moved, torch.from_numpy(who), torch.from_numpy(truth), torch.from_numpy(cells), augmentation
        )

    def _grown(self, step: int) -> int:
        """How many pages may be drawn from at a step: one more comes for every four views of a picture."""
        return min(PAGES, 4 + self.size // 64 + step * self.size // (4 * encoders.PAGE))

    def _renders(self, group: int, member: int) -> tuple[np.ndarray, np.ndarray]:
        """The pictures of one identity, uint8 [4, H, W, 3], and their cells' truth, uint8 [4, 2, 8, 8]."""
        start = (group % GROUPS * MEMBERS + member) * RENDERS
        images, cells = self._pages[group // GROUPS]
        return images[start : start + RENDERS], cells[start : start + RENDERS]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The contrastive loss of a batch, [], and how often the nearest picture is of the same identity."""
        pixels = batch.augmentation.tinted(torch.from_numpy(batch.images).to(self.device), MEAN, STD)
        tokens = self.model(pixels).last_hidden_state
        loss, accuracy = supervised_contrastive(tokens[:, 0], batch.who.to(self.device))
        drawn = len(batch.truth)
        truth, kinds = batch.truth.to(self.device), batch.cells.to(self.device)
        patches, theirs = tokens[:drawn, 1:], kinds[:, 0].flatten(1) > 0
        read = self.reader(tokens[:drawn, 0], truth)
        parts = self.parts(patches[theirs], truth[theirs.nonzero()[:, 0]])
        cells = self.cells(patches, kinds)
        shown = {
            "contrast": loss.detach(),
            "nearest": accuracy,
            "read": read.detach(),
            "parts": parts.detach(),
            "cells": cells.detach(),
        }
        return loss + AUX * (read + parts) + CELLS * cells, shown

    def close(self) -> None:
        """Let go of the thread that makes batches."""
        self._batches.close()

    def sample(self, job: object) -> Image.Image | None:
        """Nothing to draw: an encoder has figures only."""
        return None

    def hidden(self, name: str) -> bool:
        """Whether a matrix is the transformer's own: not the stem's and not a throw-away head's."""
        return name.startswith("dino.encoder.")

    def sharpen(self) -> int:
        """Open the axes that the stem is blind on. → how many"""
        pages = [self._pages[page] for page in range(SHARPENED_ON)]
        pictures, cells = (np.concatenate(each) for each in zip(*pages, strict=True))
        pixels = encoders.pixel_values(pictures, MEAN, STD).to(self.device)
        shown = torch.from_numpy(cells[:, 0] > 0).flatten(1).to(self.device)
        return sharpen(self.model.embeddings.patch_embeddings.projection, pixels, shown)

    def load(self, folder: Path) -> None:
        """Start from an exported folder. Raises MissingAsset, BrokenWeights."""
        encoders.load_model(self.model, folder)

    def export(self, folder: Path) -> None:
        """Write a folder for Dinov2Model (or AutoModel) and its image processor."""
        encoders.export_model(self.model, folder, encoders.processor_config("BitImageProcessor", MEAN, STD))


# ---- evaluation


@torch.no_grad()
def embed(model: Dinov2Model, images: np.ndarray, rows: int = 128) -> Tensor:
    """Unit CLS embeddings: uint8 [n, H, W, 3] → float32 [n, D], on the CPU."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    parts = [
        model(encoders.pixel_values(images[start : start + rows], MEAN, STD).to(device))
        .pooler_output.float()
        .cpu()
        for start in range(0, len(images), rows)
    ]
    model.train(training)
    return F.normalize(torch.cat(parts), dim=-1)


def area_under_curve(same: np.ndarray, other: np.ndarray) -> float:
    """Probability that a score of `same` exceeds one of `other`, ties counted half (Mann-Whitney)."""
    ordered = np.sort(other)
    below = np.searchsorted(ordered, same, "left") + np.searchsorted(ordered, same, "right")
    return float(below.mean() / 2 / len(other))


def dino_auc(
    model: Dinov2Model, seeds: Sequence[int], style: str | None = None, colours_only: bool = True
) -> float:
    """AUC of the cosine: same identity against another of the same kind and colours, all held out.

    Each seed gives two such identities, two pictures of each, in any place, pose and style; `style` fixes the
    style, and without `colours_only` the two share their pattern (people: their sex) as well.
    """
    groups = [hard_group(seed, 2, HELD_OUT, colours_only) for seed in seeds]
    scenes = [
        scene
        for seed, group in zip(seeds, groups, strict=True)
        for index, identity in enumerate(group)
        for scene in portraits(identity, HELD_OUT + 2 * seed + index, 2, style)
    ]
    unit = embed(model, encoders.render_all(scenes)).view(len(seeds), 2, 2, -1)  # [group, who, picture, D]
    same = (unit[:, :, 0] * unit[:, :, 1]).sum(-1).flatten()
    other = torch.einsum("gpd,gqd->gpq", unit[:, 0], unit[:, 1]).flatten()
    return area_under_curve(same.numpy(), other.numpy())


def photo_auc(model: Dinov2Model, names: Sequence[str] = photos.HELD_OUT) -> float:
    """AUC of the cosine on photographs: same subject against any other, for subjects not trained on."""
    stacks = {name: embed(model, photos.subject_photos(name, encoders.SIZE)) for name in photos.SUBJECTS}
    same, other = [], []
    for name in names:
        cosine = stacks[name] @ stacks[name].T
        same.append(cosine[np.triu_indices(len(cosine), 1)].flatten())
        other += [(stacks[name] @ stacks[rest].T).flatten() for rest in stacks if rest != name]
    return area_under_curve(torch.cat(same).numpy(), torch.cat(other).numpy())


def evaluate(model: Dinov2Model, seeds: Sequence[int]) -> dict[str, float]:
    """Figures on held-out identities and photographs."""
    return {
        "auc": dino_auc(model, seeds),
        "auc_flat": dino_auc(model, seeds, style="flat"),
        "auc_same_pattern": dino_auc(model, seeds, colours_only=False),
        "auc_photos": photo_auc(model),
    }
