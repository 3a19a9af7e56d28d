"""JobSpec: what a user asks for, as data. The only currency between screen, command line and worker.

Each kind of job is one frozen model; its fields are the options of the command of the same name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from pipelines.errors import BadInput, UnknownName
from pipelines.jobs.kinds import Caption, Check, Compare, Compose, Edit, Score, Train
from pipelines.jobs.library import Export, Fetch
from pipelines.jobs.model import VERSION, Device, JobSpec, references_of
from pipelines.jobs.paths import check_methods, get_path, set_path
from pipelines.jobs.queries import Bases, Bench, Demo, Doctor, Info, Jobs, Merge, Methods
from pipelines.jobs.study import StudyEffects
from pipelines.jobs.toybox import ToyboxBuild, ToyboxJudge, ToyboxSheet, ToyboxShow
from pipelines.spec import parse

__all__ = [
    "KINDS", "VERSION", "Bases", "Bench", "Caption", "Check", "Compare", "Compose", "Demo", "Device",
    "Doctor", "Edit", "Info", "JobSpec", "Jobs", "Merge", "Methods", "Score", "StudyEffects",
    "ToyboxBuild", "ToyboxJudge", "ToyboxSheet", "ToyboxShow", "Train", "check_methods", "from_json",
    "from_table", "get_path", "references_of", "set_path",
]  # fmt: skip

KINDS: dict[str, type[JobSpec]] = {
    "methods": Methods,
    "bases": Bases,
    "check": Check,
    "caption": Caption,
    "train": Train,
    "compose": Compose,
    "edit": Edit,
    "score": Score,
    "compare": Compare,
    "merge": Merge,
    "info": Info,
    "fetch": Fetch,
    "export": Export,
    "jobs": Jobs,
    "doctor": Doctor,
    "demo": Demo,
    "bench": Bench,
    "study_effects": StudyEffects,
    "toybox_build": ToyboxBuild,
    "toybox_judge": ToyboxJudge,
    "toybox_sheet": ToyboxSheet,
    "toybox_show": ToyboxShow,
}


def from_table(table: Mapping[str, Any]) -> JobSpec:
    """A table with a "kind" as its JobSpec.

    Raises UnknownName for an unknown kind, key or choice, BadInput for anything else that does not fit.
    """
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise BadInput("The job has no kind.", f"Say which, one of: {', '.join(KINDS)}.")
    if kind not in KINDS:
        raise UnknownName("kind of job", kind, KINDS)
    version = table.get("version", VERSION)
    if version != VERSION:
        raise BadInput(
            f"The job is of version {version}; this program knows version {VERSION}.",
            "Open it with the program that wrote it, or a newer one.",
        )
    return parse(KINDS[kind], table, kind)


def from_json(text: str) -> JobSpec:
    """The JobSpec in a JSON text. Raises as `from_table` does."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"The job is not JSON ({error}).", "Export it again.") from None
    if not isinstance(table, dict):
        raise BadInput("The job is not a JSON object.", "Export it again.")
    return from_table(cast("dict[str, Any]", table))
