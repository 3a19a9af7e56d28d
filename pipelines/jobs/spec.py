"""JobSpec: what a user asks for, as data. The only currency between screen, command line and worker.

Each kind of job is one frozen model; its fields are the options of the command of the same name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

from pydantic import BaseModel

from pipelines.errors import BadInput, UnknownName
from pipelines.spec import knob, parse

VERSION = 1
Device = Literal["auto", "cpu", "cuda"]
SpecT = TypeVar("SpecT", bound="JobSpec")


class JobSpec(BaseModel, frozen=True, extra="forbid"):
    """What every job carries: the version of its schema and its kind."""

    summary: ClassVar[str] = ""
    kind: str
    version: Literal[1] = VERSION

    def to_json(self) -> str:
        """The whole job as JSON, from which `from_json` restores an equal one."""
        return self.model_dump_json()

    def shareable(self) -> dict[str, Any]:
        """The job in plain JSON values with paths cut down to names: what a picture may carry."""
        table = self.model_dump()
        return {key: value.name if isinstance(value, Path) else value for key, value in table.items()}


class ToyboxBuild(JobSpec, frozen=True):
    """Train a part of the embedded model, or all of it in order."""

    summary: ClassVar[str] = "train the embedded model, or a part of it"
    kind: Literal["toybox_build"] = "toybox_build"
    stage: Literal["world", "vae", "clip", "dino", "unet", "weak", "all"] = knob(
        "all", help="the part to build; all builds them in order"
    )
    device: Device = knob("auto", help="where to train; auto takes a GPU if there is one")
    minutes: float | None = knob(None, 0, None, help="stop after this long, with a checkpoint", unit="min")
    views: int | None = knob(None, 1, None, help="stop after the model has seen this many pictures")
    resume: bool = knob(False, help="go on from the last checkpoint of the state folder")
    decoder_only: bool = knob(
        False, help="stage vae: keep the encoder, so that what was trained on its latents stays valid"
    )
    state: Path | None = knob(None, help="folder of checkpoints and logs; default: the user's cache")
    init: Path | None = knob(None, help="weights to start from, a safetensors file or a folder of one")
    channels: int = knob(16, 1, 64, help="latent channels of the autoencoder")
    seed: int = knob(0, 0, 2**31 - 1, help="seed of weights, order and noise")
    out: Path | None = knob(None, help="folder for the finished weights; default: assets/toybox")


class ToyboxJudge(JobSpec, frozen=True):
    """Measure a folder of weights against the bars."""

    summary: ClassVar[str] = "measure the embedded model, or another folder, against its bars"
    kind: Literal["toybox_judge"] = "toybox_judge"
    folder: Path | None = knob(None, help="the weights; default: the embedded model")
    prompts: int = knob(500, 1, 100_000, help="how many prompts to draw")
    steps: int = knob(20, 1, 1000, help="denoising steps a picture")
    guidance: float = knob(4.0, 0, 30, help="scale of classifier-free guidance; 1 is none")
    seed: int = knob(0, 0, 2**31 - 1, help="seed of prompts and noise")
    device: Device = knob("auto", help="where to draw; auto takes a GPU if there is one")


class ToyboxSheet(JobSpec, frozen=True):
    """Draw a contact sheet from prompts never trained on."""

    summary: ClassVar[str] = "draw a contact sheet with the embedded model"
    kind: Literal["toybox_sheet"] = "toybox_sheet"
    folder: Path | None = knob(None, help="the weights; default: the embedded model")
    out: Path = knob(Path("sheet.png"), help="the PNG to write")
    prompts: int = knob(64, 1, 1024, help="how many pictures")
    steps: int = knob(20, 1, 1000, help="denoising steps a picture")
    guidance: float = knob(4.0, 0, 30, help="scale of classifier-free guidance; 1 is none")
    seed: int = knob(0, 0, 2**31 - 1, help="seed of prompts and noise")
    device: Device = knob("auto", help="where to draw; auto takes a GPU if there is one")


class ToyboxShow(JobSpec, frozen=True):
    """Render scenes of the drawn world; no model is involved."""

    summary: ClassVar[str] = "render scenes of the drawn world with their captions"
    kind: Literal["toybox_show"] = "toybox_show"
    n: int = knob(64, 1, 1024, help="how many scenes")
    seed: int = knob(0, 0, 2**31 - 1, help="seed of the scenes")
    split: Literal["train", "test"] = knob("train", help="identities seen in training, or held out")
    out: Path = knob(Path("world.png"), help="the PNG to write")


KINDS: dict[str, type[JobSpec]] = {
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
