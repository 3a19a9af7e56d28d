"""The trainer when things go right, wrong, or are stopped."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.artifacts import read_safetensors_header
from pipelines.concepts import trainer
from pipelines.concepts._base import Diverged
from pipelines.concepts._batch import draw
from pipelines.concepts._pace import Pace, looks_left
from pipelines.concepts.checkpoint import checkpoints
from pipelines.data import dataset
from pipelines.errors import BadInput, Cancelled, StateBusy
from pipelines.progress import Event, Job
from tests import bases
from tests.training import PHOTOS, StopAt, concept, data_of, photos


@pytest.fixture
def base() -> Any:
    return bases.make("unet-eps")


def train(base: Any, folder: Path, method: Any = None, **options: Any) -> trainer.Trained:
    """A short LoRA training into `folder`/run."""
    method = method or concept("dreambooth_lora")
    data = options.pop("data", None) or data_of(base, folder, method)
    job = options.pop("job", Job())
    recipe = options.pop("recipe", None) or method.recipe(base, PHOTOS)
    return trainer.train(base, recipe, data, job, folder / "run", every=options.pop("every", 0), **options)


def test_a_training_leaves_an_adapter_that_says_what_it_is_and_its_curves(base, tmp_path):
    events: list[Event] = []
    trained = train(base, tmp_path, job=Job(events.append), seed=4)
    about = read_safetensors_header(trained.path).metadata
    assert about["likeness.family"] == "sd1"
    assert about["likeness.base"] == base.name
    assert about["likeness.trigger"] == "sks dog"
    assert about["likeness.method"] == "dreambooth_lora"
    assert json.loads(about["likeness.settings"])["rank"] == 4
    rows = list(csv.DictReader((tmp_path / "run" / "curves.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    reports = [event for event in events if event.kind == "report"]
    assert reports[-1].step == reports[-1].total == 4
    assert (reports[0].step, reports[0].total) == (0, 4)
    assert reports[0].values == {"anatomy": trained.anatomy}
    figures = reports[-1].values
    assert set(figures) == {"loss", "smooth", "lr", "seconds_left"}
    assert figures["seconds_left"] == 0
    assert figures["lr"] == 1e-2
    assert [event.values["loss"] for event in reports[1:]] == [round(float(row["loss"]), 5) for row in rows]
    assert figures["smooth"] == pytest.approx(sum(float(row["loss"]) for row in rows) / 4, abs=1e-5)
    assert trained.parameters == sum(
        4 * (layer.in_features + layer.out_features)
        for layer in map(base.net.get_submodule, base.targets["attention"])
    )


def test_the_loss_falls(base, tmp_path):
    method = concept("dreambooth_lora", steps=60, learning_rate=5e-3, rank=8, targets=("attention", "conv"))
    train(base, tmp_path, method)
    losses = [float(row["loss"]) for row in csv.DictReader((tmp_path / "run" / "curves.csv").open())]
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])


def test_a_loss_that_is_not_finite_stops_it_and_keeps_the_last_good_checkpoint(base, tmp_path):
    method = concept("dreambooth_lora", steps=60)
    recipe = method.recipe(base, PHOTOS)
    ((weight, term),) = recipe.terms
    calls = []

    def breaks(given: Any) -> torch.Tensor:
        calls.append(1)
        return term(given) * (float("nan") if len(calls) == 53 else 1.0)

    job = Job()
    with pytest.raises(Diverged, match="Step 53: the loss is nan") as error:
        train(base, tmp_path, method, recipe=replace(recipe, terms=((weight, breaks),)), job=job)
    assert "step-000050 is the last good checkpoint" in error.value.message
    assert "learning_rate" in error.value.remedy
    assert [step for step, _ in checkpoints(tmp_path / "run" / "checkpoints")] == [50]
    assert not (tmp_path / "run" / "adapter.safetensors").exists()


def test_an_adapter_that_is_not_finite_is_never_written(base, tmp_path):
    method = concept("dreambooth_lora", steps=1)
    recipe = method.recipe(base, PHOTOS)
    state = recipe.carrier.state

    def poisoned() -> dict[str, torch.Tensor]:
        own = {name: each.clone() for name, each in state().items()}
        next(iter(own.values())).fill_(float("inf"))
        return own

    recipe.carrier.state = poisoned
    with pytest.raises(Diverged, match="a weight is not finite"):
        train(base, tmp_path, method, recipe=recipe)
    assert not (tmp_path / "run" / "adapter.safetensors").exists()
    assert checkpoints(tmp_path / "run" / "checkpoints") == []


def test_the_best_step_by_score_is_kept_even_across_a_cut(base, tmp_path):
    method = concept("dreambooth_lora", steps=6)
    data = data_of(base, tmp_path, method)
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def run(folder: Path, job: Job, resume: bool = False) -> Any:
        recipe = method.recipe(base, PHOTOS)

        def watch(step: int) -> dict[str, float]:
            seen[step] = {name: each.clone() for name, each in recipe.carrier.state().items()}
            return {"score": {2: 0.2, 4: 0.9, 6: 0.5}[step]}

        options = {"data": data, "recipe": recipe, "watch": watch, "every": 2, "job": job, "resume": resume}
        return train(base, folder, method, **options), recipe.carrier.state()

    trained, state = run(tmp_path, Job())
    assert (trained.best_step, trained.steps) == (4, 6)
    assert all(torch.equal(each, seen[4][name]) for name, each in state.items())
    assert not all(torch.equal(each, seen[6][name]) for name, each in state.items())
    with pytest.raises(Cancelled):
        run(tmp_path / "cut", StopAt(5).job)
    again, resumed = run(tmp_path / "cut", Job(), resume=True)
    assert again.best_step == 4
    assert [each["step"] for each in again.readings] == [2, 4, 6]
    assert all(torch.equal(each, resumed[name]) for name, each in state.items())
    rows = list(csv.DictReader((tmp_path / "run" / "curves.csv").open()))
    assert [row["score"] for row in rows] == ["", "0.2", "", "0.9", "", "0.5"]


def test_a_stop_while_it_looks_at_samples_loses_no_step(base, tmp_path):
    method = concept("dreambooth_lora")

    def stopped(step: int) -> dict[str, float]:
        raise Cancelled("Stopped as asked.")

    job = Job()
    with pytest.raises(Cancelled):
        train(base, tmp_path, method, watch=stopped, every=2, job=job)
    assert job.checkpoint is not None
    assert job.checkpoint.name == "step-000002"
    looked: list[int] = []
    train(base, tmp_path, method, watch=lambda step: looked.append(step) or {}, every=2, resume=True)
    assert looked == [2, 4]


class Wants:
    """Asks a job for things once steps are reported: step → what."""

    def __init__(self, **at: int) -> None:
        self.at = {step: what for what, step in at.items()}
        self.heard: list[Event] = []
        self.job = Job(self)

    def __call__(self, event: Event) -> None:
        self.heard.append(event)
        if event.kind == "report" and (what := self.at.pop(event.step, None)):
            self.job.ask(what)


def test_what_is_asked_for_on_the_way_comes_at_once_and_changes_no_weight(base, tmp_path):
    method = concept("dreambooth_lora", steps=6)
    data = data_of(base, tmp_path, method)
    looked: list[int] = []

    def run(name: str, job: Job, **options: Any) -> Any:
        recipe = method.recipe(base, PHOTOS)
        options = {"data": data, "recipe": recipe, "every": 4, "best": False, **options}
        trained = train(
            base, tmp_path / name, method, job=job, watch=lambda step: looked.append(step) or {}, **options
        )
        return trained, recipe.carrier.state()

    _, plain = run("plain", Job())
    assert looked == [4, 6]
    looked.clear()
    wants = Wants(sample=2, save=3)
    trained, state = run("asked", wants.job)
    assert looked == [2, 4, 6]
    assert [each["step"] for each in trained.readings] == [2, 4, 6]
    assert all(torch.equal(each, plain[name]) for name, each in state.items())
    saved = tmp_path / "asked" / "run" / "saved" / "step-000003.safetensors"
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert {"saved": "saved/step-000003.safetensors"} in [event.values for event in wants.heard]
    assert read_safetensors_header(saved).metadata["likeness.steps"] == "3"
    assert (
        read_safetensors_header(saved).tensors.keys() == read_safetensors_header(trained.path).tensors.keys()
    )


def test_a_training_cut_after_a_wish_goes_on_to_the_same_weights(base, tmp_path):
    method = concept("dreambooth_lora", steps=5)
    data = data_of(base, tmp_path, method)

    def run(name: str, job: Job, resume: bool = False) -> Any:
        recipe = method.recipe(base, PHOTOS)
        options = {"data": data, "recipe": recipe, "job": job, "resume": resume, "watch": lambda step: {}}
        train(base, tmp_path / name, method, **options)
        return recipe.carrier.state()

    plain = run("plain", Job())
    wants = Wants(sample=1, save=2)
    wants.job.subscribe(lambda event: wants.job.cancel() if event.step == 3 else None)
    with pytest.raises(Cancelled):
        run("cut", wants.job)
    assert [step for step, _ in checkpoints(tmp_path / "cut" / "run" / "checkpoints")] == [2, 3]
    resumed = run("cut", Job(), resume=True)
    assert all(torch.equal(each, plain[name]) for name, each in resumed.items())


def test_a_sample_that_was_asked_for_does_not_decide_what_is_kept_where_none_were_planned(base, tmp_path):
    wants = Wants(sample=1)
    trained = train(base, tmp_path, job=wants.job, watch=lambda step: {"score": 1.0}, every=0)
    assert [each["step"] for each in trained.readings] == [1]
    assert trained.best_step == 4


@pytest.mark.parametrize("method", ["dreambooth_lora", "textual_inversion", "dreambooth"])
def test_the_anatomy_counts_every_weight_of_the_base_and_every_byte_of_the_file(base, tmp_path, method):
    settings = {"text_encoder": True, "targets": ("attention", "conv")} if method == "dreambooth_lora" else {}
    trained = train(base, tmp_path, concept(method, steps=1, **settings))
    rows = trained.anatomy
    modules = [base.net, base.vae, *base.texts.values()]
    assert sum(row["parameters"] for row in rows) == sum(
        each.numel() for module in modules for each in module.parameters()
    )
    assert sum(row["trained"] for row in rows) == trained.parameters
    files = [trained.path] if trained.path.is_file() else sorted(trained.path.rglob("*.safetensors"))
    sizes = [
        each.end - each.start for path in files for each in read_safetensors_header(path).tensors.values()
    ]
    assert sum(row["bytes"] for row in rows) == sum(sizes)
    touched = {(row["part"], row["group"]) for row in rows if row["trained"]}
    assert {
        "dreambooth_lora": {("unet", "attention"), ("unet", "conv"), ("text encoder", "attention")},
        "textual_inversion": {("text encoder", "words")},
        "dreambooth": {(row["part"], row["group"]) for row in rows if row["part"] == "unet"},
    }[method] == touched
    assert any(row["part"] == "autoencoder" and not row["trained"] for row in rows)


def test_the_time_left_counts_steps_and_looks_apart():
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(3):
        with pace.step():
            now[0] += 2.0
    with pace.look():
        now[0] += 100.0
    assert pace.left(10, 0) == 20.0
    assert pace.left(10, 2) == 220.0
    assert [looks_left(step, 10, 4) for step in (0, 3, 4, 8, 9, 10)] == [3, 3, 2, 1, 1, 0]
    assert [looks_left(step, 8, 4) for step in (0, 4, 7, 8)] == [2, 1, 1, 0]
    assert looks_left(0, 10, 0) == 0


def test_a_folder_holds_one_training(base, tmp_path):
    train(base, tmp_path)
    with pytest.raises(BadInput, match="already holds a training"):
        train(base, tmp_path)
    with pytest.raises(BadInput, match="another seed"):
        train(base, tmp_path, seed=1, resume=True)
    with pytest.raises(BadInput, match="another settings"):
        train(base, tmp_path, concept("dreambooth_lora", batch=1), resume=True)
    longer = train(base, tmp_path, concept("dreambooth_lora", steps=6), resume=True)
    assert longer.steps == 6
    with trainer.checkpoint.locked(tmp_path / "run" / "checkpoints"), pytest.raises(StateBusy):
        train(base, tmp_path, resume=True)


def test_whole_photos_of_several_shapes_share_a_step(base, tmp_path):
    method = concept("dreambooth_lora", batch=3)
    paths = photos(tmp_path / "wide", [(64, 64), (128, 64), (64, 128)])
    whole = PHOTOS.model_copy(update={"focus": False})
    data = dataset.build(base, paths, whole, method, Job())
    assert len({each.latents.shape for each in data.photos}) == 3
    recipe = method.recipe(base, PHOTOS)
    groups = list(draw(recipe.data, data, base, 0, 0).by_size())
    assert sorted(len(each.captions) for each in groups) == [1, 1, 1]
    assert sum(float(each.weight.sum()) for each in groups) == pytest.approx(1.0)
    assert train(base, tmp_path, method, data=data, recipe=recipe).steps == 4


def test_what_a_step_sees_depends_on_seed_and_number_alone(base, tmp_path):
    method = concept("dreambooth_lora", prior_weight=1.0, prior_images=4, caption_dropout=0.5)
    data = data_of(base, tmp_path, method, PHOTOS.model_copy(update={"flip": True}))
    plan = method.recipe(base, PHOTOS).data

    def rows(seed: int, index: int) -> list[Any]:
        return [
            (each.x0.tolist(), each.eps.tolist(), int(each.t), each.caption)
            for each in draw(plan, data, base, seed, index).rows
        ]

    assert rows(1, 8) == rows(1, 8)
    assert rows(1, 8) != rows(1, 9)
    assert rows(1, 8) != rows(2, 8)
    captions = {each.caption for index in range(20) for each in draw(plan, data, base, 0, index).rows}
    assert captions == {"", "a photo of sks dog", "a photo of dog"}
    without = [each.eps for each in draw(replace(plan, prior=False), data, base, 1, 8).rows]
    with_prior = [each.eps for each in draw(plan, data, base, 1, 8).rows]
    assert all(torch.equal(one, other) for one, other in zip(without, with_prior, strict=False))


def test_accumulated_batches_weigh_alike(base, tmp_path):
    method = concept("dreambooth_lora", accumulation=2, steps=1)
    data = data_of(base, tmp_path, method)

    def gradient(accumulation: int, index: int) -> list[torch.Tensor]:
        recipe = method.recipe(base, PHOTOS)
        recipe = replace(recipe, data=replace(recipe.data, accumulation=accumulation))
        run = trainer._Run(base, recipe, data, Job(), tmp_path / f"{accumulation}{index}", seed=0)
        run.begin(resume=False)
        with recipe.carrier.attached(base):
            for each in range(accumulation):
                run._backward(index + each)
        return [each.grad for each in run.tensors.values() if each.grad is not None]

    both, first, second = gradient(2, 0), gradient(1, 0), gradient(1, 1)
    assert all(
        torch.allclose(each, (one + other) / 2, atol=1e-6)
        for each, one, other in zip(both, first, second, strict=True)
    )
