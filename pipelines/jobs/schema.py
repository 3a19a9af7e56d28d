"""The tables of the store, and how an older file becomes a newer one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psutil

from pipelines.errors import BadInput

SCHEMA = 1
# what only makes answers quicker is no new version: any program of this version may work on beside it
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS jobs_of_status ON jobs(status)",  # in the order of their numbers
    "CREATE INDEX IF NOT EXISTS jobs_of_kind ON jobs(kind)",
)

_TABLES = """
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, spec TEXT NOT NULL, base TEXT NOT NULL,
  device TEXT NOT NULL, status TEXT NOT NULL, origin TEXT NOT NULL, priority INTEGER NOT NULL,
  place REAL NOT NULL, cancel INTEGER NOT NULL DEFAULT 0, owner INTEGER, owner_since REAL,
  created REAL NOT NULL, started REAL, ended REAL, step INTEGER NOT NULL DEFAULT 0, total INTEGER,
  run TEXT, result TEXT, error TEXT
) STRICT;
CREATE INDEX jobs_by_status ON jobs(status, device);
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
  kind TEXT NOT NULL, step INTEGER, total INTEGER, vals TEXT, text TEXT, at REAL NOT NULL
) STRICT;
CREATE INDEX events_by_job ON events(job, id);
CREATE TABLE runs (
  path TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, at REAL NOT NULL,
  job INTEGER REFERENCES jobs(id) ON DELETE SET NULL
) STRICT;
CREATE TABLE readings (
  run TEXT NOT NULL REFERENCES runs(path) ON DELETE CASCADE, picture TEXT NOT NULL, name TEXT NOT NULL,
  value REAL NOT NULL, PRIMARY KEY (run, picture, name)
) STRICT;
"""


def migrate(base: sqlite3.Connection, path: Path) -> None:
    """Make or check the tables, inside the transaction of the caller. Raises BadInput for a newer file."""
    version = base.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA:
        raise BadInput(
            f"{path} was written by a newer version of this program.",
            "Update the program, or choose another workspace.",
        )
    if version == 0:
        for statement in _TABLES.split(";"):
            if statement.strip():
                base.execute(statement)
        base.execute(f"PRAGMA user_version = {SCHEMA}")
    for statement in _INDEXES:
        base.execute(statement)


def started_at(pid: int) -> float | None:
    """When a process was started, in seconds since 1970, or None when there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None
