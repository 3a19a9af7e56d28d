"""What every editing method owes, whatever it does inside."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from pipelines.editing._base import Edited, EditMethod, EditRequest
from pipelines.errors import Cancelled
from pipelines.guidance.cfg import CFG
from pipelines.progress import Job
from pipelines.spec import catalog, limits
from tests import bases

METHODS = cast("dict[str, type[EditMethod]]", catalog("editing"))
every = pytest.mark.parametrize("name", METHODS)
everywhere = pytest.mark.parametrize("kind", bases.KINDS)
SAMPLER = {"dit-flow": "euler"}


def picture(seed: int = 0, size: int = bases.SIZE * 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def edit(name: str, kind: str, job: Job | None = None, **changes: Any) -> Edited:
    settings: dict[str, Any] = {
        "image": picture(), "prompts": ["a red dog"], "seeds": [0], "source": "a dog", "steps": 3,
        "sampler": SAMPLER.get(kind, "ddim"),
    }  # fmt: skip
    base = bases.make(kind)
    hooks = footprint(base)
    try:
        return METHODS[name]().run(base, EditRequest(**(settings | changes)), CFG(scale=2), job or Job())
    finally:
        assert footprint(base) == hooks


def footprint(base: Any) -> list[Any]:
    """What a method could leave behind in a network: hooks, wrapped forwards, flags, processors."""
    return [
        (
            name, len(each._forward_hooks), len(each._forward_pre_hooks), "forward" in vars(each),
            id(getattr(each, "processor", None)), each.training,
            [(parameter.requires_grad, parameter._version) for parameter in each.parameters(False)],
        )
        for name, each in base.net.named_modules()
    ] + [dict(base.rows)]  # fmt: skip


@every
def test_the_settings_are_documented(name: str):
    method = METHODS[name]
    assert method.source
    assert all(field.description for field in method.model_fields.values())
    for field in method.model_fields.values():
        low, high = limits(field.metadata)
        if isinstance(field.default, float | int) and low is not None and high is not None:
            assert low <= field.default <= high


@every
@everywhere
def test_one_result_a_prompt_and_the_same_again(name: str, kind: str):
    once, twice = (edit(name, kind, prompts=["a red dog", "a blue cat"], seeds=[0, 1]) for _ in range(2))
    assert len(once.images) == 2
    assert [each.size for each in once.images] == [picture().size] * 2
    assert [each.tobytes() for each in once.images] == [each.tobytes() for each in twice.images]
    assert once.images[0].tobytes() != picture().tobytes()


@every
@everywhere
def test_a_row_of_a_batch_is_what_it_is_alone(name: str, kind: str):
    both = edit(name, kind, prompts=["a red dog", "a blue cat"], seeds=[0, 1]).images
    alone = edit(name, kind, prompts=["a blue cat"], seeds=[1]).images[0]
    gap = np.asarray(both[1], int) - np.asarray(alone, int)
    assert abs(gap).max() <= 2  # a batch of another size sums in another order


@every
@everywhere
def test_outside_its_mask_a_picture_stays_bit_for_bit(name: str, kind: str):
    mask = Image.new("L", picture().size, 0)
    mask.paste(255, (8, 16, 40, 64))
    edited = edit(name, kind, mask=mask)
    before, after = np.asarray(picture()), np.asarray(edited.images[0])
    inside = np.asarray(mask) > 0
    assert (before[~inside] == after[~inside]).all()
    assert (before[inside] != after[inside]).any()
    assert edited.readings["outside_psnr_before_paste"] > 0


@every
@everywhere
def test_a_cancel_is_heard_between_steps(name: str, kind: str):
    job = Job()
    heard: list[int] = []

    def stop(event: Any) -> None:
        heard.append(event.step)
        job.cancel()

    job.subscribe(stop)
    with pytest.raises(Cancelled):
        edit(name, kind, job)
    assert len(heard) == 1


@every
def test_a_picture_of_another_shape_keeps_it(name: str):
    wide = Image.fromarray(np.zeros((40, 90, 3), np.uint8))
    assert edit(name, "unet-eps", image=wide).images[0].size == (96, 48)
    assert edit(name, "unet-eps", image=wide, width=64, height=32).images[0].size == (64, 32)


@every
def test_neutral_strength_is_the_autoencoders_round_trip(name: str):
    method = METHODS[name]
    if "strength" not in method.model_fields:
        pytest.skip("has no strength")
    from pipelines.sampling.generate import to_images, to_pixels

    base = bases.make("unet-eps")
    request = EditRequest(picture(), ["a red dog"], [0], steps=3)
    edited = method.model_validate({"strength": 0}).run(base, request, CFG(scale=2), Job())
    trip = base.to_pixels(base.to_latents(to_pixels(picture(), *picture().size)))
    assert edited.images[0].tobytes() == to_images(trip)[0].tobytes()
