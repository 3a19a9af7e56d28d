"""The store: jobs, their events, their runs and readings, in one SQLite file of the workspace.

Opened by any process that owns a runner; every write is one short transaction that starts with the write
lock, so that several never meet half-way. A job of a process that is gone is found by its process id and
start time together, since ids are used again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from pipelines.errors import BadInput, DiskFull, UnknownName
from pipelines.jobs.rows import Origin, Row, Status, lives, row_of
from pipelines.jobs.schema import migrate, started_at
from pipelines.jobs.spec import JobSpec
from pipelines.progress import Event

__all__ = ["FILE", "Origin", "Row", "Status", "Store"]

FILE = "likeness.db"
KEPT_EVENTS = 5000


class Store:
    """One SQLite file; may be used from several threads and processes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        with self.writing() as base:
            migrate(base, path)

    def close(self) -> None:
        """Close every connection; the store is of no use afterwards."""
        for each in self._all:
            each.close()

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """One transaction that holds the write lock from its start; an exception undoes it whole."""
        base = self._base()
        try:
            base.execute("BEGIN IMMEDIATE")
            try:
                yield base
            except BaseException:
                base.execute("ROLLBACK")
                raise
            base.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if "full" in str(error) or "disk I/O" in str(error):
                raise DiskFull(self.path) from error
            raise

    def add(
        self,
        spec: JobSpec,
        *,
        device: str,
        priority: int = 0,
        origin: Origin = "queue",
        run: Path | None = None,
    ) -> int:
        """A new queued job; → its number. It goes behind the last of its priority that has its base."""
        base_name = str(getattr(spec, "base", ""))
        with self.writing() as base:
            place = _place(base, device, priority, base_name)
            row = base.execute(
                "INSERT INTO jobs (kind, spec, base, device, status, origin, priority, place, created, run)"
                " VALUES (?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?)",
                (
                    spec.kind,
                    spec.to_json(),
                    base_name,
                    device,
                    origin,
                    priority,
                    place,
                    time.time(),
                    _text(run),
                ),
            )
            return cast("int", row.lastrowid)

    def claim(self, device: str, ident: int | None = None) -> Row | None:
        """Take the next queued job of a device, or job `ident`, for this process; None without one."""
        with self.writing() as base:
            where, value = (
                ("id = ?", ident) if ident is not None else ("origin = 'queue' AND device = ?", device)
            )
            found = base.execute(
                f"SELECT id FROM jobs WHERE status = 'queued' AND {where}"  # noqa: S608 -- our own two texts
                " ORDER BY priority DESC, place, id LIMIT 1",
                (value,),
            ).fetchone()
            if found is None:
                return None
            base.execute(
                "UPDATE jobs SET status = 'running', owner = ?, owner_since = ?, started = ?, cancel = 0"
                " WHERE id = ?",
                (os.getpid(), started_at(os.getpid()), time.time(), found["id"]),
            )
        return self.get(found["id"])

    def finish(
        self,
        ident: int,
        status: Status,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, str] | None = None,
    ) -> None:
        """The job has ended: with its result, with an error, or stopped."""
        with self.writing() as base:
            base.execute(
                "UPDATE jobs SET status = ?, ended = ?, result = ?, error = ?, owner = NULL, cancel = 0"
                " WHERE id = ?",
                (status, time.time(), _json(result), _json(error), ident),
            )
            run = base.execute("SELECT run, kind FROM jobs WHERE id = ?", (ident,)).fetchone()
            where = (result or {}).get("out") or (run["run"] if run else None)
            if result is not None and where:
                _record(base, Path(str(where)), run["kind"], ident, result)

    def put_back(self, ident: int, spec: JobSpec | None = None) -> None:
        """Queue an ended or interrupted job again, with another spec if one is given."""
        row = self.get(ident)
        with self.writing() as base:
            place = _place(base, row.device, row.priority, row.base)
            base.execute(
                "UPDATE jobs SET status = 'queued', spec = ?, place = ?, owner = NULL, cancel = 0,"
                " ended = NULL, error = NULL, result = NULL WHERE id = ?",
                ((spec or row.spec).to_json(), place, ident),
            )

    def cancel(self, ident: int) -> Status:
        """Stop a job: a queued one at once, a running one as soon as its process looks; → its status now."""
        self.get(ident)  # raises for an unknown one
        with self.writing() as base:
            base.execute(
                "UPDATE jobs SET status = 'cancelled', ended = ? WHERE id = ? AND status = 'queued'",
                (time.time(), ident),
            )
            base.execute("UPDATE jobs SET cancel = 1 WHERE id = ? AND status = 'running'", (ident,))
        return self.get(ident).status

    def wants_cancel(self, ident: int) -> bool:
        """Whether somebody, perhaps another process, asked this running job to stop."""
        row = self._base().execute("SELECT cancel FROM jobs WHERE id = ?", (ident,)).fetchone()
        return bool(row and row["cancel"])

    def move(self, ident: int, before: int | None) -> None:
        """Put a queued job before another of its priority, or last with None. Raises BadInput."""
        row = self.get(ident)
        with self.writing() as base:
            line = [
                each["id"]
                for each in base.execute(
                    "SELECT id FROM jobs WHERE status = 'queued' AND device = ? AND priority = ?"
                    " ORDER BY place, id",
                    (row.device, row.priority),
                )
            ]
            if ident not in line or (before is not None and before not in line):
                raise BadInput(
                    f"Job {ident} cannot be moved there.",
                    "Both jobs must wait, with the same device and priority.",
                )
            if before == ident:
                return
            line.remove(ident)
            line.insert(len(line) if before is None else line.index(before), ident)
            base.executemany(
                "UPDATE jobs SET place = ? WHERE id = ?", [(float(n), each) for n, each in enumerate(line)]
            )

    def prioritise(self, ident: int, priority: int) -> None:
        """Change the priority of a job; higher runs earlier."""
        row = self.get(ident)
        with self.writing() as base:
            place = _place(base, row.device, priority, row.base)
            base.execute("UPDATE jobs SET priority = ?, place = ? WHERE id = ?", (priority, place, ident))

    def get(self, ident: int) -> Row:
        """One job. Raises UnknownName."""
        row = self._base().execute("SELECT * FROM jobs WHERE id = ?", (ident,)).fetchone()
        if row is None:
            last = self._base().execute("SELECT id FROM jobs ORDER BY id DESC LIMIT 20").fetchall()
            raise UnknownName("job", str(ident), [str(each["id"]) for each in last])
        return row_of(row)

    def jobs(self, limit: int = 100, status: Status | None = None, kind: str | None = None) -> list[Row]:
        """The newest jobs first, or those of one status or kind."""
        where, values = _only(status=status, kind=kind)
        rows = self._base().execute(f"SELECT * FROM jobs{where} ORDER BY id DESC LIMIT ?", [*values, limit])  # noqa: S608 -- our own names
        return [row_of(each) for each in rows]

    def newest_end(self) -> tuple[int, str]:
        """(number, kind) of the newest job that has ended, (0, "") before any. Cheap enough for every second:
        it looks only where somebody else wrote since this thread asked last.
        """
        version = self._base().execute("PRAGMA data_version").fetchone()[0]
        known = getattr(self._local, "end", None)
        if known is None or known[0] != version:
            query = (
                "SELECT id, json_extract(spec, '$.kind') FROM jobs"
                " WHERE status IN ('done', 'failed', 'cancelled') ORDER BY id DESC LIMIT 1"
            )
            found = self._base().execute(query).fetchone()
            known = self._local.end = version, (found[0], found[1]) if found else (0, "")
        return known[1]

    def count(self, status: Status | None = None, kind: str | None = None) -> int:
        """How many jobs there are, or those of one status or kind."""
        where, values = _only(status=status, kind=kind)
        return self._base().execute(f"SELECT count(*) FROM jobs{where}", values).fetchone()[0]  # noqa: S608

    def waiting(self, device: str) -> list[Row]:
        """The queued jobs of a device in the order in which they will run."""
        rows = self._base().execute(
            "SELECT * FROM jobs WHERE status = 'queued' AND origin = 'queue' AND device = ?"
            " ORDER BY priority DESC, place, id",
            (device,),
        )
        return [row_of(each) for each in rows]

    def log(self, ident: int, event: Event) -> None:
        """Keep an event; of a long job the last 5,000. Previews are not kept."""
        if event.kind == "preview":
            return
        with self.writing() as base:
            base.execute(
                "INSERT INTO events (job, kind, step, total, vals, text, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (ident, event.kind, event.step, event.total, _json(event.values), event.text, time.time()),
            )
            if event.kind == "report":
                base.execute(
                    "UPDATE jobs SET step = ?, total = ? WHERE id = ?", (event.step, event.total, ident)
                )
            base.execute(
                "DELETE FROM events WHERE job = ? AND id <= (SELECT id FROM events WHERE job = ?"
                " ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (ident, ident, KEPT_EVENTS),
            )

    def events(self, ident: int, since: int = 0) -> list[tuple[int, Event]]:
        """The events of a job after number `since`, oldest first, each with its number."""
        rows = self._base().execute(
            "SELECT * FROM events WHERE job = ? AND id > ? ORDER BY id", (ident, since)
        )
        return [
            (
                each["id"],
                Event(each["kind"], each["step"], each["total"], json.loads(each["vals"]), each["text"]),
            )
            for each in rows
        ]

    def report(self, ident: int) -> Event | None:
        """The last report of a job; None before the first."""
        each = (
            self._base()
            .execute(
                "SELECT * FROM events WHERE job = ? AND kind = 'report' ORDER BY id DESC LIMIT 1", (ident,)
            )
            .fetchone()
        )
        return each and Event(
            each["kind"], each["step"], each["total"], json.loads(each["vals"]), each["text"]
        )

    def runs(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest runs: path, name, kind, at, job."""
        rows = self._base().execute("SELECT * FROM runs ORDER BY at DESC, path LIMIT ?", (limit,))
        return [dict(each) for each in rows]

    def finished(self, kinds: Sequence[str], text: str = "", limit: int = 100_000) -> list[tuple[int, Path]]:
        """(job, its folder) of the finished runs of some kinds, the newest first.

        With `text` only those with every word of it in what the job says, or in the name of the run.
        """
        query = (
            "SELECT runs.job, runs.path FROM runs JOIN jobs ON jobs.id = runs.job"
            " WHERE jobs.status = 'done' AND runs.kind IN (SELECT value FROM json_each(?))"
        )
        values: list[Any] = [json.dumps(list(kinds))]
        for word in text.split()[:12]:
            query += (
                " AND (runs.name LIKE ? ESCAPE '!' OR EXISTS (SELECT 1 FROM json_tree(jobs.spec)"
                " WHERE json_tree.type = 'text' AND json_tree.value LIKE ? ESCAPE '!'))"
            )
            values += [f"%{word.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%"] * 2
        rows = self._base().execute(f"{query} ORDER BY runs.at DESC, jobs.id DESC LIMIT ?", [*values, limit])
        return [(each["job"], Path(each["path"])) for each in rows]

    def readings(self, run: Path) -> list[dict[str, Any]]:
        """The readings of a run: picture ("" for all of them together), name, value."""
        rows = self._base().execute(
            "SELECT picture, name, value FROM readings WHERE run = ? ORDER BY picture, name",
            (str(run.resolve()),),
        )
        return [dict(each) for each in rows]

    def orphans(self) -> list[Row]:
        """Running jobs whose process is gone."""
        return [each for each in self.jobs(limit=10_000, status="running") if not lives(each)]

    def _base(self) -> sqlite3.Connection:
        base = getattr(self._local, "base", None)
        if base is None:
            base = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
            base.row_factory = sqlite3.Row
            base.execute("PRAGMA busy_timeout = 10000")
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = NORMAL")
            base.execute("PRAGMA foreign_keys = ON")
            self._local.base = base
            self._all.append(base)
        return base


def _place(base: sqlite3.Connection, device: str, priority: int, base_name: str) -> float:
    """Behind the last waiting job of the same base, so that bases are not swapped to and fro; else last."""
    line = base.execute(
        "SELECT base, place FROM jobs WHERE status = 'queued' AND device = ? AND priority = ?"
        " ORDER BY place, id",
        (device, priority),
    ).fetchall()
    same = [index for index, each in enumerate(line) if each["base"] == base_name]
    if not line:
        return 0.0
    if not same or same[-1] == len(line) - 1:
        return line[-1]["place"] + 1
    return (line[same[-1]]["place"] + line[same[-1] + 1]["place"]) / 2


def _record(base: sqlite3.Connection, folder: Path, kind: str, job: int, result: Mapping[str, Any]) -> None:
    """A finished run and what was read from it."""
    path = str(folder.resolve())
    base.execute(
        "INSERT INTO runs (path, name, kind, at, job) VALUES (?, ?, ?, ?, ?) ON CONFLICT(path) DO UPDATE"
        " SET kind = excluded.kind, at = excluded.at, job = excluded.job",
        (path, folder.name, kind, time.time(), job),
    )
    pictures = cast("Sequence[Mapping[str, Any]]", result.get("pictures") or ())
    tables = [("", result.get("readings"))]
    tables += [(Path(str(each.get("path", ""))).name, each.get("readings")) for each in pictures]
    for picture, readings in tables:
        for name, value in cast("Mapping[str, Any]", readings or {}).items():
            if isinstance(value, int | float) and value == value:  # SQLite takes nan for NULL
                base.execute(
                    "INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?)", (path, picture, name, float(value))
                )


def _only(**wanted: str | None) -> tuple[str, list[str]]:
    """A WHERE for the columns that have a wanted value, and these values: "? IS NULL OR …" has no index."""
    given = {name: value for name, value in wanted.items() if value is not None}
    where = " AND ".join(f"{name} = ?" for name in given)
    return (f" WHERE {where}" if where else ""), list(given.values())


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)
