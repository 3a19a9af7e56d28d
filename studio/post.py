"""The post: settings and pictures on their way from one tab to another, and the acts that every tab knows.

A parcel is {"to": tab, "table": partial job, "note": sentence}; the page shows it in that tab.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.jobs import pictures
from studio.desk import Desk

Act = Callable[[Desk, str], dict[str, Any] | None]
EVERYWHERE = "*"
"""A parcel for every tab at once; nobody is sent anywhere."""
KEPT_OUT = ("kind", "version", "out", "resume", "device", "memory")


def parcel(to: str, table: Mapping[str, Any], note: str = "") -> dict[str, Any]:
    """Settings for a tab."""
    return {"to": to, "table": dict(table), "note": note}


def stop(desk: Desk, value: str) -> None:
    """Stop a job."""
    desk.cancel(int(value))


def again(desk: Desk, value: str) -> None:
    """Take up an ended job."""
    desk.again(int(value))


def use(desk: Desk, reference: str) -> dict[str, Any]:
    """The settings that a picture carries, for the tab that made it. Raises BadInput without any."""
    found = pictures.like(desk.path(reference))
    kind = str(found.table.get("kind", "compose"))
    to = "identity" if found.table.get("reference") else kind
    ignored = f" Not known here: {', '.join(found.ignored)}." if found.ignored else ""
    return parcel(to, settings(found.table), f"These are the settings of the picture.{ignored}")


def to_edit(desk: Desk, reference: str) -> dict[str, Any]:
    """A picture for the Edit tab, with the words that made it."""
    return parcel("edit", {"image": reference, **_words(desk, reference, "source")})


def to_identity(desk: Desk, reference: str) -> dict[str, Any]:
    """A picture as the reference of the Identity tab."""
    return parcel("identity", {"reference": {"images": reference}})


def to_compare(desk: Desk, reference: str) -> dict[str, Any]:
    """The settings of a picture as the drawing that a grid varies. Raises BadInput where it carries none."""
    table = pictures.like(desk.path(reference)).table
    kind = str(table.get("kind", "compose"))
    return parcel("compare", {"job": {"kind": kind, **settings(table)}}, "Choose what shall vary.")


ACTS: dict[str, Act] = {
    "stop": stop,
    "again": again,
    "use": use,
    "edit": to_edit,
    "identity": to_identity,
    "compare": to_compare,
}
"""What a button may ask for in any tab."""


def settings(table: Mapping[str, Any]) -> dict[str, Any]:
    """A job's table without what belongs to its run alone."""
    return {name: value for name, value in table.items() if name not in KEPT_OUT}


def _words(desk: Desk, reference: str, name: str) -> dict[str, Any]:
    try:
        prompts = pictures.like(desk.path(reference)).table.get("prompts") or [""]
    except Exception:  # noqa: BLE001 -- a picture that says nothing of itself is as welcome
        return {}
    return {name: str(prompts[0])}
