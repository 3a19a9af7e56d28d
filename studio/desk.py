"""A desk: what one visitor has on the table. Their workspace, jobs, uploads, drafts; nobody else's.

On the desktop there is one desk for everybody who opens the page; on a shared machine each visitor has one.
Everything that the page shows is read from here, so that a reload or a second tab shows the same.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable
from urllib.parse import quote

from pipelines.artifacts import assets, atomic_write
from pipelines.errors import BadInput, DiskFull, NotAvailable
from pipelines.jobs import presets, workspace
from pipelines.jobs.queue import Queue, resumed
from pipelines.jobs.references import split
from pipelines.jobs.runner import Runner
from pipelines.jobs.spec import JobSpec, from_table
from pipelines.jobs.store import FILE, Row, Store
from pipelines.progress import Event, Job
from studio.limits import MOST_WAITING, NEEDS_DISK, check_limits, drawings
from studio.settings import Settings
from studio.uploads import keep_photos

LIGHT = frozenset({"check", "caption", "info", "methods", "bases", "doctor", "export"})
"""Kinds that need no device: they never wait behind a training."""


@runtime_checkable
class Billed(Protocol):
    """A runner that counts its time against whoever asked for a job."""

    def remember(self, folder: Path | None) -> None:
        """Jobs of this workspace are asked for by the request under way."""
        ...


class Desk:
    """One visitor's workspace, queue and drafts. Safe from several threads."""

    def __init__(
        self, folder: Path, settings: Settings, runners: Mapping[str, Runner], light: Runner, url: str = ""
    ) -> None:
        self.folder = workspace.ready(folder)
        self.settings = settings
        self.store = Store(self.folder / FILE)
        self.used = time.time()
        self._url = url
        self._light = light
        self.devices = tuple(runners)
        # on ZeroGPU a job runs on the time of the visitor whose click this thread answers
        self._remember = [each.remember for each in runners.values() if isinstance(each, Billed)]
        self._lock = threading.Lock()
        self._stamps: dict[str, int] = defaultdict(int)
        self._previews: dict[int, tuple[int, bytes]] = {}
        self._kinds: dict[int, str] = {}
        self._drafts = self._read_drafts()
        self._kept = 0
        self._ended = self.store.newest_end()[0]
        self.queue = Queue(
            self.store,
            runners,
            self.folder,
            self._heard,
            previews=True,
            changed=lambda ident: self.touch(self._kind(ident)),
        )

    def start(self) -> None:
        """Take up what a crash left behind, and begin to work."""
        self.queue.start()

    def close(self) -> None:
        """Stop running jobs, with their checkpoints, and close the store."""
        self.queue.close()
        self.store.close()

    # ---- jobs

    def submit(self, spec: JobSpec, priority: int = 0) -> int:
        """Check a job against what this visitor may do, and queue it; → its number.

        Raises BadInput, UnknownName, MissingAsset, NotAvailable or DiskFull.
        """
        spec = self.allowed(spec)
        self._has_room()
        if spec.kind == "train" and getattr(spec, "out", None) is None:
            data: Any = getattr(spec, "data", None)
            named = f"{data.token} {data.class_word}".strip()
            spec = spec.model_copy(update={"out": workspace.new_run("train", named, self.folder)})
        for remember in self._remember:
            remember(self.folder)
        ident = self.queue.submit(spec, priority, run=getattr(spec, "out", None))
        self.touch(spec.kind)
        return ident

    def _has_room(self) -> None:
        """Raises BadInput where too much of this visitor's waits on a shared studio, DiskFull."""
        if self.settings.hosting.kind != "local" and self.store.count("queued") >= MOST_WAITING:
            raise BadInput(
                f"{MOST_WAITING} of your jobs are waiting already.", "Wait for one of them, or stop one."
            )
        if self.free_bytes() < NEEDS_DISK:
            raise DiskFull(self.folder)

    def ask(self, spec: JobSpec, job: Job | None = None) -> dict[str, Any]:
        """Do a light job (`LIGHT`) at once, and wait for it. Raises as `submit` and the job do."""
        if spec.kind not in LIGHT:
            raise BadInput(f"A {spec.kind} job has to wait its turn.", "Queue it.")
        return self._light.run(self.allowed(spec), job or Job(), self.folder)

    def ask_here(self, spec: JobSpec, job: Job | None = None) -> dict[str, Any]:
        """As `ask`, for the user of this very machine, who may name any file of it.

        Raises NotAvailable where the studio stands elsewhere or others can reach it.
        """
        if self.settings.open or spec.kind not in LIGHT:
            raise NotAvailable(
                "Files of this machine", "others can reach this studio", "Open it on the machine itself."
            )
        return self._light.run(spec, job or Job(), self.folder)

    def allowed(self, spec: JobSpec) -> JobSpec:
        """The job as this visitor may run it, on the device of this studio.

        Files may only be named as `asset:`, `upload:` or `run:` of their own. Raises BadInput for anything
        else, NotAvailable for what this machine does not offer.
        """
        for each in drawings(spec):
            workspace.check_references(each, self.folder, local=False)
        check_limits(spec, self.settings, self.base_names())
        out = getattr(spec, "out", None)
        home = "thumbs" if spec.kind == "check" else "runs"
        if out is not None and not Path(out).resolve().is_relative_to((self.folder / home).resolve()):
            raise BadInput("The folder for the results is not yours to choose here.", 'Leave "out" open.')
        if getattr(spec, "device", None) == "auto" and self.settings.device != "auto":
            spec = spec.model_copy(update={"device": self.settings.device})
        return spec

    def cancel(self, ident: int) -> None:
        """Stop a job, queued or running."""
        self.queue.cancel(ident)
        self.touch(self.store.get(ident).spec.kind)

    def again(self, ident: int) -> int:
        """Take up an ended job: a training from its checkpoint, anything else as a new job; → its number.

        Raises BadInput where it has not ended, UnknownName.
        """
        row = self.store.get(ident)
        if row.status in ("queued", "running"):
            raise BadInput(f"Job {ident} is {row.status}.", "Wait for it, or stop it first.")
        spec = resumed(row)
        if spec is not None and row.status != "done":
            self.store.put_back(ident, spec)
            self.queue.wake()
            self.touch(spec.kind)
            return ident
        plain = row.spec.model_dump()
        for name in ("out", "resume"):
            plain.pop(name, None)
        return self.submit(from_table(plain), row.priority)

    def latest(self, kind: str) -> Row | None:
        """The newest job of a kind: the one that its tab shows."""
        rows = self.store.jobs(1, kind=kind)
        return rows[0] if rows else None

    def active(self) -> list[Row]:
        """What runs and waits, the running first, in the order in which it will run."""
        running = self.store.jobs(50, "running")
        return running + sorted(self.store.jobs(500, "queued"), key=lambda row: (-row.priority, row.place))

    def preview(self, ident: int) -> tuple[int, bytes] | None:
        """The last preview of a job, as (how many came, JPEG)."""
        return self._previews.get(ident)

    # ---- change

    def stamp(self, *kinds: str) -> tuple[int, ...]:
        """Numbers that change whenever something of these kinds did; of everything without kinds."""
        return tuple(self._stamps[kind] for kind in (kinds or ("",)))

    def pulse(self) -> str:
        """A text that changes whenever anything on the desk did, what stands in the forms included.

        A job that ended in another process, on the command line, is noticed here.
        """
        number, kind = self.store.newest_end()
        if number > self._ended:
            self._ended = number
            if number not in self._kinds:  # no event of it came by: it was not ours
                self.touch(kind)
        return f"{self._stamps['']}.{self._kept}"

    def touch(self, kind: str = "") -> None:
        """Something changed."""
        with self._lock:
            self._stamps[kind] += 1
            if kind:
                self._stamps[""] += 1

    def _heard(self, ident: int, event: Event) -> None:
        if event.kind == "preview" and isinstance(event.image, bytes):
            number = self._previews.get(ident, (0, b""))[0] + 1
            self._previews[ident] = (number, event.image)
            for old in sorted(self._previews)[:-20]:
                self._previews.pop(old, None)
        self.touch(self._kind(ident))

    def _kind(self, ident: int) -> str:
        if ident not in self._kinds:
            self._kinds[ident] = self.store.get(ident).spec.kind
        return self._kinds[ident]

    # ---- drafts

    def draft(self, name: str) -> dict[str, Any]:
        """What stands in a form, kept over reloads and restarts; empty at first."""
        return dict(self._drafts.get(name, {}))

    def keep(self, name: str, table: Mapping[str, Any]) -> None:
        """Keep what stands in a form."""
        with self._lock:
            if self._drafts.get(name) == table:
                return
            self._drafts[name] = dict(table)
            self._kept += 1
            text = json.dumps(self._drafts, ensure_ascii=False, default=str)
            atomic_write(self.folder / "drafts.json", text.encode())

    def _read_drafts(self) -> dict[str, dict[str, Any]]:
        try:
            table = json.loads((self.folder / "drafts.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return cast("dict[str, dict[str, Any]]", table) if isinstance(table, dict) else {}

    # ---- files

    def owns(self, path: Path) -> bool:
        """Whether a path lies in this workspace."""
        return path.resolve().is_relative_to(self.folder.resolve())

    def upload(self, paths: Sequence[Path | str], name: str) -> str:
        """Copy uploaded pictures into the workspace; → "upload:NAME". Raises BadInput, DiskFull."""
        folder = keep_photos([Path(each) for each in paths], self.folder / "uploads", name, self.settings)
        self.touch("uploads")
        return f"upload:{folder.name}"

    def borrow(self, reference: str, name: str) -> str:
        """A copy of our own or an earlier set of pictures, so that it can be changed; → "upload:NAME"."""
        source = workspace.resolve(reference, folder=self.folder, local=False)
        files = [each for each in sorted(source.iterdir()) if each.is_file()] if source.is_dir() else [source]
        folder = keep_photos(files, self.folder / "uploads", name, self.settings, trusted=True)
        return f"upload:{folder.name}"

    def path(self, reference: str) -> Path:
        """The file behind one of this visitor's references. Raises BadInput, MissingAsset."""
        return workspace.resolve(reference, folder=self.folder, local=False)

    def url(self, where: Path | str) -> str:
        """The address of a file of this workspace or of the embedded ones; "" for any other."""
        path = Path(where) if isinstance(where, Path) or split(where)[0] == "file" else self.path(where)
        for name, home in (("work", self.folder), ("asset", assets())):
            if path.is_absolute() and path.is_relative_to(home):
                return f"{self._url}/studio/{name}/{quote(path.relative_to(home).as_posix())}"
        return ""

    def preview_url(self, ident: int) -> str:
        """The address of the newest preview of a job; "" without one."""
        found = self._previews.get(ident)
        return f"{self._url}/studio/preview/{ident}?n={found[0]}" if found else ""

    def export_url(self, name: str) -> str:
        """The address of an export without its ending: "runs-3-5", "grid-7" (`studio.compare_export`)."""
        return f"{self._url}/studio/export/{quote(name)}"

    def reference(self, path: Path | str) -> str:
        """How a job names a file of this workspace: "run:compose-dog/001.png". Raises BadInput for others."""
        path = Path(path)
        for scheme in ("run", "upload"):
            home = workspace.home(scheme, self.folder)
            if path.is_absolute() and path.is_relative_to(home):
                return f"{scheme}:{path.relative_to(home).as_posix()}"
        if path.is_absolute() and path.is_relative_to(assets()):
            return f"asset:{path.relative_to(assets()).as_posix()}"
        raise BadInput(f"{path.name} is not in this workspace.", "Upload it first.")

    # ---- bases and settings

    def base_names(self) -> list[str]:
        """The bases that may be named here: those with a preset, and folders that were added."""
        if self.settings.hosting.bases == "toybox":
            return ["toybox"]
        return [*presets.names("bases", self.folder), *self.draft("bases").get("folders", [])]

    def native(self, base: str) -> dict[str, Any]:
        """The settings that suit a base."""
        return presets.native(base, self.folder)

    def free_bytes(self) -> int:
        """Room left on the disk of the workspace."""
        return shutil.disk_usage(self.folder).free
