"""Compare: runs of the history side by side, or one drawing laid out over one to three settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import presets
from studio import compare_grid, compare_runs, post
from studio.binding import Sheet
from studio.compare_axes import Setting, grid, settings_of
from studio.compare_form import AxesForm, collected
from studio.compare_script import SCRIPT
from studio.desk import Desk
from studio.guarded import guarded
from studio.heard import ACTIVE, QUIET
from studio.markup import tag

if TYPE_CHECKING:
    from studio.page import Page

KINDS = (
    ("All", ""),
    ("Pictures", "compose"),
    ("Edits", "edit"),
    ("Trainings", "train"),
    ("Grids", "compare"),
)


def build(page: Page) -> None:
    """Two ways to compare, as tabs of their own."""
    with gr.Tabs(elem_id="compare-ways") as ways:
        with gr.Tab("Runs side by side", id="runs", elem_id="compare-way-runs"):
            _runs(page)
        with gr.Tab("A grid over settings", id="grid", elem_id="compare-way-grid"):
            _grid(page)

    def opened(parcel: dict[str, Any]) -> Any:
        return gr.Tabs(selected="grid") if parcel.get("to") == "compare" else gr.skip()

    page.parcel.change(opened, page.parcel, ways, **QUIET)


def _runs(page: Page) -> None:
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_classes="section"):
            gr.HTML(tag("h2", "Your runs"))
            kind = gr.Radio(
                list(KINDS), value="", label="Kind", elem_id="compare-kind", interactive=True,
                info="Which runs to list.",
            )  # fmt: skip
            words = gr.Textbox(
                label="Look for", max_length=200, elem_id="compare-search", interactive=True,
                placeholder="dog beach", info="Words of the prompt, the settings or the name of the run.",
            )  # fmt: skip
            shelf = gr.HTML(js_on_load=SCRIPT, elem_id="compare-list")
        with gr.Column(scale=7, min_width=320, elem_classes="section"):
            gr.HTML(tag("h2", "Side by side"))
            board = gr.HTML(js_on_load=SCRIPT, elem_id="compare-board")

    def search(request: gr.Request, kind: str, text: str) -> None:
        compare_runs.search(page.desk(request), kind or "", text or "")

    def remembered(request: gr.Request) -> tuple[Any, Any]:
        now = compare_runs.state(page.desk(request))
        return gr.update(value=now.kind), gr.update(value=now.text)

    page.demo.load(remembered, None, [kind, words], **QUIET)
    asked = gr.on(
        [kind.input, words.input, words.submit, words.blur],
        guarded(search),
        [kind, words],
        None,
        trigger_mode="always_last",
        **QUIET,
    )
    page.changed.append(asked)
    page.live.add(shelf, compare_runs.key, compare_runs.shelf)
    page.live.add(board, compare_runs.key, compare_runs.board)
    page.answers(shelf, board, more=compare_runs.ACTS)


@dataclass(frozen=True)
class _Form:
    """The controls of a grid."""

    job: Any
    about: Any
    newest: Any
    quick: Mapping[str, Any]
    axes: AxesForm
    pictures: Any
    title: Any
    cost: Any
    go: Any
    ready: Any


def _grid_form() -> _Form:
    """What is drawn, what varies, and the button."""
    job = gr.State({})
    gr.HTML(tag("h2", "1 · What is drawn"))
    about = gr.HTML(elem_id="compare-about")
    newest = gr.Button("Vary my newest pictures", size="sm", elem_id="compare-newest")
    gr.HTML(tag("h2", "2 · What varies"))
    with gr.Row(elem_classes="quick"):
        quick = {
            name: gr.Button(label, size="sm", min_width=90, elem_id=f"compare-quick-{name}")
            for name, label in compare_grid.QUICK
        }
    axes = AxesForm()
    pictures = gr.Slider(
        1, 8, value=1, step=1, label="Pictures a cell", elem_id="compare-pictures",
        info="More make the figures steadier and take longer; the grid shows the first of each.",
    )  # fmt: skip
    title = gr.Textbox(
        label="Title", max_length=120, elem_id="compare-title",
        info="What you want to find out; it names the grid in the history.",
    )  # fmt: skip
    cost = gr.HTML(elem_id="compare-cost")
    go = gr.Button(
        "Draw the grid", variant="primary", size="lg", elem_id="compare-go", elem_classes="primary-action"
    )
    with gr.Accordion("Ready-made grids", open=False):
        ready = gr.Dropdown(
            [], label="Grid", elem_id="compare-ready", interactive=True,
            info="Fills this form with a drawing and its axes.",
        )  # fmt: skip
    return _Form(job, about, newest, quick, axes, pictures, title, cost, go, ready)


def _grid(page: Page) -> None:
    sheet = Sheet("compare")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_classes="section"):
            form = _grid_form()
        with gr.Column(scale=7, min_width=320):
            state = gr.HTML(js_on_load=SCRIPT, elem_id="compare-progress")
            shown = gr.HTML(js_on_load=SCRIPT, elem_id="compare-result")
    sheet.add("job", form.job)
    # a form is what has state and revision
    sheet.add_form("axes", form.axes)  # pyright: ignore[reportArgumentType]
    sheet.add("title", form.title)
    sheet.add("pictures", form.pictures)

    def draw(request: gr.Request, table: dict[str, Any], name: str, count: int, *controls: Any) -> None:
        # what stands in the controls counts, whether or not the state has heard of it by now
        desk, held = page.desk(request), collected(controls[:3], controls[3:])
        varied = compare_grid.varied(desk, table)
        desk.submit(grid(varied, held, (name or "").strip(), int(count or 1)))

    _told(page, form)
    _filling(page, form)
    inputs = [form.job, form.title, form.pictures, *form.axes.controls]
    page.changed.append(form.go.click(guarded(draw), inputs, None, **ACTIVE))
    page.live.add(state, lambda desk: desk.stamp("compare"), compare_grid.progress)
    page.live.add(shown, _finished, compare_grid.result)
    page.register("compare", sheet)
    page.answers(state, shown, more=compare_runs.ACTS)


def _told(page: Page, form: _Form) -> None:
    """What the form says of itself: the drawing in short, and what the grid will cost."""

    def known(request: gr.Request, table: Mapping[str, Any]) -> dict[str, Setting]:
        return _settings(compare_grid.varied(page.desk(request), table))

    def described(request: gr.Request, table: dict[str, Any]) -> Any:
        return compare_grid.summary(page.desk(request), table)

    def priced(request: gr.Request, table: dict[str, Any], held: list[Any], count: int) -> Any:
        return compare_grid.forecast(page.desk(request), table, held, int(count or 1))

    job, axes = form.job, form.axes
    axes.wire(job, known, page.demo.load)
    gr.on([page.demo.load, job.change], described, job, form.about, **QUIET)
    changes = [page.demo.load, job.change, axes.state.change, form.pictures.change]
    gr.on(changes, priced, [job, axes.state, form.pictures], form.cost, trigger_mode="always_last", **QUIET)


def _filling(page: Page, form: _Form) -> None:
    """Drawings and axes in one click: the newest pictures, quick sweeps, ready-made grids."""

    def load(request: gr.Request, name: str, number: dict[str, Any]) -> Any:
        if not name:
            return gr.skip()
        table = presets.load("grids", name, page.desk(request).folder)
        sent = post.parcel("compare", table, f"The grid “{table.get('title', name)}” is filled in.")
        return {**sent, "number": number["number"] + 1}

    # through the queue: the browser hears of a changed State only from there
    form.newest.click(guarded(_newest(page)), None, form.job, **ACTIVE)
    for name, button in form.quick.items():
        changed = [form.axes.state, form.axes.revision]
        button.click(guarded(_filled(page, name)), [form.job, form.axes.revision], changed, **ACTIVE)
    page.demo.load(_ready(page), None, form.ready, **QUIET)
    form.ready.input(guarded(load), [form.ready, page.parcel], page.parcel, **ACTIVE)


def _newest(page: Page) -> Any:
    def newest(request: gr.Request) -> dict[str, Any]:
        return compare_grid.newest(page.desk(request))

    return newest


def _filled(page: Page, name: str) -> Any:
    def filled(request: gr.Request, table: dict[str, Any], revision: int) -> Any:
        varied = compare_grid.varied(page.desk(request), table)
        found = compare_grid.quick(name, varied) if varied else []
        if not found:
            raise BadInput(
                "This drawing has nothing of the kind.",
                "Draw with an adapter under Compose, and send it here.",
            )
        return found, revision + 1

    return filled


def _ready(page: Page) -> Any:
    def ready(request: gr.Request) -> Any:
        titles = compare_grid.shipped(page.desk(request))
        return gr.update(choices=[(title, name) for name, title in titles.items()])

    return ready


def _finished(desk: Desk) -> Any:
    """The grid that is shown changes when one ends, not with every cell."""
    row = desk.latest("compare")
    return (row.id, row.status) if row else None, desk.stamp("bin")


def _settings(table: Mapping[str, Any]) -> dict[str, Setting]:
    try:
        return {each.path: each for each in settings_of(table)} if table else {}
    except LikenessError:
        return {}
