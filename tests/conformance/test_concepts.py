"""What every training method must keep to, on a UNet and on a flow transformer; new methods inherit it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.adapters import stack
from pipelines.adapters.formats import diffusers as layout
from pipelines.base.backbone import Backbone
from pipelines.concepts import trainer
from pipelines.concepts._around import checkpointing, frozen
from pipelines.concepts._base import PRIOR, Recipe
from pipelines.concepts.losses.noise import noise, only
from pipelines.data.dataset import Dataset
from pipelines.errors import Cancelled
from pipelines.progress import Job
from pipelines.spec import catalog
from tests.bases import residue
from tests.training import PHOTOS, StopAt, base_of, concept, data_of, forward

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "dreambooth_lora": [
        {"rank": 4, "alpha": 6.0, "rslora": True, "text_encoder": True, "text_learning_rate": 1e-2},
        {"rank": 2, "dora": True, "targets": ("attention", "feedforward")},
    ],
    "textual_inversion": [{"vectors": 3}],
}
TOLERANCE = {"dora": 1e-5}
"""Where a fresh concept is the base only to rounding, and why its file says so."""
CASES = [(name, own) for name in catalog("concepts") for own in ({}, *VARIANTS.get(name, []))]
IDS = [name + "".join(f"-{key}" for key in own) for name, own in CASES]


@pytest.fixture(scope="module", params=["unet", "dit"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backbone]:
    """One base of each kind for all tests, so that a leak of one shows in another."""
    base = base_of(request.param, tmp_path_factory.mktemp("base"))
    before = forward(base)
    yield base
    assert torch.equal(forward(base), before)


def everything(base: Backbone) -> dict[str, Any]:
    """All of a base that training could change: tensors, objects, flags, modes, tokenizers, wrappers."""
    modules = {"net": base.net, "vae": base.vae, **base.texts}
    found: dict[str, Any] = {"tokenizers": [id(each) for each in base.tokenizers.values()]}
    for part, module in modules.items():
        for name, each in module.state_dict().items():
            found[f"{part}.{name}"] = each.clone()
        for name, each in module.named_parameters():
            found[f"{part}.{name} object"] = (id(each), each.requires_grad, each.grad is None)
        for name, each in module.named_modules():
            found[f"{part}.{name} module"] = (type(each), each.training, sorted(vars(each)))
            found[f"{part}.{name} memory"] = getattr(each, "gradient_checkpointing", None)
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Bitwise."""
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, Tensor) else value == other[key]
        for key, value in one.items()
    )


def gradients(
    base: Backbone, recipe: Recipe, data: Dataset, folder: Path, checkpointed: bool
) -> list[Tensor]:
    """Gradients of the first batch, from weights at which none of them is zero."""
    with frozen(base):
        run = trainer._Run(base, recipe, data, Job(), folder, seed=5)
        run.begin(resume=False)
        generator = torch.Generator().manual_seed(2)
        own = recipe.carrier.state()
        moved = {
            name: each + 0.02 * torch.randn(each.shape, generator=generator) for name, each in own.items()
        }
        recipe.carrier.load(moved)
        with checkpointing(base.net) if checkpointed else nullcontext(), recipe.carrier.attached(base):
            run._backward(0)
        return [each.grad.clone() for each in run.tensors.values() if each.grad is not None]


def close(one: list[Tensor], other: list[Tensor]) -> bool:
    """Equal to rounding, and not because all is zero."""
    assert len(one) == len(other) > 0
    assert any(float(each.abs().max()) > 0 for each in one)
    scale = max(float(each.abs().max()) for each in one)
    return all(float((a - b).abs().max()) <= 1e-5 * scale for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("method", "settings"), CASES, ids=IDS)
def test_a_fresh_concept_is_the_base(base, method, settings):
    recipe = concept(method, **settings).recipe(base, PHOTOS)
    before, picture = everything(base), forward(base, "a red cat")
    recipe.carrier.start(3)
    with recipe.carrier.attached(base):
        attached = forward(base, "a red cat")
        if "tokens" in recipe.carrier.touches and not settings:
            assert torch.equal(forward(base, "one sks there"), forward(base, "one dog there"))
    tolerance = max((TOLERANCE.get(key, 0.0) for key in settings), default=0.0)
    assert torch.allclose(attached, picture, atol=tolerance * float(picture.abs().max()), rtol=0)
    assert torch.equal(forward(base, "a red cat"), picture)
    assert same(everything(base), before)


@pytest.mark.parametrize(("method", "settings"), CASES, ids=IDS)
def test_training_changes_nothing_but_the_carrier_and_its_file_says_the_same(
    base, method, settings, tmp_path
):
    before = everything(base)
    chosen = concept(method, **settings)
    recipe = chosen.recipe(base, PHOTOS)
    recipe.carrier.start(0)
    started = {name: each.clone() for name, each in recipe.carrier.state().items()}
    trained = trainer.train(base, recipe, data_of(base, tmp_path, chosen), Job(), tmp_path / "run", every=0)
    assert same(everything(base), before)
    assert residue(base) == []
    assert any(not torch.equal(each, started[name]) for name, each in recipe.carrier.state().items())
    plain = forward(base)
    with recipe.carrier.attached(base):
        learned = forward(base)
    assert not torch.allclose(learned, plain, atol=1e-4)

    if trained.path.is_file():
        adapter = layout.read(trained.path, base)
        assert not adapter.unused
        assert adapter.family == base.family
        assert adapter.trigger == recipe.trigger
        with stack.attached(base, [(adapter, 1.0)]):
            read_back = forward(base)
    else:
        folder = next(each for each in trained.path.iterdir() if each.is_dir())
        kept, base.net = base.net, type(base.net).from_pretrained(folder).eval()
        try:
            read_back = forward(base)
        finally:
            base.net = kept
    assert torch.allclose(read_back, learned, atol=2e-5 * float(learned.abs().max()), rtol=0)
    assert same(everything(base), before)


@pytest.mark.parametrize(("method", "settings"), CASES, ids=IDS)
def test_a_training_that_was_cut_ends_where_an_unbroken_one_does(base, method, settings, tmp_path):
    chosen = concept(method, **settings)
    data = data_of(base, tmp_path, chosen)

    def run(folder: str, job: Job, resume: bool = False) -> dict[str, Tensor]:
        recipe = chosen.recipe(base, PHOTOS)
        trainer.train(base, recipe, data, job, tmp_path / folder, seed=7, every=0, resume=resume)
        return recipe.carrier.state()

    straight = run("straight", Job())
    stopper = StopAt(2)
    with pytest.raises(Cancelled):
        run("cut", stopper.job)
    assert stopper.job.checkpoint is not None
    assert stopper.job.checkpoint.name == "step-000002"
    assert not (tmp_path / "cut" / "adapter.safetensors").exists()
    resumed = run("cut", Job(), resume=True)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(each, resumed[name]) for name, each in straight.items())
    curves = [(tmp_path / each / "curves.csv").read_text() for each in ("straight", "cut")]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("method", catalog("concepts"))
def test_gradients_are_the_same_with_checkpointing(base, method, tmp_path):
    chosen = concept(method)
    data = data_of(base, tmp_path, chosen)
    grads = [
        gradients(base, chosen.recipe(base, PHOTOS), data, tmp_path / str(each), each)
        for each in (False, True)
    ]
    assert close(*grads)


@pytest.mark.parametrize("method", catalog("concepts"))
def test_a_prior_half_of_weight_zero_changes_no_gradient_and_one_of_weight_one_does(base, method, tmp_path):
    data = data_of(base, tmp_path, concept(method, prior_weight=1.0, prior_images=3))
    plain = concept(method).recipe(base, PHOTOS)
    alone = gradients(base, plain, data, tmp_path / "alone", False)

    def with_prior(weight: float) -> list[Tensor]:
        recipe = concept(method).recipe(base, PHOTOS)
        recipe = replace(
            recipe,
            terms=(*recipe.terms, (weight, only(PRIOR, noise(base)))),
            data=replace(recipe.data, prior=True),
        )
        return gradients(base, recipe, data, tmp_path / str(weight), False)

    assert close(with_prior(0.0), alone)
    # class pictures are shown without the word, so a carrier of words alone learns nothing from them
    assert close(with_prior(1.0), alone) == (plain.carrier.touches == {"tokens"})
