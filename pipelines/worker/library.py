"""`likeness fetch` and `likeness export`: bases onto this machine, adapters away from it; what a base is."""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from pipelines.artifacts import atomic_write, read_safetensors_header
from pipelines.errors import BadInput, BrokenWeights, NotAvailable, UnknownName
from pipelines.jobs import workspace
from pipelines.jobs.library import Export, Fetch
from pipelines.jobs.references import ADAPTER
from pipelines.progress import Job

CARD, SAMPLES = "card.md", 8
_SAFE = "Take a version of it in safetensors, or convert it elsewhere."
_FAMILIES = {"StableDiffusionXL": "sdxl", "StableDiffusion3": "sd3"}
"""How the class that a folder names begins."""
_UNKNOWN = (
    "This file was imported without a model card: who made it, from which pictures and under which licence "
    "is not known to the program that packed it. Ask its author before you share it."
)
_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def fetch(spec: Fetch, job: Job) -> dict[str, Any]:
    """Fetch what of a base is not here yet; → its folder.

    Raises UnknownName, BadInput for the embedded base, NotAvailable (offline, gated, no room on the disk).
    """
    from pipelines.base import known

    info = known.known(spec.base)
    if info is None and not _HUB.fullmatch(spec.base):
        raise UnknownName("base", spec.base, [each.name for each in known.bases() if each.hub])
    if info is not None and not info.hub:
        raise BadInput(f"{info.title} came with this program.", "There is nothing to fetch.")
    hub, variant = (info.hub, info.variant) if info else (spec.base, "")
    if info is not None and not info.installed:
        _room(info.title, info.bytes)
    folder = known.fetch(hub, job, variant)
    known.check(folder, variant)
    title = info.title if info else hub
    return {"base": spec.base, "path": str(folder), "note": f"{title} is on this machine."}


def export(spec: Export, job: Job) -> dict[str, Any]:
    """Write a zip with an adapter, its card as README.md and its samples; → where it stands.

    Raises MissingAsset, BrokenWeights, and BadInput for a layout that needs the base.
    """
    path = workspace.resolve(spec.adapter, want="adapter")
    if not path.is_file():
        raise BadInput(f"{path.name} is a whole network, no adapter.", "Copy its folder instead.")
    read_safetensors_header(path)
    out = spec.out or path.parent / "exports" / f"{path.parent.name}-{spec.layout.replace('_', '-')}.zip"
    with tempfile.TemporaryDirectory() as folder:
        weights = _written(spec, path, Path(folder), job)
        card = path.with_name(CARD)
        text = card.read_text(encoding="utf-8") if card.is_file() else _card(path)
        samples = _samples(path.parent, text)

        def pack(temporary: Path) -> None:
            # weights and pictures do not get smaller
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                archive.write(weights, ADAPTER)
                archive.writestr("README.md", text)
                for each in samples:
                    archive.write(each, each.relative_to(path.parent).as_posix())

        atomic_write(out, pack)
    names = [ADAPTER, "README.md", *(each.relative_to(path.parent).as_posix() for each in samples)]
    return {"file": str(out), "bytes": out.stat().st_size, "layout": spec.layout, "contents": names}


def base_at(path: Path) -> dict[str, Any]:
    """What base a folder or a single file holds, by its headers alone; → path, bytes, family, title.

    Raises MissingAsset, BrokenWeights (pickles, damage, parts that are missing, no base at all).
    """
    from pipelines.adapters.families import title
    from pipelines.base import known

    if path.suffix.lower() in known.PICKLES:
        raise BrokenWeights(path, "it is a pickled checkpoint, which could run code", _SAFE)
    if path.is_file():
        from pipelines.base.loading import preset_of

        info = known.known(preset_of(path, read_safetensors_header(path)))
        family, size = (info.family if info else ""), path.stat().st_size
    else:
        known.check(path)
        family = _family(path)
        size = sum(each.stat().st_size for each in path.glob("*/*.safetensors"))
    return {"path": str(path), "base": path.name, "bytes": size, "family": family, "title": title(family)}


def _family(folder: Path) -> str:
    """The family of a model folder; "" for a kind of pipeline that is not known here."""
    from pipelines.base.known import components, read_json

    kind = str(read_json(folder / "model_index.json").get("_class_name", ""))
    for mark, family in _FAMILIES.items():
        if kind.startswith(mark):
            return family
    if not kind.startswith("StableDiffusion"):
        return ""
    if components(folder)["vae"][1] == "AutoencoderTiny":
        return "toybox"
    wide = read_json(folder / "unet" / "config.json").get("cross_attention_dim") == 1024
    return "sd2" if wide else "sd1"


def _room(title: str, needed: int) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    there = next((each for each in (cache, *cache.parents) if each.exists()), Path.cwd())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise NotAvailable(
            title,
            f"it takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free at {cache}",
            "Free some space, or choose another disk with the environment variable HF_HOME.",
        )


def _written(spec: Export, path: Path, folder: Path, job: Job) -> Path:
    """The weights in the layout that was asked for; as they are, the file itself."""
    if spec.layout == "as_is":
        return path
    from pipelines.adapters import formats
    from pipelines.base.loading import open_base

    base = open_base(spec.base, "cpu", job) if spec.base else None
    return formats.export(formats.load(path, base), folder / ADAPTER, spec.layout, base)


def _card(path: Path) -> str:
    """A page for a file that came without one: what its header tells."""
    from pipelines.adapters.card import describe

    about = describe(path)
    told = {
        "base": about["base"] or "unknown",
        "layout": about["layout"] or "unknown",
        "rank": about["rank"] or "",
        "new words": ", ".join(about["words"]),
        "trigger": about["trigger"] or "",
        "SHA-256": about["sha256"],
    }
    rows = [f"| {name} | {str(value).replace('|', '/')} |" for name, value in told.items() if value]
    table = "\n".join(["| | |", "| --- | --- |", *rows])
    return f"# {path.parent.name}\n\n{table}\n\n{_UNKNOWN}\n"


def _samples(folder: Path, text: str) -> list[Path]:
    """The pictures that a card shows, where they stand in the folder."""
    named = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text)[:SAMPLES]
    inside = [folder / each for each in named]
    home = folder.resolve()
    return [each for each in inside if each.is_file() and each.resolve().is_relative_to(home)]
