"""`likeness doctor`: what of this machine and installation is fine, what is not, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import psutil

from pipelines.artifacts import assets, read_safetensors_header
from pipelines.errors import LikenessError
from pipelines.jobs import workspace
from pipelines.jobs.queries import Doctor
from pipelines.jobs.store import FILE, Store
from pipelines.progress import Job
from pipelines.spec import catalog
from pipelines.worker.queries import FAMILIES

PACKAGE = "likeness-studio"
LEAST_DISK, LEAST_MEMORY = 2e9, 2e9
OPTIONAL = {
    "insightface": "readouts of faces",
    "segment-anything": "masks by a click",
    "groundingdino-py": "masks by a word",
}

Row = dict[str, Any]


def doctor(spec: Doctor, job: Job) -> Row:
    """A row a check {check, found, ok, fix}; `ok` false in the result when any of them is."""
    checks: list[Callable[[], Iterator[Row]]] = [
        _system, _packages, _device, _memory, _weights, _disk, _workspace, _methods,
    ]  # fmt: skip
    rows: list[Row] = []
    for index, check in enumerate(checks):
        job.check()
        rows += check()
        job.report(index + 1, len(checks))
    return {"ok": all(each["ok"] is not False for each in rows), "rows": rows, "gpus": _gpus()}


def _gpus() -> list[Row]:
    """Every GPU: name, and its memory in bytes, free and in all."""
    import torch

    found: list[Row] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        found.append({"gpu": torch.cuda.get_device_name(index), "free": free, "total": total})
    return found


def _row(check: str, found: str, ok: bool | None = True, fix: str = "") -> Row:
    """`ok` None: merely told."""
    return {"check": check, "found": found, "ok": ok, "fix": "" if ok else fix}


def _system() -> Iterator[Row]:
    yield _row("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    ok = sys.version_info >= (3, 11)
    yield _row("python", platform.python_version(), ok, "Install Python 3.11 or newer.")


def _packages() -> Iterator[Row]:
    """What this program asks for, and what it can use; a version that is too old is pip's to find."""
    try:
        wanted = requires(PACKAGE) or []
    except PackageNotFoundError:
        yield _row("package", f"{PACKAGE} is not installed", False, "Run: pip install -e . in its folder.")
        return
    names = [_name(each) for each in wanted if "extra ==" not in each]
    missing = [each for each in names if _version(each) is None]
    shown = ", ".join(f"{each} {_version(each)}" for each in ("torch", "diffusers", "transformers", "peft"))
    yield _row(
        "packages",
        f"missing: {', '.join(missing)}" if missing else f"all {len(names)}; {shown}",
        not missing,
        f"Run: pip install {' '.join(missing)}",
    )
    for name, use in OPTIONAL.items():
        found = _version(name)
        yield _row(
            f"for {use}",
            f"{name} {found or 'is not installed'}",
            True if found else None,
            f"pip install {name}",
        )


def _device() -> Iterator[Row]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            found = f"{torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
            yield _row(f"gpu {index}", found, free > LEAST_MEMORY, "End what else uses the GPU.")
    elif Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
        fix = f"torch {torch.__version__} cannot use it: install the build of torch for your driver."
        yield _row("gpu", "there is one, but torch does not see it", False, fix)
    else:
        yield _row("gpu", "none; the embedded model runs well on a CPU, larger bases slowly", None)
    yield _row("threads", f"{torch.get_num_threads()}")


def _memory() -> Iterator[Row]:
    memory = psutil.virtual_memory()
    found = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    yield _row(
        "memory", found, memory.available > LEAST_MEMORY, "Close other programs: 2 GB are needed, 8 are good."
    )


def _weights() -> Iterator[Row]:
    """The embedded model, file by file; the first that is damaged says how to get it again."""
    try:
        files = sorted((assets() / "toybox").rglob("*.safetensors"))
        parameters = sum(read_safetensors_header(each).parameters for each in files)
    except LikenessError as error:
        yield _row("embedded model", error.message, False, error.remedy)
        return
    fix = "Clone the repository whole, or install the package again."
    yield _row("embedded model", f"{len(files)} files, {parameters / 1e6:.1f} M numbers", bool(files), fix)


def _disk() -> Iterator[Row]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for what, folder, flag in (
        ("disk of the workspace", workspace.root(), "--workspace"),
        ("disk of downloads", Path(HF_HUB_CACHE), "HF_HOME"),
    ):
        free = shutil.disk_usage(_existing(folder)).free
        fix = f"Free some space, or choose another disk with {flag}."
        yield _row(what, f"{free / 1e9:.1f} GB free ({folder})", free > LEAST_DISK, fix)


def _workspace() -> Iterator[Row]:
    try:
        folder = workspace.ready()
        store = Store(folder / FILE)
        count = len(store.jobs(10_000))
        store.close()
    except LikenessError as error:
        yield _row("workspace", error.message, False, error.remedy)
        return
    yield _row("workspace", f"{folder}, {count} jobs")


def _methods() -> Iterator[Row]:
    broken: dict[str, str] = {}
    count = sum(len(catalog(family, broken)) for family in FAMILIES)
    found = "; ".join(f"{name}: {reason}" for name, reason in sorted(broken.items())) or f"{count}"
    yield _row("methods", found, not broken, "Install what is missing, or the package again.")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((each for each in (folder, *folder.absolute().parents) if each.exists()), Path.cwd())


def _name(requirement: str) -> str:
    """The package in a requirement: "torch>=2.9; python_version > '3'" → "torch"."""
    for index, letter in enumerate(requirement):
        if not (letter.isalnum() or letter in "-_."):
            return requirement[:index]
    return requirement


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
