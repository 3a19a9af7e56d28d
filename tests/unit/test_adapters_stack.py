"""Adapters in and out of a base: exact while they are in, and no trace of them after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from pipelines.adapters.adapter import Adapter, AdapterMismatch, Full, LowRank
from pipelines.adapters.layers import delta, layers_of
from pipelines.adapters.stack import attached, merged, notes, renamed
from pipelines.errors import BadInput, Cancelled
from tests.adapters import adapter, answer, apart, base, same, state

DOORS = [attached, merged]
FAMILIES = ["sd1", "sdxl", "sd3"]


def word(base: Any, seed: int = 0, count: int = 2) -> dict[str, Tensor]:
    return {
        key: torch.randn(count, 96 if key.endswith("_3") else each.config.hidden_size,
                         generator=torch.Generator().manual_seed(seed))
        for key, each in base.texts.items()
    }  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_acts_and_leaves_no_trace(door: Any, family: str) -> None:
    own = base(family)
    own.net.requires_grad_(False)
    next(own.net.parameters()).requires_grad_(True)
    plain = answer(own)  # first: transformers notes things on its modules at the first call
    kept = state(own)
    one = adapter(own, 1)
    with door(own, [(one, 0.8), (replace(adapter(own, 2, dora=True), words={"<sks>": word(own)}), 0.5)]):
        assert apart(plain, answer(own)) > 0.05
    assert same(kept, state(own))
    assert torch.equal(answer(own), plain)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("error", [Cancelled("stop"), RuntimeError("boom"), KeyboardInterrupt()])
def test_no_trace_after_an_exception(door: Any, error: BaseException) -> None:
    own = base()
    plain = answer(own)  # first: transformers notes things on its modules at the first call
    kept = state(own)
    with pytest.raises(type(error)), door(own, [(adapter(own), 1.0)]):
        raise error
    assert same(kept, state(own))
    assert torch.equal(answer(own), plain)


def test_another_forward_that_was_there_comes_back() -> None:
    own = base()
    layer = layers_of(own)["net.conv_in"]
    before = layer.forward
    calls: list[int] = []

    def counted(input: Tensor) -> Tensor:
        calls.append(1)
        return before(input)

    layer.forward = counted
    with attached(own, [(adapter(own, net=("conv_in",), text=()), 1.0)]):
        answer(own)
    assert vars(layer)["forward"] is counted
    assert calls


@pytest.mark.parametrize("door", DOORS)
def test_weight_zero_is_the_base_bitwise(door: Any) -> None:
    own = base()
    plain = answer(own, "a <sks> dog")
    silent = replace(adapter(own, dora=True), words={"<sks>": word(own)})
    with door(own, [(silent, 0.0), (adapter(own, 3), -0.0)]):
        assert torch.equal(answer(own, "a <sks> dog"), plain)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dora", [False, True])
def test_merged_is_attached(family: str, dora: bool) -> None:
    own = base(family)
    stack = [(adapter(own, 1, dora=dora), 0.7), (adapter(own, 2, full=("to_v", "conv1")), -0.4)]
    with attached(own, stack):
        beside = answer(own)
    with merged(own, stack):
        inside = answer(own)
    assert apart(beside, inside) < 1e-5
    assert apart(answer(own), inside) > 0.05


@pytest.mark.parametrize("door", DOORS)
def test_every_layer_gets_its_delta(door: Any) -> None:
    """Against brute force: W + Σ w·ΔW written into a copy of the weights."""
    own, other = base(), base()
    stack = [(adapter(own, 1, alpha=5.0), 0.6), (adapter(own, 2, dora=True), 0.3)]
    with torch.no_grad():
        for name, layer in layers_of(other).items():
            start = layer.weight.clone()
            for each, weight in stack:
                if name in each.layers:
                    layer.weight += weight * delta(each.layers[name], start)
    with door(own, stack):
        assert apart(answer(other), answer(own)) < 1e-5


def test_dora_is_its_paper() -> None:
    """W' = m·V/‖V‖: the rows of W + ΔW have the norms m, and the directions of V."""
    own = base()
    for name, change in adapter(own, dora=True).layers.items():
        assert isinstance(change, LowRank)
        weight = layers_of(own)[name].weight.detach()
        result = (weight + delta(change, weight)).flatten(1)
        direction = (weight + delta(replace(change, magnitude=None))).flatten(1)
        assert change.magnitude is not None
        assert torch.allclose(result.norm(dim=1), change.magnitude, rtol=1e-4)
        assert torch.cosine_similarity(result, direction).min() > 1 - 1e-5


def test_dora_of_the_bases_own_norms_is_plain_lora() -> None:
    own = base()
    plain = adapter(own, 4)
    layers = layers_of(own)

    def with_norms(name: str, change: Any) -> LowRank:
        whole = layers[name].weight.detach() + delta(change)
        return replace(change, magnitude=whole.flatten(1).norm(dim=1))

    dora = replace(plain, layers={name: with_norms(name, each) for name, each in plain.layers.items()})
    with attached(own, [(plain, 1.0)]):
        first = answer(own)
    with attached(own, [(dora, 1.0)]):
        assert apart(first, answer(own)) < 1e-5


@pytest.mark.parametrize("dora", [False, True])
def test_strength_is_linear_in_a_layer(dora: bool) -> None:
    own = base()
    one = adapter(own, 1, dora=dora)
    for name in ("net.conv_in", "net.mid_block.attentions.0.transformer_blocks.0.attn2.to_q"):
        single = replace(adapter(own, 1, dora=dora, net=(name.removeprefix("net."),), text=()), name=one.name)
        layer = layers_of(own)[name]
        size = (
            (1, layer.weight.shape[1], 8, 8) if isinstance(layer, nn.Conv2d) else (5, layer.weight.shape[1])
        )
        x = torch.randn(*size, generator=torch.Generator().manual_seed(0))
        plain, effects = layer(x), []
        for weight in (0.25, 0.5, 1.0, 2.0, -1.0):
            with attached(own, [(single, weight)]):
                effects.append((layer(x) - plain) / weight)
        assert all(apart(effects[0], each) < 1e-4 for each in effects[1:])


def test_strength_sweep_moves_steadily_away() -> None:
    own = base()
    one, plain = adapter(own, 1), answer(own)
    moved = [0.0]
    for weight in (0.1, 0.2, 0.4, 0.8):
        with attached(own, [(one, weight)]):
            moved.append(float((answer(own) - plain).norm()))
    assert moved == sorted(moved)
    assert len(set(moved)) == len(moved)


def test_order_matters_only_to_rounding() -> None:
    own = base()
    stack = [(adapter(own, 1), 0.5), (adapter(own, 2, dora=True), 0.9), (adapter(own, 3), -0.2)]
    with attached(own, stack):
        first = answer(own)
    with attached(own, stack[::-1]):
        assert apart(first, answer(own)) < 1e-5


def test_half_precision() -> None:
    own = base()
    stack = [(adapter(own, 1, dora=True), 0.7)]
    with attached(own, stack):
        exact = answer(own)
    own.net.to(torch.bfloat16)
    kept = state(own)
    with attached(own, stack):
        assert apart(exact, answer(own)) < 0.1
    with merged(own, stack):
        assert apart(exact, answer(own)) < 0.1
    assert same(kept, state(own))


def test_strided_and_padded_convolutions_and_biases() -> None:
    own = base()
    ends = ("downsamplers.0.conv", "upsamplers.0.conv", "conv_out", "time_emb_proj", "linear_1")
    stack = [(adapter(own, 1, net=ends, dora=True), 0.9), (adapter(own, 2, net=ends), 0.5)]
    with attached(own, stack):
        beside = answer(own)
    with merged(own, stack):
        assert apart(beside, answer(own)) < 1e-5


def test_words_are_there_and_gone() -> None:
    own = base()
    before = dict(own.tokenizers)
    plain = answer(own, "a <sks> dog")
    taught = Adapter("words", "sd1", {}, {"<sks>": word(own)})
    with attached(own, [(taught, 1.0)]):
        assert apart(plain, answer(own, "a <sks> dog")) > 1e-3
        assert torch.equal(answer(own), answer(base()))  # other prompts are not touched
    assert torch.equal(answer(own, "a <sks> dog"), plain)
    assert own.tokenizers == before


def test_two_adapters_of_one_word() -> None:
    own = base()
    first, second = (Adapter(f"{i}.safetensors", "sd1", {}, {"<sks>": word(own, i)}) for i in (1, 2))
    kept = state(own)
    with pytest.raises(AdapterMismatch, match=r"Both 1\.safetensors and 2\.safetensors bring the word"):
        attached(own, [(first, 1.0), (second, 1.0)]).__enter__()
    assert same(kept, state(own))
    with attached(own, [(first, 1.0), (renamed(second, "<sks>", "<other>"), 1.0)]):
        assert apart(answer(own, "a <sks>"), answer(own, "a <other>")) > 1e-3
    with attached(own, [(first, 1.0), (first, 0.5)]):  # the same vectors do not clash
        answer(own, "a <sks>")
    with pytest.raises(BadInput):
        renamed(first, "<none>", "<new>")


def test_notes_name_shared_triggers_and_unused_tensors() -> None:
    own = base()
    first = replace(adapter(own, 1), name="a", metadata={"likeness.trigger": "sks dog"}, unused=("x.weight",))
    said = notes([(first, 1.0), (replace(first, name="b", unused=()), 1.0)])
    assert any("a: 1 tensors were not used (x.weight)" in each for each in said)
    assert any('a and b answer to the same words "sks dog"' in each for each in said)
    assert notes([(adapter(own, 2), 1.0)]) == []


def test_another_family_is_named() -> None:
    own = base()
    foreign = replace(adapter(base("sdxl")), name="painter.safetensors")
    with pytest.raises(AdapterMismatch) as caught:
        attached(own, [(foreign, 1.0)]).__enter__()
    assert caught.value.message == "painter.safetensors was made for SDXL; the loaded base is SD 1.5."
    assert caught.value.remedy.startswith("Load an SDXL base")


@pytest.mark.parametrize("door", DOORS)
def test_what_does_not_fit_changes_nothing(door: Any) -> None:
    own = base()
    kept = state(own)
    good = adapter(own)
    name = next(iter(good.layers))
    odd = LowRank(torch.ones(2, 7), torch.ones(5, 2), 2.0)
    for layers, said in (
        ({**good.layers, name: odd}, "its shape of"),
        ({"net.nowhere": odd}, "has no layer"),
    ):
        with pytest.raises(AdapterMismatch, match=said):
            door(own, [(Adapter("odd", None, layers), 1.0)]).__enter__()
    for weight, each in ((float("nan"), good), (1.0, Adapter("none"))):
        with pytest.raises(BadInput):
            door(own, [(each, weight)]).__enter__()
    with pytest.raises(AdapterMismatch, match="vectors"):
        door(own, [(Adapter("w", None, {}, {"<a>": {"text_encoder": torch.ones(1, 7)}}), 1.0)]).__enter__()
    with pytest.raises(AdapterMismatch, match="text_encoder_2"):
        door(own, [(Adapter("w", None, {}, {"<a>": {"text_encoder_2": torch.ones(1, 7)}}), 1.0)]).__enter__()
    assert same(kept, state(own))


def test_doors_nest() -> None:
    own = base()
    kept, plain = state(own), answer(own)
    stack = [(adapter(own, 1), 0.5), (adapter(own, 2), 0.5)]
    with attached(own, stack):
        both = answer(own)
    with merged(own, stack[:1]), attached(own, stack[1:]):
        assert apart(both, answer(own)) < 1e-5
    with attached(own, stack[:1]), attached(own, stack[1:]):
        assert apart(both, answer(own)) < 1e-5
    assert same(kept, state(own))
    assert torch.equal(answer(own), plain)


def test_under_gradient_checkpointing_gradients_are_the_same() -> None:
    own = base()
    assert isinstance(own.net, UNet2DConditionModel)
    stack = [(adapter(own, 1, dora=True), 0.8)]
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def gradient() -> Tensor:
        own.net.zero_grad()
        with attached(own, stack):
            own.predict(x, torch.tensor([300.0]), own.encode(["a dog"])).square().sum().backward()
        found = own.net.get_parameter("conv_in.weight").grad
        assert found is not None
        return found.clone()

    plain = gradient()
    own.net.enable_gradient_checkpointing()
    own.net.train()
    assert apart(plain, gradient()) < 1e-5


def test_a_full_change_of_a_layer() -> None:
    own = base()
    name = "net.conv_in"
    layer = layers_of(own)[name]
    with attached(own, [(Adapter("full", None, {name: Full(-layer.weight.detach())}), 1.0)]):
        out = layer(torch.randn(1, 4, 8, 8))
    assert layer.bias is not None
    assert torch.allclose(out, layer.bias.view(1, -1, 1, 1).expand_as(out), atol=1e-5)
