"""From a JobSpec to the code that does it: the only module that may import every family."""

from __future__ import annotations

from typing import Any

from pipelines.errors import NotAvailable, UnknownName
from pipelines.jobs.spec import KINDS, JobSpec, ToyboxBuild, ToyboxJudge, ToyboxSheet, ToyboxShow
from pipelines.progress import Job


def run(spec: JobSpec, job: Job) -> dict[str, Any]:
    """Carry out a job and return its result in plain JSON values.

    Raises LikenessError (NotAvailable when a package that the job needs is not installed) or Cancelled.
    """
    try:
        return _dispatch(spec, job)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "pipelines", "studio"):  # a fault of ours, not of the installation
            raise
        raise NotAvailable(spec.kind, f"{package} is not installed", f"pip install {package}") from error


def _dispatch(spec: JobSpec, job: Job) -> dict[str, Any]:
    match spec:
        case ToyboxBuild():
            from pipelines.toybox.build import build

            return build(spec, job)
        case ToyboxJudge():
            from pipelines.toybox.judge import judge

            return judge(spec, job)
        case ToyboxSheet():
            from pipelines.toybox.sheet import sheet

            return sheet(spec, job)
        case ToyboxShow():
            from pipelines.toybox.world.show import show

            return show(spec, job)
        case _:
            raise UnknownName("kind of job", spec.kind, KINDS)
