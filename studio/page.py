"""The page: header, five tabs, side panel; and the post between them.

A tab is a module with `build(page)`. It registers its sheet (`page.register`), its live parts (`page.live`)
and sends settings to another tab by putting a parcel into `page.parcel`; nothing else is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

import gradio as gr

from pipelines.jobs import presets
from studio import panel, post
from studio.binding import Sheet
from studio.desk import Desk
from studio.guarded import guarded
from studio.hall import Hall
from studio.heard import ACTIVE, CLICKED, QUIET, one_last
from studio.live import Live
from studio.markup import clicked, tag
from studio.settings import PULSE
from studio.theme import LOOK

__all__ = ["LOOK", "TABS", "Page", "build"]

TABS = (
    ("train", "Train Concept"),
    ("compose", "Compose"),
    ("edit", "Edit"),
    ("identity", "Identity"),
    ("compare", "Compare"),
)
RACES = 5


class Page:
    """What the tabs share while the page is built."""

    def __init__(self, hall: Hall, demo: gr.Blocks) -> None:
        self.hall, self.demo = hall, demo
        self.live = Live(self.desk, f"{hall.settings.root_path.rstrip('/')}{PULSE}")
        self.parcel = gr.State({"to": "", "table": {}, "number": 0, "note": ""})
        self.tabs: Any = None
        self.changed: list[Any] = []
        """Listeners after which the live parts are drawn at once, without waiting for the next tick."""
        self._sheets: dict[str, Sheet] = {}

    def desk(self, request: Any) -> Desk:
        """The desk of whoever sent a request."""
        return self.hall.desk(request)

    @property
    def base(self) -> str:
        """The base that forms start with."""
        return self.hall.settings.base

    def register(self, name: str, sheet: Sheet) -> None:
        """A tab's controls: they take parcels, and what stands in them survives a reload."""
        self._sheets[name] = sheet

    def answers(
        self, *places: Any, more: Mapping[str, Callable[[Desk, str], dict[str, Any] | None]] | None = None
    ) -> None:
        """Let the buttons inside HTML places do what their acts say.

        Known everywhere: "stop" and "again" with a job's number, "use" (a picture's settings), and "edit",
        "identity" (send a picture there). `more` adds acts of a tab's own: (desk, value) → a parcel or None.
        """
        acts: dict[str, Callable[[Desk, str], dict[str, Any] | None]] = {**post.ACTS, **(more or {})}

        def answer(last: dict[str, Any], event: gr.EventData, request: gr.Request) -> Any:
            act, value = clicked(event)
            if act not in acts:
                return gr.skip()
            sent = acts[act](self.desk(request), value)
            return {**sent, "number": last["number"] + 1} if sent else gr.skip()

        for place in places:
            self.changed.append(place.click(guarded(answer), self.parcel, self.parcel, **CLICKED))

    def finish(self) -> None:
        """Wire what runs across tabs; called once, after all are built."""
        for name, sheet in self._sheets.items():
            self._keep_draft(name, sheet)
        everything = [each for sheet in self._sheets.values() for each in sheet.outputs]
        revisions = [each for sheet in self._sheets.values() for each in sheet.revisions]
        self.parcel.change(
            guarded(self._deliver), [self.parcel, *revisions], [self.tabs, *everything], **ACTIVE
        )
        self.live.wire(self.demo.load, self.changed)

    def _deliver(self, request: gr.Request, parcel: dict[str, Any], *revisions: int) -> list[Any]:
        values: list[Any] = []
        rest = list(revisions)
        for name, sheet in self._sheets.items():
            own, rest = rest[: len(sheet.revisions)], rest[len(sheet.revisions) :]
            if parcel["to"] == name:
                values += sheet.filled(parcel["table"], *own)
            elif parcel["to"] == post.EVERYWHERE:
                values += sheet.filled(self._with_base(request, sheet, parcel["table"]), *own)
            else:
                values += [gr.skip()] * len(sheet.outputs)
        if parcel["note"]:
            gr.Info(parcel["note"], duration=5)
        tab = gr.Tabs(selected=parcel["to"]) if parcel["to"] in dict(TABS) else gr.skip()
        return [tab, *values]

    def _with_base(self, request: gr.Request, sheet: Sheet, table: Mapping[str, Any]) -> dict[str, Any]:
        """Settings for every tab: where they name a base, with what suits it."""
        native = self.desk(request).native(str(table["base"])) if "base" in table else {}
        return presets.merge(presets.merge(native, native.get(sheet.kind) or {}), table)

    def _keep_draft(self, name: str, sheet: Sheet) -> None:
        def keep(request: gr.Request, *values: Any) -> None:
            table = {each.path: each.read(value) for each, value in zip(sheet.bound, values, strict=True)}
            self.desk(request).keep(name, table)

        def restore(request: gr.Request, *revisions: int) -> list[Any]:
            return sheet.filled(_nested(sheet.unlike(self.desk(request).draft(name))), *revisions)

        changes = [each.change for each in sheet.components if hasattr(each, "change")]
        gr.on(changes, keep, sheet.components, None, trigger_mode="always_last", **QUIET)
        # through the queue: from there alone the browser hears that a state changed
        self.demo.load(restore, sheet.revisions, sheet.outputs, **ACTIVE)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as a nested table, without what is None."""
    table: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, last = path.split(".")
        inner = table
        for each in folders:
            inner = inner.setdefault(each, {})
        if value is not None:
            inner[last] = value
    return table


class _Blocks(gr.Blocks):
    """Gradio's, with limits on its queue and without three of its faults."""

    def queue(self, *given: Any, **named: Any) -> Any:
        """As Gradio's, with our limits from the start: setting them later makes the whole app once more."""
        super().queue(*given, **{"max_size": 64, "default_concurrency_limit": 8, **named})
        clean = self._queue.clean_events

        async def cleaned(*, session_hash: str | None = None, event_id: str | None = None) -> None:
            # A page closes its stream when the last answer it knows of has come. Gradio then drops all that
            # waits for that page, also a click whose number is still on its way to it.
            if event_id is not None:
                await clean(event_id=event_id)

        self._queue.clean_events = cleaned
        return self

    def get_config_file(self) -> Any:
        """As Gradio's, with States that the browser knows to be empty.

        It is never told a State's value. Where it was not told that either, the first answer that names a
        State counts as a change of it, and everything that follows the State runs once for nothing.
        """
        config = super().get_config_file()
        for each in config["components"]:
            if each["type"] == "state":
                each["props"]["value"] = None
        return config

    def get_state_ids_to_track(self, block_fn: Any, state: Any) -> tuple[list[int], list[Any]]:
        """As Gradio's, which walks its table of listeners while a render of the same page may add to it."""
        for _ in range(RACES):
            with suppress(RuntimeError):
                return super().get_state_ids_to_track(block_fn, state)
        return super().get_state_ids_to_track(block_fn, state)


def build(hall: Hall) -> gr.Blocks:
    """The whole page over a hall."""
    with _Blocks(
        title="Likeness Studio", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86_400)
    ) as demo:
        page = Page(hall, demo)
        import_module("studio.api").build(page)  # first: its names are the ones that programs know
        with gr.Row(elem_id="top"):
            gr.HTML(
                tag(
                    "div",
                    tag("h1", "Likeness Studio"),
                    tag(
                        "p",
                        "Teach a model your subject, draw it anywhere, and see honestly how well it worked.",
                    ),
                    cls="brand",
                ),
                elem_id="brand",
            )
            panel.status(page)
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as page.tabs:
            for name, title in TABS:
                with gr.Tab(title, id=name, elem_id=f"tab-{name}"):
                    import_module(f"studio.tabs.{name}").build(page)
        panel.build(page)
        page.finish()
    for each in demo.fns.values():
        if each.show_progress == "hidden":  # gr.render does not take the argument, see studio/heard.py
            each.show_progress_on = []
    one_last(demo.fns.values())
    return demo
