"""What the parts of the side panel share: the script of their own HTML, rows, and names of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.jobs.store import Row
from studio.markup import Markup, action, tag
from studio.words import KINDS


def script(name: str) -> str:
    """A script that stands beside this module, for the `js_on_load` of a gr.HTML."""
    return Path(__file__).with_name(f"{name}.js").read_text(encoding="utf-8")


CLICKS = script("panel_clicks")
"""For `gr.HTML(js_on_load=CLICKS)`: buttons made by `action`, with `data_confirm` asked first, with
`data_field` sent together with what stands in that field of the same row (after a line break). What was
unfolded stays so when the part is drawn anew, and the focus stays on its button."""


def asked(value: str) -> tuple[str, str]:
    """What a button with a field sent: (its value, what stands in the field)."""
    name, _, text = value.partition("\n")
    return name, text


def subject(row: Row) -> str:
    """What a job is about, in the words of whoever sent it; "" where it says nothing."""
    spec: Any = row.spec
    if spec.kind == "train":
        return f"{spec.data.token} {spec.data.class_word}".strip()
    prompts = getattr(spec, "prompts", ())
    if prompts:
        return str(prompts[0])
    for name in ("title", "prompt", "base"):
        if said := getattr(spec, name, ""):
            return str(said)
    return ""


def kind(row: Row) -> str:
    """A job's kind in plain words."""
    return KINDS.get(row.spec.kind, row.spec.kind.replace("_", " ").capitalize())


def icon(sign: str, label: str, act: str, value: object, **more: object) -> Markup:
    """A small button with a sign on it and a name for whoever cannot see it."""
    return action(sign, act, value, cls="act icon", aria_label=label, title=label, **more)


def fold(key: str, title: object, *inside: object) -> Markup:
    """Something folded away under its title."""
    return tag("details", tag("summary", title), *inside, data_key=key, cls="fold")


def fact(name: str, value: object) -> Markup:
    """A line: a name, and what it is."""
    return tag("div", tag("span", name), tag("b", value), cls="fact")
