"""From a JobSpec to the code that does it: the only module that may import every family."""

from __future__ import annotations

import errno
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.errors import BadInput, DiskFull, NotAvailable, UnknownName
from pipelines.jobs import workspace
from pipelines.jobs.spec import JobSpec
from pipelines.progress import Job

BODIES = {
    "methods": "pipelines.worker.queries:methods",
    "bases": "pipelines.worker.queries:bases",
    "check": "pipelines.worker.queries:check",
    "caption": "pipelines.worker.caption:caption",
    "train": "pipelines.worker.train:train",
    "compose": "pipelines.worker.compose:compose",
    "edit": "pipelines.worker.edit:edit",
    "score": "pipelines.worker.score:score",
    "compare": "pipelines.worker.compare:compare",
    "merge": "pipelines.worker.queries:merge",
    "info": "pipelines.worker.queries:info",
    "fetch": "pipelines.worker.library:fetch",
    "export": "pipelines.worker.library:export",
    "jobs": "pipelines.worker.queries:jobs",
    "doctor": "pipelines.worker.doctor:doctor",
    "demo": "pipelines.worker.demo:demo",
    "bench": "pipelines.worker.bench:bench",
    "study_effects": "pipelines.worker.study:study",
    "toybox_build": "pipelines.toybox.build:build",
    "toybox_judge": "pipelines.toybox.judge:judge",
    "toybox_sheet": "pipelines.toybox.sheet:sheet",
    "toybox_show": "pipelines.toybox.world.show:show",
}
"""Kind of job → the function that does it, MODULE:FUNCTION."""


RUNS = frozenset({"train", "compose", "edit", "compare", "demo", "merge"})
"""The jobs whose `out` is the folder of a run."""


def warm() -> None:
    """Import what drawing and training need, so that the first job does not wait for it."""
    for name in ("compose", "train"):
        import_module(BODIES[name].partition(":")[0])


def run(spec: JobSpec, job: Job) -> dict[str, Any]:
    """Carry out a job and return its result in plain JSON values.

    Raises LikenessError (NotAvailable when a package that the job needs is not installed) or Cancelled.
    """
    out: Path | None = getattr(spec, "out", None)
    if out is not None and spec.kind in RUNS:
        workspace.vacant(out, spec.kind)
    try:
        return _dispatch(spec, job)
    except OSError as error:
        raise _of_the_disk(error, out) from error
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "pipelines", "studio"):  # a fault of ours, not of the installation
            raise
        raise NotAvailable(spec.kind, f"{package} is not installed", f"pip install {package}") from error
    except (RuntimeError, MemoryError) as error:
        # where no loop guarded itself; torch tells of it as a RuntimeError of many wordings
        memory = import_module("pipelines.base.memory")
        if not memory.is_out_of_memory(error):
            raise
        raise memory.OutOfMemory(spec.kind, str(getattr(spec, "device", "this machine")), None) from error


def _of_the_disk(error: OSError, out: Path | None) -> Exception:
    """A failed write in plain words: a full disk, or a folder that refuses; else the error itself."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(error.filename or out or "the result")
    named = Path(str(error.filename)) if error.filename else None
    if (
        out is not None
        and named is not None
        and (named == out or out in named.parents or named in out.parents)
    ):
        return BadInput(
            f"{out} cannot be written: {error.strerror}.", "Choose another folder for the results (--out)."
        )
    return error


def _dispatch(spec: JobSpec, job: Job) -> dict[str, Any]:
    if spec.kind not in BODIES:
        raise UnknownName("kind of job", spec.kind, BODIES)
    module, _, function = BODIES[spec.kind].partition(":")
    # one body is imported, not all: `likeness jobs` must not wait for torch
    return getattr(import_module(module), function)(spec, job)
