"""The loop and its samplers: what diffusers does, image by image, and what stays where it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from torch import Tensor

from pipelines.artifacts import assets
from pipelines.base.backbone import Backbone, Condition, Conditioning
from pipelines.errors import BadInput, Cancelled, UnknownName
from pipelines.guidance.cfg import CFG
from pipelines.progress import Event, Job
from pipelines.sampling import schedulers
from pipelines.sampling.denoise import Denoiser
from pipelines.sampling.generate import Request, generate, to_images, to_pixels
from pipelines.sampling.loop import Keep, sample, step_at
from tests import bases

BASES = {kind: bases.make(kind) for kind in bases.KINDS}
CASES = [(kind, name) for kind in bases.KINDS for name in schedulers.names(flow=kind == "dit-flow")]
every = pytest.mark.parametrize(("kind", "name"), CASES)
STEPS = 5


def conditions(base: Backbone, rows: Sequence[int]) -> dict[str, Condition]:
    return {"cond": bases.words(base, 4, 11)[list(rows)], "uncond": bases.words(base, 1, 5)}


def seeds(rows: Sequence[int]) -> list[torch.Generator]:
    return [schedulers.seeded(70 + row) for row in rows]


def draw(
    kind: str,
    name: str,
    rows: Sequence[int] = (0, 1),
    *,
    sampler: schedulers.Sampler | None = None,
    eta: float = 0.0,
    scale: float = 3.0,
    **settings: Any,
) -> Tensor:
    base, guidance = BASES[kind], CFG(scale=scale)
    sampler = sampler or schedulers.make(base, name, STEPS, eta=eta)
    x = settings.pop("x", None)
    x = schedulers.initial(sampler, bases.noise(4)[list(rows)]) if x is None else x
    return sample(
        base, conditions(base, rows), guidance.start(base), sampler, x, settings.pop("job", Job()),
        branches=guidance.branches(), generators=seeds(rows), **settings,
    )  # fmt: skip


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((one - other).abs().max() <= tolerance * other.abs().max().clamp_min(1))


# ---- against diffusers


@every
def test_shares_are_those_that_diffusers_adds_noise_with(kind: str, name: str) -> None:
    sampler = schedulers.make(BASES[kind], name, STEPS)
    z, noise = bases.noise(1, 20), bases.noise(1, 30)
    assert len(sampler.shares) == STEPS + 1
    for index in range(STEPS):
        t = sampler.timesteps[index : index + 1]
        scheduler: Any = sampler.scheduler
        add = scheduler.scale_noise if hasattr(scheduler, "scale_noise") else None
        theirs = add(z, t, noise) if add else scheduler.add_noise(z, noise, t)
        assert close(schedulers.noised(sampler, index, z, noise), theirs)
    assert torch.equal(schedulers.noised(sampler, STEPS, z, noise), z)
    ratios = [b / a if a else float("inf") for a, b in sampler.shares]
    assert ratios == sorted(ratios, reverse=True)


@every
def test_the_loop_is_a_bare_loop_of_diffusers(kind: str, name: str) -> None:
    base = BASES[kind]
    table = schedulers.FLOW if kind == "dit-flow" else schedulers.VP
    class_name, settings = table[name]
    config = {key: each for key, each in base.scheduler_config.items() if not key.startswith("_")}
    if settings.get("use_flow_sigmas"):
        config |= {"prediction_type": "flow_prediction", "flow_shift": 3.0}
    scheduler = getattr(diffusers, class_name).from_config({**config, **settings})
    scheduler.set_timesteps(STEPS)
    x = bases.noise(2) * getattr(scheduler, "init_noise_sigma", 1.0)
    given = conditions(base, (0, 1))
    cond, uncond = given["cond"], given["uncond"]
    assert isinstance(cond, Conditioning) and isinstance(uncond, Conditioning)
    extra = {"generator": seeds((0, 1))} if name == "lcm" else {}
    with torch.no_grad():
        for t in scheduler.timesteps:
            fed = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            ours = base.predict(fed, t.expand(2), cond)
            none = base.predict(fed, t.expand(2), uncond.expand(2))
            x = scheduler.step(none + 3 * (ours - none), t, x, return_dict=False, **extra)[0]
    # a random network amplifies rounding from step to step
    assert close(draw(kind, name), x, 2e-4)


def test_only_the_bases_own_scheduler_clips() -> None:
    base = bases.unet("eps", clip_sample=True, clip_sample_range=4.0)
    for name in schedulers.VP:
        config = schedulers.make(base, name, STEPS).scheduler.config
        assert bool(config.get("clip_sample")) == (name == "ddim"), name
        assert not config.get("thresholding")


# ---- image by image


@every
def test_a_row_of_a_batch_is_the_same_alone(kind: str, name: str) -> None:
    together = draw(kind, name, (0, 1, 2), scale=1.5)
    for row in range(3):
        assert close(draw(kind, name, (row,), scale=1.5), together[row : row + 1], 1e-4)


def test_noise_of_ddim_with_eta_comes_from_each_images_seed() -> None:
    together = draw("unet-eps", "ddim", (0, 1), eta=1.0)
    for row in range(2):
        assert close(draw("unet-eps", "ddim", (row,), eta=1.0), together[row : row + 1], 1e-4)
    assert not close(draw("unet-eps", "ddim"), together, 1e-2)


@pytest.mark.parametrize(("name", "eta"), [("lcm", 0.0), ("ddim", 0.5)])
def test_noise_never_comes_from_the_global_generator(name: str, eta: float) -> None:
    before = torch.random.get_rng_state()
    draw("unet-eps", name, eta=eta)
    assert torch.equal(before, torch.random.get_rng_state())
    base = BASES["unet-eps"]
    sampler = schedulers.make(base, name, STEPS, eta=eta)
    with pytest.raises(BadInput, match="seeds"):
        sample(base, conditions(base, (0,)), CFG(scale=1).start(base), sampler, bases.noise(1), Job())


@every
def test_a_sampler_can_be_used_again(kind: str, name: str) -> None:
    """Solvers of higher order remember earlier predictions; a new run must not meet them."""
    sampler = schedulers.make(BASES[kind], name, STEPS)
    first = draw(kind, name, sampler=sampler)
    draw(kind, name, sampler=sampler, start=2, x=bases.noise(2))
    assert torch.equal(draw(kind, name, sampler=sampler), first)


# ---- starts, masks, cancels


@every
def test_the_outside_of_a_mask_stays(kind: str, name: str) -> None:
    clean, noise = bases.noise(2, 20) * 0.5, bases.noise(2, 30)
    mask = torch.zeros(2, 1, bases.SIZE, bases.SIZE)
    mask[..., : bases.SIZE // 2] = 1
    sampler = schedulers.make(BASES[kind], name, STEPS)
    start = schedulers.start_index(sampler, 0.6)
    assert start == 2
    x = schedulers.noised(sampler, start, clean, noise)
    out = draw(kind, name, sampler=sampler, start=start, x=x, keep=Keep(mask, clean, noise))
    outside = mask.expand_as(out) == 0
    assert torch.equal(out[outside], clean[outside])
    assert not close(out[~outside], clean[~outside], 1e-2)


def test_the_kept_part_follows_its_noise_on_the_way() -> None:
    base, seen = BASES["unet-eps"], []
    clean, noise = bases.noise(1, 20), bases.noise(1, 30)
    sampler = schedulers.make(base, "euler", STEPS)

    def guide(denoise: Any, step: Any) -> Tensor:
        seen.append((step.index, step.x))
        return denoise("cond")

    keep = Keep(torch.zeros(1, 1, bases.SIZE, bases.SIZE), clean, noise)
    x = schedulers.noised(sampler, 0, clean, noise)
    sample(base, conditions(base, (0,)), guide, sampler, x, Job(), keep=keep)
    for index, x in seen:
        a, b = sampler.shares[index]
        assert close(x, a * clean + b * noise)


def test_strength_0_gives_the_reconstruction() -> None:
    base = BASES["unet-eps"]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    wanted = to_images(base.to_pixels(base.to_latents(to_pixels(picture, 64, 64))))[0]

    def again(strength: float) -> Image.Image:
        request = Request(["a dog"], [0], steps=STEPS, start=picture, strength=strength)
        return generate(base, request, CFG(scale=1), Job())[0]

    assert again(0.0).tobytes() == wanted.tobytes()
    assert again(0.4).tobytes() != wanted.tobytes()


def test_strengths_walk_their_share_of_the_steps() -> None:
    sampler = schedulers.make(BASES["unet-eps"], "ddim", 10)
    assert [schedulers.start_index(sampler, each) for each in (0, 0.3, 0.5, 1)] == [10, 7, 5, 0]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(BadInput):
            schedulers.start_index(sampler, wrong)


def test_a_cancel_stops_before_the_next_step() -> None:
    job, steps = Job(), []

    def watch(event: Event) -> None:
        if event.kind == "report":
            steps.append((event.step, event.total))
            if event.step == 2:
                job.cancel()

    job.subscribe(watch)
    with pytest.raises(Cancelled):
        draw("unet-eps", "ddim", job=job)
    assert steps == [(1, STEPS), (2, STEPS)]
    assert bases.residue(BASES["unet-eps"]) == []


# ---- branches


def test_declared_branches_are_forwarded_once() -> None:
    base = BASES["unet-eps"]
    denoiser = Denoiser(base, conditions(base, (0, 1)), ("cond", "uncond"))
    steps = schedulers.make(base, "ddim", STEPS)
    step = step_at(base, steps, 0, bases.noise())
    denoiser.begin(step)
    with torch.no_grad():
        cond = denoiser("cond")
        assert (denoiser.calls, denoiser.rows) == (1, 4)
        both = denoiser("uncond", "cond")
        assert both[1] is cond
        assert (denoiser.calls, denoiser.rows) == (1, 4)
        alone = Denoiser(base, conditions(base, (0, 1)))
        alone.begin(step)
        assert close(alone("uncond"), both[0])
        denoiser("cond", at=step.at(step.x * 0.5))
        assert denoiser.calls == 2
        denoiser.begin(step)
        denoiser("cond")
        assert denoiser.calls == 3
    with pytest.raises(UnknownName, match="conf"):
        denoiser("conf")


def test_a_forward_at_another_x_and_on_another_base_uses_them() -> None:
    base, other = BASES["unet-eps"], bases.unet("eps")
    denoiser = Denoiser(base, conditions(base, (0, 1)), ("cond",))
    step = step_at(base, schedulers.make(base, "ddim", STEPS), 1, bases.noise())
    denoiser.begin(step)
    with torch.no_grad():
        moved = denoiser("cond", at=step.at(step.x * 0.5))
        cond = conditions(base, (0, 1))["cond"]
        assert isinstance(cond, Conditioning)
        assert close(moved, base.predict(step.x * 0.5, step.t, cond))
        assert close(denoiser("cond", base=other), other.predict(step.x, step.t, cond))


def test_gradients_flow_when_asked_for() -> None:
    base = BASES["unet-eps"]
    x = bases.noise().requires_grad_()
    for grad in (True, False):
        denoiser = Denoiser(base, conditions(base, (0, 1)), grad=grad)
        denoiser.begin(step_at(base, schedulers.make(base, "ddim", STEPS), 1, x))
        assert denoiser("cond").requires_grad == grad


def test_a_condition_may_depend_on_the_step() -> None:
    base, asked = BASES["unet-eps"], []

    def words(step: Any) -> Conditioning:
        asked.append(step.index)
        return bases.words(base, 1, step.index)

    sampler = schedulers.make(base, "ddim", STEPS)
    sample(base, {"cond": words}, CFG(scale=1).start(base), sampler, bases.noise(), Job(), branches=("cond",))
    assert asked == list(range(STEPS))


# ---- what cannot be made


def test_samplers_that_do_not_fit_are_refused() -> None:
    base = BASES["dit-flow"]
    with pytest.raises(UnknownName, match="lcm"):
        schedulers.make(base, "lcm", STEPS)
    with pytest.raises(UnknownName) as error:
        schedulers.make(BASES["unet-eps"], "dpmpp", STEPS)
    assert error.value.suggestion == "dpmpp_2m"
    for steps in (0, 1001):
        with pytest.raises(BadInput):
            schedulers.make(base, "euler", steps)
    for name, eta in (("euler", 0.5), ("ddim", 1.5)):
        with pytest.raises(BadInput):
            schedulers.make(BASES["unet-eps"], name, STEPS, eta=eta)


def test_lcm_on_a_base_that_was_not_distilled_is_said() -> None:
    base, notes = BASES["unet-eps"], []
    job = Job(lambda event: notes.append(event.text) if event.kind == "note" else None)
    generate(base, Request(["a dog"] * 3, [0, 1, 2], steps=2, sampler="lcm", batch=2), CFG(scale=1), job)
    assert len(notes) == 1
    assert "distilled" in notes[0]
    generate(base, Request(["a dog"], [0], steps=2, sampler="ddim"), CFG(scale=1), job)
    assert len(notes) == 1


def test_toyboxes_own_schedule_gives_every_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    base: Any = bases.unet("eps")
    own: Any = DDIMScheduler.from_pretrained(assets() / "toybox" / "scheduler")
    base.scheduler_config = {**own.config, "_class_name": "DDIMScheduler"}
    monkeypatch.setitem(BASES, "toybox", base)
    for name in schedulers.VP:
        assert bool(draw("toybox", name).isfinite().all())
