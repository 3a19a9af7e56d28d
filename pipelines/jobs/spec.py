"""JobSpec: what a user asks for, as data. The only currency between screen, command line and worker.

Each kind of job is one frozen model; its fields are the options of the command of the same name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pipelines.errors import BadInput, UnknownName
from pipelines.jobs.kinds import Check, Compare, Compose, Edit, Score, Train
from pipelines.jobs.model import VERSION, Device, JobSpec
from pipelines.jobs.toybox import ToyboxBuild, ToyboxJudge, ToyboxSheet, ToyboxShow
from pipelines.spec import parse

__all__ = [
    "KINDS", "VERSION", "Check", "Compare", "Compose", "Device", "Edit", "JobSpec", "Score", "ToyboxBuild",
    "ToyboxJudge", "ToyboxSheet", "ToyboxShow", "Train", "from_json", "from_table", "get_path", "set_path",
]  # fmt: skip

SpecT = TypeVar("SpecT", bound=JobSpec)

KINDS: dict[str, type[JobSpec]] = {
    "check": Check,
    "train": Train,
    "compose": Compose,
    "edit": Edit,
    "score": Score,
    "compare": Compare,
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


def get_path(spec: JobSpec, path: str) -> Any:
    """The value at a dotted path such as "steps" or "guidance.scale". Raises UnknownName."""
    value: Any = spec.model_dump()
    walked: list[str] = []
    for part in path.split("."):
        value = _enter(value, part, walked)[part]
        walked.append(part)
    return value


def set_path(spec: SpecT, path: str, value: Any) -> SpecT:
    """A copy of the spec with one value changed, validated as a whole. Raises UnknownName, BadInput."""
    table = spec.model_dump()
    *folders, last = path.split(".")
    inner: Any = table
    walked: list[str] = []
    for part in folders:
        inner = _enter(inner, part, walked)[part]
        walked.append(part)
    _enter(inner, last, walked)[last] = value
    return parse(type(spec), table, spec.kind)


def _enter(value: Any, part: str, walked: list[str]) -> dict[str, Any]:
    """`value` as a table that has `part`."""
    where = ".".join(walked)
    if not isinstance(value, dict):
        raise BadInput(f'"{where}" is a single value.', f'Leave out ".{part}".')
    table = cast("dict[str, Any]", value)
    if part not in table:
        raise UnknownName("setting", ".".join([*walked, part]), [".".join([*walked, key]) for key in table])
    return table
