"""Jobs about the embedded model itself."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pipelines.jobs.model import Device, JobSpec
from pipelines.spec import knob


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
