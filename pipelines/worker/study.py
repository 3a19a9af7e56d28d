"""`likeness study effects`: what was measured of the methods' effects, and whether it still stands."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pipelines.errors import LikenessError, UnknownName
from pipelines.jobs.spec import JobSpec
from pipelines.jobs.study import StudyEffects
from pipelines.progress import Job
from pipelines.study.effects import RENEW, Effect, effects, kept, measure, place, stale
from pipelines.worker import run


def study(spec: StudyEffects, job: Job) -> dict[str, Any]:
    """Measure the effects that are named, then list all; → rows, and `ok` where a check was asked for.

    Raises UnknownName for an effect that is not there, and what the jobs of a measurement raise.
    """
    known = effects()
    for effect in _wanted(spec, known):
        job.check()
        job.note(f"Measuring {effect.name}: {effect.claim}")
        table = measure(effect, _quietly, job)
        job.note(
            f"{effect.readout}: {table['on']} with it, {table['off']} without ({table['seconds']:.0f} s)."
        )
    rows = [_row(each) for each in known.values()]
    result: dict[str, Any] = {"rows": rows, "folder": str(place("").parent)}
    outdated = [row["effect"] for row in rows if row["state"] == "stale"]
    if outdated:
        result["renew"] = RENEW.format("stale")
    if spec.check or spec.run:
        result["ok"] = all(row["state"] == "holds" for row in rows)
    return result


def _quietly(spec: JobSpec, job: Job) -> dict[str, Any]:
    """Carry out a part of a measurement: it stops with the whole, and its progress is not news."""
    from pipelines.worker.train import Quiet

    return run(spec, Quiet(job))


def _wanted(spec: StudyEffects, known: dict[str, Effect]) -> list[Effect]:
    names: list[str] = []
    for name in spec.run:
        if name == "all":
            names += known
        elif name == "stale":
            names += [each for each, effect in known.items() if stale(effect)]
        elif name in known:
            names.append(name)
        else:
            raise UnknownName("effect", name, [*known, "all", "stale"])
    return [known[name] for name in dict.fromkeys(names)]


def _row(effect: Effect) -> dict[str, Any]:
    reasons = stale(effect)
    table: dict[str, Any] = {}
    with suppress(LikenessError):  # `reasons` tell of it
        table = kept(effect)
    held = not reasons and effect.holds(table["on"], table["off"])
    return {
        "effect": effect.name,
        "claim": effect.claim,
        "off": table.get("off"),
        "on": table.get("on"),
        "at least": effect.margin,
        "state": "stale" if reasons else "holds" if held else "does not hold",
        "measured": table.get("date", ""),
        "seconds": table.get("seconds"),
        "why": " ".join(reasons),
    }
