"""One job a device: a lock that says who holds it, shared by command line and studio of a workspace."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import psutil
from filelock import FileLock, Timeout

from pipelines.errors import StateBusy
from pipelines.progress import Job


def device_of(device: str) -> str:
    """The device that a job's setting means, without asking torch: "auto" is a GPU where a driver is."""
    if device != "auto":
        return device
    return "cuda" if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") else "cpu"


@contextmanager
def held(workspace: Path, device: str, what: str, job: Job | None = None) -> Generator[None]:
    """Hold a device. With a `job` wait for it, saying who holds it; without one raise StateBusy at once.

    `what` tells others what is going on. The system frees the lock however this process ends. A process that
    was started by the holder shares its lock: it is part of the same work.
    """
    folder = workspace / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    about = folder / f"{device}.json"
    if _is_ancestor(_told(about).get("pid")):
        yield
        return
    lock = FileLock(folder / f"{device}.lock")
    _take(lock, lambda: holder(workspace, device), job)
    try:
        about.write_text(json.dumps({"pid": os.getpid(), "what": what, "since": time.time()}))
        yield
    finally:
        about.unlink(missing_ok=True)
        lock.release()


def holder(workspace: Path, device: str) -> str | None:
    """Who holds a device, in words ("likeness train, process 123"), or None when nobody does."""
    table = _told(workspace / "locks" / f"{device}.json")
    pid = table.get("pid")
    if not isinstance(pid, int) or not psutil.pid_exists(pid):
        return None
    return f"{table.get('what') or 'another job'}, process {pid}"


def _take(lock: FileLock, who: Callable[[], str | None], job: Job | None) -> None:
    told = False
    while True:
        try:
            lock.acquire(timeout=0 if job is None else 0.25)
        except Timeout:
            if job is None:
                raise StateBusy("The device", who() or "another job") from None
            job.check()
            if not told:
                told = True
                job.note(f"Waiting for the device: it is held by {who() or 'another job'}.")
        else:
            return


def _told(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        table = json.loads(path.read_text())
        if isinstance(table, dict):
            return cast("dict[str, Any]", table)
    return {}


def _is_ancestor(pid: Any) -> bool:
    """Whether `pid` is a process above this one (not this one itself)."""
    with suppress(psutil.Error):
        return isinstance(pid, int) and pid in {each.pid for each in psutil.Process().parents()}
    return False
