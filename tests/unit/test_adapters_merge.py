"""Several adapters as one, and what files and cards say of them."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save, save_file

from pipelines.adapters import formats
from pipelines.adapters.adapter import Adapter, AdapterMismatch, LowRank
from pipelines.adapters.card import card, describe
from pipelines.adapters.layers import delta, layers_of
from pipelines.adapters.merge.sum import Sum
from pipelines.adapters.merge.svd import SVD, energy
from pipelines.adapters.stack import attached
from pipelines.artifacts import load_safetensors, read_safetensors_header
from pipelines.errors import BadInput
from pipelines.spec import catalog, read
from tests.adapters import adapter, answer, apart, base

METHODS = ("sum", "svd")


def sample(seed: int = 1) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    down, up = torch.randn(2, 6, generator=generator), torch.randn(5, 2, generator=generator)
    return Adapter(f"a{seed}", "sd1", {"net.x": LowRank(down, up, 3.0)})


def test_they_are_a_family_of_methods() -> None:
    assert {"sum", "svd"} <= set(catalog("adapters.merge"))
    assert cast("SVD", read("adapters.merge", {"method": "svd", "rank": 4})).rank == 4


@pytest.mark.parametrize("dora", [False, True])
def test_a_sum_is_the_stack(dora: bool) -> None:
    own = base()
    parts = [adapter(own, 1, alpha=5.0), adapter(own, 2, dora=dora, net=("to_q", "conv1"), full=("fc1",))]
    weights = [0.7, -0.4]
    with attached(own, list(zip(parts, weights, strict=True))):
        beside = answer(own)
    one = Sum().merge(parts, weights, own)
    with attached(own, [(one, 1.0)]):
        assert apart(beside, answer(own)) < 1e-5
    assert one.family == "sd1"


def test_a_sum_keeps_factors_side_by_side() -> None:
    one = Sum().merge([sample(1), sample(2)], [0.5, 2.0])
    change = one.layers["net.x"]
    assert isinstance(change, LowRank)
    assert change.rank == 4
    by_hand = 0.5 * delta(sample(1).layers["net.x"]) + 2 * delta(sample(2).layers["net.x"])
    assert torch.allclose(delta(change), by_hand, atol=1e-5)


def test_svd_at_full_rank_is_the_sum_and_below_it_the_best() -> None:
    parts, weights = [sample(1), sample(2)], [0.5, 2.0]
    whole = delta(Sum().merge(parts, weights).layers["net.x"])
    for rank in (1, 2, 3, 4, 9):
        one = SVD(rank=rank).merge(parts, weights)
        change = one.layers["net.x"]
        assert isinstance(change, LowRank)
        assert change.rank == min(rank, 4)
        tail = torch.linalg.svdvals(whole.double())[rank:].square().sum()
        error = (delta(change) - whole).double().square().sum()
        assert torch.allclose(error, tail, rtol=1e-3, atol=1e-9)
        kept = float(one.metadata["likeness.energy"])
        assert kept == pytest.approx(1 - float(tail / whole.double().square().sum()), abs=1e-5)


def test_svd_of_convolutions_and_full_changes() -> None:
    own = base()
    parts = [adapter(own, 1), adapter(own, 2, full=("to_v", "conv1"))]
    one, both = SVD(rank=1024).merge(parts, [1.0, 0.5], own), Sum().merge(parts, [1.0, 0.5], own)
    for name, change in both.layers.items():
        assert apart(delta(change), delta(one.layers[name]).reshape(delta(change).shape)) < 1e-4
        assert energy(change) == pytest.approx(float(delta(change).square().sum()), rel=1e-4)
    assert float(one.metadata["likeness.energy"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_merged_is_named(method: str) -> None:
    own = base()
    merge: Any = read("adapters.merge", {"method": method})
    with pytest.raises(AdapterMismatch, match="SDXL"):
        merge.merge([sample(1), replace(sample(2), family="sdxl")], [1, 1])
    with pytest.raises(BadInput, match="DoRA"):
        merge.merge([adapter(own, 1, dora=True)], [1])
    for adapters, weights in (([], []), ([sample()], [1, 2]), ([sample()], [float("nan")])):
        with pytest.raises(BadInput):
            merge.merge(adapters, weights)
    other = Adapter("b", None, {"net.x": LowRank(torch.ones(1, 4), torch.ones(5, 1), 1.0)})
    with pytest.raises(AdapterMismatch, match="another shape"):
        merge.merge([sample(), other], [1, 1])
    word = Adapter("w", None, {}, {"<a>": {"text_encoder": torch.ones(1, 4)}})
    assert set(merge.merge([sample(), word], [1, 1]).words) == {"<a>"}
    with pytest.raises(AdapterMismatch, match="bring the word"):
        merge.merge([word, replace(word, words={"<a>": {"text_encoder": torch.zeros(1, 4)}})], [1, 1])


@pytest.mark.parametrize("method", METHODS)
def test_weight_zero_leaves_nothing(method: str) -> None:
    merge: Any = read("adapters.merge", {"method": method})
    assert not delta(merge.merge([sample()], [0.0]).layers["net.x"]).any()


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_a_header_says_what_other_tools_read(tmp_path: Path, layout: str) -> None:
    own = base("sdxl")
    one = replace(adapter(own, 1, rank=2, alpha=1.0), metadata={"likeness.trigger": "sks dog"})
    path = formats.export(one, tmp_path / "a.safetensors", layout, own)
    about = read_safetensors_header(path).metadata
    assert about["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert about["modelspec.trigger_phrase"] == "sks dog"
    assert about["modelspec.sai_model_spec"] == "1.0.1"
    assert about["ss_base_model_version"] == "sdxl_base_v1-0"
    assert (about["ss_network_dim"], about["ss_network_alpha"]) == ("2", "1.0")
    content = path.read_bytes()
    digest = hashlib.sha256(content[8 + struct.unpack("<Q", content[:8])[0] :]).hexdigest()
    assert about["modelspec.hash_sha256"] == f"0x{digest}"
    again = save(load_safetensors(path), {key: each for key, each in about.items() if key.startswith("ss_")})
    start = 8 + struct.unpack("<Q", again[:8])[0]
    assert about["sshs_model_hash"] == hashlib.sha256(again[start:]).hexdigest()
    assert about["sshs_legacy_hash"] == hashlib.sha256(again[0x100000:0x110000]).hexdigest()[:8]


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_describe_reads_the_header(tmp_path: Path, layout: str) -> None:
    own = base("sdxl")
    rows = {"text_encoder": torch.randn(2, 32), "text_encoder_2": torch.randn(2, 48)}
    one = replace(adapter(own, 1, rank=2, alpha=1.0, dora=True), words={"<sks.v1>": rows},
                  metadata={"likeness.trigger": "<sks.v1> dog"})  # fmt: skip
    path = formats.export(one, tmp_path / "a.safetensors", layout, own)
    said = describe(path)
    parts = [name.partition(".")[0].replace("net", "network") for name in one.layers]
    assert said["layout"] == layout
    assert (said["family"], said["base"]) == ("sdxl", "SDXL")
    assert (said["rank"], said["alpha"], said["kinds"]) == (2, 1.0, ["DoRA"])
    assert said["modules"] == {part: parts.count(part) for part in set(parts)}
    assert said["words"] == {"<sks.v1>": 2}
    assert said["trigger"] == "<sks.v1> dog"
    assert said["hashes"].keys() == {"modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash"}
    assert json.loads(json.dumps(said)) == said


def test_describe_other_files(tmp_path: Path) -> None:
    path = tmp_path / "cat.safetensors"
    save_file({"emb_params": torch.ones(3, 768)}, path)
    said = describe(path)
    assert (said["layout"], said["words"], said["family"]) == ("textual inversion", {"cat": 3}, "sd1")
    save_file({"unet:0:up": torch.ones(320, 4), "unet:0:down": torch.ones(4, 320)}, path)
    said = describe(path)
    assert (said["layout"], said["rank"], said["modules"]) == ("cloneofsimo", 4, {"network": 1})
    save_file({"unet:6:up": torch.ones(320, 4), "unet:6:down": torch.ones(4, 768)}, path)
    assert describe(path)["family"] == "sd1"
    save_file({"lora_unet_x.hada_w1_a": torch.ones(2, 2)}, path)
    assert (describe(path)["layout"], describe(path)["kinds"]) == ("lycoris", ["LoHa"])
    save_file(
        {"conv.weight": torch.ones(2, 2)}, path, {"lora_adapter_metadata": "[", "ss_network_alpha": "x"}
    )
    said = describe(path)
    assert (said["layout"], said["rank"], said["alpha"], said["words"]) == (None, None, None, {})


def test_describe_needs_no_torch(tmp_path: Path) -> None:
    path = formats.save(tmp_path / "a.safetensors", sample())
    code = (
        "import sys; from pipelines.adapters.card import describe;"
        f"assert describe({str(path)!r})['rank'] == 2; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_card_says_how_to_use_it_and_what_is_unknown() -> None:
    one = replace(sample(), metadata={"likeness.trigger": 'sks "dog"'})
    text = card(one, base_model="owner/base", method="dreambooth_lora", settings={"rank": 4},
                readings={"dino_i": 0.51234}, pictures=["samples/0.png"])  # fmt: skip
    front, body = text.split("---\n", 2)[1:]
    lines = dict(line.split(": ", 1) for line in front.strip().splitlines())
    assert json.loads(lines["base_model"]) == "owner/base"
    assert json.loads(lines["instance_prompt"]) == 'sks "dog"'
    assert "lora" in json.loads(lines["tags"])
    for each in ("load_lora_weights", "| rank | 4 |", "| dino_i | 0.512 |", "samples/0.png", "not known"):
        assert each in body


def test_layers_are_those_of_the_base() -> None:
    own = base("sd3")
    names = set(layers_of(own))
    assert "net.transformer_blocks.0.attn.to_q" in names
    assert any(name.startswith("text_encoder_3.") for name in names)
