"""The post: settings and pictures on their way from one tab to another, and the acts that every tab knows.

A parcel is {"to": tab, "table": partial job, "note": sentence}; the page shows it in that tab.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import pictures
from studio import library
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
    return restored(desk, desk.path(reference))


def restored(desk: Desk, path: Path | str) -> dict[str, Any]:
    """The settings that a dropped picture carries, as a parcel for the tab that they are of.

    What cannot be used is named in the note. Raises BadInput where the picture says nothing of itself.
    """
    try:
        found = pictures.like(path)
    except BadInput as error:
        # the name of an upload is the browser's, and its folder nobody's business
        said = error.message.replace(str(path), Path(path).name)
        raise BadInput(said, error.remedy) from None
    table, lost = dressed(desk, found.table)
    ignored = [*found.ignored, *lost]
    kind = str(table.get("kind", "compose"))
    to = "identity" if kind == "compose" and table.get("reference") else kind
    left = f" Left out, since nothing here answers to it: {', '.join(ignored)}." if ignored else ""
    return parcel(to, told(settings(table)), f"The settings of the picture are back.{left}")


def dressed(desk: Desk, table: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A picture's settings with adapters named as this library has them; and those that it does not have."""
    known = library.adapters(desk)
    rows: list[dict[str, Any]] = []
    lost: list[str] = []
    for each in cast("Sequence[Mapping[str, Any]]", table.get("adapters") or ()):
        named = str(each["adapter"])
        found = _found(desk, known, named)
        if found:
            rows.append({"adapter": found, "weight": each.get("weight", 1.0)})
        else:
            lost.append(f"the adapter {named.partition('#')[0]}")
    return {**table, "adapters": rows}, lost


def _found(desk: Desk, known: Sequence[library.Entry], named: str) -> str:
    try:
        return library.entry(desk, named).reference
    except LikenessError:
        wanted = named.casefold()
        names = ((each.title.casefold(), each.reference.rpartition(":")[2].casefold()) for each in known)
        return next((each.reference for each, own in zip(known, names, strict=True) if wanted in own), "")


def told(table: Mapping[str, Any]) -> dict[str, Any]:
    """A job's table with what only the page knows beside it: whether every line is a prompt of its own."""
    if "prompts" not in table:
        return dict(table)
    return {**table, "_lines": len(table["prompts"]) > 1}


def to_edit(desk: Desk, reference: str) -> dict[str, Any]:
    """A picture for the Edit tab, with the words that made it."""
    return parcel("edit", {"image": reference, **_words(desk, reference, "source")})


def to_identity(desk: Desk, reference: str) -> dict[str, Any]:
    """A picture as the reference of the Identity tab."""
    return parcel("identity", {"reference": {"images": reference}})


def to_compare(desk: Desk, reference: str) -> dict[str, Any]:
    """The settings of a picture as the drawing that a grid varies. Raises BadInput where it carries none."""
    table, _ = dressed(desk, pictures.like(desk.path(reference)).table)
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
