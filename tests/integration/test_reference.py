"""A drawing with a reference method, from its job to its pictures; weights are random, so only mechanics."""

from pathlib import Path

import pytest
from PIL import Image

from pipelines.base.loading import open_base
from pipelines.jobs import presets
from pipelines.progress import Job
from pipelines.worker import run
from tests.references import encoder, published


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("LIKENESS_WORKSPACE", str(tmp_path / "workspace"))
    published(tmp_path / "ip.safetensors", open_base("toybox", "cpu", Job()).net, context=128)
    encoder(tmp_path / "image_encoder")
    return {"weights": str(tmp_path / "ip.safetensors"), "encoder": str(tmp_path / "image_encoder")}


def test_pictures_named_one_by_one_or_as_a_folder_are_drawn_after_and_measured_against(weights):
    folder = "asset:subjects/cat"
    names = [f"{folder}/{number}.png" for number in range(1, 7)]
    drawn, likeness = [], []
    for images in (names, folder, names[:1], None):
        reference = images and {"method": "ip_adapter", "scale": 1.5, **weights, "images": images}
        form = {"prompts": ["a cat"], "sampler.steps": 2, "reference": reference}
        result = run(presets.build("compose", form=form), Job())
        [picture] = result["pictures"]
        drawn.append(Image.open(picture["path"]).tobytes())
        likeness.append(picture["readings"].get("dino_i"))
    assert drawn[0] == drawn[1]
    assert len({*drawn}) == 3  # six pictures, one, none
    assert likeness[0] is not None
    assert likeness[3] is None
