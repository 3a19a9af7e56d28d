"""What every reference method owes, whatever it does inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipelines.base.backbone import rows_in_flight
from pipelines.errors import BadInput, Cancelled, NotAvailable
from pipelines.guidance.cfg import CFG
from pipelines.progress import Job
from pipelines.reference._base import Reference
from pipelines.sampling.generate import Request, generate
from pipelines.spec import catalog
from tests import bases
from tests.references import encoder, published

METHODS = cast("dict[str, type[Reference]]", catalog("reference"))
every = pytest.mark.parametrize("name", METHODS)


def ip_adapter(base: Any, folder: Path) -> dict[str, Any]:
    file = published(folder / "ip.safetensors", base.net)
    return {"weights": str(file), "encoder": str(encoder(folder / "image_encoder"))}


WEIGHTS: dict[str, Callable[[Any, Path], dict[str, Any]]] = {"ip_adapter": ip_adapter}
"""Settings that name random weights; a method without an entry here fails the suite."""


@pytest.fixture(params=["unet-eps", "unet-v"])
def base(request: pytest.FixtureRequest) -> Any:
    return bases.make(request.param)


def make(name: str, base: Any, folder: Path, **settings: Any) -> Reference:
    return METHODS[name].model_validate(WEIGHTS[name](base, folder) | settings)


def picture(seed: int, size: tuple[int, int] = (40, 50)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def forward(base: Any, count: int = 2) -> Tensor:
    """Rows 0 … count − 1 guided, as many unguided ones after them."""
    rows = {"cond": slice(0, count), "uncond": slice(count, 2 * count)}
    x = bases.noise(count).repeat(2, 1, 1, 1)
    with torch.no_grad(), rows_in_flight(base, rows):
        return base.predict(x, torch.full((2 * count,), 500), bases.words(base, 2 * count))


def footprint(base: Any) -> Any:
    return [
        (
            name, id(each), "forward" in vars(each), len(each._forward_hooks), len(each._forward_pre_hooks),
            id(getattr(each, "processor", None)), each.training,
            [(value._version, value.requires_grad) for value in each.parameters(recurse=False)],
        )
        for name, each in base.net.named_modules()
    ], dict(base.net.config), dict(base.rows)  # fmt: skip


@every
def test_the_settings_are_documented(name: str):
    assert METHODS[name].source
    assert all(field.description for field in METHODS[name].model_fields.values())


@every
def test_it_moves_the_base_and_leaves_no_trace(name: str, base: Any, tmp_path: Path):
    before, state = forward(base), footprint(base)
    attachment = make(name, base, tmp_path).prepare(base, [picture(1)], Job())
    assert footprint(base) == state
    with attachment.open(base):
        inside = forward(base)
        assert torch.equal(forward(base), inside)
    assert (inside - before).abs().max() > 1e-3
    assert footprint(base) == state
    assert torch.equal(forward(base), before)
    with attachment.open(base):
        assert torch.equal(forward(base), inside)  # what was prepared can be opened again


@every
def test_scale_zero_is_the_base_bit_for_bit(name: str, base: Any, tmp_path: Path):
    before = forward(base)
    with make(name, base, tmp_path, scale=0).prepare(base, [picture(1)], Job()).open(base):
        assert torch.equal(forward(base), before)


@every
def test_other_pictures_say_other_things_to_guided_rows_alone(name: str, base: Any, tmp_path: Path):
    method = make(name, base, tmp_path)
    outs = []
    for image in (picture(1), picture(2), picture(3, (90, 20)).convert("L")):
        with method.prepare(base, [image], Job()).open(base):
            outs.append(forward(base))
    for other in outs[1:]:
        assert (outs[0][:2] - other[:2]).abs().max() > 1e-4
        assert torch.equal(outs[0][2:], other[2:])


@every
def test_a_row_of_a_batch_is_what_it_is_alone(name: str, base: Any, tmp_path: Path):
    with make(name, base, tmp_path).prepare(base, [picture(1)], Job()).open(base):
        both = generate(base, Request(["a dog", "a cat"], [0, 1], steps=3), CFG(scale=2), Job())
        alone = generate(base, Request(["a cat"], [1], steps=3), CFG(scale=2), Job())
    gap = np.asarray(both[1], int) - np.asarray(alone[0], int)
    assert abs(gap).max() <= 2  # a batch of another size sums in another order


@every
def test_errors_and_cancels_leave_no_trace(name: str, base: Any, tmp_path: Path):
    method, state = make(name, base, tmp_path), footprint(base)
    attachment = method.prepare(base, [picture(1)], Job())
    job = Job()
    job.subscribe(lambda event: job.cancel())
    with pytest.raises(Cancelled), attachment.open(base):
        generate(base, Request(["a dog"], [0], steps=3), CFG(scale=2), job)
    assert footprint(base) == state
    with pytest.raises(Cancelled):
        method.prepare(base, [picture(1)], job)
    with pytest.raises(BadInput):
        method.prepare(base, [], Job())
    lacking = bases.make("unet-eps")
    lacking.offers = frozenset()
    with pytest.raises(NotAvailable):
        method.prepare(lacking, [picture(1)], Job())
    assert footprint(base) == state
