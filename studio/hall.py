"""The hall: the desks of all visitors, the workers they share, and the files that each may see."""

from __future__ import annotations

import hashlib
import mimetypes
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipelines.artifacts import assets
from pipelines.errors import BadInput
from pipelines.jobs import presets
from pipelines.jobs.locks import device_of
from pipelines.jobs.runner import Runner, SubprocessRunner
from studio.desk import Desk
from studio.guards import visitor_of
from studio.settings import PULSE, Settings

SWEEP = 600.0
IDLE = 3600.0
_SHOWN = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_HIDDEN = frozenset({".db", ".lock", ".json-shm"})


class Hall:
    """One desk on one's own machine; on a shared one a desk a visitor, cleared after a while.

    `runners` are one a device; by default worker processes, started when first needed.
    """

    def __init__(self, settings: Settings, runners: Mapping[str, Runner] | None = None) -> None:
        self.settings = settings
        self.born = uuid.uuid4().hex[:12]
        """Tells this studio from the one that may have served an open page before a restart."""
        self.runners = dict(runners) if runners is not None else _runners(settings)
        self.light: Runner = next(iter(self.runners.values())) if runners is not None else SubprocessRunner()
        self._desks: dict[str, Desk] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def start(self) -> None:
        """Open the desk of this machine, or begin to clear those of visitors who left."""
        if self.settings.hosting.kind == "local":
            self.desk(None)
        else:
            threading.Thread(target=self._sweeping, daemon=True, name="sweep").start()

    def warm(self) -> None:
        """Start the worker before its first job, so that the first picture does not wait for imports."""
        for runner in self.runners.values():
            start = getattr(runner, "warm", None)
            if start is not None:
                threading.Thread(target=start, daemon=True, name="warm").start()
                return

    def close(self) -> None:
        """Stop running jobs, with their checkpoints, and end the workers."""
        self._closing.set()
        for desk in list(self._desks.values()):
            desk.close()
        for runner in {id(each): each for each in (*self.runners.values(), self.light)}.values():
            end = getattr(runner, "close", None)
            if end is not None:
                end()

    def desk(self, request: Any) -> Desk:
        """The desk of whoever sent a request."""
        name = self._name(request)
        with self._lock:
            desk = self._desks.get(name)
            if desk is None:
                folder = self.settings.workspace
                folder = folder / "visitors" / name if name else folder
                desk = Desk(
                    folder, self.settings, self.runners, self.light, self.settings.root_path.rstrip("/")
                )
                desk.start()
                self._desks[name] = desk
            desk.used = time.time()
            return desk

    def _name(self, request: Any) -> str:
        """The folder of whoever sent a request; empty on one's own machine. Raises BadInput for nobody."""
        if self.settings.hosting.kind == "local":
            return ""
        visitor = visitor_of(request)
        if not visitor:
            raise BadInput("This request does not say whose it is.", "Load the page again.")
        return hashlib.sha256(visitor.encode()).hexdigest()[:32]

    def _known(self, request: Request) -> Desk | None:
        """The desk of a visitor who was here before: asking for a file opens none."""
        try:
            name = self._name(request)
        except BadInput:
            return None
        there = name in self._desks or (self.settings.workspace / "visitors" / name).is_dir()
        return self.desk(request) if there or not name else None

    def native(self, base: str) -> dict[str, Any]:
        """The settings that suit a base, for forms before anybody opened a desk."""
        return presets.native(base)

    @property
    def routes(self) -> list[Route]:
        """The addresses of pictures and files: everybody sees their own and the embedded ones alone."""
        return [
            Route("/studio/work/{path:path}", self._work),
            Route("/studio/asset/{path:path}", self._asset),
            Route("/studio/preview/{ident:int}", self._preview),
            Route("/studio/export/{name}", self._export),
            Route(PULSE, self._pulse),
        ]

    def _pulse(self, request: Request) -> Response:
        desk = self._known(request)
        words = f"{self.born} {desk.pulse() if desk else '-'}"
        return PlainTextResponse(words, headers={"Cache-Control": "no-store"})

    def _work(self, request: Request) -> Response:
        desk = self._known(request)
        if desk is None:
            return _missing("There is no such file.")
        return _file(desk.folder, request.path_params["path"], ("runs", "uploads", "thumbs", "bin"))

    def _asset(self, request: Request) -> Response:
        return _file(assets(), request.path_params["path"], ("photos", "subjects", "samples", "toybox"))

    def _preview(self, request: Request) -> Response:
        desk = self._known(request)
        found = desk.preview(request.path_params["ident"]) if desk else None
        if found is None:
            return _missing("There is no preview.")
        return Response(found[1], media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})

    def _export(self, request: Request) -> Response:
        from studio.compare_export import export

        desk = self._known(request)
        made = export(desk, request.path_params["name"]) if desk else None
        if made is None:
            return _missing("There is nothing of this name to export.")
        headers = {
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": f'attachment; filename="likeness-{request.path_params["name"]}"',
            "Cache-Control": "private, no-cache",
        }
        return Response(made, media_type="application/octet-stream", headers=headers)

    def _sweeping(self) -> None:
        while not self._closing.wait(SWEEP):
            self.sweep()

    def sweep(self, now: float | None = None) -> list[str]:
        """Close desks that nobody used for an hour, delete those that are too old; → the names of these."""
        now = time.time() if now is None else now
        keep = self.settings.hosting.keep_hours * 3600
        with self._lock:
            idle = [
                name for name, desk in self._desks.items() if now - desk.used > IDLE and not desk.active()
            ]
            for name in idle:
                self._desks.pop(name).close()
        gone: list[str] = []
        homes = self.settings.workspace / "visitors"
        for folder in sorted(homes.iterdir()) if homes.is_dir() else []:
            if folder.name not in self._desks and now - _changed(folder) > keep:
                shutil.rmtree(folder, ignore_errors=True)
                gone.append(folder.name)
        return gone


def _runners(settings: Settings) -> dict[str, Runner]:
    if settings.hosting.kind == "zero":
        from studio.space import ZeroRunner

        return {"cuda": ZeroRunner()}
    wanted = device_of(settings.device)
    runners: dict[str, Runner] = {wanted: SubprocessRunner()}
    if wanted != "cpu":
        runners["cpu"] = SubprocessRunner()
    runners["network"] = SubprocessRunner()  # downloads; no process before the first one
    return runners


def _missing(text: str) -> Response:
    return PlainTextResponse(text, 404)


def _file(home: Path, name: str, parts: tuple[str, ...]) -> Response:
    """A file below the named parts of `home`; pictures are shown, anything else is downloaded."""
    missing = _missing("There is no such file.")
    path = home / name
    with suppress(OSError, ValueError):
        inside = path.resolve().relative_to(home.resolve())
        hidden = any(each.startswith(".") for each in inside.parts) or path.suffix in _HIDDEN
        if hidden or not inside.parts or inside.parts[0] not in parts or not path.is_file():
            return missing
        shown = path.suffix.lower() in _SHOWN
        headers = {
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cache-Control": "private, max-age=3600" if shown else "private, no-cache",
        }
        media = mimetypes.guess_type(path.name)[0] if shown else "application/octet-stream"
        return FileResponse(path, media_type=media, filename=None if shown else path.name, headers=headers)
    return missing


def _changed(folder: Path) -> float:
    """When something in a visitor's folder last changed."""
    try:
        return max((each.stat().st_mtime for each in (folder, *folder.iterdir())), default=0.0)
    except OSError:
        return 0.0
