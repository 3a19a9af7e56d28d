"""Bases: which one the tabs draw and train with, which are here, and how others come onto this machine.

`chosen(desk)` is the base of every new job; the choice and the folders that were added outlive a restart.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

from pipelines.errors import BadInput, NotAvailable, UnknownName
from pipelines.jobs.library import Fetch
from pipelines.jobs.queries import Bases, Doctor, Info
from studio.desk import Desk

TOYBOX = "toybox"
GIGA = 1e9
_SHORT = {"toybox": "Toybox", "sd15": "SD 1.5", "sd21": "SD 2.1", "sdxl": "SDXL", "sd3": "SD 3"}
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,200}")


@dataclass(frozen=True)
class Base:
    """A base as the manager shows it; `bytes` is its size on the disk, `local` whether a person added it."""

    name: str
    title: str
    family: str = ""
    licence: str = ""
    bytes: int = 0
    hub: str = ""
    gated: bool = False
    installed: bool = True
    local: bool = False

    @property
    def drawing(self) -> float:
        """Roughly the bytes of memory that drawing takes with all of it on the device."""
        return 0.8 * GIGA if self.name == TOYBOX else self.bytes * 1.2 + 1.0 * GIGA

    @property
    def training(self) -> float:
        """Roughly the bytes of memory that a small training takes."""
        return 1.5 * GIGA if self.name == TOYBOX else self.bytes * 1.5 + 2.5 * GIGA


@dataclass(frozen=True)
class Found:
    """What the worker told, `at` seconds since 1970: bases with a preset, GPUs (None: nobody looked yet)."""

    bases: tuple[Base, ...] = ()
    gpus: tuple[Mapping[str, Any], ...] | None = None
    at: float = 0.0


_FOUND: WeakKeyDictionary[Desk, Found] = WeakKeyDictionary()
_LOOKING = threading.Lock()


def chosen(desk: Desk) -> str:
    """The base for new jobs: what was chosen, else the one that the studio was started with."""
    name = str(desk.draft("base").get("name") or "")
    return name if name in desk.base_names() else desk.settings.base


def title(desk: Desk) -> str:
    """The chosen base in the fewest words."""
    name = chosen(desk)
    return _SHORT.get(name) or Path(name).name


def choose(desk: Desk, name: str) -> str:
    """Draw and train with another base from now on. Raises UnknownName."""
    if name not in desk.base_names():
        raise UnknownName("base", name, desk.base_names())
    desk.keep("base", {"name": name})
    desk.touch("bases")
    return name


def found(desk: Desk) -> Found:
    """What is known so far, without asking anybody."""
    return _FOUND.get(desk, Found())


def look(desk: Desk, gpus: bool = False) -> Found:
    """Ask the worker which bases are here, with `gpus` also what the GPUs have; takes seconds at first."""
    with _LOOKING:
        rows = desk.ask(Bases()).get("rows") or ()
        bases = tuple(_base(each) for each in cast("Sequence[Mapping[str, Any]]", rows))
        devices = found(desk).gpus
        if gpus:
            devices = tuple(desk.ask(Doctor()).get("gpus") or ())
        _FOUND[desk] = Found(bases, devices, time.time())
    desk.touch("bases")
    return _FOUND[desk]


def listing(desk: Desk) -> list[Base]:
    """The bases that may be chosen here: those of the worker's list, and what was added by path."""
    names = desk.base_names()
    told = found(desk)
    known = {each.name: each for each in told.bases}
    came = {
        getattr(row.spec, "base", "")
        for row in desk.store.jobs(20, "done", "fetch")
        if (row.ended or 0) > told.at
    }
    listed = [known.get(each) or _bare(desk, each) for each in names]
    return [replace(each, installed=each.installed or each.name in came) for each in listed]


def may_add(desk: Desk) -> bool:
    """Whether the person at the page is the user of this machine, who may name its files and sign in."""
    return desk.settings.hosting.kind == "local" and not desk.settings.open


def add(desk: Desk, where: str) -> Base:
    """Add a model folder or a single file of this machine, once the worker found it whole.

    Raises NotAvailable where others can reach the studio, BadInput, MissingAsset, BrokenWeights.
    """
    if not may_add(desk):
        raise NotAvailable(
            "Adding a folder",
            "this studio can be reached by others, and they would see your files",
            "Start it on your own machine without --share and --host.",
        )
    path = where.strip().strip("\"'")
    if not path or not Path(path).expanduser().is_absolute():
        raise BadInput("That is no full path.", "Write it from the root on, such as /home/me/models/sd15.")
    path = str(Path(path).expanduser())
    told = desk.ask_here(Info(file=path, as_base=True))
    table = desk.draft("bases")
    facts = {**dict(table.get("facts") or {}), path: {k: told.get(k) for k in ("bytes", "family", "title")}}
    folders = [*(each for each in _listed(table) if each != path), path]
    desk.keep("bases", {**table, "folders": folders, "facts": facts})
    desk.touch("bases")
    return _bare(desk, path)


def remove(desk: Desk, name: str) -> None:
    """Take a folder off the list again; its files stay. Raises UnknownName."""
    table = desk.draft("bases")
    folders = _listed(table)
    if name not in folders:
        raise UnknownName("added base", name, folders)
    desk.keep("bases", {**table, "folders": [each for each in folders if each != name]})
    desk.touch("bases")


def download(desk: Desk, name: str) -> int:
    """Queue the fetching of a base; → the job's number. Raises UnknownName, NotAvailable, BadInput."""
    if desk.settings.hosting.kind != "local":
        raise NotAvailable("Downloading a base", "this studio is shared", "Run it on your own machine.")
    running = next((each for each in desk.active() if _fetches(each.spec, name)), None)
    if running is not None:
        return running.id
    return desk.submit(Fetch(base=name, device="network" if "network" in desk.devices else "cpu"))


def fits(base: Base, free: float, gpu: bool) -> tuple[str, str]:
    """("good" | "warning" | "bad", a sentence): how a base runs in this much memory, `free` in bytes."""
    if base.name == TOYBOX:
        return "good", "Runs anywhere, also without a GPU."
    if not base.bytes:
        return "warning", "Its size is not known yet."
    if not gpu:
        if free < base.drawing:
            return (
                "bad",
                f"Needs about {base.drawing / GIGA:.0f} GB of memory; {free / GIGA:.0f} GB are free.",
            )
        return "warning", "Runs without a GPU, but slowly: minutes a picture, and training takes hours."
    if free >= base.training:
        return "good", "Fits: draws and trains with everything on the GPU."
    if free >= base.drawing:
        return "good", f"Draws well; training may have to save memory (about {base.training / GIGA:.0f} GB)."
    if free >= base.drawing * 0.6:
        return "warning", "Draws with its parts taking turns on the GPU: slower. Too tight for training."
    return "bad", f"Too large for this GPU: drawing takes about {base.drawing / GIGA:.0f} GB."


def signed_in() -> bool:
    """Whether this user has a token for the Hugging Face Hub."""
    from huggingface_hub import get_token

    return bool(get_token())


def sign_in(desk: Desk, token: str) -> None:
    """Check a token with the Hub and keep it where the Hub's own programs keep it, and nowhere else.

    Raises NotAvailable where others can reach the studio or the Hub cannot be reached, BadInput.
    """
    if not may_add(desk):
        raise NotAvailable("Signing in", "others can reach this studio", "Use: hf auth login")
    token = token.strip()
    if not _TOKEN.fullmatch(token):
        raise BadInput(
            "That is no token of the Hugging Face Hub.",
            "It starts with hf_; copy it whole from your settings.",
        )
    from huggingface_hub import login
    from huggingface_hub.errors import HfHubHTTPError

    try:
        login(token, add_to_git_credential=False, skip_if_logged_in=False)
    except (HfHubHTTPError, ValueError):
        raise BadInput(
            "The Hub does not accept this token.", "Make a new one with the right to read, and copy it whole."
        ) from None
    except Exception:  # noqa: BLE001 -- whatever the network raises; its text may hold what was sent
        raise NotAvailable(
            "Signing in", "the Hub cannot be reached to check the token", "Go online and try again."
        ) from None
    desk.touch("bases")


def sign_out(desk: Desk) -> None:
    """Forget the token. Raises NotAvailable where others can reach the studio."""
    if not may_add(desk):
        raise NotAvailable("Signing out", "others can reach this studio", "Use: hf auth logout")
    from huggingface_hub import logout

    logout()
    desk.touch("bases")


def _fetches(spec: object, name: str) -> bool:
    return isinstance(spec, Fetch) and spec.base == name


def _listed(table: Mapping[str, Any]) -> list[str]:
    return [str(each) for each in table.get("folders") or ()]


def _base(row: Mapping[str, Any]) -> Base:
    return Base(
        name=str(row.get("base", "")),
        title=str(row.get("title", "")),
        family=str(row.get("family", "")),
        licence=str(row.get("licence", "")),
        bytes=int(float(row.get("gigabytes") or 0) * GIGA),
        hub=str(row.get("hub", "")),
        gated=bool(row.get("gated")),
        installed=bool(row.get("installed")),
    )


def _bare(desk: Desk, name: str) -> Base:
    """A base of which the worker has not told yet, or one that was added by path."""
    folders = _listed(desk.draft("bases"))
    facts = dict(dict(desk.draft("bases").get("facts") or {}).get(name) or {})
    local = name in folders
    return Base(
        name=name,
        title=Path(name).name if local else name,
        family=str(facts.get("title") or facts.get("family") or ""),
        bytes=int(facts.get("bytes") or 0),
        installed=local or name == TOYBOX,
        local=local,
    )
