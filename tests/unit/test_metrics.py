"""Readouts: against closed forms, with bands only where they were stated, and failing one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pipelines.artifacts import assets, save_safetensors
from pipelines.data.photos import list_photos, open_photo
from pipelines.errors import BadInput, BrokenWeights, NotAvailable, UnknownName
from pipelines.metrics import ScoreContext, score
from pipelines.metrics._encoders import likeness
from pipelines.metrics.clip_i import ClipI
from pipelines.metrics.clip_t import ClipT
from pipelines.metrics.dino_i import DinoI
from pipelines.metrics.latency import Latency
from pipelines.metrics.memory import Memory
from pipelines.metrics.size import Size
from pipelines.vision.encoder import encoder

SUBJECTS = ("backpack", "bear_plushie", "cat", "clock", "dog", "teapot")
HELD_OUT = ("clock", "teapot")  # never trained on by Toybox's encoders


def pictures(folder):
    return [open_photo(path) for path in list_photos(assets() / folder)]


def plain(colour, size=32):
    return Image.new("RGB", (size, size), colour)


class Stub:
    """An encoder whose vectors are the first pixel's colour, scaled to length 1."""

    def __init__(self, name):
        self.name = name

    def images(self, images):
        return F.normalize(torch.tensor([image.getpixel((0, 0)) for image in images]).float(), dim=-1)

    def texts(self, texts):
        raise NotImplementedError

    def cut(self, texts):
        raise NotImplementedError


def test_likeness_is_the_mean_of_pairwise_cosines():
    images, references = [plain((9, 0, 0)), plain((3, 4, 0))], [plain((0, 5, 0)), plain((7, 0, 0))]
    reading = likeness("dino_i", DinoI(), Stub("any"), images, ScoreContext(references=references))
    vectors = [np.array([1, 0, 0]), np.array([0.6, 0.8, 0])], [np.array([0, 1, 0]), np.array([1, 0, 0])]
    assert reading.value == pytest.approx(np.mean([a @ b for a, b in product(*vectors)]))
    assert reading.each == pytest.approx((0.5, 0.7))


@pytest.mark.parametrize(
    ("metric", "encoder", "value", "word"),
    [
        (DinoI, "dinov2-vits14", 0.44, "poor"),
        (DinoI, "dinov2-vits14", 0.45, "moderate"),
        (DinoI, "dinov2-vits14", 0.70, "good"),
        (DinoI, "dinov2-vits14", 0.90, ""),  # beyond what was stated: a copy, perhaps
        (DinoI, "toybox-dino", 0.70, ""),
        (ClipI, "clip-vit-b32", 0.80, "good"),
        (ClipI, "clip-vit-l14", 0.80, ""),
        (ClipT, "clip-vit-b32", 0.30, "good"),
        (ClipT, "toybox-clip", 0.30, ""),
    ],
)
def test_words_only_for_the_encoder_they_were_stated_for(metric, encoder, value, word):
    assert metric().band(encoder, value) == word


def test_a_value_without_a_word_says_why():
    reading = score([plain("red")], ScoreContext(references=[plain("red")]), ["dino_i"])[0]
    assert reading.band == ""
    assert reading.encoder == "toybox-dino"
    assert "scales of their own" in reading.note


def test_prompts_are_told_apart_by_their_pictures():
    images = [pictures("subjects/rabbit")[0], pictures("subjects/bearded_man")[0]]
    right = ScoreContext(["a photo of a rabbit", "a photo of a man with a beard"])
    wrong = ScoreContext(right.prompts[::-1])
    assert sum(score(images, right, ["clip_t"])[0].each) > sum(score(images, wrong, ["clip_t"])[0].each) + 0.4


def test_prompts_that_are_missing_too_long_or_too_many():
    images = [plain("red"), plain("blue")]
    reading = score(images, ScoreContext(["a red thing", " "]), ["clip_t"])[0]
    assert len(reading.each) == 1
    assert "1 pictures without a prompt" in reading.note
    reading = score(images, ScoreContext(["a dog " * 500]), ["clip_t"])[0]
    assert "2 of 2 prompts are longer" in reading.note
    with pytest.raises(BadInput, match="2 pictures and 3 prompts"):
        score(images, ScoreContext(["a", "b", "c"]), ["clip_t"])


def test_unasked_readouts_without_context_are_passed_over_and_asked_ones_say_why():
    image = [plain("red")]
    assert {each.name for each in score(image, ScoreContext(["red"]))} == {"clip_t"}
    assert score(image, ScoreContext()) == []
    asked = score(image, ScoreContext(["red"]), ["clip_t", "dino_i"])
    assert [each.name for each in asked] == ["clip_t", "dino_i"]
    assert asked[0].value is not None
    assert asked[1].value is None
    assert "--references" in asked[1].note


def test_a_missing_encoder_takes_only_its_own_readouts_along(monkeypatch):
    from pipelines.vision import encoder as module

    def without_clip(weights):
        if "clip" in weights.name:
            raise NotAvailable("CLIP", "it is not here", "Fetch it.")
        return found(weights)

    found = module.find
    monkeypatch.setattr(module, "find", without_clip)
    readings = {each.name: each for each in score([plain("red")], ScoreContext(["red"], [plain("red")]))}
    assert readings["clip_t"].value is None
    assert readings["clip_i"].note.startswith("CLIP is not available")
    assert readings["dino_i"].value == pytest.approx(1, abs=1e-5)


def test_other_bases_are_not_measured_with_toybox(monkeypatch):
    from pipelines.vision import encoder as module

    asked = []
    monkeypatch.setattr(module, "find", lambda weights: asked.append(weights.hub) or 1 / 0)
    for name in ("clip_t", "dino_i"):
        with pytest.raises(ZeroDivisionError):
            score([plain("red")], ScoreContext(["red"], [plain("red")], "sd1"), [name])
    assert asked == ["openai/clip-vit-large-patch14", "facebook/dinov2-small"]


def test_nothing_and_unknown():
    with pytest.raises(BadInput):
        score([], ScoreContext(["red"]))
    with pytest.raises(UnknownName) as caught:
        score([plain("red")], ScoreContext(["red"]), ["clipt"])
    assert caught.value.suggestion == "clip_t"


def test_warm_and_cold_are_kept_apart():
    warm, cold = Latency().score([], ScoreContext(cold=17.0, warm=[0.1, 0.3, 0.11]))
    assert (warm.name, warm.value, warm.each) == ("latency", 0.11, (0.1, 0.3, 0.11))
    assert (cold.name, cold.value) == ("latency_cold", 17.0)
    assert [each.name for each in Latency().score([], ScoreContext(cold=1.0))] == ["latency_cold"]


def test_memory_in_mebibytes():
    assert Memory().score([], ScoreContext(peak=5 * 2**20))[0].value == 5


def test_size_counts_what_was_trained_and_not_its_settings(tmp_path):
    tensors = {
        "a.lora_A.weight": torch.zeros(4, 16),
        "a.lora_B.weight": torch.zeros(8, 4),
        "a.alpha": torch.ones(()),
    }
    path = save_safetensors(tmp_path / "adapter.safetensors", tensors)
    size, parameters = Size().score([], ScoreContext(files=[path, path]))
    assert size.value == 2 * path.stat().st_size
    assert parameters.value == 2 * (4 * 16 + 8 * 4)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BrokenWeights):
        Size().score([], ScoreContext(files=[path]))


@pytest.mark.parametrize("name", ["toybox-dino", "toybox-clip"])
def test_photos_of_one_subject_are_closer_than_those_of_two(name):
    features = {subject: encoder(name).images(pictures(f"photos/{subject}")) for subject in SUBJECTS}
    for held_out in (False, True):
        names = [each for each in SUBJECTS if not held_out or each in HELD_OUT]
        same = [off_diagonal(features[each] @ features[each].T) for each in names]
        other = [(features[a] @ features[b].T).mean() for a, b in product(names, names) if a != b]
        assert np.mean(same) > np.mean(other) + 0.15


def off_diagonal(cosines):
    return cosines[~torch.eye(len(cosines), dtype=torch.bool)].mean()
