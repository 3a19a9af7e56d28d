"""toybox-clip: a stock CLIPModel that reads the drawn world, trained contrastively from nothing.

Half of every batch are pairs of scenes that differ in one attribute (a *twin*: the same dog, but blue; the
same scene, but in the snow; the two subjects exchanged), so that the batch cannot be told apart by its
subjects and places alone. Photograph crops join with captions that name their class. Its text tower starts
the base's text encoder. Letters: B batch, H W picture size, L text tokens (48), P projection (128).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPVisionConfig

from pipelines.errors import MissingAsset
from pipelines.toybox import nets, photos, tokenizer
from pipelines.toybox.stages import encoders
from pipelines.toybox.stages.twins import twin
from pipelines.toybox.stages.world import World
from pipelines.toybox.training import Plan
from pipelines.toybox.world import Scene, caption, render_image, sample_scene

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIPImageProcessor's own
STD = (0.26862954, 0.26130258, 0.27577711)
PROJECTION = 128
VISION_WIDTH = 160
PAIRS = 64 * encoders.PAGE  # scenes that are drawn in pairs, each with its twin
PHOTO_SHARE = 1 / 12
CELLS = 0.5  # weight of what each patch should know, beside the contrastive loss
FULL_CAPTIONS = 0.5  # share of unpaired pictures whose caption names everything; paired ones always do

PLANS = {
    "cpu": Plan(
        views=600_000,
        batch=192,
        lr=1e-3,
        warmup=150,
        tail=0.35,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        ema=0.998,
        seed=3,
    ),
    "cuda": Plan(
        views=6_000_000,
        batch=768,
        lr=2e-3,
        warmup=500,
        tail=0.35,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        seed=3,
    ),
}
PLAN = PLANS["cpu"]


def new_model(seed: int) -> CLIPModel:
    """The untrained model: 2.0M parameters, of which 0.9M are the text tower."""
    text = CLIPTextConfig(
        vocab_size=tokenizer.vocabulary_size(),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.LENGTH,
        projection_dim=PROJECTION,
        bos_token_id=tokenizer.BOS,
        eos_token_id=tokenizer.EOS,
        pad_token_id=tokenizer.EOS,
    )
    vision = CLIPVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=320,
        num_hidden_layers=5,
        num_attention_heads=5,
        image_size=encoders.SIZE,
        patch_size=16,
        projection_dim=PROJECTION,
    )
    config = CLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=PROJECTION,
        initializer_factor=1.0,
    )
    return nets.seeded(lambda: CLIPModel(config), seed)


def text_tower(folder: Path | str) -> CLIPTextModel:
    """The text tower of an exported toybox-clip: what the base's text encoder starts from. float32"""
    return CLIPModel.from_pretrained(folder, dtype=torch.float32).text_model


def image_features(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Projected image embeddings, not normalised: [B, 3, H, W] → [B, P]."""
    return cast("Tensor", cast("Any", model.get_image_features(pixels)).pooler_output)


def text_features(model: CLIPModel, ids: Tensor) -> Tensor:
    """Projected text embeddings, not normalised: int64 [B, L] → [B, P]."""
    return cast("Tensor", cast("Any", model.get_text_features(ids)).pooler_output)


# ---- the stage


@dataclass(frozen=True)
class Batch:
    """Pictures uint8 [B, H, W, 3], token ids int64 [B, L], and the pictures' augmentation.

    `cells` uint8 [n, 2, 8, 8] is the truth of the first n pictures; the rest are photographs.
    """

    images: np.ndarray
    ids: Tensor
    cells: Tensor
    augmentation: encoders.Augmentation


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE in both directions, where equal captions are positives of each other's pictures.

    image, text [B, P] of any length, scale the factor on cosines, ids [B, L] → loss and picture → caption
    accuracy, both [].
    """
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    logits = scale * image @ text.T
    same = (ids[:, None] == ids[None]).all(-1).float()
    target = same / same.sum(1, keepdim=True)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    found = logits.detach().argmax(1)
    return loss, same.gather(1, found[:, None]).mean()


class ClipStage:
    """Trains toybox-clip; `modules["clip"]` is the CLIPModel."""

    name = "clip"

    def __init__(
        self, state: Path, seed: int = PLAN.seed, device: str | torch.device = "cpu", batch: int = PLAN.batch
    ):
        self.seed, self.size, self.device = seed, batch, torch.device(device)
        self.model = new_model(seed).to(device=self.device)  # pyright: ignore[reportCallIssue]
        self.model.set_attn_implementation(encoders.attention_for(self.device))
        self.cells = nets.seeded(lambda: encoders.Cells(VISION_WIDTH), seed).to(self.device)
        self.modules: dict[str, nn.Module] = {"clip": self.model, "cells": self.cells}
        self._world = _cached_world(state)
        self._truth = None if self._world is None else self._world.truth()
        self._scenes = encoders.Pages(state / "pages" / "scenes", _page)
        self._twins = encoders.Pages(
            state / "pages" / "twins", lambda page: [twin(each) for each in _page(page)]
        )
        self._batches = encoders.Prefetch(self._make)

    def batch(self, step: int) -> Batch:
        """The batch of a step, a pure function of (seed, step)."""
        return self._batches(step)

    def _make(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        n_photos, n_pairs = round(self.size * PHOTO_SHARE), self.size // 4
        # rendering is spread over the views
        grown = min(PAIRS, encoders.PAGE * (4 + step * self.size // 3072))
        pairs = rng.integers(grown, size=n_pairs).tolist()
        rows = grown if self._world is None else len(self._world)
        single = rng.integers(rows, size=self.size - n_photos - 2 * n_pairs).tolist()
        subjects = photos.training_subjects()
        named = [subjects[index] for index in rng.integers(len(subjects), size=n_photos)]
        shown = [self._scene(seed) for seed in (*single, *pairs)] + [_of(self._twins, seed) for seed in pairs]
        crops = photos.crops_of(rng, named, encoders.SIZE)
        images = np.concatenate([np.stack([image for image, _ in shown]), crops])
        cells = torch.from_numpy(np.stack([each for _, each in shown]))
        scenes = [sample_scene(seed) for seed in (*single, *pairs)]
        scenes += [twin(scene) for scene in scenes[len(single) :]]
        full = [*(rng.random(len(single)) < FULL_CAPTIONS).tolist(), *[True] * (2 * n_pairs)]
        words = rng.integers(1 << 30, size=len(single) + n_pairs).tolist()
        words += words[len(single) :]  # a twin is worded as its scene
        texts = [
            caption(scene, word, all_of_it)
            for scene, word, all_of_it in zip(scenes, words, full, strict=True)
        ]
        texts += [photo_caption(rng, name) for name in named]
        augmentation = encoders.Augmentation.draw(rng, len(images))
        return Batch(augmentation.moved(images), tokenizer.tokenise(texts), cells, augmentation)

    def _scene(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The picture of a seed and the truth of its cells."""
        if self._world is not None and self._truth is not None and seed < len(self._world):
            return self._world.images(slice(seed, seed + 1))[0], self._truth[seed]
        return _of(self._scenes, seed)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The contrastive loss of a batch, [], and its accuracy."""
        pixels = batch.augmentation.tinted(torch.from_numpy(batch.images).to(self.device), MEAN, STD)
        ids = batch.ids.to(self.device)
        length = int((ids != tokenizer.EOS).sum(1).max()) + 1  # what follows the longest caption is padding
        seen = cast("Any", self.model.get_image_features(pixels))
        image, patches = seen.pooler_output, seen.last_hidden_state[: len(batch.cells), 1:]
        text = text_features(self.model, ids[:, :length])
        scale = self.model.logit_scale.clamp(max=np.log(100)).exp()  # as in CLIP: at most 100
        loss, accuracy = contrastive_loss(image, text, scale, ids)
        cells = self.cells(patches, batch.cells.to(self.device))
        shown = {
            "contrast": loss.detach(),
            "accuracy": accuracy,
            "scale": scale.detach(),
            "cells": cells.detach(),
        }
        return loss + CELLS * cells, shown

    def close(self) -> None:
        """Let go of the thread that makes batches."""
        self._batches.close()

    def sample(self, job: object) -> Image.Image | None:
        """Nothing to draw: an encoder has figures only."""
        return None

    def load(self, folder: Path) -> None:
        """Start from an exported folder. Raises MissingAsset, BrokenWeights."""
        encoders.load_model(self.model, folder)

    def export(self, folder: Path) -> None:
        """Write a folder for CLIPModel, CLIPProcessor, CLIPTokenizer and CLIPTextModel."""
        encoders.export_model(self.model, folder, encoders.processor_config("CLIPImageProcessor", MEAN, STD))
        tokenizer.save(folder)


def _cached_world(state: Path) -> World | None:
    """The world's cache, or None where it was not rendered: then this stage draws its scenes itself."""
    try:
        return World(state)
    except MissingAsset:
        return None


def _page(page: int) -> list[Scene]:
    return [sample_scene(seed) for seed in range(page * encoders.PAGE, (page + 1) * encoders.PAGE)]


def _of(pages: encoders.Pages, seed: int) -> tuple[np.ndarray, np.ndarray]:
    images, cells = pages[seed // encoders.PAGE]
    return images[seed % encoders.PAGE], cells[seed % encoders.PAGE]


def photo_caption(rng: np.random.Generator, name: str) -> str:
    """A caption of a photographed subject: its class word, in one of several wordings."""
    word = photos.CLASS_WORDS[name]
    if name == "bear_plushie":
        word = ("stuffed animal", "toy bear", "bear plushie", "plushie")[rng.integers(4)]
    form = ("a photograph of a {}", "a photo of a {}", "a close up photo of the {}", "a {}, photograph")[
        rng.integers(4)
    ]
    return form.format(word)


# ---- evaluation


@torch.no_grad()
def clip_scores(model: CLIPModel, images: np.ndarray, texts: Sequence[str]) -> Tensor:
    """Cosine of every picture with every text. uint8 [n, H, W, 3], m texts → float32 [n, m], on the CPU"""
    device = next(model.parameters()).device
    pixels = encoders.pixel_values(images, MEAN, STD).to(device)
    image = image_features(model, pixels).float()
    text = text_features(model, tokenizer.tokenise(texts).to(device)).float()
    return (F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T).cpu()


def clip_top1(model: CLIPModel, scenes: Sequence[Scene], among: int = 64) -> float:
    """Share of pictures whose own full caption scores highest among `among` scenes' captions.

    Scenes are judged in groups of `among`; where two scenes of a group share a caption either one counts.
    """
    training = model.training
    model.eval()
    right: list[bool] = []
    for start in range(0, len(scenes) - among + 1, among):
        group = scenes[start : start + among]
        texts = [caption(scene, 0, full=True) for scene in group]
        found = clip_scores(model, encoders.render_all(group), texts).argmax(1)
        right += [texts[index] == text for index, text in zip(found.tolist(), texts, strict=True)]
    model.train(training)
    return float(np.mean(right))


def evaluate(model: CLIPModel, seeds: Sequence[int]) -> dict[str, float]:
    """Figures on test-split scenes: top-1 among 64, and how often the own caption beats the twin's."""
    scenes = [sample_scene(seed, "test") for seed in seeds]
    told = []
    for scene in scenes[: min(len(scenes), 128)]:
        texts = [caption(each, 0, full=True) for each in (scene, twin(scene))]
        scores = clip_scores(model, render_image(scene, encoders.SIZE)[None], texts)[0]
        told.append(bool(scores[0] > scores[1]))
    return {"top1_of_64": clip_top1(model, scenes), "twin_accuracy": float(np.mean(told))}
