"""Jobs that ask, merge or prove: what is installed, what a file holds, how fast it all is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipelines.jobs.kinds import AdapterRef
from pipelines.jobs.model import Device, JobSpec, files, method
from pipelines.spec import knob


class Methods(JobSpec, frozen=True):
    """List the methods of this installation."""

    summary: ClassVar[str] = "list the methods, or the settings of one family"
    kind: Literal["methods"] = "methods"
    family: str = knob("", help="only this family, with every setting: concepts, guidance, editing …")
    base: str = knob("", help="also say which published files the methods of the family lack for this base")
    settings: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description="one method of the family with settings of its own, as far as its files depend on them",
    )


class Bases(JobSpec, frozen=True):
    """List the base models that have a preset."""

    summary: ClassVar[str] = "list the base models that are known by name"
    kind: Literal["bases"] = "bases"


class Info(JobSpec, frozen=True):
    """Say what a file holds."""

    summary: ClassVar[str] = "say what a file holds: a picture's settings, an adapter's description"
    kind: Literal["info"] = "info"
    file: str = files("", help="a picture, an adapter, a run folder, or a base model")
    as_base: bool = knob(False, help="check whether it is a whole base model")


class Doctor(JobSpec, frozen=True):
    """Look at this machine and installation."""

    summary: ClassVar[str] = "look at this machine: device, memory, packages, weights, disk; name the fix"
    kind: Literal["doctor"] = "doctor"


class Jobs(JobSpec, frozen=True):
    """What ran, runs and waits in this workspace."""

    summary: ClassVar[str] = "list the jobs of the workspace, stop one, or take one up again"
    kind: Literal["jobs"] = "jobs"
    action: Literal["list", "cancel", "resume"] = knob("list", help="list, cancel or resume")
    id: int | None = knob(None, 1, None, help="the number of the job to cancel or resume")
    limit: int = knob(20, 1, 10_000, help="how many to list, newest first")


class Merge(JobSpec, frozen=True):
    """Make one adapter of several."""

    summary: ClassVar[str] = "make one adapter of several"
    kind: Literal["merge"] = "merge"
    adapters: tuple[AdapterRef, ...] = knob((), help="the adapters, and how much of each")
    merge: dict[str, Any] = method("adapters.merge", "sum", help="the merging method")
    base: str = knob("", help="the base they belong to; needed only where DoRA is among them")
    out: Path | None = knob(None, help="the safetensors file to write; default: in a new run")


class Demo(JobSpec, frozen=True):
    """The main job from end to end: photos → LoRA → pictures → table."""

    summary: ClassVar[str] = "photos → LoRA → pictures → table of readouts, in one go"
    kind: Literal["demo"] = "demo"
    photos: str = files("asset:photos/dog", help="a folder of photos of one subject")
    token: str = knob("sks", help="the new word for the subject")
    class_word: str = knob("dog", help="what it is, in one or two ordinary words")
    prompts: tuple[str, ...] = knob((), help="what to draw with it; empty: some of our own")
    base: str = knob("toybox", help="a base preset, a local folder or file, or a Hub id")
    steps: int | None = knob(None, 1, 100_000, help="training steps; default: the preset's own")
    seed: int = knob(0, 0, 2**31 - 1, help="seed of training and pictures")
    device: Device = knob("auto", help="where to run; auto takes a GPU if there is one")
    out: Path | None = knob(None, help="folder for the results; default: a new run in the workspace")


class Bench(JobSpec, frozen=True):
    """Time ourselves against a faithful loop of the standard example."""

    summary: ClassVar[str] = "time training, drawing and start-up, as ratios on the same work"
    kind: Literal["bench"] = "bench"
    parts: tuple[str, ...] = knob((), help="what to time; empty: everything")
    repeats: int = knob(3, 1, 100, help="repeats, of which the median counts")
    base: str = knob("toybox", help="a base preset, a local folder or file, or a Hub id")
    device: Device = knob("auto", help="where to run; auto takes a GPU if there is one")
    seed: int = knob(0, 0, 2**31 - 1, help="seed of the work")
    out: Path | None = knob(None, help="folder for table and JSON; default: a new run in the workspace")
