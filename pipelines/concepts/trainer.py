"""The one engine of all trainings: it knows carriers and loss terms, and no method.

Noise, timesteps, order, mirroring and captions of a step are functions of (seed, step) alone, and a
checkpoint holds weights, moments and figures; so a training that was cut goes on to the very weights of an
unbroken one (same device, dtype and number of threads). Trained weights are float32; the rest of the base is
frozen, and bitwise what it was when this returns or raises.

Shapes: B batch, C latent channels, h w latent size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.base.backbone import Backbone, Conditioning
from pipelines.base.noise import target
from pipelines.concepts import _result, checkpoint
from pipelines.concepts._anatomy import anatomy
from pipelines.concepts._around import autocast, checkpointing, frozen, held, threads
from pipelines.concepts._base import Diverged, LossInput, Recipe
from pipelines.concepts._batch import Rows, draw
from pipelines.concepts._pace import Pace, looks_left
from pipelines.concepts._texts import Texts
from pipelines.concepts.checkpoint import Bundle
from pipelines.data.cache import fingerprint
from pipelines.data.dataset import Dataset
from pipelines.errors import BadInput, BrokenWeights, Cancelled
from pipelines.progress import Job

Watch = Callable[[int], Mapping[str, float]]
"""Called with a step's number while the concept acts on the base: samples, measures, gives readings by name;
by "score", where there is one, the best step is chosen."""

CLIP = 1.0
FIRST_AFTER, EVERY_STEPS, EVERY_SECONDS = 10.0, 50, 60.0
SHARE_OF_TIME = 0.05
SAVED = "saved"


@dataclass(frozen=True)
class Trained:
    """What came of a training: `path` is adapter.safetensors, or the folder model/ of a whole network.

    `loss` is the mean over the last tenth of the steps, `readings` one table a watched step, `anatomy` what
    of the base was trained (`_anatomy.anatomy`).
    """

    path: Path
    steps: int
    best_step: int
    parameters: int
    loss: float
    trigger: str
    readings: list[dict[str, float]]
    anatomy: list[dict[str, Any]]


@dataclass
class Progress:
    """How far a training is, in plain JSON values: `step` steps are done, one loss each."""

    step: int = 0
    losses: list[float] = field(default_factory=list[float])
    readings: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    best_step: int = 0
    best_score: float | None = None

    def bar(self) -> float:
        """The score to reach: a later step wins over an equal one before."""
        return float("-inf") if self.best_score is None else self.best_score

    def mean(self, last: int) -> float:
        """The mean of the last losses."""
        recent = self.losses[-last:]
        return sum(recent) / len(recent) if recent else 0.0


def train(  # noqa: PLR0913 (the parts of a training, each given by the caller)
    base: Backbone,
    recipe: Recipe,
    data: Dataset,
    job: Job,
    folder: Path,
    *,
    seed: int = 0,
    watch: Watch | None = None,
    every: int = 50,
    best: bool = True,
    resume: bool = False,
    started: Callable[[], object] | None = None,
) -> Trained:
    """Train, and write adapter.safetensors (or model/), curves.csv and checkpoints into `folder`.

    `started` is called once nothing speaks against the training any more, before its first step.
    `watch` is called every `every` steps and at the end (0: only when asked for); with `best` and `every` the
    result is the step with its highest score. While it runs the job may be asked for a "sample", which is one
    more look, and to "save": a checkpoint, and what is learned so far as saved/step-000123.safetensors.
    Neither changes what comes of the training, but for a look whose score is the best.
    Raises Cancelled after writing a checkpoint (named by `job.checkpoint`), Diverged for a loss or gradient
    that is not finite, BadInput where `folder` holds another training, OutOfMemory, StateBusy, DiskFull.
    """
    best = best and bool(every)  # a sample that was asked for must not decide which step is kept
    with checkpoint.locked(folder / "checkpoints"), held(base), frozen(base), threads():
        run = _Run(base, recipe, data, job, folder, seed)
        run.begin(resume)
        if started is not None:
            started()
        checkpointed = checkpointing(base.net) if recipe.checkpointing else nullcontext()
        with checkpointed, recipe.carrier.attached(base):
            run.tell()
            try:
                run.loop(watch, every, best)
            except Cancelled:
                run.save()
                raise
            run.save()
            if best and run.progress.best_score is not None:
                run.restore_best()
            return run.finish()


class _Run:
    """One training under way."""

    def __init__(
        self, base: Backbone, recipe: Recipe, data: Dataset, job: Job, folder: Path, seed: int
    ) -> None:
        self.base, self.recipe, self.data, self.job, self.folder = base, recipe, data, job, folder
        self.seed = seed
        self.state = folder / "checkpoints"
        self.groups = recipe.carrier.groups()
        self.tensors = {name: each for group in self.groups for name, each in group.tensors.items()}
        self.optimizer = torch.optim.AdamW(
            [{"params": list(group.tensors.values())} for group in self.groups],
            lr=1.0,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.progress = Progress()
        self.texts = Texts(base, recipe, data)
        self._saved_step, self._saved_at, self._save_cost = -1, None, 0.0
        self._began = time.monotonic()
        self.pace = Pace()
        self.anatomy = anatomy(base, self.tensors)

    def begin(self, resume: bool) -> None:
        """Start anew, or take the last checkpoint. Raises BadInput where they do not fit together."""
        bundle = checkpoint.load_latest(self.state)
        if bundle is not None and not resume:
            raise BadInput(
                f"{self.folder} already holds a training, up to step {bundle.step}.",
                "Resume it (--resume), or choose another folder (--out).",
            )
        self.recipe.carrier.start(self.seed)
        self.about = {**self._about(), "threads": torch.get_num_threads()}
        if bundle is not None:
            self._restore(bundle)
        self._first = self.progress.step

    def tell(self) -> None:
        """Say what is trained and what is frozen."""
        self.job.report(self.progress.step, self.recipe.steps, anatomy=self.anatomy)

    def loop(self, watch: Watch | None, every: int, best: bool) -> None:
        """All steps that are left."""
        total = self.recipe.steps
        while True:
            step = self.progress.step
            due = every and step and (step % every == 0 or step >= total)
            asked = step and self.job.take("sample")
            if watch and (due or asked):
                with self.pace.look():
                    self._look(watch, step, best)
            if step and self.job.take("save"):
                self._keep(step)
            if step >= total:
                return
            self.job.check()
            with self.pace.step():
                loss = self._step(step)
                self.progress.losses.append(loss)
                self.progress.step = step + 1
                if self._due():
                    self.save()
            self._report(loss, looks_left(step + 1, total, every if watch else 0))

    def save(self) -> None:
        """Write a checkpoint of the steps done, once. Raises Diverged where a weight is not finite."""
        step = self.progress.step
        if step == self._saved_step or not step:
            return
        begun = time.monotonic()
        weights = self._finite_state()
        moments = {
            f"{name}.{key}": value
            for name, tensor in self.tensors.items()
            for key, value in self.optimizer.state[tensor].items()
        }
        facts = {"progress": asdict(self.progress), "about": self.about}
        groups = {"weights": weights, "optimizer": moments}
        self.job.checkpoint = checkpoint.save(self.state, Bundle(step, groups, facts))
        self._curves()
        self._saved_step, self._saved_at = step, time.monotonic()
        self._save_cost = self._saved_at - begun

    def restore_best(self) -> None:
        """Take the weights of the step with the highest score."""
        if self.progress.best_step != self.progress.step:
            path = checkpoint.folder_of(self.folder / "best", self.progress.best_step)
            self.recipe.carrier.load(checkpoint.load(path).groups["weights"])

    def finish(self) -> Trained:
        """Write the result."""
        self._finite_state()
        self._curves()
        done = self.progress
        kept = done.best_step if done.best_score is not None else done.step
        path = _result.write(self.base, self.recipe, self.folder, {"steps": kept, "seed": self.seed})
        count = sum(each.numel() for each in self.tensors.values())
        last = max(1, done.step // 10)
        return Trained(
            path, done.step, kept, count, done.mean(last), self.recipe.trigger, done.readings, self.anatomy
        )

    def _step(self, step: int) -> float:
        """One optimiser step. Raises Diverged, before any weight moves, where something is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        plan = self.recipe.data
        total = 0.0
        for part in range(plan.accumulation):
            total += self._backward(step * plan.accumulation + part) / plan.accumulation
        if not isfinite(total):
            raise self._diverged(step, f"the loss is {total}")
        norm = torch.nn.utils.clip_grad_norm_(self.tensors.values(), CLIP)
        if not bool(norm.isfinite()):
            raise self._diverged(step, "a gradient is not finite")
        for group, options in zip(self.groups, self.optimizer.param_groups, strict=True):
            options["lr"] = group.rate * rate_at(self.recipe, step, group.name)
        self.optimizer.step()
        return total

    def _backward(self, index: int) -> float:
        """Gradients of batch `index`; rows of one size run together. → its loss"""
        rows = draw(self.recipe.data, self.data, self.base, self.seed, index)
        total = 0.0
        for each in rows.by_size():
            with autocast(self.base, self.recipe.precision):
                loss = self._loss(each)
            if loss.requires_grad:  # a prior half without the new word has nothing to teach it
                (loss / self.recipe.data.accumulation).backward()
            total += float(loss.detach())
        return total

    def _loss(self, rows: Rows) -> Tensor:
        base, device = self.base, self.base.device
        x0, eps, t = (each.to(device) for each in (rows.x0, rows.eps, rows.t))
        a, b = base.shares(t)
        x = a * x0 + b * eps
        cond = self.texts(rows.captions)

        def predict(cond: Conditioning = cond, x: Tensor = x, t: Tensor = t) -> Tensor:
            return base.predict(x, t, cond)

        given = LossInput(
            x0, eps, x, predict(), target(base.predicts, x0, eps, a, b), t, a, b,
            rows.kind.to(device), rows.weight.to(device), cond, predict,
        )  # fmt: skip
        if self.recipe.objective is not None:
            return self.recipe.objective(given)
        terms = [weight * term(given) for weight, term in self.recipe.terms]
        return (torch.stack(terms).sum(0) * given.weight).sum()

    def _look(self, watch: Watch, step: int, best: bool) -> None:
        """Let the caller look, unless it did so at this step before a cut."""
        done = self.progress
        if done.readings and done.readings[-1]["step"] >= step:
            return
        values = {name: float(each) for name, each in watch(step).items()}
        done.readings.append({"step": step, **values})
        score = values.get("score")
        if best and score is not None and isfinite(score) and score >= done.bar():
            done.best_step, done.best_score = step, score
            checkpoint.save(self.folder / "best", Bundle(step, {"weights": self._finite_state()}, {}))
        self._saved_step = -1  # the readings are part of the checkpoint of this step
        self.save()

    def _keep(self, step: int) -> None:
        """What is learned so far, as a checkpoint and as a file to use."""
        self.save()
        facts = {"steps": step, "seed": self.seed}
        path = _result.write(self.base, self.recipe, self.folder / SAVED, facts, f"step-{step:06d}")
        name = path.relative_to(self.folder).as_posix()
        self.job.report(step, self.recipe.steps, saved=name)
        self.job.note(f"Saved what is learned so far as {name}.")

    def _report(self, loss: float, looks: int) -> None:
        """Tell of the step just done."""
        done, total = self.progress, self.recipe.steps
        self.job.report(
            done.step,
            total,
            loss=round(loss, 5),
            smooth=round(done.mean(20), 5),
            lr=self.optimizer.param_groups[0]["lr"],
            seconds_left=self.pace.left(total - done.step, looks),
        )

    def _due(self) -> bool:
        now = time.monotonic()
        if self._saved_at is None:
            return now - self._began > FIRST_AFTER or self.progress.step - self._first >= EVERY_STEPS
        waited = now - self._saved_at
        if waited < self._save_cost / SHARE_OF_TIME:
            return False
        return waited > EVERY_SECONDS or self.progress.step - self._saved_step >= EVERY_STEPS

    def _finite_state(self) -> dict[str, Tensor]:
        state = self.recipe.carrier.state()
        if not all(bool(each.isfinite().all()) for each in state.values()):
            raise self._diverged(self.progress.step, "a weight is not finite")
        return state

    def _diverged(self, step: int, what: str) -> Diverged:
        kept = self.job.checkpoint
        return Diverged(
            f"Step {step + 1}: {what}. The training stopped; "
            + (f"{kept.name} is the last good checkpoint." if kept else "there is no checkpoint yet."),
            f"Lower learning_rate (it is {self.groups[0].rate:g}), or set precision to float32.",
        )

    def _about(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be gone on from."""
        settings = dict(self.recipe.settings)
        if all(each.schedule == "constant" for each in self.recipe.stages):
            settings.pop("steps", None)  # then a training may be made longer
        return {
            "method": self.recipe.method,
            "settings": settings,
            "base": fingerprint(self.base),
            "photos": self.data.key(),
            "seed": self.seed,
        }

    def _restore(self, bundle: Bundle) -> None:
        path = checkpoint.folder_of(self.state, bundle.step)
        about = dict(bundle.facts.get("about", {}))
        for key, value in self._about().items():
            if about.get(key) != value:
                raise BadInput(
                    f"{path.parent.parent} was trained with another {key}; it cannot be gone on with.",
                    "Use what it was started with, or choose another folder (--out).",
                )
        torch.set_num_threads(int(about["threads"]))
        self.about["threads"] = int(about["threads"])
        self.recipe.carrier.load(bundle.groups["weights"])
        moments = bundle.groups["optimizer"]
        for name, tensor in self.tensors.items():
            try:
                state = {key: moments[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            except KeyError:
                raise BrokenWeights(path / "optimizer.safetensors", f"it lacks {name}") from None
            self.optimizer.state[tensor] = {key: each.to(tensor.device) for key, each in state.items()}
        self.progress = Progress(**bundle.facts["progress"])
        self.job.checkpoint = path
        self._saved_step, self._saved_at = bundle.step, time.monotonic()

    def _curves(self) -> None:
        _result.write_curves(self.folder / "curves.csv", self.progress.losses, self.progress.readings)


def rate_at(recipe: Recipe, step: int, group: str) -> float:
    """The share of its rate that a group has at a step: its stage's warm-up and schedule."""
    start, stage = 0, recipe.stages[0]
    for following in recipe.stages[1:]:
        if step < start + stage.steps:
            break
        start, stage = start + stage.steps, following
    if stage.groups is not None and group not in stage.groups:
        return 0.0
    at = step - start
    if at < stage.warmup:
        return (at + 1) / (stage.warmup + 1)
    if stage.schedule == "constant":
        return 1.0
    return 0.5 * (1 + cos(pi * (at - stage.warmup) / max(1, stage.steps - stage.warmup)))
