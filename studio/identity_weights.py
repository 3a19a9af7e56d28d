"""What a reference method lacks on this machine: which files, how large, under which licence, where they go.

The worker is asked; nothing is loaded for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pipelines.errors import BadInput, LikenessError, NotAvailable
from pipelines.jobs.queries import Methods
from studio.desk import Desk
from studio.markup import Markup, note, problem, tag
from studio.words import size

FAMILY = "reference"
REFUSED = "This method cannot draw with this base."
OTHERWISE = "Choose another base, or name files of your own under More settings."
Answer = Mapping[str, Any]


def ask(desk: Desk, base: str, table: Mapping[str, Any]) -> Answer:
    """What the worker knows of a method and its files. Raises what asking raises."""
    return desk.ask(Methods(family=FAMILY, base=base, settings=dict(table)))


def missing(answer: Answer) -> list[dict[str, Any]]:
    """The files that are not in their place."""
    files = cast("Sequence[dict[str, Any]]", answer.get("files") or ())
    return [each for each in files if not each.get("here")]


def check(desk: Desk, base: str, table: Mapping[str, Any]) -> None:
    """Raise NotAvailable for missing files and BadInput for a base that the method has nothing for.

    Before the job is queued: or the base would be loaded, or even fetched, for nothing.
    """
    answer = ask(desk, base, table)
    for each in answer.get("refused") or ():
        raise BadInput(f"{REFUSED} {each['reason']}", OTHERWISE)
    for each in missing(answer):
        where = f" and put it at {each['where']}" if _local(desk) else " on the machine that runs this studio"
        raise NotAvailable(
            "This method",
            f"{each['what']} ({each['file']}, {size(float(each['bytes']))}) is not on this machine",
            f"Fetch it from {each['source']} ({each['licence']}){where}.",
        )


def told(desk: Desk, base: str, table: Mapping[str, Any]) -> Markup:
    """The same as a note on the page; nothing where all is in place."""
    try:
        answer = ask(desk, base, table)
    except LikenessError as error:
        return problem(error.message, error.remedy)
    for each in answer.get("refused") or ():
        return note(tag("strong", REFUSED), f" {each['reason']} {OTHERWISE}", kind="warning")
    lacking = missing(answer)
    if not lacking:
        return note("Everything that this method needs is installed.", kind="good") if answer.get("files") \
            else Markup("")  # fmt: skip
    local = _local(desk)
    last = (
        "Once the files are in their places, choose the method again."
        if local
        else "This studio is shared; only those who run it can install them."
    )
    return note(
        tag("strong", "This method needs files that are not installed."),
        " They are published by others, and yours to fetch:",
        tag("ul", *(_file(each, local) for each in lacking), cls="wanted"),
        last,
        kind="warning",
    )


def _file(each: Mapping[str, Any], local: bool) -> Markup:
    source = str(each["source"])
    link = tag("a", source, href=f"https://{source}", target="_blank", rel="noreferrer noopener")
    return tag(
        "li",
        tag("b", each["file"]), f" – {each['what']}, {size(float(each['bytes']))}, ",
        f"licence {each['licence']}, from ", link,
        *((tag("br"), "Put it at ", tag("code", each["where"])) if local else ()),
    )  # fmt: skip


def _local(desk: Desk) -> bool:
    return desk.settings.hosting.kind == "local"
