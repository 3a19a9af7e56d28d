"""Pictures on the way: they show what is drawn, cost little, and change nothing."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.artifacts import assets
from pipelines.base.loading import open_base
from pipelines.base.noise import Step
from pipelines.data.opening import list_photos, open_photo
from pipelines.guidance.cfg import CFG
from pipelines.progress import Event, Job
from pipelines.sampling import preview, schedulers
from pipelines.sampling.generate import Request, generate, to_pixels
from tests import bases


class Album:
    """Keeps the previews of a job."""

    def __init__(self, previews: bool = True) -> None:
        self.shown: list[Image.Image] = []
        self.job = Job(self, previews=previews)

    def __call__(self, event: Event) -> None:
        if event.kind == "preview":
            self.shown.append(event.image)


class Clock:
    """A clock whose every reading is `tick` later than the last."""

    def __init__(self, tick: float) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def step_of(base: Any, count: int) -> tuple[Step, torch.Tensor]:
    x = bases.noise(count)
    return Step(0, 5, torch.full((count,), 500), 0.6, 0.8, x, base.predicts), bases.noise(count, 9)


CASES = [(kind, name) for kind in bases.KINDS for name in schedulers.names(flow=kind == "dit-flow")]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_pictures_are_the_same_to_the_bit_with_and_without_previews(kind, name, monkeypatch):
    monkeypatch.setattr(preview, "EVERY", 0.0)
    monkeypatch.setattr(preview, "SHARE_OF_TIME", 1e9)
    base = bases.make(kind)
    request = Request(["a dog", "a cat"], [1, 2], steps=4, sampler=name)
    album, without = Album(), Album(previews=False)
    state = torch.get_rng_state()
    looked_at = generate(base, request, CFG(scale=2), album.job)
    assert torch.equal(torch.get_rng_state(), state)
    alone = generate(base, request, CFG(scale=2), without.job)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(looked_at, alone, strict=True))
    assert len(album.shown) == 4
    assert without.shown == []


def test_at_most_four_pictures_of_128_pixels_stand_side_by_side():
    base = bases.make("unet-eps")
    for count, width in ((1, 128), (4, 512), (6, 512)):
        album = Album()
        previews = preview.Previews(base, album.job, Clock(1.0))
        previews.offer(*step_of(base, count))
        assert [each.size for each in album.shown] == [(width, 128)]


def test_previews_come_three_times_a_second_and_never_cost_more_than_their_share():
    base = bases.make("unet-eps")
    # every reading is 1 ms on: a preview costs 1 ms, and a step that is not shown 1 ms of the loop
    quick, clock = Album(), Clock(0.001)
    previews = preview.Previews(base, quick.job, clock)
    while clock.now < 3.3:
        previews.offer(*step_of(base, 1))
    assert 8 <= len(quick.shown) <= 10
    # here a preview takes as long as a step, 0.1 s: at most a twentieth of 60 s may go into them
    slow, clock = Album(), Clock(0.1)
    previews = preview.Previews(base, slow.job, clock)
    while clock.now < 60:
        previews.offer(*step_of(base, 1))
    assert 20 <= len(slow.shown) <= 31


def test_the_share_is_counted_over_a_job_not_over_each_of_its_loops():
    base, album = bases.make("unet-eps"), Album()
    clock = Clock(0.2)
    for _ in range(5):
        preview.Previews(base, album.job, clock).offer(*step_of(base, 1))
    assert 1 <= len(album.shown) < 5


def test_numbers_that_are_not_finite_are_shown_all_the_same():
    base, album = bases.make("unet-eps"), Album()
    step, out = step_of(base, 1)
    preview.Previews(base, album.job, Clock(1.0)).offer(step, out * float("nan"))
    assert len(album.shown) == 1


def test_colours_are_found_again_where_latents_are_mixed_from_them():
    """An encoder that mixes mean colours linearly is inverted exactly."""
    base = bases.make("unet-eps")
    mixing = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        mean = torch.nn.functional.avg_pool2d(pixels, base.latent.factor)
        return torch.einsum("kc,bchw->bkhw", mixing, mean) + 0.3

    cast("Any", base).to_latents = encode
    picture = torch.rand(1, 3, 40, 24) * 2 - 1
    wanted = torch.nn.functional.avg_pool2d(picture, base.latent.factor)
    assert (preview.linear(base)(encode(picture)) - wanted).abs().max() < 1e-4


def test_the_linear_view_of_toybox_looks_like_its_photos():
    base = open_base("toybox", "cpu")
    photos = [to_pixels(open_photo(each), 128, 128) for each in list_photos(assets() / "photos" / "dog")[:3]]
    pixels = torch.cat(photos)
    shown = preview.linear(base)(base.to_latents(pixels))
    coarse = torch.nn.functional.avg_pool2d(pixels, base.latent.factor)
    assert shown.shape == coarse.shape
    assert np.corrcoef(shown.flatten(), coarse.flatten())[0, 1] > 0.75
