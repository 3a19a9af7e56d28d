"""Networks that look: prepared as published, loaded whole or not at all, and absent in plain words."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPModel,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SamProcessor,
)

from pipelines.artifacts import assets, load_safetensors, save_safetensors
from pipelines.data.photos import list_photos, open_photo
from pipelines.errors import BadInput, BrokenWeights, MissingAsset, NotAvailable, UnknownName
from pipelines.vision import captions, faces, grounding, segment, weights
from pipelines.vision.encoder import NAMES, encoder, encoders_of
from pipelines.vision.features import Features, picture_key, text_key
from pipelines.vision.opening import open_model
from pipelines.vision.prepare import Preparation

CPU = torch.device("cpu")


@pytest.fixture
def dogs():
    return [open_photo(path) for path in list_photos(assets() / "photos" / "dog")]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty workspace."""
    monkeypatch.setenv("LIKENESS_WORKSPACE", str(tmp_path))
    return tmp_path / "weights"


# ---- encoders


@pytest.mark.parametrize("size", [(512, 512), (300, 200), (97, 211), (128, 128)])
def test_pictures_are_prepared_as_transformers_does_with_pillow(size):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = assets() / "toybox" / "clip"
    image = open_photo(assets() / "photos" / "cat" / "00.jpg").resize(size)
    theirs = CLIPImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")["pixel_values"]
    assert torch.allclose(Preparation.read(folder)([image]), theirs, atol=1e-5)


def test_the_encoder_is_the_model_in_its_folder(dogs):
    folder = assets() / "toybox" / "clip"
    model: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=Preparation.read(folder)(dogs)).pooler_output
    ours = encoder("toybox-clip", "cpu").images(dogs)
    assert torch.allclose(ours, torch.nn.functional.normalize(seen, dim=-1), atol=1e-5)


@pytest.mark.parametrize("name", ["toybox-clip", "toybox-dino"])
def test_features_are_unit_vectors_in_order(name, dogs):
    rows = encoder(name, "cpu").images(dogs)
    assert rows.shape[0] == len(dogs)
    assert not rows.is_inference()
    assert torch.allclose(rows.norm(dim=-1), torch.ones(len(dogs)), atol=1e-5)
    again = encoder(name, "cpu").images([dogs[3], dogs[1]])
    assert torch.equal(again, rows[[3, 1]])
    assert encoder(name, "cpu") is encoder(name, "cpu")


def test_texts():
    clip = encoder("toybox-clip", "cpu")
    rows = clip.texts(["a photo of a dog", "a photo of a cat", "a photo of a dog"])
    assert torch.equal(rows[0], rows[2])
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)
    assert clip.cut(["a dog", "a dog " * 100]) == ["a dog " * 100]
    with pytest.raises(NotAvailable):
        encoder("toybox-dino", "cpu").texts(["a dog"])


def test_names():
    assert set(encoders_of("toybox")) | set(encoders_of("sdxl")) <= set(NAMES)
    with pytest.raises(UnknownName) as caught:
        encoder("toybox-dyno")
    assert caught.value.suggestion == "toybox-dino"


# ---- features


def test_nothing_is_encoded_twice_and_the_oldest_go_first(tmp_path):
    asked = []

    def encode(items):
        asked.append(list(items))
        return torch.tensor([[float(len(item)), 1.0] for item in items])

    features = Features("stamp", limit=2, folder=tmp_path)
    assert features.rows(["a", "bb", "a"], text_key, encode).tolist() == [[1, 1], [2, 1], [1, 1]]
    features.rows(["bb", "ccc"], text_key, encode)
    assert asked == [["a", "bb"], ["ccc"]]
    features.rows(["a"], text_key, encode)  # gone from memory, not from disk
    assert asked == [["a", "bb"], ["ccc"]]
    Features("stamp", folder=tmp_path).rows(["bb"], text_key, encode)
    assert len(asked) == 2
    Features("other", folder=tmp_path).rows(["bb"], text_key, encode)
    Features("stamp").rows(["bb"], text_key, encode)
    assert len(asked) == 4


def test_pictures_are_known_by_their_pixels(tmp_path):
    image = Image.new("RGB", (4, 2), "red")
    image.save(tmp_path / "a.png")
    assert picture_key(open_photo(tmp_path / "a.png")) == picture_key(image)
    assert picture_key(image) != picture_key(Image.new("RGB", (2, 4), "red"))


# ---- weights


@pytest.mark.parametrize("name", ["clip-vit-l14", "clip-vit-b32", "dinov2-vits14"])
def test_without_a_network_it_is_said_what_to_fetch(place, monkeypatch, name):
    asked = []
    monkeypatch.setattr(weights, "_silent", {})
    monkeypatch.setattr(weights, "_cached_or_fetched", lambda hub: asked.append(hub) or 1 / 0)
    for _ in range(2):
        with pytest.raises(NotAvailable) as caught:
            encoder(name)
        assert f"hf download {asked[0]} --local-dir {place / name}" in caught.value.remedy
        assert "B, " in caught.value.remedy  # its size, and then its licence
    assert len(asked) == 1  # a silent Hub is not asked for every picture


def test_a_folder_in_the_workspace_is_taken_first(place, monkeypatch):
    monkeypatch.setattr(weights, "_cached_or_fetched", lambda hub: 1 / 0)
    (place / "dinov2-vits14").parent.mkdir(parents=True)
    (place / "dinov2-vits14").symlink_to(assets() / "toybox" / "dino")
    image = [Image.new("RGB", (128, 128), "red")]
    assert torch.equal(encoder("dinov2-vits14").images(image), encoder("toybox-dino").images(image))


def test_models_are_whole_or_refused(tmp_path):
    with pytest.raises(MissingAsset):
        open_model(CLIPModel, tmp_path, CPU)
    source = assets() / "toybox" / "clip"
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(BrokenWeights, match="no safetensors"):
        open_model(CLIPModel, tmp_path, CPU)
    tensors = load_safetensors(source / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_safetensors(tmp_path / "model.safetensors", tensors)
    with pytest.raises(BrokenWeights, match=r"1 tensors are missing \(visual_projection"):
        open_model(CLIPModel, tmp_path, CPU)


# ---- packages and models of the user's own choice


@pytest.mark.parametrize(
    ("module", "reach"),
    [
        ("insightface.app", lambda: faces.face_reader("cpu")),
        ("segment_anything", lambda: segment.segmenter("cpu", package=True)),
        ("groundingdino.models", grounding._package),
    ],
)
def test_a_missing_package_is_named(place, monkeypatch, module, reach):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NotAvailable) as caught:
        reach()
    assert "pip install" in caught.value.remedy


def test_missing_models_are_named(place, monkeypatch):
    with pytest.raises(NotAvailable, match="captioner"):
        captions.captioner("cpu")
    monkeypatch.setattr(faces, "_package", lambda: None)
    with pytest.raises(NotAvailable, match=r"\.onnx") as caught:
        faces.face_reader("cpu")
    assert "non-commercial" in caught.value.remedy


def test_faces_come_largest_first_as_unit_vectors(place, monkeypatch):
    seen = []

    class FaceAnalysis:
        def __init__(self, name, allowed_modules, providers):
            seen.append((name, tuple(providers)))

        def prepare(self, ctx_id, det_size):
            seen.append(ctx_id)

        def get(self, pixels):
            seen.append(pixels[0, 0].tolist())
            return [
                SimpleNamespace(
                    bbox=np.array([0, 0, side, side]), det_score=0.9, embedding=np.full(512, side)
                )
                for side in (10.0, 30.0)
            ]

    module = ModuleType("insightface.app")
    module.FaceAnalysis = FaceAnalysis  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "insightface", ModuleType("insightface"))
    monkeypatch.setitem(sys.modules, "insightface.app", module)
    pack = place / "insightface" / faces.PACK
    pack.mkdir(parents=True)
    (pack / "detector.onnx").touch()
    found = faces.face_reader("cpu").find(Image.new("RGB", (40, 40), (1, 2, 3)))
    assert [face.right for face in found] == [30, 10]
    assert found[0].identity.norm() == pytest.approx(1)
    assert seen == [(str(pack), ("CPUExecutionProvider",)), -1, [3, 2, 1]]


def test_the_shim_is_what_bert_does_itself():
    bert: Any = BertModel(
        BertConfig(vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    ).eval()
    ids, mask = torch.arange(12).view(2, 6), torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    before = {name: hasattr(BertModel, name) for name in ("get_extended_attention_mask", "get_head_mask")}
    with torch.no_grad():
        wanted = bert(input_ids=ids, attention_mask=mask).last_hidden_state
        with grounding.bert_shim():
            flat = bert.get_extended_attention_mask(mask, ids.shape, None)
            square = bert.get_extended_attention_mask(mask[:, None].expand(2, 6, 6), ids.shape, None)
            heads = bert.get_head_mask(None, 2)
        for lent in (flat, square):
            got = bert.encoder(bert.embeddings(input_ids=ids), attention_mask=lent, head_mask=heads)[0]
            assert torch.allclose(got[mask.bool()], wanted[mask.bool()], atol=1e-6)
    assert (flat.shape, square.shape) == ((2, 1, 1, 6), (2, 1, 6, 6))
    assert before == {name: hasattr(BertModel, name) for name in before}


def test_things_are_named_as_the_detector_reads():
    assert grounding._caption(["A Dog.", " red hat "]) == "a dog . red hat ."
    with pytest.raises(BadInput):
        grounding._caption([" ", "."])


def test_segmenting_with_a_tiny_sam(place, dogs):
    vision = {
        "hidden_size": 16, "output_channels": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 64, "patch_size": 16, "mlp_dim": 16, "window_size": 2, "global_attn_indexes": [0],
        "num_pos_feats": 4,
    }  # fmt: skip
    prompt = {
        "hidden_size": 8,
        "image_size": 64,
        "patch_size": 16,
        "image_embedding_size": 4,
        "mask_input_channels": 4,
    }
    decoder = {"hidden_size": 8, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 8}
    torch.manual_seed(0)
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    folder = place / segment.BASE.name
    SamModel(config).save_pretrained(folder)
    pad = {"height": 64, "width": 64}
    SamProcessor(SamImageProcessor(size={"longest_edge": 64}, pad_size=pad)).save_pretrained(folder)
    sam = segment.segmenter("cpu")
    picture = dogs[0].resize((90, 60))
    cases: list[dict[str, Any]] = [{"box": (10, 10, 50, 50)}, {"points": [(20, 30)]}]
    for asked in cases:
        mask = sam.mask(picture, **asked)
        assert mask.shape == (60, 90)
        assert mask.dtype == torch.bool
        assert torch.equal(mask, sam.mask(picture, **asked))
    with pytest.raises(BadInput):
        sam.mask(picture)


def test_captions_of_a_tiny_blip(place, dogs):
    from transformers import BertTokenizer, BlipImageProcessor, BlipProcessor

    folder = place / "captioner"
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "dog", "on", "grass"]
    (folder / "vocab.txt").write_text("\n".join(words))
    ends = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {
        **small,
        **ends,
        "vocab_size": len(words),
        "encoder_hidden_size": 16,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16})
    BlipForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    BlipProcessor(BlipImageProcessor(size=size), BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(
        folder
    )
    writer = captions.captioner("cpu")
    texts = writer.captions(dogs, length=5)
    assert len(texts) == len(dogs)
    assert all(isinstance(each, str) for each in texts)
    assert texts == writer.captions(dogs, length=5)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(BrokenWeights, match="gpt2"):
        captions._kind(folder)
