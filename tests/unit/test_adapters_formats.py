"""Adapter files of all layouts, there and back, with diffusers and peft as oracles, and hostile ones."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipelines.adapters import formats
from pipelines.adapters.adapter import Adapter, AdapterMismatch, Full, LowRank
from pipelines.adapters.formats import cloneofsimo, diffusers, embeddings, kohya
from pipelines.adapters.layers import delta, layers_of
from pipelines.adapters.stack import attached
from pipelines.artifacts import load_safetensors, read_safetensors_header
from pipelines.errors import BadInput, BrokenWeights, LikenessError, MissingAsset, NotAvailable
from tests.adapters import adapter, answer, apart, base, base_of, pipeline, worst

FAMILIES = ["sd1", "sdxl", "sd3"]
CONVS = ("downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "time_emb_proj")


def mixed(base: Any, seed: int = 1) -> Adapter:
    """Layers of different ranks and of different alphas."""
    one = adapter(base, seed, rank=3, alpha=5.5, net=("to_q", "to_v", "conv1", "ff.net.2", "proj_in", *CONVS))
    two = adapter(base, seed + 1, rank=2, alpha=0.5, net=("to_k", "to_out.0"), text=("k_proj", "out_proj"))
    return replace(one, layers={**one.layers, **two.layers})


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dora", [False, True])
def test_there_and_back(tmp_path: Path, layout: str, family: str, dora: bool) -> None:
    own = base(family)
    one = adapter(own, 1, alpha=7.25, dora=dora) if dora else mixed(own)
    one = replace(one, metadata={"likeness.trigger": "sks dog"})
    path = formats.export(one, tmp_path / "a.safetensors", layout, own)
    back = formats.load(path, own)
    assert worst(one, back, own) <= 1e-5
    assert back.unused == ()
    assert back.family == family
    assert back.trigger == "sks dog"
    assert {
        name: (each.rank, each.alpha) for name, each in one.layers.items() if isinstance(each, LowRank)
    } == {name: (each.rank, each.alpha) for name, each in back.layers.items() if isinstance(each, LowRank)}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_ours_to_kohya_to_diffusers_to_ours(tmp_path: Path, family: str) -> None:
    own = base(family)
    one = mixed(own)
    first = formats.export(one, tmp_path / "1.safetensors", "kohya", own)
    second = formats.export(formats.load(first, own), tmp_path / "2.safetensors", "diffusers")
    third = formats.export(formats.load(second, own), tmp_path / "3.safetensors", "kohya", own)
    assert worst(one, formats.load(third, own), own) <= 1e-5


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_full_changes_come_back(tmp_path: Path, layout: str) -> None:
    own = base()
    one = adapter(own, 2, full=("to_v", "conv1", "fc1"))
    assert any(isinstance(each, Full) for each in one.layers.values())
    back = formats.load(formats.export(one, tmp_path / "a.safetensors", layout, own), own)
    assert worst(one, back, own) <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["alpha", "rslora", "dora", "mixed"])
def test_diffusers_draws_with_it_what_we_draw(tmp_path: Path, family: str, kind: str) -> None:
    """The oracle: diffusers loads our file itself, and its network answers as ours under the stack."""
    pipe = pipeline(family)
    own = base_of(pipe, family)
    if kind == "mixed":
        one = mixed(own)
    else:
        alpha = {"alpha": 7.5, "rslora": 4.0 * 3**0.5, "dora": 6.0}[kind]
        one = adapter(own, 3, alpha=alpha, dora=kind == "dora")
    with attached(own, [(one, 1.0)]):
        ours = answer(own)
    plain = answer(own)
    formats.save(tmp_path / "pytorch_lora_weights.safetensors", one)
    pipe.load_lora_weights(tmp_path)
    assert apart(ours, answer(own)) < 1e-5
    assert apart(plain, ours) > 0.05


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_diffusers_reads_our_kohya_export(tmp_path: Path, family: str) -> None:
    pipe = pipeline(family)
    own = base_of(pipe, family)
    ends = ("to_q", "to_k", "to_out.0", "conv1", "ff.net.2")
    # without an out_proj diffusers does not recognise a text encoder's part at all
    one = adapter(own, 3, alpha=1.5, net=ends, text=("q_proj", "v_proj", "out_proj"))
    with attached(own, [(one, 1.0)]):
        ours = answer(own)
    path = formats.export(one, tmp_path / "a.safetensors", "kohya", own)
    pipe.load_lora_weights(path)
    assert apart(ours, answer(own)) < 1e-5


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_we_read_what_diffusers_and_peft_write(tmp_path: Path, family: str) -> None:
    from diffusers.training_utils import _collate_lora_metadata
    from peft import LoraConfig, get_peft_model_state_dict

    pipe = pipeline(family)
    torch.manual_seed(0)
    pipe.unet.add_adapter(
        LoraConfig(r=4, lora_alpha=6, use_rslora=True, init_lora_weights=False,
                   target_modules=["to_q", "conv1"],
                   rank_pattern={"mid_block.attentions.0.transformer_blocks.0.attn2.to_q": 2},
                   alpha_pattern={"attn1.to_q": 3})
    )  # fmt: skip
    pipe.text_encoder.add_adapter(
        LoraConfig(r=2, lora_alpha=5, use_dora=True, init_lora_weights=False, target_modules=["q_proj"])
    )
    theirs = answer(base_of(pipe, family))
    type(pipe).save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(pipe.unet),
        text_encoder_lora_layers=get_peft_model_state_dict(pipe.text_encoder),
        **_collate_lora_metadata({"unet": pipe.unet, "text_encoder": pipe.text_encoder}),
    )
    own = base(family)
    found = formats.load(tmp_path, own)
    assert found.unused == ()
    with attached(own, [(found, 1.0)]):
        assert apart(theirs, answer(own)) < 1e-5


def test_old_names_of_diffusers(tmp_path: Path) -> None:
    """`processor.to_q_lora.down`, `lora_linear_layer` and `text_model` name the same layers."""
    own = base()
    one = adapter(own, 1, net=("attn1.to_q", "attn1.to_out.0"), text=("q_proj",))
    names = {"down": "down", "up": "up"}
    tensors: dict[str, Tensor] = {}
    for name, change in one.layers.items():
        assert isinstance(change, LowRank)
        part, _, rest = name.partition(".")
        for role in names:
            if part == "net":
                stem, _, site = rest.partition(".attn1.")
                key = f"unet.{stem}.attn1.processor.{site.removesuffix('.0')}_lora.{role}.weight"
            else:
                key = f"text_encoder.text_model.{rest}.lora_linear_layer.{role}.weight"
            tensors[key] = getattr(change, role).contiguous()
    save_file(tensors, tmp_path / "old.safetensors")
    back = formats.load(tmp_path / "old.safetensors", own)
    assert back.unused == ()
    assert worst(one, back, own) <= 1e-6


def test_kohya_names_are_those_that_others_know(tmp_path: Path) -> None:
    one = formats.export(mixed(base()), tmp_path / "1.safetensors", "kohya")
    keys = set(read_safetensors_header(one).tensors)
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight" in keys
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha" in keys
    xl = formats.export(mixed(base("sdxl")), tmp_path / "2.safetensors", "kohya", base("sdxl"))
    keys = set(read_safetensors_header(xl).tensors)
    assert "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in keys
    assert "lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in keys
    assert "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k.lora_down.weight" in keys
    assert "lora_unet_input_blocks_1_0_in_layers_2.lora_down.weight" in keys
    assert "lora_unet_input_blocks_2_0_op.alpha" in keys
    assert "lora_unet_middle_block_1_proj_in.alpha" in keys
    assert "lora_unet_output_blocks_1_1_conv.alpha" in keys  # the upsampler of a block without attention
    assert "lora_unet_output_blocks_2_1_transformer_blocks_0_attn1_to_q.alpha" in keys


def test_published_sdxl_names_need_no_base() -> None:
    """Of SDXL's real structure, by the names that its files carry."""
    from pipelines.adapters.formats._sgm import sgm_name

    known = {
        "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q":
            "input_blocks.4.1.transformer_blocks.1.attn1.to_q",
        "down_blocks.2.attentions.1.proj_out": "input_blocks.8.1.proj_out",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
        "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
        "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
        "up_blocks.0.attentions.2.proj_in": "output_blocks.2.1.proj_in",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
        "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
        "up_blocks.2.resnets.2.time_emb_proj": "output_blocks.8.0.emb_layers.1",
        "add_embedding.linear_2": "label_emb.0.2",
    }  # fmt: skip
    assert {name: sgm_name(name) for name in known} == known
    assert sgm_name("somewhere.else") is None


def test_kohya_alphas_that_differ_in_the_text_encoder(tmp_path: Path) -> None:
    """diffusers reads such files with wrong scales; each layer keeps its own here."""
    own = base()
    one = adapter(own, 1, alpha=2.0, net=(), text=("q_proj",))
    one = replace(
        one, layers={name: replace(each, alpha=1.0 + i) for i, (name, each) in enumerate(one.layers.items())}
    )
    back = formats.load(formats.export(one, tmp_path / "a.safetensors", "kohya"), own)
    assert worst(one, back, own) <= 1e-6


def test_no_alpha_and_alpha_zero_mean_the_rank(tmp_path: Path) -> None:
    stem = "lora_unet_conv_in"
    pair = {
        f"{stem}.lora_down.weight": torch.randn(2, 4, 3, 3),
        f"{stem}.lora_up.weight": torch.randn(32, 2, 1, 1),
    }
    for extra in ({}, {f"{stem}.alpha": torch.tensor(0.0)}):
        save_file(pair | extra, tmp_path / "a.safetensors")
        change = formats.load(tmp_path / "a.safetensors", base()).layers["net.conv_in"]
        assert isinstance(change, LowRank)
        assert change.alpha == 2.0


def test_dora_of_old_lycoris_files(tmp_path: Path) -> None:
    """One magnitude per input, [1, in]: W' = V·m/‖V‖ by column, which only a full change can hold."""
    own = base()
    one = adapter(own, 1, net=("attn1.to_q",), text=())
    name = next(iter(one.layers))
    path = formats.export(replace(one, layers={name: one.layers[name]}), tmp_path / "a.safetensors", "kohya")
    tensors = load_safetensors(path)
    weight = layers_of(own)[name].weight.detach()
    magnitude = torch.rand(1, weight.shape[1]) + 0.5
    stem = next(iter(tensors)).partition(".")[0]
    save_file(tensors | {f"{stem}.dora_scale": magnitude}, path)
    change = formats.load(path, own).layers[name]
    whole = weight + delta(one.layers[name])
    assert torch.allclose(weight + delta(change), whole * magnitude / whole.norm(dim=0), atol=1e-5)


def lycoris_file(path: Path, stem: str, roles: dict[str, Tensor]) -> Path:
    save_file({f"{stem}.{role}": each.clone() for role, each in roles.items()}, path)
    return path


def test_loha_and_lokr_are_baked(tmp_path: Path) -> None:
    own = base()
    torch.manual_seed(0)
    name = "net.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    stem = "lora_unet_" + name.removeprefix("net.").replace(".", "_")
    out, wide = layers_of(own)[name].weight.shape
    a, b, c, d = torch.randn(out, 2), torch.randn(2, wide), torch.randn(out, 2), torch.randn(2, wide)
    loha = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d, "alpha": torch.tensor(1.0)}
    found = formats.load(lycoris_file(tmp_path / "h.safetensors", stem, loha), own)
    assert torch.allclose(delta(found.layers[name]), 0.5 * (a @ b) * (c @ d), atol=1e-5)

    one, two = torch.randn(8, 8), torch.randn(out // 8, wide // 8)
    full = {"lokr_w1": one, "lokr_w2": two, "alpha": torch.tensor(99.0)}
    found = formats.load(lycoris_file(tmp_path / "k.safetensors", stem, full), own)
    assert torch.allclose(delta(found.layers[name]), torch.kron(one, two), atol=1e-5)

    left, right = torch.randn(out // 8, 2), torch.randn(2, wide // 8)
    half = {"lokr_w1": one, "lokr_w2_a": left, "lokr_w2_b": right, "alpha": torch.tensor(4.0)}
    found = formats.load(lycoris_file(tmp_path / "l.safetensors", stem, half), own)
    assert torch.allclose(delta(found.layers[name]), 2 * torch.kron(one, left @ right), atol=1e-4)


def test_tucker_convolutions_are_baked(tmp_path: Path) -> None:
    own = base()
    torch.manual_seed(0)
    down, core, up = torch.randn(2, 4, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(32, 2, 1, 1)
    roles = {"lora_down.weight": down, "lora_mid.weight": core, "lora_up.weight": up}
    found = formats.load(lycoris_file(tmp_path / "t.safetensors", "lora_unet_conv_in", roles), own)
    x = torch.randn(1, 4, 8, 8)
    through = torch.conv2d(torch.conv2d(torch.conv2d(x, down), core, padding=1), up)
    whole = torch.conv2d(x, delta(found.layers["net.conv_in"]), padding=1)
    assert torch.allclose(through, whole, atol=1e-4)

    a, b = torch.randn(2, 32), torch.randn(2, 4)
    hada = {"hada_t1": core, "hada_w1_a": a, "hada_w1_b": b, "hada_t2": core, "hada_w2_a": a, "hada_w2_b": b}
    found = formats.load(lycoris_file(tmp_path / "u.safetensors", "lora_unet_conv_in", hada), own)
    factor = torch.stack(
        [torch.stack([(a.T @ core[:, :, y, x] @ b) for x in range(3)], -1) for y in range(3)], -2
    )
    assert torch.allclose(delta(found.layers["net.conv_in"]), factor**2, atol=1e-4)


def test_kinds_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = lycoris_file(tmp_path / "o.safetensors", "lora_unet_conv_in", {"oft_blocks": torch.randn(2, 4, 4)})
    with pytest.raises(NotAvailable, match="OFT"):
        formats.load(path, base())


def test_numbered_layers_of_the_first_loras(tmp_path: Path) -> None:
    own = base()
    order = cloneofsimo.numbered(own)
    assert [each.partition("blocks.0.")[2] for each in order["unet"][3:6]] == [
        "attentions.0.transformer_blocks.0.attn1.to_out.0",
        "attentions.0.transformer_blocks.0.ff.net.0.proj",
        "attentions.0.transformer_blocks.0.attn2.to_q",
    ]
    assert "mid_block" in order["unet"][-1]
    one = adapter(own, 1, net=("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj"),
                  text=("q_proj", "k_proj", "v_proj", "out_proj"))  # fmt: skip
    one = replace(one, layers={name: replace(each, alpha=3.0) for name, each in one.layers.items()})
    tensors: dict[str, Tensor] = {}
    for part, names in order.items():
        for number, name in enumerate(names):
            change = one.layers[name]
            assert isinstance(change, LowRank)
            tensors |= {f"{part}:{number}:down": change.down, f"{part}:{number}:up": change.up}
    about = {"unet": '["CrossAttention", "Attention", "GEGLU"]', "text_encoder": '["CLIPAttention"]'}
    save_file(tensors, tmp_path / "n.safetensors", about)
    back = formats.load(tmp_path / "n.safetensors", own)
    assert worst(one, back, own) <= 1e-6
    with pytest.raises(BadInput):
        formats.load(tmp_path / "n.safetensors")
    with pytest.raises(AdapterMismatch, match=r"SD 1\.5"):
        formats.load(tmp_path / "n.safetensors", base("sdxl"))
    save_file(tensors, tmp_path / "n.safetensors", {"unet": '["ResnetBlock2D"]'})
    with pytest.raises(BrokenWeights, match="ResnetBlock2D"):
        formats.load(tmp_path / "n.safetensors", own)


def test_what_the_base_lacks_is_named(tmp_path: Path) -> None:
    own = base()
    for layout, stem in (("diffusers", "unet.nowhere.to_q"), ("kohya", "lora_unet_nowhere_to_q")):
        path = formats.export(adapter(own), tmp_path / f"{layout}.safetensors", layout)
        header = read_safetensors_header(path)
        roles = ("lora_A", "lora_B") if layout == "diffusers" else ("lora_down", "lora_up")
        extra = {f"{stem}.{role}.weight": torch.ones(2, 2) for role in roles}
        save_file(load_safetensors(path) | extra | {"what.is.this": torch.ones(1)}, path, header.metadata)
        assert set(formats.load(path, own).unused) == {*extra, "what.is.this"}
        save_file(extra, path)
        with pytest.raises(AdapterMismatch, match="none of its layers"):
            formats.load(path, own)


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_layers_and_words_in_one_file(tmp_path: Path, layout: str) -> None:
    pipe = pipeline("sdxl")
    own = base_of(pipe, "sdxl")
    rows = {"text_encoder": torch.randn(2, 32), "text_encoder_2": torch.randn(2, 48)}
    one = replace(adapter(own, 1), words={"<sks.v1>": rows})
    path = formats.export(one, tmp_path / "a.safetensors", layout, own)
    back = formats.load(path, own)
    assert back.unused == ()
    assert {
        key: torch.equal(each, rows[key]) for key, each in back.words["<sks.v1>"].items()
    } == dict.fromkeys(rows, True)
    if layout == "diffusers":
        pipe.load_lora_weights(path)  # the words do not disturb it


@pytest.mark.parametrize("count", [1, 3])
def test_diffusers_reads_our_word(tmp_path: Path, count: int) -> None:
    pipe = pipeline("sd1")
    own = base_of(pipe, "sd1")
    rows = torch.randn(count, 32)
    one = Adapter("w", "sd1", {}, {"<sks>": {"text_encoder": rows}})
    with attached(own, [(one, 1.0)]):
        ours = own.encode(["a photo of <sks> here"]).tokens
    path = formats.export(one, tmp_path / "learned_embeds.safetensors")
    assert set(read_safetensors_header(path).tensors) == {"<sks>"}
    pipe.load_textual_inversion(str(path))
    prompt = pipe.maybe_convert_prompt("a photo of <sks> here", pipe.tokenizer)
    ids = pipe.tokenizer(prompt, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    with torch.no_grad():
        theirs = pipe.text_encoder(ids["input_ids"])[0]
    assert apart(theirs, ours) < 1e-5
    back = formats.load(path, base())
    assert torch.equal(back.words["<sks>"]["text_encoder"], rows)


def test_words_for_two_encoders(tmp_path: Path) -> None:
    own = base("sdxl")
    rows = {"text_encoder": torch.randn(2, 32), "text_encoder_2": torch.randn(2, 48)}
    path = formats.export(Adapter("w", "sdxl", {}, {"<sks>": rows}), tmp_path / "cat.safetensors")
    assert set(read_safetensors_header(path).tensors) == {"clip_l", "clip_g"}
    back = formats.load(path, own)
    assert all(torch.equal(back.words["<sks>"][key], each) for key, each in rows.items())
    save_file(
        {"clip_l": rows["text_encoder"], "clip_g": rows["text_encoder_2"]}, tmp_path / "my cat.safetensors"
    )
    assert set(formats.load(tmp_path / "my cat.safetensors", own).words) == {"my_cat"}


@pytest.mark.parametrize("key", ["emb_params", "string_to_param.*", "<sks>"])
def test_embeddings_of_others(tmp_path: Path, key: str) -> None:
    path = tmp_path / "<sks>.safetensors"
    save_file({key: torch.ones(32)}, path)  # one vector without its own axis
    found = formats.load(path, base())
    assert found.words["<sks>"]["text_encoder"].shape == (1, 32)
    save_file({key: torch.ones(2, 48)}, path)
    assert list(formats.load(path, base("sdxl")).words["<sks>"]) == ["text_encoder_2"]
    with pytest.raises(AdapterMismatch, match="vectors"):
        formats.load(path, base())
    assert set(embeddings.read(path, token="other").words) == {"other"}  # noqa: S106


def test_a1111_embedding_written(tmp_path: Path) -> None:
    one = Adapter("w", "sd1", {}, {"sks": {"text_encoder": torch.randn(2, 32)}})
    path = formats.export(one, tmp_path / "file.safetensors", "a1111")
    assert set(read_safetensors_header(path).tensors) == {"emb_params"}
    assert set(formats.load(path, base()).words) == {"sks"}


def test_several_words_stay_ours(tmp_path: Path) -> None:
    words = {each: {"text_encoder": torch.randn(1, 32)} for each in ("<a>", "<b>")}
    path = formats.save(tmp_path / "adapter.safetensors", Adapter("w", "sd1", {}, words))
    assert set(formats.load(tmp_path, base()).words) == {"<a>", "<b>"}
    assert path.is_file()


def test_peft_folder_tells_its_alpha(tmp_path: Path) -> None:
    tensors = {"base_model.model.conv_in.lora_A.weight": torch.randn(2, 4, 3, 3),
               "base_model.model.conv_in.lora_B.weight": torch.randn(32, 2, 1, 1)}  # fmt: skip
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 9, "peft_type": "LORA"}))
    change = formats.load(tmp_path, base()).layers["net.conv_in"]
    assert isinstance(change, LowRank)
    assert change.alpha == 9


def test_dora_beside_plain_layers_is_not_written_for_diffusers(tmp_path: Path) -> None:
    own = base()
    both = (
        adapter(own, 1, net=("to_q",), text=()).layers,
        adapter(own, 1, dora=True, net=("to_v",), text=()).layers,
    )
    one = Adapter("both", "sd1", {**both[0], **both[1]})
    with pytest.raises(BadInput, match="DoRA"):
        formats.export(one, tmp_path / "a.safetensors")
    assert (
        worst(one, formats.load(formats.export(one, tmp_path / "k.safetensors", "kohya"), own), own) <= 1e-5
    )


def pair(**changes: Any) -> dict[str, Tensor]:
    start = {
        "unet.conv_in.lora_A.weight": torch.randn(2, 4, 3, 3),
        "unet.conv_in.lora_B.weight": torch.randn(32, 2, 1, 1),
    }
    return {key: each for key, each in {**start, **changes}.items() if each is not None}


A, B = "unet.conv_in.lora_A.weight", "unet.conv_in.lora_B.weight"
HOSTILE = {
    "half a pair": (pair(**{B: None}), {}, "no \"up\" factor"),
    "rank 0": (pair(**{A: torch.zeros(0, 4, 3, 3), B: torch.zeros(32, 0, 1, 1)}), {}, "rank 0"),
    "other ranks": (pair(**{A: torch.randn(3, 4, 3, 3)}), {}, "do not go together"),
    "vectors": (pair(**{A: torch.randn(3)}), {}, "do not go together"),
    "nan": (pair(**{A: torch.full((2, 4, 3, 3), float("nan"))}), {}, "NaN"),
    "infinite": (pair(**{B: torch.full((32, 2, 1, 1), float("inf"))}), {}, "NaN or infinite"),
    "no json": (pair(), {"lora_adapter_metadata": "{"}, "not a JSON object"),
    "a list": (pair(), {"lora_adapter_metadata": "[1]"}, "not a JSON object"),
    "deep": (pair(), {"lora_adapter_metadata": "[" * 100_000}, "not a JSON object"),
    "alpha text": (pair(), {"lora_adapter_metadata": '{"unet.lora_alpha": "x"}'}, "the alpha 'x'"),
    "alpha nan": (pair(), {"lora_adapter_metadata": '{"unet.lora_alpha": NaN}'}, "the alpha 'nan'"),
    "patterns": (pair(), {"lora_adapter_metadata": '{"unet.alpha_pattern": 3}'}, "no table"),
    "expression": (pair(), {"lora_adapter_metadata": '{"unet.alpha_pattern": {"(a+)+$": 3}}'},
                   "regular expression"),
    "nothing": ({}, {}, "no tensors"),
    "a model": ({"conv_in.weight": torch.randn(2, 2)}, {}, "no adapter"),
    "empty word": ({"<sks>": torch.zeros(0, 32)}, {}, "no vectors"),
    "cube": ({"<sks>": torch.zeros(2, 2, 32)}, {}, "no vectors"),
    "kohya alpha": ({"lora_unet_conv_in.alpha": torch.tensor(float("nan"))}, {}, "NaN"),
    "kohya half": ({"lora_unet_conv_in.lora_up.weight": torch.ones(32, 2, 1, 1)}, {}, "no \"down\" factor"),
    "loha half": ({"lora_unet_conv_in.hada_w1_b": torch.ones(2, 2)}, {}, "has no hada_w1_a"),
    "lokr shape": ({"lora_unet_conv_in.lokr_w1": torch.ones(2, 2),
                    "lora_unet_conv_in.lokr_w2": torch.ones(3, 3)}, {},
                   "do not make a weight"),
    "dora shape": ({"lora_unet_conv_in.lora_up.weight": torch.ones(32, 2, 1, 1),
                    "lora_unet_conv_in.lora_down.weight": torch.ones(2, 4, 3, 3),
                    "lora_unet_conv_in.dora_scale": torch.ones(7, 3)}, {}, "dora_scale"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_damage_is_named(tmp_path: Path, case: str) -> None:
    tensors, about, said = HOSTILE[case]
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, about or None)
    with pytest.raises(BrokenWeights, match=said):
        formats.load(path, base())


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    good = formats.export(adapter(base()), tmp_path / "good.safetensors").read_bytes()
    length = struct.unpack("<Q", good[:8])[0]
    contents = {
        "empty": b"", "pickle": b"\x80\x02}q\x00.", "zip": b"PK\x03\x04" + b"\0" * 60,
        "truncated": good[: len(good) // 2], "header": good[: length // 2], "text": b"hello, I am a LoRA",
        "huge": struct.pack("<Q", 2**62) + good[8:], "junk": good[:8] + b"\xff" * length + good[8 + length :],
        "longer": good + b"\0", "lfs": b"version https://git-lfs.github.com/spec/v1\n",
    }  # fmt: skip
    for name, content in contents.items():
        path.write_bytes(content)
        with pytest.raises(BrokenWeights):
            formats.load(path, base())
            pytest.fail(name)
    with pytest.raises(MissingAsset):
        formats.load(tmp_path / "none.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MissingAsset):
        formats.load(tmp_path / "folder")


def test_flipped_bytes_of_a_header_never_escape_as_other_errors(tmp_path: Path) -> None:
    own = base()
    good = formats.export(adapter(own, net=("conv_in",)), tmp_path / "g.safetensors", "kohya").read_bytes()
    path = tmp_path / "x.safetensors"
    generator = torch.Generator().manual_seed(0)
    length = struct.unpack("<Q", good[:8])[0]
    refused = 0
    for _ in range(150):
        content = bytearray(good)
        content[int(torch.randint(8 + length, (1,), generator=generator))] = int(
            torch.randint(256, (1,), generator=generator)
        )
        path.write_bytes(bytes(content))
        try:
            formats.load(path, own)
        except LikenessError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_another_family_is_named_from_the_file(tmp_path: Path, layout: str) -> None:
    xl = base("sdxl")
    path = formats.export(adapter(xl), tmp_path / "painter.safetensors", layout, xl)
    with pytest.raises(
        AdapterMismatch, match=r"painter.safetensors was made for SDXL; the loaded base is SD 1.5"
    ):
        formats.load(path, base())


def test_shapes_tell_the_family_where_metadata_does_not(tmp_path: Path) -> None:
    for wide, said in ((768, "SD 1.5"), (2048, "SDXL"), (1024, "SD 2")):
        stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
        tensors = {
            f"{stem}.lora_down.weight": torch.ones(2, wide),
            f"{stem}.lora_up.weight": torch.ones(32, 2),
        }
        save_file(tensors, tmp_path / "x.safetensors")
        with pytest.raises(AdapterMismatch, match=f"made for {said};"):
            formats.load(tmp_path / "x.safetensors", base("sd3"))
        stem = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
        save_file({f"{stem}.lora_A.weight": torch.ones(2, wide), f"{stem}.lora_B.weight": torch.ones(32, 2)},
                  tmp_path / "x.safetensors")  # fmt: skip
        with pytest.raises(AdapterMismatch, match=f"made for {said};"):
            formats.load(tmp_path / "x.safetensors", base("sd3"))


def test_an_adapter_is_read_without_a_base_where_names_allow(tmp_path: Path) -> None:
    own = base()
    path = formats.save(tmp_path / "adapter.safetensors", mixed(own))
    found = formats.load(path)
    assert worst(mixed(own), found, own) <= 1e-6
    assert found.name == f"{tmp_path.name}/adapter.safetensors"
    with pytest.raises(BadInput, match="only the base can take apart"):
        formats.load(formats.export(found, tmp_path / "k.safetensors", "kohya"))
    assert diffusers.read(path).layers.keys() == found.layers.keys()
    assert kohya.matches(list(read_safetensors_header(tmp_path / "k.safetensors").tensors))
