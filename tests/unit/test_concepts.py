"""Losses, schedules, carriers against peft, and alarms."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import peft
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import nn

from pipelines.base.backbone import Conditioning
from pipelines.concepts._base import INSTANCE, PRIOR, LossInput, Recipe, Stage
from pipelines.concepts.carriers.low_rank import LowRankCarrier, Rates
from pipelines.concepts.losses.noise import noise, only, weights
from pipelines.concepts.trainer import rate_at
from pipelines.concepts.watch import Watcher
from pipelines.errors import BadInput, UnknownName
from tests import bases
from tests.training import PHOTOS, concept


def given(base: Any, rows: int = 4) -> LossInput:
    """A made-up forward: each row with its own error, timestep and kind."""
    generator = torch.Generator().manual_seed(0)
    out, aim = (torch.randn(rows, 4, 8, 8, generator=generator) for _ in range(2))
    t = torch.arange(rows) * 300
    a, b = base.shares(t)
    kind = torch.tensor([INSTANCE, PRIOR] * (rows // 2))
    cond = Conditioning(torch.zeros(rows, 1, 1))
    return LossInput(aim, aim, aim, out, aim, t, a, b, kind, torch.full((rows,), 0.5), cond, lambda: out)


def test_a_list_of_methods_does_not_import_torch():
    code = (
        "from pipelines.spec import catalog; import sys; names = list(catalog('concepts')); "
        "assert 'dreambooth_lora' in names and 'trainer' not in names; "
        "assert not {'torch', 'diffusers', 'transformers', 'peft'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_noise_loss_is_the_mean_of_each_sample_alone():
    base = bases.make("unet-eps")
    one = given(base)
    expected = [float(((one.out[row] - one.target[row]) ** 2).mean()) for row in range(4)]
    assert noise(base)(one).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["unet-eps", "unet-v"])
def test_min_snr_weights_are_those_of_the_paper_row_by_row(kind):
    base = bases.make(kind)
    one = given(base)
    config = dict(base.scheduler_config)
    scheduler = DDPMScheduler.from_config({key: each for key, each in config.items() if key[0] != "_"})
    snr = compute_snr(scheduler, one.t)
    expected = snr.clamp_max(5.0) / (snr + 1 if kind == "unet-v" else snr)
    assert torch.allclose(weights(base.predicts, one.a, one.b, 5.0), expected, rtol=1e-4)
    assert torch.allclose(noise(base, 5.0)(one), noise(base)(one) * expected, rtol=1e-4)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = replace(one, out=one.out[order], target=one.target[order], a=one.a[order], b=one.b[order])
    assert torch.equal(noise(base, 5.0)(shuffled), noise(base, 5.0)(one)[order])


def test_min_snr_is_defined_where_no_picture_is_left_and_refused_for_a_flow():
    a, b = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    assert weights("eps", a, b, 5.0).tolist() == [1.0]
    assert weights("v", a, b, 5.0).tolist() == [0.0]
    with pytest.raises(BadInput, match="flow"):
        noise(bases.make("dit-flow"), 5.0)


def test_a_masked_loss_looks_inside_the_mask_alone():
    base = bases.make("unet-eps")
    one = given(base)
    mask = torch.zeros(4, 1, 8, 8)
    mask[..., :4] = 1
    loss = noise(base)(replace(one, mask=mask))
    inside = (one.out - one.target)[..., :4].square().mean((1, 2, 3))
    assert torch.allclose(loss, inside)
    assert torch.allclose(noise(base)(replace(one, mask=torch.ones(4, 1, 8, 8))), noise(base)(one))


def test_a_term_for_one_kind_is_zero_for_the_other():
    base = bases.make("unet-eps")
    one = given(base)
    both = only(INSTANCE, noise(base))(one) + only(PRIOR, noise(base))(one)
    assert only(PRIOR, noise(base))(one)[::2].tolist() == [0.0, 0.0]
    assert torch.equal(both, noise(base)(one))


@pytest.mark.parametrize("kind", ["plain", "alpha", "rslora", "dora"])
def test_a_low_rank_layer_computes_what_pefts_does(kind):
    base = bases.make("unet-eps")
    dora, rslora, alpha = kind == "dora", kind == "rslora", 4.0 if kind == "plain" else 7.0
    rates = Rates(1e-3, 1e-3)
    carrier = LowRankCarrier(base, ("attention", "conv"), 4, alpha, rates, dora=dora, rslora=rslora)
    carrier.start(0)
    generator = torch.Generator().manual_seed(1)
    state = {
        name: each + 0.1 * torch.randn(each.shape, generator=generator)
        for name, each in carrier.state().items()
    }
    carrier.load(state)
    names = [base.targets["attention"][0], base.targets["conv"][0]]
    for name in names:
        layer: Any = base.net.get_submodule(name)
        shape = (2, 5, layer.in_features) if isinstance(layer, nn.Linear) else (2, layer.in_channels, 8, 8)
        x = torch.randn(shape, generator=generator)
        holder = nn.ModuleDict({"it": nn.Sequential(layer)})
        config = peft.LoraConfig(
            r=4, lora_alpha=int(alpha), use_rslora=rslora, use_dora=dora, target_modules=["0"]
        )
        with carrier.attached(base):
            ours = layer(x)
        wrapped = peft.inject_adapter_in_model(config, holder)
        theirs: Any = wrapped["it"][0]  # pyright: ignore[reportIndexIssue]
        own = carrier.factors[f"net.{name}"]
        with torch.no_grad():
            theirs.lora_A["default"].weight.copy_(own.down)
            theirs.lora_B["default"].weight.copy_(own.up)
            if own.magnitude is not None:
                magnitude = theirs.lora_magnitude_vector["default"].weight
                magnitude.copy_(own.magnitude.view(magnitude.shape))
            expected = theirs.eval()(x)
        assert torch.allclose(ours, expected, atol=1e-5 * float(expected.abs().max()))
        assert not torch.allclose(ours, layer(x), atol=1e-3)


def test_unknown_groups_of_layers_and_none_at_all_are_refused():
    base = bases.make("dit-flow")
    with pytest.raises(UnknownName, match="attention"):
        concept("dreambooth_lora").recipe(base, PHOTOS)
    with pytest.raises(BadInput, match="No layers"):
        concept("dreambooth_lora", targets=()).recipe(bases.make("unet-eps"), PHOTOS)


def test_rates_warm_up_fall_along_a_cosine_and_rest_for_groups_of_other_stages():
    stages = (Stage(10, "cosine", 2), Stage(4, groups=frozenset({"text"})))
    recipe: Any = Recipe("x", None, (), stages, None, "sks", "dog", "sks dog")  # pyright: ignore
    rates = [rate_at(recipe, step, "net") for step in range(14)]
    assert rates[:3] == [1 / 3, 2 / 3, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates[2:10] == sorted(rates[2:10], reverse=True)
    assert rates[10:] == [0.0] * 4
    assert rate_at(recipe, 12, "text") == 1.0


def test_alarms_say_each_kind_once_with_its_step():
    watcher = Watcher()
    fine = {"closest": 0.6, "clip_t": 0.3, "kept_class": 0.9, "kept_world": 0.95, "spread": 0.4}
    assert watcher.alarms(50, fine) == []
    (copies,) = watcher.alarms(100, fine | {"closest": 0.97})
    assert copies.startswith("Step 100")
    assert "copies" in copies
    assert watcher.alarms(150, fine | {"closest": 0.98}) == []
    found = watcher.alarms(200, fine | {"kept_class": 0.2, "kept_world": 0.1, "clip_t": 0.1, "spread": 0.0})
    assert [word in " ".join(found) for word in ("bare class", "forgets", "prompts", "look the same")] == [
        True
    ] * 4
    (broken,) = watcher.alarms(250, {"clip_t": float("nan")})
    assert "clip_t is not a number" in broken
