"""Compare, a grid: the drawing that varies, what it will cost, and the grid that came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, cast

from pipelines.errors import LikenessError
from pipelines.jobs import presets
from pipelines.jobs.spec import Compare
from pipelines.jobs.store import Row
from studio import gallery, history
from studio.compare_axes import MOST, Setting, cells, drawing, effort, grid, settings_of, work
from studio.compare_export import cell_pictures, cell_points, said
from studio.compare_export import cells as rows_of
from studio.compare_parts import Cell, downloads, number, table, told
from studio.compare_runs import WAITING
from studio.compare_values import shown
from studio.desk import Desk
from studio.history import Entry
from studio.markup import Markup, action, empty, join, note, problem, tag
from studio.scatter import scatter
from studio.words import READOUTS, count, duration

LAST = 12
SEEDS = 4

Table = dict[str, Any]
QUICK: tuple[tuple[str, str], ...] = (
    ("weight", "Adapter strength"),
    ("with", "With and without the adapter"),
    ("guidance", "Guidance"),
    ("seeds", "Seeds"),
)
"""Grids of one click: (name, what the button says)."""


def newest(desk: Desk) -> Table:
    """The drawing that was made last, as a job table; empty without one."""
    rows = [row for kind in ("compose", "edit") if (row := desk.latest(kind)) is not None]
    return max(rows, key=lambda row: row.id).spec.portable() if rows else {}


def varied(desk: Desk, job: Mapping[str, Any]) -> Table:
    """The drawing that a grid varies: the one that was sent here, else the newest."""
    return dict(job) if job else newest(desk)


def quick(name: str, job: Mapping[str, Any]) -> list[Table]:
    """The axes of a grid of one click, as a form holds them; empty where the drawing has nothing of it."""
    spec = drawing(job)
    stack = [(f"adapters.{index}.weight", each) for index, each in enumerate(spec.adapters)]
    seeds = {"path": "seed", "text": f"{SEEDS} seeds"}
    if name in ("weight", "with"):
        weights = "0..1.25 step 0.25" if name == "weight" else "0, 1"
        return [{"path": path, "text": weights} for path, _ in stack[:1]] + ([seeds] if stack else [])
    if name == "guidance":
        scales = [each for each in settings_of(job) if each.path == "guidance.scale"]
        return [{"path": each.path, "text": "1, 2.5, 5, 7.5, 10"} for each in scales] + (
            [seeds] if scales else []
        )
    return [{"path": "seed", "text": "8 seeds"}]


def shipped(desk: Desk) -> dict[str, str]:
    """The grids that have a preset: name → title."""
    found: dict[str, str] = {}
    for name, path in presets.names("grids", desk.folder).items():
        try:
            found[name] = str(presets.read_file(path).get("title") or name)
        except LikenessError:  # a damaged file of one's own does not hide the others
            continue
    return found


def axes_text(axes: Sequence[Mapping[str, Any]], known: Mapping[str, Setting]) -> list[tuple[str, str]]:
    """Axes as a form shows them: (path, values as text), three of them."""
    pairs: list[tuple[str, str]] = []
    for axis in axes[:3]:
        path = str(axis.get("path") or "")
        kind = known[path].kind if path in known else "any"
        values = cast("Sequence[Any]", axis.get("values") or ())
        pairs.append((path, str(axis["text"]) if "text" in axis else shown(values, kind)))
    return pairs + [("", "")] * (3 - len(pairs))


def summary(desk: Desk, job: Mapping[str, Any]) -> Markup:
    """The drawing that varies, in a few lines."""
    table_ = varied(desk, job)
    if not table_:
        return empty(
            "There is no drawing to vary yet", "Draw something under Compose, or load a ready grid below."
        )
    try:
        spec = drawing(table_)
    except LikenessError as error:
        return problem(error.message, error.remedy)
    stack = ", ".join(f"{each.adapter.rpartition(':')[2]} at {each.weight:g}" for each in spec.adapters)
    facts = [
        ("Prompt", spec.prompts[0] if spec.prompts else "none yet"),
        ("Adapters", stack or "none"),
        ("Base", spec.base),
        ("Guidance", " ".join(told(each) for each in spec.guidance.values())),
        ("Sampler", f"{spec.sampler.name}, {spec.sampler.steps} steps"),
        ("Likeness to", spec.references or "nothing: it is not measured"),
    ]
    lines = [join([tag("dt", name), tag("dd", value)]) for name, value in facts]
    origin = "as it was sent here" if job else "your newest pictures"
    what = "edit" if spec.kind == "edit" else "drawing"
    return tag(
        "div", tag("p", f"The {what} that varies: {origin}", cls="quiet"), tag("dl", *lines), cls="facts"
    )


def pace(desk: Desk, base: str) -> float | None:
    """Seconds a unit of `effort` on a base, from the last drawings; None where there are none yet."""
    rows = [
        row
        for kind in ("compose", "edit")
        for row in desk.store.jobs(LAST, "done", kind)
        if row.base == base and row.result
    ]
    speeds: list[float] = []
    for row in rows:
        seconds = cast("Mapping[str, Any]", (row.result or {}).get("seconds") or {})
        spent = sum(float(seconds.get(name) or 0) for name in ("draw", "measure"))
        if spent > 0 and (work_ := effort(row.spec.model_dump())) > 0:
            speeds.append(spent / work_)
    return median(speeds) if speeds else None


def forecast(desk: Desk, job: Mapping[str, Any], axes: Sequence[Mapping[str, Any]], pictures: int) -> Markup:
    """How many pictures a grid has and how long it will take, or what is still missing."""
    table_ = varied(desk, job)
    if not table_ or not any(str(each.get("path") or "").strip() for each in axes):
        return Markup("")
    try:
        spec = grid(table_, axes, count=pictures)
    except LikenessError as error:
        return note(tag("strong", error.message), " ", error.remedy, kind="warning")
    held = spec.model_dump()["axes"]
    sizes = " × ".join(str(len(each["values"])) for each in held)
    total = cells(held)
    each_cell = f", {count(pictures, 'picture')} in each" if pictures > 1 else ""
    text = (
        f"{count(total, 'cell')} ({sizes}){each_cell}."
        if len(held) > 1
        else f"{count(total, 'cell')}{each_cell}."
    )
    speed = pace(desk, str(spec.job.get("base", "")))
    if speed is None:
        return note(f"{text} How long it takes is known after your first pictures with this base.")
    return note(f"{text} About {duration(max(1.0, speed * work(spec)))}, judging by your earlier pictures.")


# ---- the result


def latest(desk: Desk) -> Row | None:
    """The newest grid: the one that is shown."""
    return desk.latest("compare")


def progress(desk: Desk) -> Markup:
    """How far the newest grid is, with its newest preview."""
    row = latest(desk)
    return join([gallery.progress(desk, row), gallery.preview(desk, row)])


def result(desk: Desk) -> Markup:
    """The newest finished grid: pictures, figures of its cells, plot, exports."""
    row = latest(desk)
    if row is None:
        return empty("Your grid appears here", "Choose what varies on the left, then press Draw the grid.")
    if row.status != "done":
        earlier = desk.store.jobs(1, "done", "compare")
        if not earlier:
            return Markup("")
        row = earlier[0]
    entry = history.entry(desk, row)
    if not entry.folder.is_dir():
        return empty("This grid was deleted", "Draw it again, or take another from the history.")
    notes = cast("Sequence[str]", entry.result.get("notes") or ())
    plot = scatter(
        cell_points(entry), "Likeness against obedience", "obedience (CLIP-T)", "likeness (DINO-I)",
        waiting=WAITING,
    )  # fmt: skip
    return join(
        [
            tag("h3", entry.title),
            tag("p", _took(entry), cls="quiet"),
            *(_sheet(desk, shot.path, entry, index) for index, shot in enumerate(entry.shots)),
            _exports(desk, entry),
            _best(entry),
            tag("h3", "Every cell"),
            _table(desk, entry),
            tag("h3", "Likeness against obedience"),
            plot,
            *(note(each) for each in notes[:6]),
            tag("details", tag("summary", "The command that draws this grid again"),
                tag("p", "Save the grid as TOML beside it first.", cls="quiet"),
                tag("pre", said(entry.spec)), cls="commands"),
        ]
    )  # fmt: skip


def _took(entry: Entry) -> str:
    rows = rows_of(entry)
    spent = f", {duration(entry.seconds)}" if entry.seconds is not None else ""
    return f"{count(len(rows), 'cell')}{spent}"


def _sheet(desk: Desk, path: Path, entry: Entry, index: int) -> Markup | None:
    where = desk.url(path)
    if not where:
        return None
    spec = cast("Compare", entry.spec)
    across = " against ".join(each.path for each in spec.axes[:2])
    alt = f"Grid of {across}, page {index + 1}" if len(entry.shots) > 1 else f"Grid of {across}"
    ident = f"compare-zoom-{entry.id}-{index}"
    return tag(
        "div",
        tag("label", "Zoom", for_=ident, cls="quiet"),
        tag("input", type="range", min=40, max=400, step=10, value=100, cls="zoom", id=ident),
        tag(
            "div",
            tag("a", tag("img", src=where, alt=alt), href=where, target="_blank", data_large=alt),
            cls="sheet-frame", tabindex="0", role="region", aria_label=alt,
        ),
        cls="zoomable",
    )  # fmt: skip


def _best(entry: Entry) -> Markup | None:
    """Which cell leads in each readout, in a sentence; nothing with a single cell."""
    rows = rows_of(entry)
    paths = [each.path for each in cast("Compare", entry.spec).axes]
    lines: list[str] = []
    for name in ("dino_i", "clip_t"):
        measured = [row for row in rows if isinstance(row.get(name), int | float)]
        if len(measured) > 1:
            best = max(measured, key=lambda row: float(row[name]))
            where = ", ".join(f"{path} {told(best.get(path))}" for path in paths)
            lines.append(f"Highest {READOUTS[name][0]}: {float(best[name]):.2f} at {where}.")
    return note(" ".join(lines)) if lines else None


def _table(desk: Desk, entry: Entry) -> Markup:
    """The cells as rows: picture, values, readouts, seconds, and a way back to Compose."""
    rows, pictures = rows_of(entry)[:MOST], cell_pictures(entry)
    paths = [each.path for each in cast("Compare", entry.spec).axes]
    figures = [
        name
        for name in dict.fromkeys(name for row in rows for name in row)
        if name not in (*paths, "seconds") and any(_figure(row.get(name)) is not None for row in rows)
    ]
    columns = [("cell", ""), *((path, "") for path in paths)]
    columns += [READOUTS.get(name, (name.replace("_", " "), "")) for name in figures]
    columns += [("seconds", "to draw it"), ("settings", "")]
    lines: list[list[Cell]] = []
    for index, row in enumerate(rows):
        picture = pictures[index] if index < len(pictures) else None
        where = desk.url(picture) if picture else ""
        values = " · ".join(told(row.get(path)) for path in paths)
        thumbnail: object = "–"
        use: object = "–"
        if picture is not None and where:
            said_ = f"Cell {index + 1}: {values}"
            image = tag("img", src=where, alt=said_, loading="lazy", cls="thumb")
            thumbnail = tag("a", image, href=where, target="_blank", data_large=said_)
            about = "Fill the tab with the settings of this cell"
            use = action("Use", "use", desk.reference(picture), title=about)
        lines.append(
            [
                Cell(thumbnail, float(index)),
                *(_axis_cell(row.get(path)) for path in paths),
                *(number(_figure(row.get(name))) for name in figures),
                number(_figure(row.get("seconds")), "{:.1f}".format),
                Cell(use, float(index)),
            ]
        )
    return table(columns, lines, "Every cell of the grid with its readouts")


def _axis_cell(value: Any) -> Cell:
    figure = _figure(value)
    return Cell(told(value), figure, True) if figure is not None else Cell(told(value))


def _figure(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _exports(desk: Desk, entry: Entry) -> Markup:
    name = f"grid-{entry.id}"
    base = desk.export_url(name)
    links = [
        (f"Picture{f' {index + 1}' if len(entry.shots) > 1 else ''} (PNG)", where,
         f"likeness-{name}{f'-{index + 1}' if len(entry.shots) > 1 else ''}.png")
        for index, shot in enumerate(entry.shots)
        if (where := desk.url(shot.path))
    ]  # fmt: skip
    links += [
        (label, f"{base}.{form}", f"likeness-{name}.{form}")
        for label, form in (
            ("Table (CSV)", "csv"),
            ("Everything (JSON)", "json"),
            ("Page that opens alone (HTML)", "html"),
            ("Grid (TOML)", "toml"),
        )
    ]
    return tag("div", downloads(links), cls="exports")
