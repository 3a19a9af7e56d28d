"""Effects that take too long for every test run: measured once, kept with hashes of what they rest on.

An effect is a claim about a method ("prior preservation drifts less"), a readout with the method on and off,
and the margin between them. Its result stands in assets/effects/NAME.json with the SHA-256 of the embedded
weights and of the code that it rests on. When either changes the result is stale, and is to be measured anew:
`likeness study effects --run stale`. A claim is a module of `pipelines.study.claims` with an `EFFECT` in it.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import pkgutil
import platform
import tempfile
import time
import tokenize
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pipelines.artifacts import assets, atomic_write, sha256
from pipelines.errors import BadInput, MissingAsset
from pipelines.jobs.model import JobSpec
from pipelines.progress import Job

CLAIMS = "pipelines.study.claims"
RENEW = "likeness study effects --run {}"
_ROOT = Path(__file__).resolve().parents[2]
# the rest (bases, samplers, readouts) has quick tests of its own; with it every change would renew everything
_WALKED = ("pipelines.concepts", "pipelines.study.claims")

Run = Callable[[JobSpec, Job], dict[str, Any]]
"""What carries out a job: a claim is measured with the very jobs that users give."""


@dataclass(frozen=True)
class Measured:
    """The readout with the method on and off; `beside` holds numbers that explain it and prove nothing."""

    on: float
    off: float
    beside: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Effect:
    """A claim, how it is measured, and what the result rests on.

    `measure` is called with (run, an empty folder, job); `settings` tells what it trains and draws; `modules`
    are where the walk through imports begins; `weights` are folders of Toybox.
    """

    name: str
    claim: str
    readout: str
    better: Literal["higher", "lower"]
    margin: float
    measure: Callable[[Run, Path, Job], Measured]
    settings: Callable[[], dict[str, Any]]
    modules: tuple[str, ...]
    weights: tuple[str, ...] = ("unet", "text_encoder", "vae", "dino")

    def holds(self, on: float, off: float) -> bool:
        """Whether the method moves the readout the right way by at least the margin."""
        return (on - off if self.better == "higher" else off - on) >= self.margin


def effects() -> dict[str, Effect]:
    """Every effect by name, which is that of its module."""
    package = import_module(CLAIMS)
    found = {
        each.name: import_module(f"{CLAIMS}.{each.name}") for each in pkgutil.iter_modules(package.__path__)
    }
    return {name: module.EFFECT for name, module in sorted(found.items()) if hasattr(module, "EFFECT")}


def place(name: str) -> Path:
    """The file that keeps an effect's result."""
    return assets() / "effects" / f"{name}.json"


def kept(effect: Effect) -> dict[str, Any]:
    """The result as it was measured. Raises MissingAsset where it never was, BadInput where it is damaged."""
    path = place(effect.name)
    remedy = f"Measure it: {RENEW.format(effect.name)}"
    if not path.is_file():
        raise MissingAsset(path, remedy)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {**table, "on": float(table["on"]), "off": float(table["off"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} cannot be read ({error!r}).", remedy) from None


def stale(effect: Effect) -> list[str]:
    """Why a result no longer stands, in sentences; nothing where it does."""
    try:
        table = kept(effect)
    except (MissingAsset, BadInput) as error:
        return [error.message]
    reasons: list[str] = []
    for what, then, now in (
        ("The weights", table.get("weights"), weights_of(effect)),
        ("The code", table.get("code"), code_of(effect)),
        ("The settings", table.get("settings"), effect.settings()),
    ):
        if changed := _changed(then, now):
            reasons.append(f"{what} changed since: {', '.join(changed)}.")
    return reasons


def measure(effect: Effect, run: Run, job: Job) -> dict[str, Any]:
    """Measure an effect and keep the result, whether the claim holds or not; → what was kept."""
    import torch

    # hashed before, so that what changes meanwhile makes the result stale
    rests = {"weights": weights_of(effect), "code": code_of(effect), "settings": effect.settings()}
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="likeness-effect-") as folder:
        measured = effect.measure(run, Path(folder), job)
    table: dict[str, Any] = {
        "name": effect.name,
        "claim": effect.claim,
        "readout": effect.readout,
        "better": effect.better,
        "margin": effect.margin,
        "on": round(measured.on, 4),
        "off": round(measured.off, 4),
        "beside": {name: round(value, 4) for name, value in measured.beside.items()},
        "seconds": round(time.perf_counter() - begun, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "machine": platform.machine(),
        **rests,
    }
    text = json.dumps(table, indent=1, ensure_ascii=False) + "\n"
    atomic_write(place(effect.name), text.encode())
    return table


def weights_of(effect: Effect) -> dict[str, str]:
    """File → SHA-256 of every weights file in the folders of Toybox that an effect uses."""
    home = assets() / "toybox"
    files = sorted(each for folder in effect.weights for each in (home / folder).glob("*.safetensors"))
    return {each.relative_to(home).as_posix(): sha256(each) for each in files}


def code_of(effect: Effect) -> dict[str, str]:
    """File → SHA-256 of the code that an effect rests on, without comments and docstrings.

    Found by walking imports from its modules, as far as they stand among the concepts and the claims.
    """
    todo, seen = [*effect.modules, effect.measure.__module__], dict[str, str]()
    while todo:
        path = _file(todo.pop())
        name = path.relative_to(_ROOT).as_posix()
        if name in seen:
            continue
        source = path.read_text(encoding="utf-8")
        seen[name] = hashlib.sha256(bare(source).encode()).hexdigest()
        todo += [each for each in imports(source) if each.startswith(_WALKED) and _file(each).is_file()]
    return dict(sorted(seen.items()))


def imports(source: str) -> set[str]:
    """The modules that a source imports anywhere, functions included; those for types alone are left out."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
        todo += ast.iter_child_nodes(node)
    return found


def bare(source: str) -> str:
    """A source without comments, docstrings and empty lines: what says how it computes, and nothing else."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (
                (node.end_lineno or node.lineno) - node.lineno + 1
            )
    return "\n".join(each.rstrip() for each in lines if each.strip())


def _file(module: str) -> Path:
    path = _ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _changed(then: Any, now: Mapping[str, Any]) -> list[str]:
    """The names whose values differ, those that came and those that went included."""
    before: Mapping[str, Any] = then if isinstance(then, dict) else {}
    names: Iterable[str] = dict.fromkeys([*now, *before])
    return [name for name in names if before.get(name) != now.get(name)]
