"""Each family against diffusers' own pipeline: the same latents from the same noise."""

from typing import Any, cast

import diffusers
import pytest
import torch

from pipelines.base.backbone import Conditioning
from pipelines.base.loading import open_base
from pipelines.base.sdxl import sized
from pipelines.errors import BadInput
from pipelines.guidance.cfg import CFG
from pipelines.progress import Job
from pipelines.sampling import schedulers
from pipelines.sampling.loop import sample
from tests import tiny

BUILDERS = {
    "sd1": (tiny.sd1, "StableDiffusionPipeline", "ddim"),
    "sd2": (lambda path: tiny.sd1(path, "v_prediction"), "StableDiffusionPipeline", "ddim"),
    "sdxl": (tiny.sdxl, "StableDiffusionXLPipeline", "ddim"),
    "sdxl_words": (lambda path: tiny.sdxl(path, zeros=False), "StableDiffusionXLPipeline", "ddim"),
    "sd3": (tiny.sd3, "StableDiffusion3Pipeline", "euler"),
    "sd3_without_t5": (lambda path: tiny.sd3(path, t5=False), "StableDiffusion3Pipeline", "euler"),
    "sd35": (lambda path: tiny.sd3(path, dual=True), "StableDiffusion3Pipeline", "euler"),
}


@pytest.fixture(scope="module", params=list(BUILDERS))
def case(request, tmp_path_factory):
    build, pipeline, sampler = BUILDERS[request.param]
    folder = build(tmp_path_factory.mktemp("base") / request.param)
    return request.param, folder, getattr(diffusers, pipeline), sampler


def ours(base, sampler_name, noise, scale):
    sampler = schedulers.make(base, sampler_name, 4)
    guidance = CFG(scale=scale)
    conditions = {"cond": base.encode(["a red dog", "a cat"]), "uncond": base.encode([""])}
    x = schedulers.initial(sampler, noise)
    with torch.no_grad():
        return sample(
            base, conditions, guidance.start(base), sampler, x, Job(), branches=guidance.branches()
        )  # fmt: skip


def test_latents_equal_those_of_diffusers(case):
    name, folder, pipeline_class, sampler = case
    left_out = {"text_encoder_3": None, "tokenizer_3": None} if "without_t5" in name else {}
    pipeline = pipeline_class.from_pretrained(folder, **left_out)
    pipeline.set_progress_bar_config(disable=True)
    base = open_base(str(folder), "cpu")
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = pipeline(
        ["a red dog", "a cat"], num_inference_steps=4, guidance_scale=3.0, latents=noise.clone(),
        output_type="latent", height=16, width=16,
    ).images  # fmt: skip
    found = ours(base, sampler, noise, 3.0)
    assert (found - expected).abs().max() < 1e-4
    assert (ours(base, sampler, noise, 1.0) - expected).abs().max() > 1e-3  # the guidance was in both


def test_pixels_there_and_back_equal_the_autoencoder(case):
    _, folder, _, _ = case
    base = open_base(str(folder), "cpu")
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    vae = cast("Any", base.vae)
    z = base.to_latents(pixels)
    raw = vae.encode(pixels).latent_dist.mode()
    assert torch.allclose(z, (raw - (vae.config.shift_factor or 0)) * vae.config.scaling_factor, atol=1e-6)
    assert torch.allclose(base.to_pixels(z), vae.decode(raw)[0], atol=1e-5)


def test_targets_and_sites_are_modules_of_the_network(case):
    _, folder, _, _ = case
    base = open_base(str(folder), "cpu")
    modules = dict(base.net.named_modules())
    for group, names in base.targets.items():
        inside = (
            [dict(each.named_modules()) for each in base.texts.values()] if group == "text" else [modules]
        )
        assert all(any(name in each for each in inside) for name in names), group
    assert base.targets["attention"]
    assert base.targets["text"]
    assert [site.index for site in base.sites] == list(range(len(base.sites)))
    assert all(hasattr(modules[site.name], "to_q") for site in base.sites)


def test_training_draws_fit_the_network(case):
    _, folder, _, _ = case
    base = open_base(str(folder), "cpu")
    t = base.timesteps(4000, torch.Generator().manual_seed(0))
    a, b = base.shares(t)
    norm = a + b if base.predicts == "flow" else a**2 + b**2
    assert torch.allclose(norm, torch.ones_like(norm), atol=1e-5)
    assert t.min() >= 0
    assert t.max() <= 1000
    out = base.predict(torch.randn(2, 4, 8, 8), t[:2], base.encode(["a dog", "a cat"]))
    assert out.shape == (2, 4, 8, 8)


def test_flow_times_are_a_shifted_logit_normal(tmp_path):
    base = open_base(str(tiny.sd3(tmp_path / "b")), "cpu")
    sigma = base.timesteps(20000, torch.Generator().manual_seed(0)) / 1000
    unshifted = sigma / (3 - 2 * sigma)  # the inverse of 3σ / (1 + 2σ)
    logit = torch.log(unshifted / (1 - unshifted))
    assert abs(float(logit.mean())) < 0.03
    assert abs(float(logit.std()) - 1) < 0.03


def test_joint_sites_put_the_image_first(tmp_path):
    base = open_base(str(tiny.sd3(tmp_path / "b")), "cpu")
    site = base.sites[0]
    block = base.net.get_submodule(site.name)
    seen = {}
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(query, key, value, **rest):
        seen.setdefault("key", key)
        return real(query, key, value, **rest)

    inside = {}
    handle = block.get_submodule("to_k").register_forward_hook(
        lambda _m, _i, out: inside.setdefault("image", out)
    )
    other = block.get_submodule("add_k_proj").register_forward_hook(
        lambda _m, _i, out: inside.setdefault("text", out)
    )
    states = base.encode(["a dog"])  # the text encoders attend too, and must not be seen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
        base.predict(torch.randn(1, 4, 8, 8), torch.tensor([500.0]), states)
    handle.remove()
    other.remove()
    key = seen["key"].transpose(1, 2).flatten(2)
    assert torch.equal(key[:, site.image], inside["image"])
    assert torch.equal(key[:, site.text], inside["text"])


@pytest.mark.parametrize("build", [tiny.sd1, tiny.sdxl])
def test_padding_of_shorter_texts_changes_nothing(tmp_path, build):
    base = open_base(str(build(tmp_path / "b")), "cpu")
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([400])
    long = base.encode(["a red dog"])
    short = Conditioning(long.tokens[:, :5], pooled=long.pooled, extras=long.extras)
    alone = base.predict(x, t, short)
    together = base.predict(x.repeat(2, 1, 1, 1), t.repeat(2), Conditioning.cat([long, short]))
    assert (together[1:] - alone).abs().max() < 1e-5
    padded = torch.nn.functional.pad(short.tokens, (0, 0, 0, 11))
    unmasked = base.predict(x, t, Conditioning(padded, pooled=long.pooled, extras=long.extras))
    assert (unmasked - alone).abs().max() > 1e-4


def test_texts_of_several_lengths_are_refused_where_there_is_no_mask(tmp_path):
    base = open_base(str(tiny.sd3(tmp_path / "b")), "cpu")
    long = base.encode(["a dog"])
    ragged = Conditioning.cat([long, Conditioning(long.tokens[:, :9], pooled=long.pooled)])
    with pytest.raises(BadInput, match="mask"):
        base.predict(torch.randn(2, 4, 8, 8), torch.tensor([500.0, 500.0]), ragged)


def test_sdxl_reads_the_sizes(tmp_path):
    folder = tiny.sdxl(tmp_path / "b")
    base = open_base(str(folder), "cpu")
    x, t, cond = torch.randn(1, 4, 8, 8), torch.tensor([400]), base.encode(["a dog"])
    drawn = base.predict(x, t, cond)
    assert torch.equal(drawn, base.predict(x, t, sized(cond, (16, 16), (0, 0), (16, 16))))
    cropped = base.predict(x, t, sized(cond, (64, 48), (8, 4)))
    ids = torch.tensor([[64.0, 48, 8, 4, 16, 16]])
    expected = base.net(
        x,
        t,
        encoder_hidden_states=cond.tokens,
        added_cond_kwargs={"text_embeds": cond.pooled, "time_ids": ids},
    )[0]
    assert torch.equal(cropped, expected)
    assert (cropped - drawn).abs().max() > 1e-5
