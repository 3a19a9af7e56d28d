"""Editing: inversion on a denoiser whose answers are known, and on the embedded base; masks; identities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from pipelines.artifacts import assets
from pipelines.base.backbone import Backbone, Conditioning, Latent
from pipelines.base.noise import Predicts, Step
from pipelines.editing._base import EXACT, EditRequest, drawing_size, paste, psnr
from pipelines.editing.ddim_inversion import DDIMInversion
from pipelines.editing.sdedit import SDEdit
from pipelines.editing.trajectory import invert, mixed
from pipelines.errors import BadInput, Cancelled, NotAvailable
from pipelines.guidance.cfg import CFG
from pipelines.progress import Job
from pipelines.sampling import schedulers
from pipelines.sampling.loop import sample

C, SIDE, MEANS = 4, 8, 6
VP = {
    **DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    ).config,
    "_class_name": "DDIMScheduler",
}  # fmt: skip
FLOW = {**FlowMatchEulerDiscreteScheduler().config, "_class_name": "FlowMatchEulerDiscreteScheduler"}


class Mixture:
    """The exact denoiser of a mixture of Gaussians (means m, spread s): what a perfect network would say.

    A prompt is a preference among the means. "pixels" are the latents' first three channels.
    """

    def __init__(self, predicts: Predicts = "eps", spread: float = 0.5) -> None:
        generator = torch.Generator().manual_seed(5)
        # so near to each other that no step jumps from one to the next: else no path back is exact
        self.means = 0.1 * torch.randn(MEANS, C, SIDE, SIDE, generator=generator, dtype=torch.float64)
        self.spread = spread
        self.predicts: Predicts = predicts
        self.name, self.family = "mixture", "analytic"
        self.latent = Latent(C, 1, SIDE, 1)
        self.offers = frozenset({"uncond"})
        kind = {"prediction_type": "v_prediction" if predicts == "v" else "epsilon"}
        self.scheduler_config: Mapping[str, Any] = FLOW if predicts == "flow" else VP | kind
        self.rows: Mapping[str, slice] = {}
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.products = cast("Any", DDIMScheduler).from_config(VP).alphas_cumprod.double()

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        rows = [
            torch.randn(1, MEANS, generator=torch.Generator().manual_seed(len(each))) * (4 if each else 0)
            for each in prompts
        ]
        return Conditioning(torch.stack(rows))

    def to_latents(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.cat([pixels, pixels.mean(1, keepdim=True)], 1)

    def to_pixels(self, z: Tensor) -> Tensor:
        return z[:, :3]

    def shares(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.predicts == "flow":
            return 1 - t.double() / 1000, t.double() / 1000
        products = self.products[t.long()]
        return products.sqrt(), (1 - products).sqrt()

    def predict(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        a, b = (each.view(-1, 1, 1, 1) for each in self.shares(t))
        variance = a**2 * self.spread**2 + b**2
        gaps = x.double()[:, None] - a[:, None] * self.means
        logits = cond.tokens[:, 0].double() - gaps.square().sum((2, 3, 4)) / (2 * variance[:, 0, 0])
        share = (a * self.spread**2 / variance)[:, None]
        x0 = (logits.softmax(1)[:, :, None, None, None] * (self.means + share * gaps)).sum(1)
        out = [
            Step(0, 1, t[i : i + 1], a[i].item(), b[i].item(), x[i : i + 1].double(), self.predicts)
            .output(x0=x0[i : i + 1])
            for i in range(len(x))
        ]  # fmt: skip
        return torch.cat(out).float()


def mixture(predicts: Predicts = "eps") -> Any:
    return Mixture(predicts)


def picture(seed: int = 0, size: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def round_trip(base: Backbone, name: str, steps: int, iterations: int = 0, scale: float = 1.0) -> float:
    """PSNR in dB, over the range of the latents, of z → noise → z under one prompt."""
    z = 0.5 * torch.randn(1, C, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    words = {"cond": base.encode(["a dog"])}
    if scale != 1:
        words["uncond"] = base.encode([""])
    sampler = schedulers.make(base, name, steps)
    path = invert(base, dict(words), mixed(scale), sampler, z, Job(), iterations=iterations)
    assert len(path.latents) == steps + 1
    assert torch.equal(path.clean, z)
    again = sample(base, words, mixed(scale), sampler, path.noisy, Job(), branches=tuple(words))
    return (10 * torch.log10((z.max() - z.min()) ** 2 / (again - z).square().mean())).item()


@pytest.mark.parametrize(
    ("predicts", "name"),
    [("eps", "ddim"), ("eps", "euler"), ("v", "ddim"), ("v", "euler"), ("flow", "euler")],
)
def test_the_way_back_and_forth_returns_the_latents(predicts: Predicts, name: str):
    base = mixture(predicts)
    few, many = (round_trip(base, name, steps) for steps in (10, 80))
    assert many > few + 6  # a first-order method: eight times the steps, some 18 dB
    once, thrice = (round_trip(base, name, 10, iterations) for iterations in (1, 4))
    assert once > few + 4
    assert thrice > once + 10


def test_guidance_on_the_way_back_costs_fidelity():
    base = mixture()
    assert round_trip(base, "ddim", 25, scale=1.0) > round_trip(base, "ddim", 25, scale=5.0)


def test_iterations_that_diverge_keep_the_guess():
    base, z = mixture(), torch.rand(2, C, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    sampler = schedulers.make(base, "ddim", 4)
    calls = 0

    def wild(denoise: Any, step: Step) -> Tensor:
        nonlocal calls
        calls += 1
        return step.x * 3.0 ** (2 * calls)  # never the same twice: no fixed point to find

    path = invert(base, {"cond": base.encode(["a"])}, wild, sampler, z, Job(), iterations=6, start=3)
    calls = 0
    plain = invert(base, {"cond": base.encode(["a"])}, wild, sampler, z, Job(), start=3)
    assert torch.isfinite(path.noisy).all()
    assert path.noisy.abs().max() < 1e3 * plain.noisy.abs().max()


def test_a_path_back_under_a_source_prompt_serves_edits():
    base = mixture()
    request = EditRequest(picture(), ["a dog", "a cat!", "a dog"], [0, 0, 1], source="a dog", steps=20)
    edited = DDIMInversion(iterations=4).run(base, request, CFG(scale=1), Job())
    same, other, again = edited.images
    assert psnr(same, request.image) > 45
    assert same.tobytes() == again.tobytes()
    assert psnr(other, request.image) < psnr(same, request.image) - 10
    assert edited.readings["ceiling_psnr"] == EXACT  # the double's "autoencoder" loses nothing
    assert edited.readings["reconstruction_psnr"] == pytest.approx(psnr(same, request.image), abs=0.01)
    assert "seed" in edited.notes[0]
    assert not DDIMInversion(check=False).run(base, request, CFG(scale=1), Job()).readings


def test_less_strength_keeps_more():
    base, request = mixture(), EditRequest(picture(), ["a cat!"], [0], source="a dog", steps=20)
    for method in (SDEdit, DDIMInversion):
        near = [
            psnr(method(strength=s).run(base, request, CFG(), Job()).images[0], request.image)
            for s in (0, 0.3, 1)
        ]
        assert near == sorted(near, reverse=True)
        assert near[0] == EXACT
        assert near[2] < 40


def test_a_feather_stays_inside_its_mask():
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (8, 8, 24, 24))
    black, white = Image.new("RGB", (32, 32)), Image.new("RGB", (32, 32), "white")
    hard, soft = (np.asarray(paste(black, white, mask, feather))[..., 0] for feather in (0, 4))
    inside = np.asarray(mask) > 0
    assert (hard == inside * 255).all()
    assert (soft[~inside] == 0).all()
    assert soft[16, 16] == 255
    assert len(np.unique(soft[16, 8:16])) > 2
    assert soft[16, 8] < soft[16, 10] < soft[16, 12]


def test_psnr_is_the_definition():
    one, other = picture(1), picture(2)
    error = (np.asarray(one, float) - np.asarray(other, float)) ** 2
    assert psnr(one, other) == pytest.approx(10 * np.log10(255**2 / error.mean()))
    assert psnr(one, one) == EXACT
    left = Image.new("L", one.size, 0)
    left.paste(255, (0, 0, 3, SIDE))
    assert psnr(one, other, left) == pytest.approx(10 * np.log10(255**2 / error[:, :3].mean()))


def test_the_shape_of_a_picture_is_kept_at_the_native_area():
    base = cast("Any", SimpleNamespace(latent=Latent(4, 8, 512, 64)))

    def size(image: tuple[int, int], **asked: Any) -> tuple[int, int]:
        return drawing_size(base, EditRequest(Image.new("RGB", image), ["a"], [0], **asked))

    assert size((512, 512)) == (512, 512)
    assert size((4000, 3000)) == (576, 448)
    assert size((4000, 3000), width=1024) == (1024, 768)
    assert size((4000, 3000), width=640, height=256) == (640, 256)
    assert size((9000, 20))[1] == 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": [0, 1]}, "seed"),
        ({"prompts": [], "seeds": []}, "seed"),
        ({"mask": Image.new("L", (8, 3), 255)}, "cover"),
        ({"mask": Image.new("L", (8, 8), 0)}, "black"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], words: str):
    settings: dict[str, Any] = {"image": picture(), "prompts": ["a"], "seeds": [0]} | change
    with pytest.raises(BadInput, match=words):
        SDEdit().run(mixture(), EditRequest(**settings), CFG(), Job())


def test_what_cannot_be_inverted_is_refused():
    request = EditRequest(picture(), ["a"], [0], sampler="lcm", steps=4)
    with pytest.raises(BadInput, match="inverted"):
        DDIMInversion().run(mixture(), request, CFG(), Job())
    base = mixture()
    base.offers = frozenset()
    with pytest.raises(NotAvailable, match="unguided"):
        DDIMInversion(inversion_guidance=3).run(base, EditRequest(picture(), ["a"], [0]), CFG(scale=1), Job())


def test_a_cancel_stops_the_way_back():
    job = Job()
    steps: list[int] = []

    def stop(event: Any) -> None:
        steps.append(event.step)
        if event.step == 3:
            job.cancel()

    job.subscribe(stop)
    with pytest.raises(Cancelled):
        DDIMInversion().run(mixture(), EditRequest(picture(), ["a"], [0], steps=10), CFG(), job)
    assert steps == [1, 2, 3]


@pytest.fixture(scope="module")
def toybox() -> Any:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    from pipelines.base.sd import SD

    pipe = cast("Any", StableDiffusionPipeline).from_pretrained(assets() / "toybox")
    return SD("toybox", "toybox", pipe.components)


def test_a_drawn_scene_comes_back_through_toybox(toybox: Any):
    """Ten steps: 5.8 dB below what the autoencoder leaves as published editors invert, less than 0.5 dB with
    two rounds of correction a step. The bounds allow for other weights of the same base.
    """
    from pipelines.toybox.world import caption, render_image, sample_scene

    scene = sample_scene(11, "test", n_subjects=1)
    image = Image.fromarray(render_image(scene, toybox.latent.size))
    words = caption(scene, 0)
    request = EditRequest(image, [words], [0], source=words, steps=10)
    plain, mended = (
        DDIMInversion(iterations=rounds).run(toybox, request, CFG(scale=1), Job()) for rounds in (0, 2)
    )
    assert psnr(plain.images[0], image) == pytest.approx(plain.readings["reconstruction_psnr"], abs=0.01)
    ceiling = plain.readings["ceiling_psnr"]
    lost, still = (ceiling - each.readings["reconstruction_psnr"] for each in (plain, mended))
    assert ceiling > 25
    assert still < lost < 8
    assert still < 0.5
