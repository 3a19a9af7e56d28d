"""Doors 3 and 4: block outputs and extra inputs, with nothing left behind."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers.models.adapter import T2IAdapter
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.controlnets.controlnet_sd3 import SD3ControlNetModel

from pipelines.base.backbone import rows_in_flight
from pipelines.base.features import features
from pipelines.base.inputs import Residuals, appended, inputs
from pipelines.base.loading import open_base
from pipelines.errors import BadInput, Cancelled, NotAvailable, UnknownName
from tests import tiny

BLOCKS = {
    "sd1": ["down_blocks.0", "mid_block", "up_blocks.1", "down_blocks.0.attentions.0"],
    "sd3": ["transformer_blocks.0", "transformer_blocks.1"],
}


def opened(folder: Path) -> Any:
    """A base of no type: these tests reach into the parts of its network."""
    return open_base(str(folder), "cpu")


@pytest.fixture(scope="module", params=["sd1", "sd3"])
def base(request, tmp_path_factory):
    return open_base(
        str(getattr(tiny, request.param)(tmp_path_factory.mktemp("doors") / request.param)), "cpu"
    )


def forward(base, rows=1):
    x = torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return base.predict(x, torch.full((rows,), 400.0), base.encode(["a dog"] * rows))


def untouched(base):
    return not [name for name, each in base.net.named_modules() if "forward" in vars(each)]


def test_reading_changes_nothing(base):
    before = forward(base)
    with features(base, dict.fromkeys(BLOCKS[base.family])) as seen:
        assert torch.equal(forward(base), before)
    assert all(each.shape[0] == 1 for each in seen.values())
    assert len(seen) == len(BLOCKS[base.family])
    assert untouched(base)


def test_what_was_read_put_back_gives_the_same_picture(base):
    """Every block's own states, recorded from one forward and put into another, decide its result."""
    name = BLOCKS[base.family][-1] if base.family == "sd3" else "up_blocks.1"
    with features(base, {name: None}) as seen:
        first = forward(base)
    kept = seen[name].clone()
    other = torch.randn(1, 4, 8, 8)
    cond = base.encode(["a dog"])
    with torch.no_grad(), features(base, {name: lambda hidden, rows: kept}):
        second = base.predict(other, torch.tensor([400.0]), cond)
    assert torch.allclose(first, second, atol=1e-6)
    with torch.no_grad():
        assert (base.predict(other, torch.tensor([400.0]), cond) - first).abs().max() > 1e-3


def test_rows_tell_branches_apart(base):
    name = BLOCKS[base.family][0]
    plain = forward(base, 2)

    def change(hidden, rows):
        hidden = hidden.clone()
        hidden[rows["cond"]] *= 2
        return hidden

    with rows_in_flight(base, {"cond": slice(0, 1), "uncond": slice(1, 2)}), features(base, {name: change}):
        out = forward(base, 2)
    assert (out[0] - plain[0]).abs().max() > 1e-4
    assert torch.allclose(out[1], plain[1], atol=1e-6)


def test_a_down_block_hands_its_change_on_as_skip(tmp_path):
    base = opened(tiny.sd1(tmp_path / "b"))
    skips = []
    with features(base, {"down_blocks.1": lambda hidden, rows: torch.zeros_like(hidden)}):
        handle = base.net.up_blocks[0].register_forward_pre_hook(
            lambda _m, args, given: skips.append(given["res_hidden_states_tuple"]), with_kwargs=True
        )
        forward(base)
        handle.remove()
    assert skips[0][-1].abs().max() == 0


@pytest.mark.parametrize("failure", [RuntimeError, Cancelled, KeyboardInterrupt])
def test_exceptions_leave_nothing(base, failure):
    before = forward(base)

    def fail(*_):
        raise failure

    with pytest.raises(failure), features(base, {BLOCKS[base.family][0]: fail}):
        forward(base)
    sites = base.sites
    with pytest.raises(failure), inputs(base, residuals=fail, context=torch.zeros(1, 2, 1)):
        forward(base)
    assert untouched(base)
    assert base.sites is sites
    assert torch.equal(forward(base), before)


def test_unknown_and_unreached_blocks_are_told(base):
    with pytest.raises(UnknownName), features(base, {"mid_blok": None}):
        pass
    with pytest.raises(BadInput, match="never reached"), features(base, {BLOCKS[base.family][0]: None}):
        pass
    with pytest.raises(BadInput, match="No forward"), inputs(base, context=torch.zeros(1, 1, 32)):
        pass
    assert untouched(base)


def test_a_change_of_shape_is_refused(base):
    with (
        pytest.raises(ValueError, match="instead of"),
        features(base, {BLOCKS[base.family][0]: lambda hidden, rows: hidden[:, :1]}),
    ):
        forward(base)


def test_no_extra_inputs_is_the_base(base):
    before = forward(base)
    with inputs(base):
        assert torch.equal(forward(base), before)
    assert untouched(base)


def test_extra_context_equals_longer_text(base):
    cond = base.encode(["a dog"])
    extra = torch.randn(1, 3, cond.tokens.shape[-1])
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([400.0])
    sites = base.sites
    with torch.no_grad():
        expected = base.predict(x, t, appended(cond, extra))
        with inputs(base, context=extra):
            found = base.predict(x, t, cond)
            if base.family == "sd3":
                assert base.sites[0].text == slice(sites[0].text.start - 3, None)
                assert base.sites[0].image == slice(0, sites[0].image.stop - 3)
    assert torch.equal(found, expected)
    assert base.sites is sites


def test_controlnet_residuals_equal_a_direct_call(tmp_path):
    base = opened(tiny.sd1(tmp_path / "b"))
    control = cast("Any", ControlNetModel.from_unet(base.net, conditioning_channels=3))
    torch.nn.init.normal_(control.controlnet_mid_block.weight)
    torch.nn.init.normal_(control.controlnet_down_blocks[0].weight)
    picture = torch.rand(1, 3, 64, 64)
    x, t, cond = torch.randn(1, 4, 8, 8), torch.tensor([400]), base.encode(["a dog"])

    def give(x, t, tokens):
        down, mid = control(x, t, tokens, picture, return_dict=False)
        return Residuals(down=tuple(down), mid=mid)

    with torch.no_grad():
        down, mid = control(x, t, cond.tokens, picture, return_dict=False)
        expected = base.net(
            x, t, cond.tokens, down_block_additional_residuals=down, mid_block_additional_residual=mid
        )[0]
        twice = base.net(
            x, t, cond.tokens, down_block_additional_residuals=[2 * each for each in down],
            mid_block_additional_residual=2 * mid,
        )[0]  # fmt: skip
        plain = base.predict(x, t, cond)
        with inputs(base, residuals=give):
            found = base.predict(x, t, cond)
            with inputs(base, residuals=give):
                both = base.predict(x, t, cond)
    assert torch.equal(found, expected)
    assert torch.allclose(both, twice, atol=1e-5)
    assert (found - plain).abs().max() > 1e-4


def test_t2i_residuals_equal_a_direct_call(tmp_path):
    base = opened(tiny.sd1(tmp_path / "b"))
    adapter = T2IAdapter(channels=[32, 64], num_res_blocks=1, downscale_factor=8, in_channels=3)
    features_of = adapter(torch.rand(1, 3, 64, 64))
    x, t, cond = torch.randn(1, 4, 8, 8), torch.tensor([400]), base.encode(["a dog"])
    with torch.no_grad():
        expected = base.net(x, t, cond.tokens, down_intrablock_additional_residuals=list(features_of))[0]
        with inputs(base, residuals=lambda *_: Residuals(intra=tuple(features_of))):
            first, second = base.predict(x, t, cond), base.predict(x, t, cond)
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)


def test_joint_control_equals_a_direct_call(tmp_path):
    base = opened(tiny.sd3(tmp_path / "b"))
    control = cast(
        "Any",
        SD3ControlNetModel.from_transformer(base.net, num_layers=1, num_extra_conditioning_channels=0),
    )
    torch.nn.init.normal_(control.controlnet_blocks[0].weight)
    picture = torch.randn(1, 4, 8, 8)
    x, t, cond = torch.randn(1, 4, 8, 8), torch.tensor([400.0]), base.encode(["a dog"])

    def blocks():
        return control(x, picture, 1.0, cond.tokens, cond.pooled, t, return_dict=False)[0]

    with torch.no_grad():
        fed = base.feed(x, t, cond)
        expected = base.net(**fed, block_controlnet_hidden_states=list(blocks()))[0]
        with inputs(base, residuals=lambda *_: Residuals(blocks=tuple(blocks()))):
            found = base.predict(x, t, cond)
    assert torch.equal(found, expected)
    assert (found - base.predict(x, t, cond)).abs().max() > 1e-5


def test_residuals_of_another_kind_are_refused(base):
    wrong = (
        Residuals(blocks=(torch.zeros(1),)) if base.family == "sd1" else Residuals(intra=(torch.zeros(1),))
    )
    with pytest.raises(NotAvailable, match="residuals"), inputs(base, residuals=lambda *_: wrong):
        forward(base)
    assert untouched(base)
