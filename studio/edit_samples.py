"""Scenes to try editing on: pictures of the embedded base that say themselves what they show."""

from __future__ import annotations

from functools import lru_cache

from pipelines.artifacts import assets
from pipelines.errors import LikenessError
from pipelines.jobs import pictures
from studio.desk import Desk
from studio.markup import Markup, action, tag

FOLDER = "samples"


@lru_cache(maxsize=1)
def scenes() -> tuple[tuple[str, str], ...]:
    """(reference, what it shows) of every scene; those that cannot be read are left out."""
    found: list[tuple[str, str]] = []
    for path in sorted((assets() / FOLDER).glob("*.png")):
        try:
            prompts = pictures.like(path).table.get("prompts") or [""]
        except LikenessError:
            continue
        found.append((f"asset:{FOLDER}/{path.name}", str(prompts[0])))
    return tuple(found)


def strip(desk: Desk) -> Markup:
    """The scenes as buttons."""
    buttons = [
        action(
            tag("img", src=desk.url(reference), alt="", loading="lazy"), "edit-sample", reference,
            cls="thumb", title=words, aria_label=f"Take the sample: {words}",
        )
        for reference, words in scenes()
    ]  # fmt: skip
    return tag("div", tag("p", "Or take a sample:", cls="quiet"), tag("div", *buttons, cls="thumbs"))
