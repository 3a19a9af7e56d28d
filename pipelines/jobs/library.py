"""Jobs about what stands on the shelf: fetching a base, packing an adapter for others."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pipelines.jobs.model import JobSpec, files
from pipelines.spec import knob

Layout = Literal["as_is", "diffusers", "kohya", "a1111"]


class Fetch(JobSpec, frozen=True):
    """Bring a base model onto this machine."""

    summary: ClassVar[str] = "fetch a base model from the Hub, file by file; what is here already stays"
    kind: Literal["fetch"] = "fetch"
    base: str = knob("", help="a base preset, or a Hub id such as owner/name")
    device: Literal["cpu", "network"] = knob(
        "cpu", help="the line in which it waits; in the network's own it keeps no other job waiting"
    )


class Export(JobSpec, frozen=True):
    """Pack an adapter for others."""

    summary: ClassVar[str] = "pack an adapter with its model card and samples, also for other programs"
    kind: Literal["export"] = "export"
    adapter: str = files("", help="a safetensors file, a run, or a folder that holds one")
    layout: Layout = knob(
        "as_is", help="as_is, or written anew for diffusers, for kohya and ComfyUI, or for a1111"
    )
    base: str = knob("", help="the base it belongs to, where a layout cannot be written without it")
    out: Path | None = knob(None, help="the zip file to write; default: beside the adapter, in exports")
