"""A method and its settings in one line, for where its form is folded away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.spec import catalog
from studio.forms import simple_of

MOST = 3


def in_short(family: str, table: Mapping[str, Any]) -> list[str]:
    """A method's title and its first few figures: ["DreamBooth", "400 steps", "batch 1", …].

    Empty where the table names no method that is installed.
    """
    method = catalog(family, {}).get(str(table.get("method")))
    if method is None:
        return []
    figures: list[str] = []
    for key, field in simple_of(method):
        value = table.get(key, field.get_default(call_default_factory=True))
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        words = key.replace("_", " ")
        # what is counted reads the other way round: 150 steps, but batch 4
        counted = words.endswith("s") and isinstance(value, int)
        figures.append(f"{value:,} {words}" if counted else f"{words} {value:g}")
    return [method.title, *figures[:MOST]]
