"""The judge: drawing against the stock pipeline, its oracles, and a table that can be passed and failed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image

from pipelines.artifacts import cache_dir, read_png_spec
from pipelines.errors import BrokenWeights, Cancelled, MissingAsset
from pipelines.jobs.spec import ToyboxJudge, ToyboxSheet
from pipelines.progress import Job
from pipelines.toybox import draw as drawing
from pipelines.toybox import nets, tokenizer
from pipelines.toybox.draw import Sampling, draw, load_part, noise, open_painter, round_trip
from pipelines.toybox.judge import bars, classifiers, judge
from pipelines.toybox.judge.pictures import Pictures, compose, training_scene
from pipelines.toybox.judge.prompts import Prompt, judge_prompts, renderings, seed_prompts
from pipelines.toybox.judge.reader import SceneReader, SubjectReader, cut
from pipelines.toybox.sheet import grid, sheet, sheet_prompts
from pipelines.toybox.world import WORDS, held_out, render, render_image, sample_scene
from pipelines.toybox.world.labels import HEADS, IGNORE, SUBJECT_HEADS, frames, labels

CPU = torch.device("cpu")
SURE = {kind: dict.fromkeys(HEADS, 1.0) for kind in ("plain", "soft")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder of tiny random networks, in the layout of the shipped one."""
    path = tmp_path_factory.mktemp("toybox")

    def small() -> tuple[Any, Any, Any]:
        unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=nets.TEXT_WIDTH,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        return unet, nets.vae(4), nets.text_encoder()

    unet, vae, text = nets.seeded(small, 0)
    nets.export_diffusers(unet, path / "unet")
    nets.export_diffusers(vae, path / "vae")
    nets.export_text_encoder(text, path / "text_encoder")
    tokenizer.save(path / "tokenizer")
    nets.export_pipeline(path)
    return path


# ---- drawing


def test_drawing_equals_the_stock_pipeline(folder: Path):
    painter = open_painter(folder, CPU)
    prompts, seeds = ["a red dog on the beach", "a blue cat"], [7, 8]
    images = draw(painter, prompts, seeds, Sampling(steps=5, guidance=4.0))
    pipe: Any = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    dice = [torch.Generator().manual_seed(seed) for seed in seeds]
    stock = pipe(prompts, num_inference_steps=5, guidance_scale=4.0, generator=dice, output_type="np").images
    assert images.shape == (2, 128, 128, 3)
    # a random net's x0 is far out of range, and the clip turns roundings there into whole levels
    off = np.abs(images / 255 - stock)
    assert off.mean() < 0.5 / 255
    assert np.quantile(off, 0.99) < 6 / 255


def test_a_picture_does_not_depend_on_its_batch(folder: Path):
    painter = open_painter(folder, CPU)
    prompts, seeds, how = ["a dog", "two words", "a red car in space"], [3, 4, 5], Sampling(steps=3)
    together = draw(painter, prompts, seeds, how)
    alone = np.concatenate([draw(painter, [p], [s], how) for p, s in zip(prompts, seeds, strict=True)])
    split = draw(painter, prompts, seeds, Sampling(steps=3, batch=2))
    assert np.abs(together.astype(int) - alone).max() <= 1  # kernels differ with the batch, noise does not
    assert np.abs(together.astype(int) - split).max() <= 1
    assert torch.equal(noise([3, 4], (4, 8, 8))[1:], noise([4], (4, 8, 8)))
    assert (draw(painter, prompts, [6, 7, 8], how) != together).any()


def test_guidance_one_is_the_plain_prediction(folder: Path, monkeypatch: pytest.MonkeyPatch):
    painter = open_painter(folder, CPU)
    rows: list[int] = []
    forward = painter.net.forward

    def counted(x: torch.Tensor, *args: Any, **named: Any) -> Any:
        rows.append(len(x))
        return forward(x, *args, **named)

    monkeypatch.setattr(painter.net, "forward", counted)
    draw(painter, ["a dog"], [0], Sampling(steps=2, guidance=1.0))
    draw(painter, ["a dog"], [0], Sampling(steps=2, guidance=4.0))
    assert rows == [1, 1, 2, 2]


def test_drawing_stops_when_asked(folder: Path):
    job = Job()
    job.cancel()
    with pytest.raises(Cancelled):
        draw(open_painter(folder, CPU), ["a dog"], [0], job=job)


def test_damaged_folders_are_named(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = copy / "unet" / nets.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    with pytest.raises(BrokenWeights, match="truncated") as caught:
        open_painter(copy, CPU)
    assert str(weights) in caught.value.message
    shutil.copy(folder / "vae" / nets.WEIGHTS, weights)  # whole, but of another network
    with pytest.raises(BrokenWeights, match="unet"):
        open_painter(copy, CPU)
    weights.write_bytes(whole)
    (copy / "model_index.json").write_text("{")
    with pytest.raises(BrokenWeights, match=r"model_index\.json"):
        open_painter(copy, CPU)
    shutil.rmtree(copy / "vae")
    with pytest.raises(MissingAsset, match="vae"):
        load_part(copy, "vae", CPU)


# ---- prompts


def test_prompts_are_held_out_and_say_what_they_ask():
    prompts = judge_prompts(60, seed=3)
    assert prompts == judge_prompts(60, seed=3)
    assert [each.text for each in prompts] != [each.text for each in judge_prompts(60, seed=4)]
    for prompt in prompts:
        words = prompt.text.replace(",", "").split()
        assert set(words) <= set(WORDS)
        for slot, subject in enumerate(prompt.scene.subjects):
            who = subject.identity
            assert held_out(who.kind, who.colour, prompt.scene.place)
            for head, name in prompt.asked(slot).items():
                if head != "kind" or name != "person":
                    named = head.removesuffix(" colour") if name == "yes" else name
                    assert named in prompt.text, (prompt.text, head, name)
    groups = [each.group for each in prompts]
    assert {group: groups.count(group) for group in set(groups)} == {
        "thing": 24,
        "person": 12,
        "pair": 18,
        "place": 6,
    }


def test_pairs_differ_in_kind_and_colour():
    for prompt in judge_prompts(100):
        if prompt.group == "pair":
            left, right = prompt.asked(0), prompt.asked(1)
            assert left["kind"] != right["kind"]
            assert left["colour"] != right["colour"]


def test_renderings_fit_the_words():
    for prompt in seed_prompts(4):
        for scene in renderings(prompt, 3):
            again = Prompt(prompt.text, scene, "thing")
            assert again.asked() == prompt.asked()
            assert (scene.place, scene.style) == (prompt.scene.place, prompt.scene.style)


def test_the_sheet_shows_every_kind_and_pattern():
    prompts = sheet_prompts(64)
    assert len(set(prompts)) == 64
    assert {word.strip(",") for text in prompts for word in text.split()} <= set(WORDS)
    for name in (*SUBJECT_HEADS["pattern"][1:], *SUBJECT_HEADS["kind"][:-1]):
        assert any(name in text for text in prompts), name


# ---- the table, with the truth in place of what is drawn


def truth_of(prompts: list[Prompt]) -> dict[str, np.ndarray]:
    """What perfect classifiers would read in perfect pictures."""
    return {
        head: np.where(each == IGNORE, 0, each) for head, each in labels([p.scene for p in prompts]).items()
    }


def values(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {each["bar"]: each["value"] for each in rows}


def test_perfect_pictures_pass_every_bar_and_shuffled_ones_fail():
    prompts = judge_prompts(200)
    found = truth_of(prompts)
    rows = bars.drawn(prompts, found, SURE)
    assert len(rows) == 8
    assert all(each["ok"] and each["value"] == 1.0 for each in rows)
    order = np.random.default_rng(0).permutation(len(prompts))
    rows = bars.drawn(prompts, {head: each[order] for head, each in found.items()}, SURE)
    assert not any(each["ok"] for each in rows)


def test_swapped_colours_are_seen():
    prompts = [each for each in judge_prompts(60) if each.group == "pair"]
    found = truth_of(prompts)
    right = values(bars.drawn(prompts, found, SURE))["two subjects, attributes not swapped"]
    mirrored = {head: each[:, ::-1] if head in SUBJECT_HEADS else each for head, each in found.items()}
    sides = values(bars.drawn(prompts, mirrored, SURE))["two subjects, attributes not swapped"]
    crossed = found | {"colour": found["colour"][:, ::-1]}
    row = next(each for each in bars.drawn(prompts, crossed, SURE) if each["bar"].startswith("two"))
    assert (right, sides, row["value"]) == (1.0, 1.0, 0.0)
    assert "colours swapped 100.0%" in row["note"]
    alone = found | {"count": np.ones_like(found["count"])}
    assert values(bars.drawn(prompts, alone, SURE))["two subjects, attributes not swapped"] == 0.0


def test_a_bar_counts_only_what_the_words_ask():
    prompts = [each for each in judge_prompts(400) if each.group == "person"]
    found = truth_of(prompts)
    beards = next(each for each in bars.drawn(prompts, found | {"beard": np.ones_like(found["beard"])}, SURE)
                  if each["bar"].startswith("people"))  # fmt: skip
    assert beards["value"] == 1.0
    assert "beard unasked 100%" in beards["note"]


def test_likeness_of_pairs():
    assert bars.alike(np.eye(4)) == 0.0
    assert bars.alike(np.ones((3, 1))) == pytest.approx(1.0)
    two = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert bars.alike(two) == pytest.approx(1 / 3)


def test_psnr_of_a_known_error():
    images = np.full((3, 8, 8, 3), 100, np.uint8)

    class Shifted:
        """An autoencoder that brightens everything by 10 of 255."""

        def parameters(self) -> Any:
            return iter([torch.zeros(1)])

        def to(self, **_: Any) -> Shifted:
            return self

        def encode(self, x: torch.Tensor) -> Any:
            return type("Out", (), {"latents": x})

        def decode(self, z: torch.Tensor) -> Any:
            return type("Out", (), {"sample": z + 20 / 255})

    back = round_trip(Shifted(), images)
    assert (back == 110).all()
    assert bars.psnr(images, back) == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)


# ---- the classifiers


def test_frames_hold_their_subjects():
    scenes = [sample_scene(number) for number in range(30)]
    for scene, frame in zip(scenes, frames(scenes), strict=True):
        for slot, mask in enumerate(render(scene).masks):
            x, y, half = frame[slot] * 128
            rows, columns = np.nonzero(mask)
            inside = (np.abs(columns - x) <= half) & (np.abs(rows - y) <= half)
            assert inside.mean() > 0.93, scene.subjects[slot].identity.kind
        assert not frame[len(scene.subjects) :].any()


def test_a_mirrored_cut_is_the_cut_mirrored():
    pixels = torch.rand(2, 3, 128, 128)
    frame = torch.tensor([[0.4, 0.5, 0.3], [0.6, 0.4, 0.2]])
    plain = cut(pixels, frame)
    across = cut(pixels, frame * torch.tensor([1, 1, -1]))
    torch.testing.assert_close(plain.flip(-1), across, atol=1e-4, rtol=0)
    everything = cut(pixels, torch.tensor([[0.5, 0.5, 0.5]] * 2))
    torch.testing.assert_close(everything, torch.nn.functional.avg_pool2d(pixels, 2), atol=1e-4, rtol=0)


def test_mirroring_a_batch_swaps_left_and_right():
    scenes = [scene for scene in map(training_scene, range(60)) if len(scene.subjects) == 2][:8]
    pixels = drawing.to_pixels(np.stack([render_image(scene) for scene in scenes]))
    truth = {head: torch.from_numpy(each) for head, each in labels(scenes).items()}
    batch = compose(pixels, truth, torch.from_numpy(frames(scenes)), torch.Generator().manual_seed(0))
    assert (batch.frames[:, 0, 0] < batch.frames[:, 1, 0]).all()
    moved = (batch.frames - torch.from_numpy(frames(scenes))).abs().sum((1, 2)) > 0
    assert 0 < moved.sum() < len(scenes)
    assert len(batch.squares) == 2 * len(scenes)


def test_rare_heads_do_not_drown_common_ones():
    logits = {"kind": torch.zeros(8, 14), "hat colour": torch.zeros(8, 8)}
    truth = {"kind": torch.zeros(8, dtype=torch.long), "hat colour": torch.tensor([3] + [IGNORE] * 7)}
    loss = classifiers.entropy(logits, truth, 8)
    assert loss.item() == pytest.approx(np.log(14) + np.log(8) / 8**0.5, abs=1e-4)


def test_batches_are_a_function_of_the_step(tmp_path: Path):
    def batches() -> list[Any]:
        pictures = Pictures(tmp_path / "pictures", pages=1, soft_pages=0, seed=5)
        pictures.prepare(None, Job())
        try:
            return [pictures.batch(step, 4) for step in (0, 1, 0)]
        finally:
            pictures.close()

    first, second = batches(), batches()
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.whole, other.whole)
        assert torch.equal(one.squares, other.squares)
    assert torch.equal(first[0].squares, first[2].squares)
    assert not torch.equal(first[0].whole, first[1].whole)


def test_classifiers_are_trained_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classifiers, "cache_dir", lambda: tmp_path)
    size = classifiers.Size(pages=1, soft_pages=0, views=96, tests=10)
    readers, report = classifiers.obtain([], None, CPU, Job(), size=size)
    assert set(report) == {"plain", "soft"}
    assert set(report["plain"]) <= set(HEADS)
    monkeypatch.setattr(classifiers, "train", None)  # a second run must not train
    again, _ = classifiers.obtain([], None, CPU, Job(), size=size)
    for one, other in ((readers.scene, again.scene), (readers.subject, again.subject)):
        assert all(
            torch.equal(a, b)
            for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )
    images = np.stack([render_image(sample_scene(number)) for number in range(3)])
    read = readers.read(images)
    assert read["place"].shape == (3,)
    assert read["kind"].shape == (3, 2)
    one = readers.read(images[1:2])
    assert all((read[head][1] == one[head][0]).all() for head in HEADS)
    assert not list(tmp_path.glob("judge/*/training"))


# ---- the judge and the sheet


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained classifiers instead of minutes of training."""

    def obtain(*_: Any, **__: Any) -> tuple[Any, dict[str, Any]]:
        return classifiers.Readers(SceneReader(), SubjectReader()), SURE

    monkeypatch.setattr(classifiers, "obtain", obtain)
    monkeypatch.setattr(bars, "WORLD_SCENES", 2)
    monkeypatch.setattr(bars, "SEED_PROMPTS", 1)


@pytest.mark.usefixtures("trained")
def test_the_judge_measures_a_folder(folder: Path):
    result = judge(ToyboxJudge(folder=folder, prompts=10, steps=1, device="cpu"), Job())
    json.dumps(result)
    rows = {each["bar"]: each for each in result["rows"]}
    assert len(rows) == 14
    assert not rows["autoencoder, world (dB)"]["ok"]
    assert rows["class drawn is the class named"]["value"] is not None
    assert rows["toybox-clip: top-1 of 64"]["value"] is None
    assert "--stage clip" in rows["toybox-clip: top-1 of 64"]["note"]
    assert rows["one image, 1 steps (s)"]["value"] > 0


def test_variety_is_measured_with_guidance_and_shown_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is alike here: all under guidance 4, half without guidance, nothing as rendered."""
    axes = np.eye(8, dtype=np.float32)
    shown = {4.0: axes[[0] * 8], 1.0: axes[[0] * 4 + [1] * 4], None: axes}

    asked: list[float] = []

    def drew(_: Any, prompts: list[str], seeds: list[int], how: Sampling, job: Job) -> np.ndarray:
        assert len(set(seeds)) == len(prompts) == 8
        asked.append(how.guidance)
        return shown[how.guidance]

    monkeypatch.setattr(bars, "draw", drew)
    monkeypatch.setattr(bars, "render_all", lambda scenes: shown[None])
    monkeypatch.setattr(bars, "embed", lambda model, images: torch.from_numpy(images))
    painter: Any = object()
    found = bars.seeds_matter(painter, object(), Sampling(), 0, Job())
    assert found["value"] == 1.0 and not found["ok"]
    assert found["note"].startswith("drawn 1.000, unguided 0.429, rendered 0.000")
    assert asked == [4.0, 1.0] * bars.SEED_PROMPTS
    asked.clear()  # where nothing guides, nothing is drawn twice
    found = bars.seeds_matter(painter, object(), Sampling(guidance=1.0), 0, Job())
    assert found["note"].startswith("drawn 0.429, unguided 0.429")
    assert asked == [1.0] * bars.SEED_PROMPTS


@pytest.mark.usefixtures("trained")
def test_the_judge_says_what_is_missing(folder: Path, tmp_path: Path):
    with pytest.raises(MissingAsset, match="nowhere"):
        judge(ToyboxJudge(folder=tmp_path / "nowhere"), Job())
    only = tmp_path / "only"
    shutil.copytree(folder / "vae", only / "vae")
    rows = {each["bar"]: each for each in judge(ToyboxJudge(folder=only), Job())["rows"]}
    assert len(rows) == 14
    assert rows["autoencoder, world (dB)"]["value"] > 0
    assert rows["class drawn is the class named"]["value"] is None
    assert "--stage unet" in rows["class drawn is the class named"]["note"]
    assert not any(each["ok"] for each in rows.values())
    (only / "vae" / nets.WEIGHTS).write_bytes(b"not weights at all")
    with pytest.raises(BrokenWeights, match="vae"):
        judge(ToyboxJudge(folder=only), Job())


def test_the_sheet_carries_its_prompts(folder: Path, tmp_path: Path):
    out = tmp_path / "new" / "sheet.png"
    result = sheet(ToyboxSheet(folder=folder, out=out, prompts=3, steps=1, device="cpu"), Job())
    carried = read_png_spec(out)
    assert carried is not None
    assert result["path"] == str(out)
    assert carried["captions"] == sheet_prompts(3)
    assert carried["steps"] == 1
    with Image.open(out) as picture:
        assert picture.size[0] > 3 * 128


def test_a_grid_keeps_pictures_whole_and_captions_short():
    pictures = [np.full((32, 32, 3), value, np.uint8) for value in (0, 100, 200)]
    page = np.asarray(grid(pictures, ["a " * 200, "short", ""], columns=2))
    for value in (0, 100, 200):
        assert (page == value).all(-1).sum() >= 32 * 32
    plain = grid(pictures)
    assert plain.size[1] < page.shape[0]
    with pytest.raises(ValueError, match="at least one"):
        grid([])


def test_the_cache_is_outside_the_repository():
    assert Path(__file__).resolve().parents[2] not in cache_dir().parents
