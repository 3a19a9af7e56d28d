"""Pictures say how they were made, to us and to other programs; what foreign ones say is judged."""

import json
import random

import pytest
from PIL import Image, PngImagePlugin

from pipelines.artifacts import read_png_spec, read_png_text
from pipelines.errors import BadInput, LikenessError, MissingAsset
from pipelines.jobs import pictures
from pipelines.jobs.spec import Compose, from_table

FOREIGN = """a photo of a (red:1.2) dog, highly detailed <lora:painter:0.8>
on two lines
Negative prompt: blurry, low quality
text
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 123456789, \
Size: 512x768, Model hash: abc123, Model: dreamy, Denoising strength: 0.35, Clip skip: 2, \
Lora hashes: "painter: 1a2b3c", Version: v1.9"""


def spec(**more):
    return Compose.model_validate(
        {
            "prompts": ["a dog"],
            "seed": 7,
            "guidance": {"method": "cfg", "scale": 4.5},
            "sampler": {"name": "euler", "steps": 12},
            **more,
        }
    )


def image():
    return Image.new("RGB", (128, 96), "red")


def test_a_picture_carries_both_and_ours_comes_back_whole(tmp_path):
    made = spec(adapters=[{"adapter": "run:train-dog", "weight": 0.8}], negative="blurry, dark")
    path = pictures.save(tmp_path / "a.png", image(), made.shareable(), {"Model hash": "beef"})
    assert from_table(read_png_spec(path) or {}) == made
    assert pictures.like(path) == pictures.Foreign(made.portable(), ())
    assert read_png_text(path, "parameters") == (
        "a dog <lora:train-dog:0.8>\nNegative prompt: blurry, dark\n"
        "Steps: 12, Sampler: Euler, CFG scale: 4.5, Seed: 7, Model: toybox, Size: 128x96, Model hash: beef, "
        f"Version: {(read_png_text(path, 'parameters') or '').rpartition(': ')[2]}"
    )


def test_other_programs_text_becomes_a_partial_drawing():
    found = pictures.read_parameters(FOREIGN)
    assert found.table == {
        "prompts": ["a photo of a (red:1.2) dog, highly detailed \non two lines"],
        "negative": "blurry, low quality\ntext",
        "sampler": {"steps": 28, "name": "dpmpp_2m"},
        "guidance": {"method": "cfg", "scale": 6.5},
        "seed": 123456789,
        "width": 512,
        "height": 768,
        "strength": 0.35,
        "adapters": [{"adapter": "painter", "weight": 0.8}],
    }
    assert found.ignored == ("Clip skip", "Lora hashes", "Model", "Model hash")
    assert from_table({"kind": "compose", **found.table})


def test_what_we_write_we_read():
    rng = random.Random(0)
    letters = 'abc ,:"\\\n日ß()<>[]{}='
    for _ in range(500):
        prompt, negative = ("".join(rng.choices(letters, k=rng.randrange(1, 30))).strip() for _ in range(2))
        made = spec(prompts=[prompt], negative=negative, seed=rng.randrange(2**40), width=128, height=96)
        found = pictures.read_parameters(pictures.parameters_text(made.shareable()))
        assert (found.table["prompts"], found.table["seed"]) == ([prompt], made.seed)
        assert found.table["negative"] == negative
        assert found.table["guidance"] == made.guidance
        assert found.table["sampler"] == {"name": "euler", "steps": 12}
        assert not found.ignored


def test_a_last_line_with_less_than_three_pairs_is_prompt():
    found = pictures.read_parameters("a cat\nmood: calm, light: soft")
    assert found.table["prompts"] == ["a cat\nmood: calm, light: soft"]
    assert "seed" not in found.table


@pytest.mark.parametrize(
    "pairs", ["Steps: many", "Seed: 1e999", "CFG scale: nan", "Steps: -inf", "Seed: " + "9" * 400]
)
def test_bad_numbers_are_refused(pairs):
    with pytest.raises(BadInput, match="The picture says"):
        pictures.read_parameters(f"a\n{pairs}, Size: 1x1, Model: m, Sampler: Euler")


@pytest.mark.parametrize(
    "text", ["", "\n\n", "Negative prompt:", ":,:,:,:", "a: " * 1000, '"' * 5000, "<lora:>" * 500]
)
def test_odd_texts_are_read_as_far_as_they_go(text):
    assert "prompts" in pictures.read_parameters(text).table


def carrying(path, **texts):
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    image().save(path, pnginfo=info)
    return path


@pytest.mark.parametrize(
    "texts",
    [
        {},
        {"parameters": "x" * 500_000},
        {"parameters": "x" * 2_000_000},
        {"likeness": "x" * 500_000},
        {"likeness": "[" * 100_000},
        {"likeness": '{"kind": "compose", "seed": -1}'},
        {"likeness": '{"kind": "compose", "evil": true}'},
        {"likeness": '{"kind": "compose", "version": 99}'},
        {"likeness": "{}"},
    ],
)
def test_hostile_pictures_raise_typed_errors(tmp_path, texts):
    with pytest.raises(LikenessError) as caught:
        pictures.like(carrying(tmp_path / "a.png", **texts))
    assert caught.value.remedy


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(BadInput):
        pictures.like(tmp_path / "a.png")
    with pytest.raises(MissingAsset):
        pictures.like(tmp_path / "b.png")


def test_a_compressed_bomb_of_text_is_refused(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "x" * 50_000_000, zip=True)
    image().save(tmp_path / "a.png", pnginfo=info)
    assert (tmp_path / "a.png").stat().st_size < 200_000
    with pytest.raises(BadInput):
        pictures.like(tmp_path / "a.png")


def test_no_path_is_in_the_text(tmp_path):
    adapter = tmp_path / "dog.safetensors"
    adapter.write_bytes(b"weights")
    table = spec(adapters=[{"adapter": str(adapter)}], base=str(tmp_path / "base")).shareable()
    text = pictures.parameters_text(table)
    assert str(tmp_path) not in text + json.dumps(table)
    assert "<lora:dog:1>" in text
    assert 'Lora hashes: "dog: ' in text
