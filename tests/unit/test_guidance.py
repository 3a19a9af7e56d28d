"""Guidance against independent sources: diffusers where it is right, closed forms elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

import pytest
import torch
from diffusers.models.attention_processor import (
    PAGIdentitySelfAttnProcessor2_0,
    PAGJointAttnProcessor2_0,
)
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from pipelines.base.attention import attention_control, pick
from pipelines.base.backbone import Backbone, Conditioning
from pipelines.base.noise import Guides, Predicts, Step
from pipelines.errors import NotAvailable, UnknownName
from pipelines.guidance._compose import read_guidance
from pipelines.guidance._diffusers import REFUSED, WORKS, Bridge
from pipelines.guidance._ops import clip_norm, dot, match_std, norm, split
from pipelines.guidance.pag import look_inward
from pipelines.progress import Job
from pipelines.sampling import schedulers
from pipelines.sampling.loop import sample
from tests import bases

guiders: Any = import_module("diffusers.guiders")
KINDS: tuple[tuple[Predicts, float, float], ...] = (
    ("eps", 0.6, 0.8), ("v", 0.6, 0.8), ("v", 1.0, 2.5), ("flow", 0.3, 0.7), ("flow", 0.0, 1.0),
)  # fmt: skip


def normal(seed: int, count: int = 2) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step_of(predicts: Predicts, a: float, b: float, index: int = 0) -> Step:
    return Step(index, 4, torch.full((2,), 500), a, b, normal(1), predicts)


def given(**outs: Tensor) -> Any:
    """A Denoise whose answers are fixed."""

    def denoise(*names: str, **_: object) -> Any:
        found = tuple(outs[name] for name in names)
        return found[0] if len(found) == 1 else found

    return denoise


def guide_of(table: Mapping[str, Any]) -> Any:
    return read_guidance(table).start(bases.make("unet-eps"))


# ---- operations


@pytest.mark.parametrize(
    "operation", [norm, lambda x: split(x, normal(9, len(x)))[1], lambda x: clip_norm(x, 3.0),
                  lambda x: match_std(x, normal(9, len(x)), 0.7), lambda x: dot(x, normal(9, len(x)))],
)  # fmt: skip
def test_operations_are_per_sample(operation: Any) -> None:
    x = normal(5)
    x[1] *= 100
    assert torch.allclose(operation(x)[:1], operation(x[:1]) if len(x) == 1 else operation(x.clone())[:1])
    lone = x.clone()
    lone[1] = 0.1
    assert torch.allclose(operation(x)[0], operation(lone)[0])


def test_split_is_parallel_and_orthogonal() -> None:
    x, axis = normal(5), normal(6)
    along, across = split(x, axis)
    assert torch.allclose(along + across, x)
    assert dot(across, axis).abs().max() < 1e-9
    cosine = dot(along, axis) / norm(along) / norm(axis)
    assert torch.allclose(cosine.abs(), torch.ones_like(cosine))
    along, across = split(x, axis * 0)
    assert torch.equal(across, x)
    assert not along.any()


def test_clipping_shortens_and_never_lengthens() -> None:
    x = normal(5)
    assert torch.allclose(norm(clip_norm(x, 3.0)), torch.full((2, 1, 1, 1), 3.0, dtype=x.dtype))
    assert torch.equal(clip_norm(x, 1e6), x)
    assert not clip_norm(x * 0, 3.0).any()


def test_half_precision_is_reduced_in_float32() -> None:
    x = torch.full((1, 4, 64, 64), 100.0, dtype=torch.float16)  # Σx² is far beyond 65504
    assert norm(x).item() == pytest.approx(100 * 128, rel=1e-3)


# ---- CFG


def test_cfg_is_affine_in_its_scale() -> None:
    cond, uncond = normal(2), normal(3)
    outs = [
        guide_of({"method": "cfg", "scale": w})(given(cond=cond, uncond=uncond), step_of("eps", 0.6, 0.8))
        for w in (0, 1, 2, 3)
    ]
    assert torch.equal(outs[0], uncond)
    assert torch.equal(outs[1], cond)
    assert torch.allclose(outs[3] - outs[2], outs[2] - outs[1])


@pytest.mark.parametrize(("predicts", "a", "b"), KINDS)
def test_rescaling_gives_the_spread_of_the_conditional_velocity(
    predicts: Predicts, a: float, b: float
) -> None:
    step, denoise = step_of(predicts, a, b), given(cond=normal(2), uncond=normal(3))
    out = guide_of({"method": "cfg", "scale": 7, "rescale": 1})(denoise, step)
    spread, wanted = (step.velocity(each).std((1, 2, 3)) for each in (out, denoise("cond")))
    assert torch.allclose(spread, wanted)


def test_rescaling_is_that_of_diffusers_where_the_base_predicts_v() -> None:
    cond, uncond = normal(2), normal(3)
    out = guide_of({"method": "cfg", "scale": 7, "rescale": 0.7})(
        given(cond=cond, uncond=uncond), step_of("v", 0.6, 0.8)
    )
    assert torch.allclose(out, rescale_noise_cfg(uncond + 7 * (cond - uncond), cond, 0.7))


# ---- APG


def apg(**settings: Any) -> Any:
    return guide_of({"method": "apg", **settings})


@pytest.mark.parametrize(("predicts", "a", "b"), KINDS)
def test_apg_that_keeps_everything_is_cfg(predicts: Predicts, a: float, b: float) -> None:
    denoise, step = given(cond=normal(2), uncond=normal(3)), step_of(predicts, a, b)
    ours = apg(scale=5, eta=1, momentum=0, norm_threshold=0)(denoise, step)
    assert torch.allclose(ours, guide_of({"method": "cfg", "scale": 5})(denoise, step))


@pytest.mark.parametrize(("predicts", "a", "b"), KINDS)
def test_apg_moves_the_picture_across_and_no_further_than_its_limit(
    predicts: Predicts, a: float, b: float
) -> None:
    denoise, step = given(cond=normal(2), uncond=normal(3)), step_of(predicts, a, b)
    x0 = step.x0(denoise("cond"))
    moved = step.x0(apg(scale=5, eta=0, momentum=0, norm_threshold=15)(denoise, step)) - x0
    assert (dot(moved, x0).abs() / norm(x0) ** 2).max() < 1e-9
    limit = 15 * (256 / 65536) ** 0.5
    assert norm(moved).max() <= 4 * limit * (1 + 1e-9)
    assert norm(moved).min() > 0


def test_apg_momentum_sums_what_was_pushed_before_it_is_clipped() -> None:
    denoise, step = given(cond=normal(2), uncond=normal(3)), step_of("eps", 0.6, 0.8)
    settings = {"scale": 2, "eta": 1, "norm_threshold": 0}
    plain = step.x0(apg(momentum=0, **settings)(denoise, step)) - step.x0(denoise("cond"))
    guide = apg(momentum=-0.5, **settings)
    for factor in (1, 1 - 0.5, 1 - 0.5 + 0.25):
        moved = step.x0(guide(denoise, step)) - step.x0(denoise("cond"))
        assert torch.allclose(moved, factor * plain)
    clipped = apg(momentum=-0.5, **(settings | {"norm_threshold": 1}))
    clipped(denoise, step)
    assert torch.allclose(  # had the clipped push been kept, the second would not be half the plain one
        step.x0(clipped(denoise, step)) - step.x0(denoise("cond")), clip_norm(plain * 0.5, 1 / 16)
    )


# ---- PAG


def predict(base: Backbone, x: Tensor, cond: Conditioning) -> Tensor:
    return base.predict(x, torch.full((len(x),), 500), cond)


@pytest.mark.parametrize("layers", [("mid",), ("all",)])
@pytest.mark.parametrize("kind", ["unet-eps", "dit-flow"])
def test_pag_disturbs_as_the_processors_of_diffusers_do(kind: str, layers: tuple[str, ...]) -> None:
    base = bases.make(kind)
    x, cond = bases.noise(), bases.words(base, 2)
    sites = pick(base, layers)
    with torch.no_grad():
        clean = predict(base, x, cond)
        with attention_control(base, look_inward, sites):
            ours = predict(base, x, cond)
        for site in sites:  # they take a batch of the undisturbed rows and then the disturbed ones
            module = cast("Any", base.net.get_submodule(site.name))
            native = PAGIdentitySelfAttnProcessor2_0 if site.kind == "self" else PAGJointAttnProcessor2_0
            module.set_processor(native())
        both = predict(base, torch.cat([x, x]), Conditioning.cat([cond, cond]))
    assert torch.allclose(both[:2], clean, atol=1e-4)
    assert torch.allclose(both[2:], ours, atol=1e-4)
    assert (ours - clean).abs().max() > 0.1


def test_pag_is_linear_in_its_scale_and_stands_alone() -> None:
    good, bad = normal(2), normal(3)

    def denoise(*names: str, within: object = None) -> Tensor:
        return good if within is None else bad

    for scale in (1.0, 2.5):
        out = guide_of({"method": "pag", "scale": scale})(denoise, step_of("eps", 0.6, 0.8))
        assert torch.allclose(out, good + scale * (good - bad))


def test_pag_names_the_layers_that_there_are() -> None:
    with pytest.raises(UnknownName, match="attic"):
        guide_of({"method": "pag", "layers": ["attic"]})


# ---- the bridge to diffusers


def draw(base: Backbone, guidance: Guides, start: int = 0, steps: int = 6) -> Tensor:
    sampler = schedulers.make(base, "euler", steps)
    noise = bases.noise()
    x = (
        schedulers.initial(sampler, noise)
        if not start
        else schedulers.noised(sampler, start, noise * 0, noise)
    )
    conditions = {"cond": bases.words(base, 2, 11), "uncond": bases.words(base, 1, 5)}
    return sample(
        base, conditions, guidance.start(base), sampler, x, Job(), start=start, branches=guidance.branches()
    )


@pytest.mark.parametrize("kind", bases.KINDS)
def test_cfg_through_the_bridge_is_ours(kind: str) -> None:
    base = bases.make(kind)
    theirs = Bridge(guiders.ClassifierFreeGuidance(guidance_scale=5.0))
    ours = draw(base, read_guidance({"method": "cfg", "scale": 5}))
    assert torch.allclose(draw(base, theirs), ours, atol=1e-5 * float(ours.abs().max()))


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("kind", bases.KINDS)
def test_apg_through_the_bridge_is_ours(kind: str, start: int) -> None:
    """In the space of pictures, by the paper's rule, and with memory also where a run enters late."""
    base = bases.make(kind)
    theirs = Bridge(
        guiders.AdaptiveProjectedGuidance(
            guidance_scale=5.0, eta=0.3, adaptive_projected_guidance_momentum=-0.5,
            adaptive_projected_guidance_rescale=15 * (256 / 65536) ** 0.5, use_original_formulation=True,
        ),
        space="x0",
    )  # fmt: skip
    table = {"method": "apg", "scale": 6, "eta": 0.3, "momentum": -0.5, "norm_threshold": 15}
    ours = draw(base, read_guidance(table), start)
    assert torch.allclose(draw(base, theirs, start), ours, atol=1e-4 * float(ours.abs().max()))
    again = draw(base, theirs, start)  # a second run inherits nothing
    assert torch.equal(again, draw(base, theirs, start))


@pytest.mark.parametrize("name", sorted(WORKS - {"ClassifierFreeGuidance", "AdaptiveProjectedGuidance"}))
def test_other_guiders_run_in_our_loop(name: str) -> None:
    base = bases.make("dit-flow")
    out = draw(base, Bridge(getattr(guiders, name)()))
    assert bool(out.isfinite().all())
    plain = draw(base, read_guidance({"method": "cfg", "scale": 1}))
    assert not torch.allclose(out, plain, atol=1e-3)


def test_every_guider_of_diffusers_is_known_and_the_broken_ones_are_refused() -> None:
    known = {name for name in vars(guiders) if name.endswith("Guidance")} - {"BaseGuidance"}
    assert known == WORKS | REFUSED.keys()
    with pytest.raises(NotAvailable, match="disturb"):
        Bridge(guiders.PerturbedAttentionGuidance(perturbed_guidance_layers=[0]))
    with pytest.raises(NotAvailable, match="unconditional"):
        Bridge(guiders.AdaptiveProjectedGuidance())
    with pytest.raises(UnknownName):
        Bridge(object())
