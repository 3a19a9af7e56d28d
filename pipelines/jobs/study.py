"""Jobs that prove something about the program itself."""

from __future__ import annotations

from typing import ClassVar, Literal

from pipelines.jobs.model import JobSpec
from pipelines.spec import knob


class StudyEffects(JobSpec, frozen=True):
    """List the effects that were measured, or measure them anew."""

    summary: ClassVar[str] = "list what was measured of the methods' effects, and measure it anew"
    kind: Literal["study_effects"] = "study_effects"
    run: tuple[str, ...] = knob(
        (), help="measure this effect: its name, stale for all that are out of date, or all; may come often"
    )
    check: bool = knob(False, help="fail where a result is out of date or its claim does not hold")
