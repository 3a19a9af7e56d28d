"""The two encoder stages: data, losses against oracles, and exports that load."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    Dinov2Model,
)

from pipelines.artifacts import load_safetensors, read_safetensors_header, save_safetensors
from pipelines.errors import BrokenWeights, MissingAsset
from pipelines.toybox import tokenizer
from pipelines.toybox.stages import clip, dino, encoders, who
from pipelines.toybox.stages.stem import HEARD, LOUDNESS, sharpen
from pipelines.toybox.stages.transplant import transplant
from pipelines.toybox.stages.twins import twin
from pipelines.toybox.stages.world import truth
from pipelines.toybox.world import HELD_OUT, Drawing, caption, held_out, sample_identity, sample_scene

# ---- what both encoders share


def fake_picture(scene, size: int = 128) -> np.ndarray:
    """Noise in place of a drawing: as different between scenes and as reproducible, in no time."""
    seed = abs(hash(repr(scene)))
    tile = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.tile(tile, (size // 8, size // 8, 1))


def fake_drawing(scene, size: int = 128) -> Drawing:
    """A drawing of which only the picture and the masks are asked for: each subject fills its half."""
    masks = np.zeros((len(scene.subjects), size, size), bool)
    for index, mask in enumerate(masks):
        mask[:, index * size // 2 : (index + 1) * size // 2] = True
    nothing: Any = None
    image = fake_picture(scene, size)
    return Drawing(scene, image, masks, nothing, nothing, nothing, nothing, nothing)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(encoders, "render_image", fake_picture)
    monkeypatch.setattr(encoders, "render", fake_drawing)
    monkeypatch.setattr(encoders, "fingerprint", lambda: "fake")


def test_pages_are_made_once_and_damage_is_named(quick, tmp_path):
    asked = []

    def scenes(page):
        asked.append(page)
        return [sample_scene(page * 4 + index) for index in range(4)]

    pages = encoders.Pages(tmp_path / "pages", scenes)
    first, cells = pages[3]
    assert first.shape == (4, 128, 128, 3)
    for picture, cell, scene in zip(first, cells, scenes(3), strict=True):
        np.testing.assert_array_equal(picture, fake_picture(scene))
        np.testing.assert_array_equal(cell, truth(fake_drawing(scene).masks, scene))
    again = encoders.Pages(tmp_path / "pages", scenes)
    np.testing.assert_array_equal(again[3][0], first)
    assert asked.count(3) == 2  # once by this test
    (pages.folder / "00005.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(BrokenWeights, match=r"00005\.npy"):
        pages[5]
    other = encoders.Pages(tmp_path / "pages", lambda page: [sample_scene(page + 1)])
    assert other.folder != pages.folder


def test_prefetch_hands_out_a_pure_function_of_the_step():
    prefetch = encoders.Prefetch(lambda step: step * step)
    assert [prefetch(step) for step in (0, 1, 2, 7, 8, 3, 3)] == [0, 1, 4, 49, 64, 9, 9]
    prefetch.close()


def test_neutral_augmentation_is_the_plain_picture():
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    neutral = encoders.Augmentation(
        np.zeros((3, 2), int), np.ones((3, 3), np.float32), np.zeros((3, 3), np.float32), np.zeros(3, bool)
    )
    np.testing.assert_array_equal(neutral.moved(images), images)
    tinted = neutral.tinted(torch.from_numpy(images), clip.MEAN, clip.STD)
    torch.testing.assert_close(tinted, encoders.pixel_values(images, clip.MEAN, clip.STD), atol=1e-5, rtol=0)


def test_blur_softens_only_its_pictures_and_keeps_flat_ones():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    images[1] = 90
    dice = encoders.Augmentation(
        np.zeros((2, 2), int),
        np.ones((2, 3), np.float32),
        np.zeros((2, 3), np.float32),
        np.array([True, True]),
    )
    plain = encoders.pixel_values(images, clip.MEAN, clip.STD)
    soft = dice.tinted(torch.from_numpy(images), clip.MEAN, clip.STD)
    assert soft[0].std() < 0.6 * plain[0].std()
    torch.testing.assert_close(soft[1], plain[1], atol=1e-5, rtol=0)


# ---- losses against oracles


def test_contrastive_loss_equals_clips_own_where_all_captions_differ():
    torch.manual_seed(0)
    image, text, ids = torch.randn(6, 8), torch.randn(6, 8), torch.arange(6)[:, None]
    loss, _ = clip.contrastive_loss(image, text, torch.tensor(5.0), ids)
    cosine = 5 * torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1)
    rows = torch.arange(6)
    expected = -(cosine.log_softmax(1)[rows, rows] + cosine.log_softmax(0)[rows, rows]).mean() / 2
    torch.testing.assert_close(loss, expected)


def test_equal_captions_are_not_negatives():
    image = torch.eye(4)[[0, 0, 1, 2]]
    ids = torch.tensor([[0], [0], [1], [2]])
    loss, accuracy = clip.contrastive_loss(image, image.clone(), torch.tensor(50.0), ids)
    assert accuracy == 1
    torch.testing.assert_close(loss, torch.tensor(2 * np.log(2) / 4, dtype=loss.dtype), atol=1e-4, rtol=0)


def test_supervised_contrastive_equals_the_papers_sum():
    torch.manual_seed(0)
    embedding, who = torch.randn(7, 5), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    loss, _ = dino.supervised_contrastive(embedding, who, 0.2)
    unit = torch.nn.functional.normalize(embedding, dim=-1).double()
    terms = []
    for i in range(7):
        others = [a for a in range(7) if a != i]
        below = sum(torch.exp(unit[i] @ unit[a] / 0.2) for a in others)
        positives = [p for p in others if who[p] == who[i]]
        terms.append(
            -sum(torch.log(torch.exp(unit[i] @ unit[p] / 0.2) / below) for p in positives) / len(positives)
        )
    torch.testing.assert_close(loss.double(), sum(terms) / 7, atol=1e-5, rtol=1e-5)


def test_area_under_curve_counts_pairs():
    rng = np.random.default_rng(0)
    same, other = rng.integers(0, 6, 30), rng.integers(0, 5, 40)
    pairs = (same[:, None] > other).mean() + (same[:, None] == other).mean() / 2
    assert dino.area_under_curve(same, other) == pytest.approx(pairs)


def test_cells_know_nothing_at_first_and_everything_when_told():
    head = encoders.Cells(40)
    torch.nn.init.zeros_(head.names.weight)
    torch.nn.init.zeros_(head.names.bias)
    cells = torch.from_numpy(np.random.default_rng(0).integers(0, 8, (3, 2, 8, 8), dtype=np.uint8))
    chance = np.log(encoders.N_KINDS) + np.log(encoders.N_COLOURS)
    assert head(torch.randn(3, 64, 40), cells).item() == pytest.approx(chance, rel=1e-5)
    head.norm = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    patches = torch.zeros(3, 64, 40)
    patches[..., :8] = torch.nn.functional.one_hot(cells[:, 0].flatten(1).long(), 8)
    patches[..., 8:16] = torch.nn.functional.one_hot(cells[:, 1].flatten(1).long(), 8)
    with torch.no_grad():
        for index in range(8):
            head.names.weight[index, index] = 60
            head.names.weight[encoders.N_KINDS + index, 8 + index] = 60
    assert head(patches, cells).item() == pytest.approx(0, abs=1e-4)


# ---- twins and hard groups


def test_a_twin_differs_by_name_and_stays_in_the_training_split():
    for seed in range(300):
        scene = sample_scene(seed)
        changed = twin(scene)
        assert changed == twin(scene)
        assert caption(changed, 0, full=True) != caption(scene, 0, full=True)
        assert len(changed.subjects) == len(scene.subjects)
        assert not any(held_out(s.identity.kind, s.identity.colour, changed.place) for s in changed.subjects)
        assert all(s.identity.id < HELD_OUT for s in changed.subjects)


def test_a_hard_group_shares_what_words_can_name():
    for seed in range(100):
        group = dino.hard_group(seed)
        assert group == dino.hard_group(seed)
        assert len({who.id for who in group}) == dino.MEMBERS
        assert all(who.id < HELD_OUT for who in group)
        assert len({(who.kind, who.colour, who.pattern, who.man) for who in group}) == 1
        assert not any(who.beard or who.hair_style == "bald" for who in group if not who.man)
    assert all(who.id >= HELD_OUT for who in dino.hard_group(1, first=HELD_OUT))
    loose = [dino.hard_group(seed, colours_only=True) for seed in range(60)]
    assert all(len({(who.kind, who.colour) for who in group}) == 1 for group in loose)
    assert any(len({who.pattern for who in group}) > 1 for group in loose)


def test_the_reader_reads_who_it_is_in_the_words_of_its_kind():
    reader = who.Reader(dino.WIDTH)
    for parameter in reader.parameters():
        torch.nn.init.zeros_(parameter)
    mug, man = sample_identity("mug", 1), sample_identity("person", 2, man=True, hair_style="bald")
    truth = torch.from_numpy(np.stack([who.truth_of(each) for each in (mug, man)]))
    told = dict(zip(who.NAMES, truth[1].tolist(), strict=False))
    assert told["pattern"] == told["hair colour"] == who.IGNORE
    assert told["hair style"] == dino.HAIR_STYLES.index("bald")
    assert bool(told["beard"]) == man.beard
    numbers = truth[:1, len(who.NAMES) :]
    chance = sum(np.log(who.NAMES[name]) for name in ("kind", "colour", "pattern"))
    shade = numbers[0, -3:].square().mean().item()
    spread = 12 * np.mean([(value - 0.5) ** 2 for value in mug.params]) + shade
    assert reader(torch.zeros(1, dino.WIDTH), truth[:1]).item() == pytest.approx(chance + spread, rel=1e-4)
    with torch.no_grad():
        reader.numbers.bias.view(len(dino.KINDS), -1)[dino.KINDS.index("mug")] = numbers[0]
        heads = reader.names.bias.split(list(who.NAMES.values()))
        for head, index in zip(heads, truth[0, : len(heads)], strict=True):
            head[int(index) if index >= 0 else 0] = 50
    assert reader(torch.zeros(1, dino.WIDTH), truth[:1]).item() == pytest.approx(0, abs=1e-4)


# ---- the stages


def stages(folder):
    return clip.ClipStage(folder, batch=24), dino.DinoStage(folder, batch=128)


def test_batches_are_a_pure_function_of_the_step(quick, tmp_path):
    for stage, again in zip(stages(tmp_path / "a"), stages(tmp_path / "b"), strict=True):
        first, second = stage.batch(3), stage.batch(4)
        again.batch(0)
        np.testing.assert_array_equal(first.images, again.batch(3).images)
        np.testing.assert_array_equal(second.images, again.batch(4).images)
        assert (first.images != second.images).any()
        assert len(first.images) == stage.size
        stage.close()
        again.close()


def test_batches_draw_nothing_from_the_global_generators(quick, tmp_path):
    before, state = torch.random.get_rng_state(), np.random.get_state(legacy=True)
    for stage in stages(tmp_path):
        stage.batch(0)
        stage.close()
    assert torch.equal(before, torch.random.get_rng_state())
    assert repr(state) == repr(np.random.get_state(legacy=True))


@pytest.mark.parametrize("batch", [64, 512])
def test_dino_batches_of_other_sizes(quick, tmp_path, batch):
    stage = dino.DinoStage(tmp_path, batch=batch)
    made = stage.batch(0)
    stage.close()
    assert len(made.images) == len(made.who) == batch
    assert made.who.unique(return_counts=True)[1].min() >= 2


def test_dino_batches_hold_whole_hard_groups_and_photographs(quick, tmp_path):
    stage = dino.DinoStage(tmp_path, batch=128)
    batch = stage.batch(0)
    stage.close()
    _, counts = batch.who.unique(return_counts=True)
    assert counts.tolist() == [4] * 30 + [2] * 4  # 16 in hard groups, 14 single ones, 4 photographed


@pytest.mark.parametrize("kind", [clip.ClipStage, dino.DinoStage])
def test_every_weight_learns(quick, tmp_path, kind):
    stage = kind(tmp_path, batch=128 if kind is dino.DinoStage else 12)
    loss, parts = stage.loss(stage.batch(0))
    loss.backward()
    stage.close()
    assert torch.isfinite(loss)
    assert parts
    for module in stage.modules.values():
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name


def test_clip_loads_with_stock_classes(quick, tmp_path):
    stage = clip.ClipStage(tmp_path / "state", batch=12)
    folder = tmp_path / "clip"
    stage.export(folder)
    stage.close()
    loaded = CLIPModel.from_pretrained(folder)
    assert loaded.dtype == torch.float32
    assert {
        info.dtype for info in read_safetensors_header(folder / "model.safetensors").tensors.values()
    } == {"F16"}
    for name, tensor in stage.model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor.half().float())
    again = clip.new_model(seed=99)
    encoders.load_model(again, folder)
    torch.testing.assert_close(again.state_dict(), loaded.state_dict())
    text = sum(parameter.numel() for parameter in loaded.text_model.parameters())
    whole = (folder / "model.safetensors").stat().st_size + 2 * text  # and the base's copy of the text tower
    assert whole <= 6 * 2**20
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    processor: Any = CLIPProcessor.from_pretrained(folder)
    inputs = processor(
        text=["a red dog", "a cat in space"], images=picture, return_tensors="pt", padding=True
    )
    torch.testing.assert_close(
        inputs["pixel_values"], encoders.pixel_values(picture[None], clip.MEAN, clip.STD)
    )
    with torch.no_grad():
        scores = loaded.eval()(**inputs).logits_per_image / loaded.logit_scale.exp()
    ours = clip.clip_scores(loaded, picture[None], ["a red dog", "a cat in space"])
    torch.testing.assert_close(scores, ours, atol=1e-4, rtol=0)
    assert CLIPTokenizer.from_pretrained(folder).model_max_length == tokenizer.LENGTH
    tower = clip.text_tower(folder)
    assert tower.config.eos_token_id == tokenizer.EOS


def test_dino_loads_with_stock_classes(quick, tmp_path):
    stage = dino.DinoStage(tmp_path / "state")
    folder = tmp_path / "dino"
    stage.export(folder)
    stage.close()
    loaded = AutoModel.from_pretrained(folder).eval()
    assert isinstance(loaded, Dinov2Model)
    assert loaded.dtype == torch.float32
    assert (folder / "model.safetensors").stat().st_size <= 4 * 2**20
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    inputs = AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")
    with torch.no_grad():
        out = loaded(**inputs)
    torch.testing.assert_close(out.pooler_output, out.last_hidden_state[:, 0])
    unit = torch.nn.functional.normalize(out.pooler_output, dim=-1)
    torch.testing.assert_close(unit, dino.embed(loaded, picture[None]), atol=1e-4, rtol=0)


def test_dino_is_written_under_the_names_that_dinov2_has_on_disk(quick, tmp_path):
    stage = dino.DinoStage(tmp_path / "state")
    stage.export(tmp_path / "dino")
    stage.close()
    names = read_safetensors_header(tmp_path / "dino" / "model.safetensors").tensors
    assert "encoder.layer.0.attention.attention.query.weight" in names  # as in facebook/dinov2-small
    again = dino.DinoStage(tmp_path / "state", seed=99)
    again.load(tmp_path / "dino")
    again.close()
    for name, tensor in stage.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor.half().float())


def test_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(MissingAsset):
        encoders.load_model(dino.new_model(0), tmp_path)
    encoders.export_model(dino.new_model(0), tmp_path, {})
    with pytest.raises(BrokenWeights):
        encoders.load_model(clip.new_model(0), tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_safetensors(path)
    save_safetensors(path, {name: tensor for name, tensor in tensors.items() if name != "layernorm.bias"})
    with pytest.raises(BrokenWeights, match=r"layernorm\.bias"):
        encoders.load_model(dino.new_model(0), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BrokenWeights, match="truncated"):
        encoders.load_model(dino.new_model(0), tmp_path)


def test_a_transplanted_dino_sees_what_clip_sees():
    """On pictures whose patches deviate alike the folded normalisation is all but exact."""
    towers, model = clip.new_model(3), dino.new_model(4)
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.normal(size=(8, 3, 128, 128)).astype(np.float32))
    pixels = pixels * torch.linspace(0.5, 1.5, 8)[torch.randperm(8)].mean() + torch.randn(8, 3, 1, 1)
    transplant(towers.vision_model, model, pixels)
    for name, tensor in model.state_dict().items():
        if name.startswith(
            ("encoder.layer.5.layer_scale", "encoder.layer.6.layer_scale")
        ):  # CLIP lacks these
            tensor.zero_()
    with torch.no_grad():
        ours = model(pixels).pooler_output
        theirs = towers.vision_model(pixels).pooler_output
    assert torch.nn.functional.cosine_similarity(ours, theirs).min() > 0.98


def blind_stem(outputs: int = 12, seen: int = 5) -> torch.nn.Conv2d:
    """4×4 patches of one channel, of whose 16 axes the filters know `seen`."""
    torch.manual_seed(0)
    stem = torch.nn.Conv2d(1, outputs, 4, 4)
    knows = torch.linalg.qr(torch.randn(16, 16)).Q[:seen]
    stem.weight.data = (torch.randn(outputs, seen) @ knows).view(outputs, 1, 4, 4)
    return stem


def test_a_sharpened_stem_hears_what_it_was_blind_to_and_forgets_nothing():
    stem = blind_stem()
    pictures = torch.randn(64, 1, 16, 16) * torch.linspace(0.5, 3, 16).view(4, 4).repeat(4, 4) + 0.3
    shown = torch.rand(64, 16) < 0.8
    before = stem(pictures).flatten(2).mT[shown].detach()
    assert sharpen(stem, pictures, shown) == 7
    after = stem(pictures).flatten(2).mT[shown].detach()
    torch.testing.assert_close(after.mean(0), before.mean(0), atol=1e-4, rtol=1e-4)
    axes = torch.linalg.svd(before - before.mean(0), full_matrices=False).Vh
    torch.testing.assert_close(after @ axes[:5].T, before @ axes[:5].T, atol=1e-3, rtol=1e-3)
    heard, new = ((after - after.mean(0)) @ axes[part].T for part in (slice(5), slice(5, None)))
    wanted = LOUDNESS * heard.std(0).mean()
    torch.testing.assert_close(
        torch.linalg.svdvals(new) / len(new) ** 0.5, wanted.expand(7), rtol=0.02, atol=0
    )
    assert sharpen(stem, pictures, shown) == 0


def test_a_sharpened_stem_leaves_axes_idle_where_the_pictures_hold_nothing_more():
    stem = blind_stem()
    flat = torch.randn(64, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)  # one value a patch
    sharpen(stem, flat, torch.ones(64, 16, dtype=torch.bool))
    variances = torch.linalg.eigvalsh(stem(flat).flatten(2).mT.flatten(0, 1).mT.cov())
    assert int((variances > HEARD**2 * variances.max()).sum()) == 1
    assert torch.isfinite(stem.weight).all()


def test_dino_goes_on_with_open_eyes(quick, tmp_path):
    """The stem of a model that was trained before is opened once, its transformer moved by Muon."""
    stage = dino.DinoStage(tmp_path)
    with torch.no_grad():
        stage.model.embeddings.patch_embeddings.projection.weight[:] *= 1e-3
        stage.model.embeddings.patch_embeddings.projection.weight[:20] *= 1e3
    assert stage.sharpen() == dino.WIDTH - 20
    assert stage.sharpen() == 0
    stage.close()
    matrices = [name for name, each in stage.model.named_parameters() if each.ndim > 1]
    moved = [name for name in matrices if stage.hidden(f"dino.{name}")]
    assert moved == [name for name in matrices if name.startswith("encoder.layer.")]
    assert not stage.hidden("parts.names.weight")
    assert dino.going_on(dino.PLANS["cuda"]).batch == 512


def test_dino_starts_from_a_built_clip(quick, tmp_path):
    plain = dino.DinoStage(tmp_path / "state")
    encoders.export_model(clip.new_model(5), tmp_path / "state" / "export" / "clip", {})
    seeing = dino.DinoStage(tmp_path / "state")
    name = "encoder.layer.2.mlp.fc1.weight"
    theirs = clip.new_model(5).state_dict()["vision_model.encoder.layers.2.mlp.fc1.weight"]
    torch.testing.assert_close(seeing.model.state_dict()[name], theirs.half().float())
    assert (plain.model.state_dict()[name] != seeing.model.state_dict()[name]).any()
    assert torch.equal(
        plain.model.state_dict()["encoder.layer.6.mlp.fc1.weight"],
        seeing.model.state_dict()["encoder.layer.6.mlp.fc1.weight"],
    )
    plain.close()
    seeing.close()


def test_an_export_can_be_written_twice(quick, tmp_path):
    stage = dino.DinoStage(tmp_path / "state")
    stage.export(tmp_path / "dino")
    before = (tmp_path / "dino" / "model.safetensors").read_bytes()
    shutil.copytree(tmp_path / "dino", tmp_path / "copy")
    stage.export(tmp_path / "dino")
    stage.close()
    assert (tmp_path / "dino" / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "dino").iterdir()) == sorted(
        path.name for path in (tmp_path / "copy").iterdir()
    )


def test_evaluations_give_shares(monkeypatch, tmp_path):
    from pipelines.toybox.stages import encoders as shared

    monkeypatch.setattr(shared, "render_image", fake_picture)
    monkeypatch.setattr(clip, "render_image", fake_picture)
    figures = clip.evaluate(clip.new_model(0), range(64)) | dino.evaluate(dino.new_model(0), range(4))
    assert set(figures) == {
        "top1_of_64",
        "twin_accuracy",
        "auc",
        "auc_flat",
        "auc_same_pattern",
        "auc_photos",
    }
    assert all(0 <= value <= 1 for value in figures.values())
