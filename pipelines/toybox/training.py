"""The engine that trains every stage of Toybox: schedule, mixed precision, averages, logs, exact resume.

It knows nothing of what it trains. A stage gives batches as a pure function of the step and a loss; the
engine owns the optimiser, the clock and the disk.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from pipelines.artifacts import atomic_dir, atomic_write, write_png
from pipelines.concepts import checkpoint
from pipelines.concepts.checkpoint import Bundle, Ema
from pipelines.errors import BadInput, BrokenWeights, Cancelled, LikenessError
from pipelines.progress import Job
from pipelines.toybox.muon import Muon

LOG_SECONDS = 10.0
KEPT: dict[type, tuple[str, ...]] = {
    Muon: ("momentum",),
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
}
"""What an optimiser remembers of each parameter, and a checkpoint with it."""


class Stage(Protocol):
    """What a stage gives to the engine. Three more methods are looked for and may be absent:

    `compile()` is called once where compiling was asked for; `hidden(name)` says which matrices Muon takes
    where the plan wants it (all); `close()` is called when the training ends, however it does.
    """

    name: str
    modules: dict[str, nn.Module]
    """What is trained and averaged, float32, on its device already."""

    def batch(self, step: int) -> Any:
        """The batch of a step: a pure function of (seed, step)."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The loss [] and its parts, under the engine's autocast."""
        ...

    def sample(self, job: Job) -> Image.Image | None:
        """A picture of what the averaged weights can do, or None."""
        ...

    def export(self, folder: Path) -> None:
        """Write the averaged weights as half-precision safetensors with their config.json."""
        ...


@dataclass(frozen=True)
class Plan:
    """How long and how fast: views are pictures seen, `warmup` and `sample_every` count steps.

    The rate rises over `warmup`, stays, and falls along a cosine to a hundredth in the last share `tail`.
    With `muon` it moves matrices and convolutions by Muon, and by AdamW only the rest.
    """

    views: int
    batch: int
    lr: float
    warmup: int = 200
    tail: float = 0.3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0
    muon: bool = False
    ema: float = 0.999
    seed: int = 0
    sample_every: int = 0
    checkpoint_seconds: float = 120.0

    @property
    def steps(self) -> int:
        """How many optimiser steps the views take."""
        return math.ceil(self.views / self.batch)


class NotFinite(LikenessError):
    """The loss or its gradient became infinite or not a number."""


def rate(plan: Plan, step: int) -> float:
    """The learning rate of a step: a pure function of the plan and the step."""
    warm = min(1.0, (step + 1) / max(1, plan.warmup))
    tail = max(1, round(plan.steps * plan.tail))
    into = min(1.0, max(0.0, (step - (plan.steps - tail)) / tail))
    return plan.lr * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * into)))


def pick_device(wish: str) -> torch.device:
    """The device of "auto", "cpu" or "cuda". Raises BadInput where there is no such one."""
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wish == "cuda" and not torch.cuda.is_available():
        raise BadInput("There is no CUDA device here.", "Use --device cpu or --device auto.")
    return torch.device(wish)


def train(  # noqa: PLR0913 (what, how, where, and four wishes)
    stage: Stage,
    plan: Plan,
    state: Path,
    device: torch.device,
    job: Job,
    *,
    export: Path | None = None,
    minutes: float | None = None,
    resume: bool = False,
    compile: bool | None = None,
) -> dict[str, Any]:
    """Train a stage to the end of its plan, or for `minutes`; then write it to `export`; return the figures.

    With `resume` it goes on from the newest checkpoint, whose plan then holds, but for its views, which may
    be extended. A stop, by time or by the user, leaves a checkpoint. Raises StateBusy, BadInput, NotFinite,
    BrokenWeights, DiskFull, Cancelled.
    """
    with checkpoint.locked(state), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        run = _Run(stage, plan, state, device, job)
        threads = torch.get_num_threads()
        try:
            run.begin(resume)
            export = export or state / "export"
            if compile if compile is not None else device.type == "cuda":
                getattr(stage, "compile", lambda: None)()
            return run.go(export, None if minutes is None else time.monotonic() + 60 * minutes)
        finally:
            torch.set_num_threads(threads)
            getattr(stage, "close", lambda: None)()


class _Run:
    """One training in progress."""

    def __init__(self, stage: Stage, plan: Plan, state: Path, device: torch.device, job: Job) -> None:
        self.stage, self.plan, self.state, self.device, self.job = stage, plan, state, device, job
        self.parameters: dict[str, nn.Parameter] = {}
        self.tensors: dict[str, Tensor] = {}  # parameters and persistent buffers
        for name, module in stage.modules.items():
            self.tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
            for key, parameter in module.named_parameters():
                if parameter.requires_grad:
                    self.parameters[f"{name}.{key}"] = parameter
        self.optimizers = self._optimizers()
        self.ema = Ema(self.parameters, plan.ema)
        self.step = 0
        self.seconds = 0.0  # of training, over all sittings
        self.smooth: dict[str, float] = {}
        self._logged = (0, 0.0)
        self._sound = torch.ones((), dtype=torch.bool, device=device)
        self._parts: list[dict[str, Tensor]] = []

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW, and Muon before it where the plan wants it."""
        plan, hidden = self.plan, getattr(self.stage, "hidden", lambda name: True)
        matrices, others, vectors = [], [], []
        for name, parameter in self.parameters.items():
            if parameter.ndim < 2:
                vectors.append(parameter)
            elif plan.muon and hidden(name):
                matrices.append(parameter)
            else:
                others.append(parameter)
        made: list[torch.optim.Optimizer] = []
        if matrices:
            made.append(Muon([{"params": matrices, "weight_decay": plan.weight_decay}], plan.lr))
        groups = [
            {"params": each, "weight_decay": decay}
            for each, decay in ((others, plan.weight_decay), (vectors, 0.0))
            if each
        ]
        if groups:
            made.append(torch.optim.AdamW(groups, plan.lr, betas=plan.betas, fused=True))
        return made

    # ---- start and stop

    def begin(self, resume: bool) -> None:
        """Take up the newest checkpoint, or make sure that there is none to overwrite."""
        found = checkpoint.checkpoints(self.state)
        if found and not resume:
            raise BadInput(
                f"{self.state} already holds a training, at step {found[-1][0]}.",
                "Go on with --resume, choose another --state, or delete the folder to start anew.",
            )
        torch.set_flush_denormal(True)
        if found:
            self._restore(checkpoint.load(found[-1][1]), found[-1][1])
            self.job.checkpoint = found[-1][1]
            self.job.note(f"{self.stage.name}: going on from step {self.step}.")
        self._cut_log()

    def _restore(self, bundle: Bundle, path: Path) -> None:
        stored = {"muon": False, **bundle.facts["plan"]}  # older checkpoints do not say it
        views = max(stored["views"], self.plan.views)
        self.plan = replace(self.plan, **{**stored, "betas": tuple(stored["betas"]), "views": views})
        self.ema.decay = self.plan.ema
        self.optimizers = self._optimizers()
        if self.device.type == "cpu":
            torch.set_num_threads(int(bundle.facts["threads"]))
        checkpoint.fill(self.tensors, bundle.groups["weights"], path / "weights.safetensors")
        checkpoint.fill(self.ema.averages, bundle.groups["ema"], path / "ema.safetensors")
        moments = bundle.groups["optimizer"]
        names = {parameter: name for name, parameter in self.parameters.items()}
        for optimizer in self.optimizers:
            for parameter in (each for group in optimizer.param_groups for each in group["params"]):
                # AdamW's fused kernel wants its count of steps on the parameter's device
                own = {
                    key: torch.zeros_like(parameter) if key != "step" else parameter.new_zeros(())
                    for key in KEPT[type(optimizer)]
                }
                name = names[parameter]
                try:
                    stored_own = {key: moments[f"{name}.{key}"] for key in own}
                except KeyError:
                    raise BrokenWeights(path / "optimizer.safetensors", f"it lacks {name}") from None
                checkpoint.fill(own, stored_own, path / "optimizer.safetensors")
                optimizer.state[parameter] = own
        self.step = bundle.step
        self.seconds = float(bundle.facts["seconds"])
        self._logged = (self.step, self.seconds)
        self.smooth = {str(key): float(value) for key, value in bundle.facts["smooth"].items()}

    def save(self) -> Path:
        """Write a checkpoint; never one that is not finite."""
        self._drain()
        moments: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    moments[f"{name}.{key}"] = value
        facts = {
            "stage": self.stage.name,
            "plan": asdict(self.plan),
            "views": self.step * self.plan.batch,
            "seconds": self.seconds,
            "smooth": self.smooth,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "device": self.device.type,
            "dtype": "bfloat16 autocast, float32 weights",
        }
        groups = {"weights": dict(self.tensors), "ema": dict(self.ema.averages), "optimizer": moments}
        self.job.checkpoint = checkpoint.save(self.state, Bundle(self.step, groups, facts))
        return self.job.checkpoint

    def go(self, export: Path, until: float | None) -> dict[str, Any]:
        """Train until the plan is done or the clock says `until`; then export."""
        logged = saved = time.monotonic()
        for module in self.stage.modules.values():
            module.train()
        try:
            while self.step < self.plan.steps and (until is None or time.monotonic() < until):
                self.job.check()
                self._advance()
                now = time.monotonic()
                if now - logged >= LOG_SECONDS or self.step == self.plan.steps:
                    logged = now
                    self._log()
                if self.plan.sample_every and self.step % self.plan.sample_every == 0:
                    self._sample()
                if now - saved >= self.plan.checkpoint_seconds:
                    saved = now
                    self.save()
        except Cancelled:
            if self._unsaved():
                self.save()
            raise
        if self._unsaved():
            self.save()
        return self._finish(export)

    def _finish(self, folder: Path) -> dict[str, Any]:
        with self.ema.swapped(), torch.no_grad(), atomic_dir(folder) as fresh:
            for module in self.stage.modules.values():
                module.eval()
            self.stage.export(fresh)
        views = self.step * self.plan.batch
        return {
            "stage": self.stage.name,
            "done": self.step >= self.plan.steps,
            "step": self.step,
            "views": views,
            "of": self.plan.views,
            "minutes": round(self.seconds / 60, 1),
            "views_per_s": round(views / self.seconds, 1) if self.seconds else None,
            "export": str(folder),
            **{name: round(value, 5) for name, value in self.smooth.items()},
        }

    def _unsaved(self) -> bool:
        return self.step > 0 and self.job.checkpoint != checkpoint.folder_of(self.state, self.step)

    # ---- one step

    def _advance(self) -> None:
        begun = time.monotonic()
        torch.manual_seed((self.plan.seed << 32) + self.step)  # whatever draws from the global generator
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate(self.plan, self.step)
        batch = self.stage.batch(self.step)
        with torch.autocast(self.device.type, torch.bfloat16):
            loss, parts = self.stage.loss(batch)
        loss.backward()
        parameters = list(self.parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.plan.clip, foreach=True)
        self._sound &= torch.isfinite(loss.detach()) & torch.isfinite(norm)
        if self.device.type == "cpu" and not self._sound:
            self._drain()  # reading the flag is free here: stop before the weights are spoilt
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.step)
        self.step += 1
        shown = {"loss": loss.detach(), **parts}
        self._parts.append({key: torch.as_tensor(value).detach() for key, value in shown.items()})
        self.seconds += time.monotonic() - begun

    def _drain(self) -> dict[str, float]:
        """Means of the parts since the last call. Only here a GPU is waited for. Raises NotFinite."""
        if not self._sound:
            raise NotFinite(
                f"{self.stage.name}: the loss is not finite any more (step {self.step}).",
                f"Go on from the last checkpoint ({self.job.checkpoint or 'there is none'}) with --resume; "
                "if it happens again, start anew with another --seed.",
            )
        begun = time.monotonic()
        parts, self._parts = self._parts, []
        names = parts[0] if parts else ()
        means = {key: torch.stack([each[key].float() for each in parts]).mean().item() for key in names}
        self.seconds += time.monotonic() - begun
        for key, value in means.items():
            keep = 0.98 ** len(parts)
            self.smooth[key] = keep * self.smooth.get(key, value) + (1 - keep) * value
        return means

    # ---- what is seen of it

    def _log(self) -> None:
        raw = self._drain()
        step, seconds = self._logged
        speed = (self.step - step) * self.plan.batch / max(1e-9, self.seconds - seconds)
        self._logged = (self.step, self.seconds)
        views = self.step * self.plan.batch
        figures = {"lr": rate(self.plan, self.step - 1), "views_per_s": speed}
        line = {"step": self.step, "views": views, **figures, "raw": raw, "smooth": self.smooth}
        with (self.state / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.job.report(self.step, self.plan.steps, views=views, **self.smooth, **figures)

    def _cut_log(self) -> None:
        """Drop what an interrupted sitting logged after its last checkpoint."""
        path = self.state / "log.jsonl"
        if not path.is_file():
            return
        kept: list[str] = []
        for line in path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= self.step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue
        atomic_write(path, "".join(kept).encode())

    def _sample(self) -> None:
        modules = self.stage.modules.values()
        with self.ema.swapped(), torch.no_grad():
            for module in modules:
                module.eval()
            picture = self.stage.sample(self.job)
            for module in modules:
                module.train()
        if picture is not None:
            write_png(self.state / "samples" / f"step-{self.step:06d}.png", picture)
            self.job.preview(picture)
