"""The base: a UNet and its text encoder, trained together to predict the noise in the world's latents.

ε-prediction with min-SNR weights (arXiv:2303.09556, γ = 5; see `weights`), errors counted at every scale,
captions dropped to "" for guidance, timesteps spread evenly over a batch. While training, a 1×1 convolution
reads from the features at 8×8 what each cell will show: the kind and colour of its subject, then its pattern,
what it wears, its hair. The drawn world knows, and words bind to things sooner. It is not exported. What is
small is looked at more closely: the cells of details count more (`details`), and seven tenths of a batch
are drawn by how many details words can name in it.

Shapes: B batch, C latent channels, h w latent size (16), L text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel

from pipelines.concepts.checkpoint import rows_at
from pipelines.progress import Job
from pipelines.toybox import nets, tokenizer
from pipelines.toybox.quick import quicken
from pipelines.toybox.stages import world
from pipelines.toybox.stages.encoders import Prefetch, attention_for, entropy
from pipelines.toybox.training import Plan
from pipelines.toybox.world import ACCESSORIES, PATTERNS, caption, sample_scene
from pipelines.toybox.world.labels import IGNORE, SUBJECT_HEADS, labels

DROPPED = 0.1
GAMMA = 5.0
AUX = 0.1  # of the head's loss, beside the noise error
PULL = 0.1  # of the head's gradient that reaches the network: all of it drowns the noise error's
FULL = 0.5  # share of captions that name everything, as the judge's do
MIDDLE = (250, 900)  # the timesteps at which most details are decided
MIDDLE_SHARE = 0.7  # of a batch, that is drawn from them
FINE = 2.0  # of details in the head's loss, beside kinds and colours
RICH = 0.7  # share of a batch drawn by how many details a picture has
WORTH = {
    "hat": 6, "sunglasses": 10, "scarf": 4,
    "striped": 4, "spotted": 8, "checkered": 12,
    "beard": 1, "glasses": 1, "hair style": 1, "hair colour": 1,
}  # fmt: skip
"""How often a detail counts there: what was drawn wrong most often, the most."""
SHEET = 16
STEPS, GUIDANCE = 20, 4.0
DETAILS = {head: len(names) for head, names in SUBJECT_HEADS.items() if head not in ("kind", "colour")}
"""What the head reads of a subject besides kind and colour, and how many names each has."""

PLANS = {
    "cpu": Plan(
        views=1_500_000, batch=64, lr=8e-4, warmup=200, ema=0.9995, sample_every=1000, checkpoint_seconds=180
    ),
    "cuda": Plan(
        views=30_000_000,
        batch=512,
        lr=1.2e-3,
        warmup=500,
        ema=0.9995,
        sample_every=2500,
        checkpoint_seconds=120,
    ),
}


def going_on(plan: Plan) -> Plan:
    """The plan for weights that were trained before: matrices by Muon, the rate falling after 0.4 of it.

    Muon's rate moves weights about as far as half of it would with AdamW.
    """
    return replace(plan, lr=7e-4, tail=0.6, ema=0.999, muon=True)


@dataclass(frozen=True)
class Batch:
    """Rows int64 [B] of the latents, token ids int64 [B, L], timesteps int64 [B], the noise's seed, and of
    each subject its codes in the cells' truth uint8 [B, SLOTS, 2] and its DETAILS int64 [B, SLOTS, K]."""

    rows: Tensor
    ids: Tensor
    times: Tensor
    noise_seed: int
    codes: Tensor
    details: Tensor

    def pinned(self) -> Batch:
        """In memory from which copies to a GPU do not wait for the steps before."""
        pinned = {name: each.pin_memory() for name, each in vars(self).items() if isinstance(each, Tensor)}
        return replace(self, **pinned)


@dataclass(frozen=True)
class Data:
    """The latents of the cached world, float16 [N, C, h, w], its truth, uint8 [N, 2, 8, 8], and how much more
    each cell counts for the details in it, float16 [N, h, w]."""

    latents: Tensor
    truth: Tensor
    focus: Tensor

    @classmethod
    def load(cls, device: torch.device, latents: np.ndarray, truth: np.ndarray, focus: np.ndarray) -> Data:
        """All on the device, so that a step moves only row numbers."""
        return cls(*(torch.from_numpy(each).to(device) for each in (latents, truth, focus)))


class UNetStage:
    """Trains `modules` "unet", "text_encoder" (unless it is frozen) and the throw-away head "aux"."""

    name = "unet"

    def __init__(  # noqa: PLR0913 (its parts, each given from outside)
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        data: Data,
        plan: Plan,
        device: torch.device,
        *,
        vae: AutoencoderTiny | None = None,
        frozen_text: bool = False,
        aux: float = AUX,
    ) -> None:
        self.device, self.plan, self.data, self.aux_weight = device, plan, data, aux
        self.unet = unet.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.text_encoder = text_encoder.to(device)  # pyright: ignore[reportArgumentType]
        self.text_encoder.set_attn_implementation(attention_for(device))
        if device.type == "cpu":
            quicken(self.unet)
        self.vae = vae
        self.rich = rich_rows(len(data.latents))
        self.modules: dict[str, nn.Module] = {"unet": self.unet}
        if frozen_text:
            self.text_encoder.requires_grad_(False).eval()
        else:
            self.modules["text_encoder"] = self.text_encoder
        self._features: list[Tensor] = []
        if aux:
            self.modules["aux"] = self.aux_head = self._watch().to(device)
        steps = nets.scheduler().alphas_cumprod
        self.signal, self.noise = steps.sqrt().to(device), (1 - steps).sqrt().to(device)
        self.weights = weights(steps / (1 - steps)).to(device)
        self._predict: Callable[..., tuple[Tensor, Tensor | None]] = self._forward
        self._prefetch = Prefetch(self._make) if device.type == "cuda" else None

    def _watch(self) -> nn.Module:
        """Hook the 8×8 features on their way up, and the head that reads them."""
        place = self.unet.up_blocks[-2].attentions[-1]
        place.register_forward_hook(lambda module, given, out: self._features.append(out[0]))
        width, classes = place.config["in_channels"], world.N_KINDS + world.N_COLOURS + sum(DETAILS.values())
        return nets.seeded(lambda: nn.Conv2d(width, classes, 1), self.plan.seed)

    def hidden(self, name: str) -> bool:
        """Whether a matrix lies between the first and the last layer, and is no table of embeddings."""
        outer = ("unet.conv_in.", "unet.conv_out.", "aux.")
        return not name.startswith(outer) and ".embeddings." not in name

    def compile(self) -> None:
        """Compile the network's forward and backward."""
        self._predict = torch.compile(self._forward, dynamic=False)

    # ---- batches

    def batch(self, step: int) -> Batch:
        """The batch of a step, a pure function of (seed, step)."""
        return self._prefetch(step) if self._prefetch else self._make(step)

    def _make(self, step: int) -> Batch:
        size = self.plan.batch
        rng = np.random.default_rng((self.plan.seed, step))
        rich = round(RICH * size) if len(self.rich) else 0
        rows = np.concatenate([
            rows_at(self.plan.seed, step, size - rich, len(self.data.latents)),
            self.rich[rows_at(self.plan.seed + 1, step, rich, max(1, len(self.rich)))],
        ])  # fmt: skip
        wordings = rng.integers(1 << 30, size=size)
        dropped = rng.random(size) < DROPPED
        scenes = [world.scene(int(row)) for row in rows]
        texts = [
            "" if drop else caption(scene, int(word), full=bool(all_of_it))
            for scene, word, drop, all_of_it in zip(
                scenes, wordings, dropped, rng.random(size) < FULL, strict=True
            )
        ]
        times = timesteps(rng, size)
        ids, noise_seed = tokenizer.tokenise(texts), int(rng.integers(1 << 62))
        seen = labels(scenes)
        details = np.stack([seen[head] for head in DETAILS], -1)
        batch = Batch(
            torch.from_numpy(rows), ids, torch.from_numpy(times), noise_seed,
            torch.from_numpy(world.codes(scenes)), torch.from_numpy(details),
        )  # fmt: skip
        return batch.pinned() if self.device.type == "cuda" else batch

    # ---- loss

    def _forward(self, noisy: Tensor, times: Tensor, context: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, C, h, w], [B], [B, L, D] → predicted noise [B, C, h, w] and the head's logits [B, K, 8, 8]."""
        self._features.clear()
        noise = self.unet(noisy, times, context, return_dict=False)[0]
        if not self.aux_weight:
            return noise, None
        seen = self._features.pop()
        return noise, self.aux_head(seen * PULL + seen.detach() * (1 - PULL))

    def encode_text(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] → [B, L, D]."""
        return self.text_encoder(ids).last_hidden_state

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The weighted noise error, at every scale and in details' cells, and the head's cross-entropy."""
        rows, ids, times = (
            each.to(self.device, non_blocking=True) for each in (batch.rows, batch.ids, batch.times)
        )
        clean = self.data.latents[rows].float()
        generator = torch.Generator(self.device).manual_seed(batch.noise_seed)
        noise = torch.randn(clean.shape, generator=generator, device=self.device)
        each = (-1, 1, 1, 1)
        noisy = self.signal[times].view(each) * clean + self.noise[times].view(each) * noise
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        context = self.encode_text(ids)
        predicted, logits = self._predict(noisy, times, context)
        off = predicted.float() - noise
        focused = (self.data.focus[rows].float()[:, None] * off.pow(2)).mean((1, 2, 3))
        loss = (self.weights[times] * (at_every_scale(off) + focused)).mean()
        parts: dict[str, float | Tensor] = {"mse": off.pow(2).mean(), "level": off.mean((2, 3)).pow(2).mean()}
        if logits is not None:
            truth = self.data.truth[rows].long()
            kinds, colours, *rest = logits.float().split(
                (world.N_KINDS, world.N_COLOURS, *DETAILS.values()), 1
            )
            seen = F.cross_entropy(kinds, truth[:, 0]) + F.cross_entropy(colours, truth[:, 1])
            wanted = in_cells(truth, batch.codes.to(self.device), batch.details.to(self.device))
            shown = dict(zip(DETAILS, wanted.unbind(1), strict=True))
            details = entropy(dict(zip(DETAILS, rest, strict=True)), shown, int((truth[:, 0] > 0).sum()))
            parts |= {"cells": seen, "details": details}
            loss = loss + self.aux_weight * (seen + FINE * details)
        return loss, parts

    # ---- what it can do

    def sample(self, job: Job) -> Image.Image | None:
        """A sheet of prompts never trained on, 20 DDIM steps at guidance 4."""
        if self.vae is None:
            return None
        prompts = [caption(sample_scene(index, "test"), 0, full=True) for index in range(SHEET)]
        job.note("Drawing: " + "; ".join(prompts[:4]) + " …")
        return sheet(draw(self, prompts, seed=1), columns=4)

    def export(self, folder: Path) -> None:
        """Write unet/, text_encoder/ and tokenizer/."""
        nets.export_diffusers(nets.plain_unet(self.unet), folder / "unet")
        nets.export_text_encoder(self.text_encoder, folder / "text_encoder")
        tokenizer.save(folder / "tokenizer")


def rich_rows(count: int) -> np.ndarray:
    """The world's first `count` rows, each as often as its subject (of two: the left one) has details to
    name, by their WORTH. int64 [n]

    Who stands alone is larger and counts twice. Not more: where all of half a batch showed somebody alone,
    two subjects in a picture were forgotten (93 % → 47 %).
    """
    scenes = [world.scene(row) for row in range(count)]
    seen = {head: codes[:, 0] for head, codes in labels(scenes).items() if head in SUBJECT_HEADS}
    shown = {name: seen["pattern"] == code for code, name in enumerate(PATTERNS)}
    shown |= {head: seen[head] != IGNORE for head in ("hair style", "hair colour")}
    shown |= {head: seen[head] == 1 for head in (*ACCESSORIES, "beard", "glasses")}
    details = sum(times * shown[name] for name, times in WORTH.items())
    alone = np.array([len(each.subjects) == 1 for each in scenes])
    return np.repeat(np.arange(count), details * (1 + alone))


def in_cells(truth: Tensor, codes: Tensor, details: Tensor) -> Tensor:
    """What each cell shows of the subject in it, int64 [B, K, 8, 8]; IGNORE where nobody is, or either of two
    that look alike to `truth` [B, 2, 8, 8].

    `codes` [B, SLOTS, 2] are the subjects' values in `truth`, `details` [B, SLOTS, K] what they show.
    """
    mine = (truth[:, None] == codes[..., None, None]).all(2) & (truth[:, None, 0] > 0)  # [B, SLOTS, 8, 8]
    mine = mine & (mine.sum(1, keepdim=True) == 1)
    cells = torch.where(mine[:, :, None], details[..., None, None], IGNORE)  # [B, SLOTS, K, 8, 8]
    return cells.amax(1)  # IGNORE is negative


def timesteps(rng: np.random.Generator, size: int) -> np.ndarray:
    """The timesteps of a batch, int64 [size]: MIDDLE_SHARE of them in MIDDLE, the rest anywhere in [0, 1000).

    Below a signal-to-noise ratio of 0.5 (t = 400) a wrong word for a hat or stripes costs most; above, the
    noisy picture shows it, and yet stripes are drawn less well from there on. One from each of equal parts,
    in random order: less noise in the loss.
    """
    middle = round(MIDDLE_SHARE * size)
    spans = ((middle, *MIDDLE), (size - middle, 0, 1000))
    drawn = [
        low + (high - low) * (np.arange(count) + rng.random(count)) / max(1, count)
        for count, low, high in spans
    ]
    return rng.permutation(np.minimum(np.concatenate(drawn).astype(np.int64), 999))


def weights(snr: Tensor) -> Tensor:
    """The weight of the ε error at each signal-to-noise ratio: min(SNR, γ)/SNR, and SNR^-⅓ where SNR < 1.

    Min-SNR alone weighs 1 there, which in the error of x0 is SNR itself: next to nothing at the steps where
    only the words can tell what will be in the picture.
    """
    return torch.where(snr < 1, snr.pow(-1 / 3), snr.clamp(max=GAMMA) / snr)


def at_every_scale(off: Tensor) -> Tensor:
    """Errors in ε [B, C, h, w] → [B]: their squares at the scales 1, 2, 4 … h, each counting half the last.

    After arXiv:2301.11093, section 3.3: at every scale the error is pooled, and its square counted against
    the variance that white noise has there. Plain squares hardly see an error in the mean of the picture
    (one of h·w modes), which a net full of group norms makes, and which α then blows up: the first steps
    would draw a place's colours at random.
    """
    total, share, size = off.pow(2).mean((1, 2, 3)), 1.0, 1
    shares = share
    while off.shape[-1] > 1:
        off, size, share = F.avg_pool2d(off, 2), 2 * size, share / 2
        total = total + share * size**2 * off.pow(2).mean((1, 2, 3))
        shares += share
    return total / shares


@torch.no_grad()
def draw(stage: UNetStage, prompts: Sequence[str], seed: int) -> np.ndarray:
    """Sample the prompts with the weights as they are. → uint8 [n, 128, 128, 3]"""
    vae = stage.vae
    if vae is None:
        raise ValueError("drawing needs the autoencoder")
    device, schedule = stage.device, nets.scheduler()
    schedule.set_timesteps(STEPS, device=device)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(prompts), stage.unet.config["in_channels"], nets.LATENT, nets.LATENT)
    latents = torch.randn(shape, generator=generator).to(device)
    ids = tokenizer.tokenise([*prompts, *[""] * len(prompts)]).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        context = stage.encode_text(ids)
        for time in schedule.timesteps:
            twice = torch.cat([latents, latents]).contiguous(memory_format=torch.channels_last)
            noise = stage.unet(twice, time, context, return_dict=False)[0].float()
            with_text, without = noise.split(len(prompts))
            guided = without + GUIDANCE * (with_text - without)
            latents = schedule.step(guided, int(time), latents, return_dict=False)[0]
        stage._features.clear()
        pictures = vae.decoder(latents / vae.config["scaling_factor"]).float()
    pixels = pictures.add(1).mul(127.5).round().clamp(0, 255).byte()
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def sheet(pictures: np.ndarray, columns: int) -> Image.Image:
    """Pictures uint8 [n, H, W, 3] in rows of `columns`."""
    count, high, wide, _ = pictures.shape
    canvas = Image.new("RGB", (columns * wide, -(-count // columns) * high))
    for index, picture in enumerate(pictures):
        canvas.paste(Image.fromarray(picture), (index % columns * wide, index // columns * high))
    return canvas
