"""What every readout must be, whatever it measures: a new file in `metrics/` inherits this."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipelines.artifacts import assets
from pipelines.data.photos import list_photos, open_photo
from pipelines.metrics import CannotMeasure, Metric, Reading, ScoreContext, score
from pipelines.spec import catalog

METRICS = cast("dict[str, type[Metric]]", catalog("metrics"))
LIKENESS = ("clip_i", "dino_i")  # against references
PICTURES = (*LIKENESS, "clip_t")  # those that look at pictures


def pictures(folder):
    return [open_photo(path) for path in list_photos(assets() / folder)]


@pytest.fixture(scope="module")
def dogs():
    return pictures("photos/dog")


@pytest.fixture(scope="module")
def context(dogs):
    files = [assets() / "toybox" / "dino" / "model.safetensors"]
    return ScoreContext(
        ["a photo of a dog"], dogs, files=files, cold=2.0, warm=[0.5, 0.7, 0.6], peak=3 * 2**20
    )


def spoilt(image, seed):
    """Blurred, and half of it gone."""
    noise = np.random.default_rng(seed).integers(0, 256, (image.height, image.width, 3), np.uint8)
    return Image.blend(image.filter(ImageFilter.GaussianBlur(8)), Image.fromarray(noise), 0.6)


@pytest.mark.parametrize("name", METRICS)
def test_says_what_it_is(name):
    method = METRICS[name]
    assert method.title
    assert method.source
    assert method.better in ("higher", "lower")
    assert all(field.description for field in method.model_fields.values())
    for stated in method.bands.values():
        edges = [(each.low, each.high) for each in stated]
        assert all(low < high for low, high in edges)
        assert [high for _, high in edges[:-1]] == [low for low, _ in edges[1:]]


@pytest.mark.parametrize("name", METRICS)
def test_readings_are_whole(name, dogs, context):
    readings = METRICS[name]().score(dogs, context)
    assert readings
    assert readings[0].name == name
    for each in readings:
        assert isinstance(each, Reading)
        assert each.value is not None
        assert np.isfinite(each.value)
        assert each.better == METRICS[name].better
        assert each.as_dict()["value"] == each.value


@pytest.mark.parametrize("name", METRICS)
def test_refuses_what_it_cannot_measure(name, dogs):
    with pytest.raises(CannotMeasure) as caught:
        METRICS[name]().score(dogs, ScoreContext())
    assert caught.value.remedy


@pytest.mark.parametrize("name", METRICS)
def test_two_runs_agree(name, dogs, context):
    assert METRICS[name]().score(dogs, context) == METRICS[name]().score(dogs, context)


@pytest.mark.parametrize("name", METRICS)
def test_order_is_free(name, dogs, context):
    (first, *_), (second, *_) = (METRICS[name]().score(order, context) for order in (dogs, dogs[::-1]))
    assert second.value == pytest.approx(first.value, abs=1e-6)
    if name in PICTURES:
        assert second.each == pytest.approx(first.each[::-1], abs=1e-5)


@pytest.mark.parametrize("name", PICTURES)
def test_a_batch_is_the_loop(name, dogs, context):
    from pipelines.vision import encoder

    together = METRICS[name]().score(dogs, context)[0].each
    encoder._loaded.cache_clear()  # with it goes what was remembered of each picture
    alone = [METRICS[name]().score([image], context)[0].value for image in dogs]
    assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("name", LIKENESS)
def test_the_reference_itself_is_best(name, dogs):
    context = ScoreContext(references=dogs[:1])
    own, *others = METRICS[name]().score(dogs, context)[0].each
    assert own == pytest.approx(1, abs=1e-5)
    assert max(others) < own - 1e-3


@pytest.mark.parametrize("name", PICTURES)
def test_worsens_under_corruption(name, dogs, context):
    metric = METRICS[name]()
    spoiled = [spoilt(image, seed) for seed, image in enumerate(dogs)]
    assert (
        np.mean(metric.score(spoiled, context)[0].each) < np.mean(metric.score(dogs, context)[0].each) - 0.02
    )


@pytest.mark.parametrize("name", METRICS)
def test_alone_and_among_others(name, dogs, context):
    assert METRICS[name]().score(dogs, context) == score(dogs, context, [name])
