"""Runners: who carries out a job, and in which process."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from pipelines.jobs.spec import JobSpec
from pipelines.progress import Job


class Runner(Protocol):
    """Takes a job from its spec to its result, a table of plain JSON values."""

    def run(self, spec: JobSpec, job: Job) -> dict[str, Any]:
        """Carry out `spec`; raises LikenessError, or Cancelled when `job` was stopped."""
        ...


class InlineRunner:
    """Runs the job here and now, in the caller's process: command line and tests."""

    def run(self, spec: JobSpec, job: Job) -> dict[str, Any]:
        """Carry out `spec`; raises LikenessError, or Cancelled when `job` was stopped."""
        # reached by name, so that nothing that imports a runner imports torch
        return import_module("pipelines.worker").run(spec, job)
