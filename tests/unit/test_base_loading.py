"""Bases from presets, folders, single files and the Hub; what is refused, and how."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from pipelines.artifacts import assets, read_safetensors_header
from pipelines.base import known
from pipelines.base.loading import PIPELINES, bases, open_base, preset_of
from pipelines.errors import BrokenWeights, Cancelled, MissingAsset, NotAvailable, UnknownName
from pipelines.progress import Job
from tests import tiny


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return tiny.sd1(tmp_path_factory.mktemp("loading") / "built")


@pytest.fixture
def folder(built, tmp_path):
    shutil.copytree(built, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache, no network, and no way to one."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def test_every_preset_is_whole():
    found = {each.name: each for each in bases()}
    assert {"toybox", "sd15", "sd21", "sdxl", "sd3"} <= found.keys()
    assert found["toybox"].installed
    assert found["toybox"].bytes > 1_000_000
    for each in found.values():
        assert each.title
        assert each.licence
        assert bool(each.hub) != bool(each.asset)
        assert float(each.defaults["guidance"]["scale"]) > 0
        assert each.defaults["sampler"]["steps"] > 0


def test_the_embedded_base_opens_by_name():
    base = open_base("toybox", "cpu")
    assert (base.name, base.family, base.latent.size) == ("toybox", "toybox", 128)
    assert open_base("toybox", "cpu") is base
    assert not any(each.requires_grad for each in base.net.parameters())


def test_the_embedded_base_is_recognised_without_its_name():
    assert open_base(str(assets() / "toybox"), "cpu").family == "toybox"


def test_progress_is_told_a_component_at_a_time(folder):
    events = []
    open_base(str(folder), "cpu", Job(events.append))
    reports = [each for each in events if each.kind == "report"]
    assert [each.step for each in reports] == list(range(1, reports[-1].total + 1))
    assert {each.values["component"] for each in reports} >= {"unet", "vae", "text_encoder", "tokenizer"}


def test_opening_can_be_cancelled_and_tried_again(folder):
    job = Job()
    job.subscribe(lambda event: job.cancel() if event.kind == "report" else None)
    with pytest.raises(Cancelled):
        open_base(str(folder), "cpu", job)
    assert open_base(str(folder), "cpu").name == "copy"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_parts_have_the_type_asked_for(folder, dtype):
    base = open_base(str(folder), "cpu", dtype=dtype)
    for module in (base.net, base.vae, *base.texts.values()):
        assert {each.dtype for each in module.parameters()} == {dtype}


def test_a_variant_alone_is_found(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    expected = load_file(path)
    save_file(
        {key: each.half() for key, each in expected.items()},
        path.with_name("diffusion_pytorch_model.fp16.safetensors"),
    )
    path.unlink()
    base = open_base(str(folder), "cpu")
    assert torch.allclose(base.net.get_parameter("conv_in.weight"), expected["conv_in.weight"], atol=1e-3)
    assert base.dtype == torch.float32


def test_unknown_names_get_the_nearest():
    with pytest.raises(UnknownName) as caught:
        open_base("toyboks", "cpu")
    assert caught.value.suggestion == "toybox"


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./missing.safetensors", "missing.safetensors"])
def test_paths_that_are_not_there(name):
    with pytest.raises(MissingAsset):
        open_base(name, "cpu")


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(MissingAsset, match="model_index"):
        open_base(str(tmp_path), "cpu")


@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "model.PT"])
def test_pickled_files_are_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(BrokenWeights, match="pickled"):
        open_base(str(tmp_path / name), "cpu")


def test_pickles_are_refused_under_another_name(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(BrokenWeights, match="pickled"):
        open_base(str(path), "cpu")


def test_pickles_in_a_folder_are_refused(folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(BrokenWeights, match="pickled"):
        open_base(str(folder), "cpu")


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_truncated_weights_are_named(folder, part):
    path = folder / f"{part}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BrokenWeights, match=path.name):
        open_base(str(folder), "cpu")


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_missing_tensors_are_never_made_up(folder, part):
    path = folder / f"{part}.safetensors"
    tensors = load_file(path)
    gone = sorted(tensors)[0]
    del tensors[gone]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(BrokenWeights, match=r"lacks|missing"):
        open_base(str(folder), "cpu")


def test_missing_shards_and_parts_are_named(folder):
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors"}}))
    with pytest.raises(MissingAsset, match="00001"):
        open_base(str(folder), "cpu")
    index.unlink()
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(MissingAsset, match="tokenizer"):
        open_base(str(folder), "cpu")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"unet": ["my_module", "MyUNet"]}, BrokenWeights),
        ({"unet": ["diffusers", "os"]}, BrokenWeights),
        ({"unet": "diffusers"}, BrokenWeights),
        ({"unet": [None, None]}, BrokenWeights),
        ({"text_encoder": [None, None]}, BrokenWeights),
        ({"_class_name": "FluxPipeline"}, UnknownName),
    ],
)
def test_foreign_code_and_kinds_are_refused(folder, change, error):
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(error):
        open_base(str(folder), "cpu")


def test_a_damaged_index_is_named(folder):
    (folder / "model_index.json").write_text("{")
    with pytest.raises(BrokenWeights, match="JSON"):
        open_base(str(folder), "cpu")


def test_a_single_file_equals_its_folder(built, tmp_path):
    path = tiny.sd1_file(built, tmp_path / "one.safetensors")
    shutil.copytree(built, tmp_path / "one", ignore=shutil.ignore_patterns("*.safetensors"))
    expected = open_base(str(built), "cpu")
    base = open_base(str(path), "cpu")
    assert (base.name, base.family) == ("one", "sd1")
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([400])
    prompts = ["a red dog"]
    assert torch.equal(base.encode(prompts).tokens, expected.encode(prompts).tokens)
    found = base.predict(x, t, base.encode(prompts))
    assert torch.allclose(found, expected.predict(x, t, expected.encode(prompts)), atol=1e-5)
    assert torch.allclose(base.to_pixels(x), expected.to_pixels(x), atol=1e-5)


def test_a_single_file_without_its_configs_says_where_they_are(built, tmp_path, hub):
    path = tiny.sd1_file(built, tmp_path / "one.safetensors")
    with pytest.raises(NotAvailable, match="stable-diffusion-v1-5") as caught:
        open_base(str(path), "cpu")
    assert "hf download" in caught.value.remedy


def test_an_adapter_is_no_base(tmp_path):
    path = tmp_path / "lora.safetensors"
    save_file({"unet.down.lora_A.weight": torch.zeros(1, 1)}, path)
    with pytest.raises(BrokenWeights, match="adapter"):
        open_base(str(path), "cpu")


@pytest.mark.parametrize(
    ("key", "preset"),
    [
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "sd3"),
        ("conditioner.embedders.1.model.ln_final.weight", "sdxl"),
        ("cond_stage_model.model.ln_final.weight", "sd21"),
        ("cond_stage_model.transformer.text_model.embeddings.position_ids", "sd15"),
    ],
)
def test_single_files_are_told_apart(tmp_path, key, preset):
    save_file({key: torch.zeros(1)}, tmp_path / "one.safetensors")
    found = preset_of(tmp_path / "one.safetensors", read_safetensors_header(tmp_path / "one.safetensors"))
    assert found == preset
    assert known.known(preset) is not None


def test_no_network_is_told_with_the_way_out(hub):
    for name in ("sd15", "somebody/something"):
        with pytest.raises(NotAvailable) as caught:
            open_base(name, "cpu")
        assert "hf download" in caught.value.remedy


class Response:
    """As much of an answer of the Hub as its errors look at."""

    def __init__(self):
        self.headers = {}
        self.request = None


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [(GatedRepoError, NotAvailable, "licence"), (RepositoryNotFoundError, UnknownName, "Known")],
)
def test_what_the_hub_refuses_is_told(monkeypatch, hub, kind, error, words):
    def refuse(*_args, **_kwargs):
        raise kind("no", response=Response())

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(error) as caught:
        open_base("stabilityai/stable-diffusion-3-medium-diffusers", "cpu")
    assert words in caught.value.remedy


def test_only_what_is_needed_is_fetched():
    names = [
        "model_index.json", "README.md", "v1-5.ckpt", "v1-5.safetensors", "safety_checker/model.safetensors",
        "unet/config.json", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors",
        "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt",
        "text_encoder_3/model.fp16-00001-of-00002.safetensors",
        "text_encoder_3/model-00001-of-00004.safetensors",
        "text_encoder_3/model.safetensors.index.fp16.json",
    ]  # fmt: skip
    half = known.wanted(names, "fp16")
    assert [each for each in half if each.startswith("unet/")] == [
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/config.json",
    ]  # fmt: skip
    assert "vae/diffusion_pytorch_model.safetensors" in half
    assert "text_encoder_3/model.fp16-00001-of-00002.safetensors" in half
    assert "text_encoder_3/model-00001-of-00004.safetensors" not in half
    plain = known.wanted(names, "")
    assert "unet/diffusion_pytorch_model.safetensors" in plain
    assert not [
        each for each in plain if "non_ema" in each or "fp16.safe" in each or each.endswith((".bin", ".ckpt"))
    ]
    assert not [each for each in known.wanted(names, "", only_configs=True) if each.endswith(".safetensors")]


def test_a_fetched_model_opens_without_a_network(built, hub, monkeypatch):
    """A cache in the Hub's layout, as `hf download` leaves it."""
    commit = "0" * 40
    store = hub / "models--somebody--tiny"
    shutil.copytree(built, store / "snapshots" / commit)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text(commit)
    assert known.cached("somebody/tiny") is not None
    base = open_base("somebody/tiny", "cpu")
    assert base.family == "sd1"
    next((store / "snapshots").rglob("unet/*.safetensors")).unlink()
    assert known.cached("somebody/tiny") is None


def test_every_pipeline_kind_has_a_preset():
    families = {each.family for each in bases()}
    assert {"sd1", "sdxl", "sd3"} <= families
    assert len(PIPELINES) == 3
