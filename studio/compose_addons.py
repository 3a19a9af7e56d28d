"""What can stand around a guidance method, and what a step costs with it. No method is known here by name.

A method whose `stage` is not "combine" may be put around another (`guidance.with.NAME`); how many rows of the
network a step takes is what the methods themselves declare.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from pipelines.errors import LikenessError
from pipelines.spec import Config, catalog, read
from studio.forms import MethodForm, about, control
from studio.heard import ACTIVE, DRAWN, QUIET, TYPED
from studio.markup import Markup, tag
from studio.words import count

if TYPE_CHECKING:
    from studio.page import Page

FAMILY = "guidance"
Table = dict[str, Any]


def stackable() -> dict[str, type[Config]]:
    """The methods that may stand around another, by name."""
    found = catalog(FAMILY, {})
    return {name: each for name, each in found.items() if getattr(each, "stage", "combine") != "combine"}


def chosen(table: Mapping[str, Any]) -> list[str]:
    """The names of what stands around the method of a guidance table."""
    return list(cast("Table", table.get("with") or {}))


def put_around(table: Mapping[str, Any], names: list[str]) -> Table:
    """A guidance table with these methods around it; the settings of those that were there stay."""
    before = cast("Table", table.get("with") or {})
    around = {name: before.get(name, {}) for name in names if name != table.get("method")}
    rest = {key: value for key, value in table.items() if key != "with"}
    return {**rest, "with": around} if around else rest


def rows_a_step(table: Mapping[str, Any]) -> int | None:
    """Rows of the network that one step of one picture takes; None where the table does not fit yet."""
    try:
        inner = {key: value for key, value in table.items() if key != "with"}
        around = cast("Mapping[str, Table]", table.get("with") or {})
        methods = [
            read(FAMILY, inner),
            *(read(FAMILY, {"method": name, **each}) for name, each in around.items()),
        ]
    except LikenessError:
        return None
    branches = dict.fromkeys(branch for each in methods for branch in cast("Any", each).branches())
    return len(branches) + sum(int(cast("Any", each).extra_rows()) for each in methods)


def cost(table: Mapping[str, Any], steps: float | None, pictures: int) -> Markup:
    """What a click on Draw will ask of the machine, in a line."""
    rows = rows_a_step(table)
    if rows is None or not steps:
        return Markup("")
    whole = rows * int(steps) * pictures
    return tag(
        "p",
        tag("b", count(pictures, "picture")),
        f" · {int(steps)} steps",
        tag("span", f" · the network runs {whole:,} times", cls="sum"),
        cls="quiet cost",
        title=f"{rows} a step and picture. Time grows with their number; some guidance needs more.",
    )


class AddOns:
    """Methods around the one of a form; what they say goes into the form's own table, under "with"."""

    def __init__(self, page: Page, form: MethodForm, *, name: str) -> None:
        known = stackable()
        self.choice = gr.CheckboxGroup(
            [(each.title, key) for key, each in known.items()], value=chosen({}), label="Add around it",
            info="Each adds its own push to every step, and its own cost.", elem_id=f"{name}-addons",
            visible=bool(known),
        )  # fmt: skip
        self._known = known
        self._drawn = gr.State(0)
        self.choice.input(
            lambda names, table, drawn: (put_around(table, names), drawn + 1),
            [self.choice, form.state, self._drawn], [form.state, self._drawn], **ACTIVE,
        )  # fmt: skip
        gr.on(
            [form.revision.change, page.demo.load],
            lambda table: gr.update(value=chosen(table), choices=self._choices(table)),
            form.state, self.choice, **QUIET,
        )  # fmt: skip

        @gr.render(
            inputs=[form.state], triggers=[page.demo.load, form.revision.change, self._drawn.change],
            **DRAWN,
        )  # fmt: skip
        def fields(table: Table) -> None:
            for key in chosen(table):
                self._draw(form, key, cast("Table", table["with"]).get(key) or {})

    def _choices(self, table: Table) -> list[tuple[str, str]]:
        return [(each.title, key) for key, each in self._known.items() if key != table.get("method")]

    def _draw(self, form: MethodForm, name: str, table: Table) -> None:
        method = self._known.get(name)
        if method is None:
            gr.Markdown("One of the additions is not in this installation.")
            return
        gr.Markdown(f"**{method.title}.** {about(method)}", elem_classes="about")
        for key, field in method.model_fields.items():
            shown = control(key, field, table.get(key, field.get_default(call_default_factory=True)))
            if shown is None:
                continue

            def keep(value: Any, now: Table, key: str = key, read: Any = shown.read) -> Table:
                around = cast("Table", now.get("with") or {})
                if name not in around:
                    return now
                return {**now, "with": {**around, name: {**around[name], key: read(value)}}}

            shown.component.input(
                keep, [shown.component, form.state], form.state, **TYPED,
            )  # fmt: skip
