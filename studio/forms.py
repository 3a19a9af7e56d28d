"""Forms: the settings of a method as controls, drawn from its config. No method is known here by name.

Bounded number → slider, other number → number field, choice → dropdown, several choices → checkboxes,
yes/no → checkbox, text → text field; `expert` settings are folded away. A method that is added tomorrow
needs nothing here.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import gradio as gr
from pydantic.fields import FieldInfo

from pipelines.spec import Config, catalog, limits
from studio.heard import ACTIVE, DRAWN, QUIET, TYPED

MOST_STOPS = 400
MOST_WIDE = 100
FEW = 4
Table = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """What a control shows for a value, and the value for what it shows."""

    component: Any
    read: Callable[[Any], Any]


def choices(family: str) -> list[tuple[str, str]]:
    """(title, name) of every method of a family that works here; the broken are named by `broken`."""
    return [(method.title, name) for name, method in catalog(family, {}).items()]


def broken(family: str) -> dict[str, str]:
    """Methods that do not work in this installation, and why."""
    reasons: dict[str, str] = {}
    catalog(family, reasons)
    return reasons


def about(method: type[Config]) -> str:
    """What a method is, in the first sentence of its file."""
    text = sys.modules[method.__module__].__doc__ or ""
    return " ".join(text.strip().split("\n\n")[0].split())


def simple_of(method: type[Config]) -> list[tuple[str, FieldInfo]]:
    """The settings of a method that everybody sees, in its own order."""
    return [(key, each) for key, each in method.model_fields.items() if not _expert(each)]


class MethodForm:
    """The choice of a method and its settings, as one table in `state`: {"method": NAME, setting: value}.

    Built inside a Blocks. `state` is what a job takes; a table put there by code shows once `revision` is
    raised. Settings are remembered for each method while the page is open.
    """

    def __init__(
        self,
        family: str,
        label: str,
        default: Mapping[str, Any],
        *,
        load: Any,
        help: str = "",
        skip: tuple[str, ...] = (),
        elem_id: str = "",
    ) -> None:
        self.family, self._skip = family, skip
        self.state = gr.State(dict(default))
        self.revision = gr.State(0)
        self._past = gr.State({})
        self.choice = gr.Dropdown(
            choices(family), value=default.get("method"), label=label, info=help or None,
            elem_id=elem_id or None, interactive=True, filterable=False,
        )  # fmt: skip
        self.choice.input(
            self._chosen, [self.choice, self.state, self._past, self.revision],
            [self.state, self._past, self.revision], **ACTIVE,
        )  # fmt: skip
        self.revision.change(
            lambda table: gr.update(value=table.get("method")), self.state, self.choice,
            **QUIET,
        )  # fmt: skip

        @gr.render(inputs=[self.state], triggers=[load, self.revision.change], **DRAWN)
        def fields(table: Table) -> None:
            self._draw(table)

    def _chosen(
        self, name: str, table: Table, past: dict[str, Table], revision: int
    ) -> tuple[Table, dict[str, Table], int]:
        past = {**past, str(table.get("method")): table}
        fresh = {**past.get(name, {"method": name})}
        # what was put around a method stays there when the method inside changes
        fresh.pop("with", None)
        if around := {key: each for key, each in (table.get("with") or {}).items() if key != name}:
            fresh["with"] = around
        return fresh, past, revision + 1

    def _draw(self, table: Table) -> None:
        name = str(table.get("method"))
        method = catalog(self.family, {}).get(name)
        if method is None:
            gr.Markdown("This method is not in this installation.")
            return
        if line := about(method):
            gr.Markdown(f"{line} *{method.source}*", elem_classes="about")
        shown = [(key, each) for key, each in method.model_fields.items() if key not in self._skip]
        simple = [(key, each) for key, each in simple_of(method) if key not in self._skip]
        expert = [(key, each) for key, each in shown if _expert(each)]
        self._controls(name, simple, table)
        if expert:
            with gr.Accordion(f"More settings ({len(expert)})", open=False, elem_classes="expert"):
                self._controls(name, expert, table)

    def _controls(self, name: str, fields: list[tuple[str, FieldInfo]], table: Table) -> None:
        for key, each in fields:
            kept = control(key, each, table.get(key, each.get_default(call_default_factory=True)))
            if kept is None:
                continue

            def keep(value: Any, now: Table, key: str = key, kept: Kept = kept) -> Table:
                return set_to(now, key, kept.read(value)) if now.get("method") == name else now

            kept.component.input(
                keep, [kept.component, self.state], self.state, **TYPED,
            )  # fmt: skip


def set_to(table: Table, key: str, value: Any) -> Table:
    """A method's table with one setting changed; what is left empty goes back to the default."""
    rest = {name: each for name, each in table.items() if name != key}
    return rest if value is None else {**rest, key: value}


def control(key: str, field: FieldInfo, value: Any) -> Kept | None:
    """The control of a setting that shows `value`; None for a kind of setting that no control shows."""
    kind, optional = _plain(field.annotation)
    label = _label(key, field)
    common: dict[str, Any] = {
        "label": label, "info": field.description or None, "interactive": True, "elem_classes": "knob",
    }  # fmt: skip
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        options = [str(each) for each in get_args(get_args(kind)[0])]
        return Kept(gr.CheckboxGroup(options, value=list(value or ()), **common), tuple)
    if get_origin(kind) is Literal:
        options = [(str(each).replace("_", " "), each) for each in get_args(kind)]
        few = len(options) <= FEW
        return Kept((gr.Radio if few else gr.Dropdown)(options, value=value, **common), lambda now: now)
    if kind is bool:
        return Kept(gr.Checkbox(value=bool(value), **common), bool)
    if kind in (int, float):
        return _number(kind, field, value, optional, common)
    if kind is str:
        return Kept(gr.Textbox(value=value or "", max_length=4000, **common), lambda now: now or None)
    if get_origin(kind) is tuple and get_args(kind)[0] in (int, float, str):
        inner: Any = get_args(kind)[0]
        common["info"] = f"{common['info'] or ''} Several, with commas between.".strip()
        text = ", ".join(str(each) for each in value or ())
        return Kept(gr.Textbox(value=text, **common), lambda now: _list(now, inner))
    return None


def _number(kind: type, field: FieldInfo, value: Any, optional: bool, common: dict[str, Any]) -> Kept:
    low, high = limits(field.metadata)
    whole = kind is int

    def read(now: Any) -> Any:
        return None if now is None else (round(now) if whole else float(now))

    if low is not None and high is not None and not optional and _slides(whole, low, high, value):
        step = 1 if whole else _step(low, high)
        return Kept(gr.Slider(low, high, value=value, step=step, **common), read)
    if optional:
        # an empty number field would show 0, which here is something else than nothing
        shown = "" if value is None else f"{value:g}"
        box = gr.Textbox(value=shown, placeholder="automatic", max_lines=1, max_length=20, **common)
        return Kept(box, lambda now: number_in(now, kind))
    ends: dict[str, Any] = {"minimum": low, "maximum": high, "precision": 0 if whole else None}
    return Kept(gr.Number(value=value, **ends, **common), read)


def number_in(text: str | None, kind: type) -> Any:
    """The number in a text; None for an empty one; what is none stays a text, for the job to refuse."""
    words = (text or "").strip().replace(",", ".")
    try:
        return kind(words) if words else None
    except ValueError:
        return words


def _slides(whole: bool, low: float, high: float, value: float) -> bool:
    """Whether a hand can hit the values of a range; rates and counts over decades are typed."""
    if whole:
        return high - low <= MOST_STOPS
    return high - low <= MOST_WIDE and not (low and high / low > 1000) and not 0 < abs(value) < 0.002


def _step(low: float, high: float) -> float:
    width = high - low
    return 0.01 if width <= 2 else 0.05 if width <= 5 else 0.1 if width <= 30 else 0.5


def _list(text: str, kind: type) -> tuple[Any, ...]:
    return tuple(number_in(each, kind) for each in (text or "").split(",") if each.strip())


def _plain(annotation: Any) -> tuple[Any, bool]:
    """An annotation without its None, and whether it had one."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [each for each in get_args(annotation) if each is not type(None)]
        if len(inner) < len(get_args(annotation)):
            return (inner[0] if len(inner) == 1 else annotation), True
    return annotation, False


def _extra(field: FieldInfo, name: str) -> Any:
    extra = field.json_schema_extra
    return extra.get(name) if isinstance(extra, dict) else None


def _expert(field: FieldInfo) -> bool:
    return bool(_extra(field, "expert"))


def _label(key: str, field: FieldInfo) -> str:
    unit = _extra(field, "unit")
    words = key.replace("_", " ")
    words = words[:1].upper() + words[1:]
    return f"{words} ({unit})" if unit and unit != key else words
