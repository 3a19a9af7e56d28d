"""HTML of our own, in which whatever came from people is text and nothing else.

`tag("p", caption, cls="note")` escapes every string; only what `tag` made is taken as it is.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

ACT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (!button || !element.contains(button) || button.getAttribute('aria-disabled') === 'true') return;
  event.preventDefault();
  trigger('click', {act: button.dataset.act, value: button.dataset.value || ''});
});
"""
"""For `gr.HTML(js_on_load=ACT)`: a click on an element made by `action` reaches the listener (`clicked`)."""

_VOID = frozenset({"img", "br", "input", "hr", "meta"})


class Markup(str):
    """Text that is HTML already."""


def text(value: object) -> Markup:
    """Anything as text: escaped, also against the templates of the page ("{{…}}", "${…}")."""
    if isinstance(value, Markup):
        return value
    escaped = html.escape(str(value), quote=True)
    return Markup(escaped.replace("{", "&#123;").replace("$", "&#36;"))


def tag(name: str, *inside: object, cls: str = "", **attributes: object) -> Markup:
    """An element; children that are None are left out, `data_act` becomes data-act, True a bare attribute."""
    pairs = ({"class": cls} if cls else {}) | attributes
    words = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in pairs.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{words}>")
    return Markup(f"<{name}{words}>{join(inside)}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Parts one after another."""
    return Markup("".join(text(each) for each in parts if each is not None))


def action(label: object, act: str, value: object = "", *, cls: str = "act", **attributes: object) -> Markup:
    """A button that the listener of its component hears of as (act, value)."""
    return tag("button", label, cls=cls, type="button", data_act=act, data_value=value, **attributes)


def clicked(event: Any) -> tuple[str, str]:
    """(act, value) of a click that `ACT` sent; empty for any other."""
    data = getattr(event, "_data", None)
    table = data if isinstance(data, dict) else {}
    return str(table.get("act", "")), str(table.get("value", ""))


def step(number: int, title: str, hint: str = "") -> Markup:
    """The heading of a step of a tab."""
    aside = tag("span", hint) if hint else None
    return tag("div", tag("i", str(number)), tag("h2", title), aside, cls="step")


def note(*inside: object, kind: str = "info") -> Markup:
    """A sentence set apart; `kind` is info, good, warning or bad."""
    role = "alert" if kind == "bad" else "status"
    return tag("div", *inside, cls=f"note note-{kind}", role=role)


def problem(message: str, remedy: str) -> Markup:
    """What went wrong and the way out."""
    return note(tag("strong", message), " ", remedy, kind="bad")


def empty(title: str, hint: object, picture: str = "") -> Markup:
    """What stands where nothing is yet: what will be here, and what to do for it."""
    image = tag("img", src=picture, alt="", loading="lazy") if picture else None
    return tag("div", image, tag("strong", title), tag("span", hint), cls="empty")


def bar(share: float | None, label: str = "") -> Markup:
    """A progress bar; without a share it moves to and fro."""
    value = None if share is None else round(min(1.0, max(0.0, share)) * 100, 1)
    inner = tag("i", style=f"width:{value}%") if value is not None else tag("i", cls="busy")
    return tag(
        "div", inner, cls="bar", role="progressbar", aria_label=label or "progress", aria_valuenow=value,
        aria_valuemin=0, aria_valuemax=100,
    )  # fmt: skip


def readout(name: str, value: float | None, title: str = "") -> Markup:
    """One figure under its name."""
    shown = "–" if value is None else f"{value:.2f}"
    return tag("span", tag("small", name), tag("b", shown), cls="readout", title=title or None)
