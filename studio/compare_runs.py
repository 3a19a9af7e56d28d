"""Compare, runs from the history: the list to choose from, and what is chosen side by side.

What is filtered and chosen is kept on the desk, so that a reload or a second tab shows the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from pipelines.errors import BadInput
from studio import history, post
from studio.compare_export import points, said
from studio.compare_parts import Cell, downloads, measured, number, reading, table, told, verdict
from studio.desk import Desk
from studio.history import KINDS, MOST_CHOSEN, Entry
from studio.markup import Markup, action, empty, join, note, tag
from studio.scatter import scatter
from studio.words import KINDS as KIND_WORDS
from studio.words import READOUTS, ago, count, duration, size

DRAFT = "history"
PICTURES = 4
WAITING = (
    "Likeness needs photos to compare with: choose them under Compose, where it says what the pictures "
    "should be measured against."
)


@dataclass(frozen=True)
class State:
    """What is looked for, which page of it is shown, which runs are chosen, what was last deleted."""

    kind: str = ""
    text: str = ""
    page: int = 0
    chosen: tuple[int, ...] = ()
    gone: tuple[str, ...] = ()


def state(desk: Desk) -> State:
    """What a visitor looks at; whatever does not fit in the draft falls back to the start."""
    table_: dict[str, Any] = desk.draft(DRAFT)
    kind, page = table_.get("kind"), table_.get("page")
    chosen, gone = table_.get("chosen") or (), table_.get("gone") or ()
    return State(
        str(kind) if kind in KINDS else "",
        str(table_.get("text") or ""),
        page if isinstance(page, int) else 0,
        tuple(each for each in cast("Sequence[Any]", chosen) if isinstance(each, int))[:MOST_CHOSEN],
        tuple(str(each) for each in cast("Sequence[Any]", gone))[:2],
    )


def keep(desk: Desk, now: State) -> None:
    """Remember what a visitor looks at."""
    desk.keep(DRAFT, asdict(now))


def search(desk: Desk, kind: str, text: str) -> None:
    """Look for other runs, from the first page on."""
    now = state(desk)
    if (now.kind, now.text) != (kind, text):
        keep(desk, replace(now, kind=kind, text=text, page=0))


def key(desk: Desk) -> tuple[Any, ...]:
    """What list and comparison depend on."""
    return history.stamp(desk), state(desk)


# ---- what buttons do


def pick(desk: Desk, value: str) -> None:
    """Choose a run, or take it back. Raises BadInput where too many are chosen."""
    now, ident = state(desk), int(value)
    # runs that are gone do not count
    now = replace(now, chosen=tuple(each.id for each in history.entries(desk, now.chosen)))
    if ident in now.chosen:
        keep(desk, replace(now, chosen=tuple(each for each in now.chosen if each != ident)))
        return
    if len(now.chosen) >= MOST_CHOSEN:
        raise BadInput(f"{MOST_CHOSEN} runs are chosen already.", "Take one back first.")
    keep(desk, replace(now, chosen=(*now.chosen, ident)))


def clear(desk: Desk, value: str) -> None:
    """Choose nothing."""
    keep(desk, replace(state(desk), chosen=()))


def turn(desk: Desk, value: str) -> None:
    """Show another page of the list."""
    keep(desk, replace(state(desk), page=max(0, int(value))))


def reuse(desk: Desk, value: str) -> dict[str, Any]:
    """A run's settings for the tab that made it."""
    spec = desk.store.get(int(value)).spec
    job = spec.portable()
    told_ = f"These are the settings of run #{value}."
    if spec.kind == "compare":
        return post.parcel("compare", {"job": job["job"], "axes": job["axes"]}, told_)
    to = "identity" if job.get("reference") else spec.kind
    return post.parcel(to, post.settings(job), told_)


def vary(desk: Desk, value: str) -> dict[str, Any]:
    """A run's settings as the drawing that a grid varies."""
    return post.parcel("compare", {"job": desk.store.get(int(value)).spec.portable()})


def discard(desk: Desk, value: str) -> None:
    """Move a run to the bin. Raises BadInput where that cannot be."""
    before = desk.store.get(int(value))
    home = history.entry(desk, before).folder.name
    there = history.discard(desk, int(value))
    now = state(desk)
    rest = tuple(each for each in now.chosen if each != int(value))
    keep(desk, replace(now, chosen=rest, gone=(there.name, home)))


def restore(desk: Desk, value: str) -> None:
    """Take the run that was deleted last out of the bin again. Raises BadInput where it is gone."""
    now = state(desk)
    keep(desk, replace(now, gone=()))
    if len(now.gone) != 2:
        return
    name, home = now.gone
    source, target = desk.folder / "bin" / name, desk.folder / "runs" / home
    inside = source.resolve().parent == (desk.folder / "bin").resolve()
    beside = target.resolve().parent == (desk.folder / "runs").resolve()
    if not (inside and beside and source.is_dir()) or target.exists():
        raise BadInput("This run is no longer in the bin.", "It may have been emptied.")
    shutil.move(source, target)
    desk.touch("bin")


ACTS: dict[str, post.Act] = {
    "pick": pick, "clear": clear, "turn": turn, "reuse": reuse, "vary": vary, "discard": discard,
    "restore": restore,
}  # fmt: skip


# ---- the list


def shelf(desk: Desk) -> Markup:
    """The runs to choose from, a page of them."""
    now = state(desk)
    found = history.listing(desk, now.kind, now.text, now.page)
    undo = None
    if len(now.gone) == 2:
        undo = note(
            f"{now.gone[1]} lies in the bin now. ", action("Undo", "restore", "", cls="act"), kind="info"
        )
    if not found.total:
        if now.kind or now.text:
            nothing = empty("Nothing like that", "Try another word, or show all kinds.")
        else:
            nothing = empty("Your runs appear here", "Draw something under Compose, or train a concept.")
        return join([undo, nothing])
    cards = [_card(desk, each, each.id in now.chosen) for each in found.entries]
    told_ = f"{count(found.total, 'run')}, the newest first"
    return join(
        [undo, tag("p", told_, cls="quiet"), tag("div", *cards, cls="cards small runs"), _turner(found)]
    )


def _card(desk: Desk, each: Entry, chosen: bool) -> Markup:
    facts = [ago(each.when)]
    if each.seconds is not None:
        facts.append(duration(each.seconds))
    if each.bytes:
        facts.append(size(each.bytes))
    figures = [
        tag("span", f"{READOUTS[name][0]} ", tag("b", f"{each.readings[name]:.2f}"), title=READOUTS[name][1])
        for name in ("dino_i", "clip_t")
        if name in each.readings
    ]
    removable = history.removable(desk, each)
    return tag(
        "article",
        _thumbnail(desk, each),
        tag(
            "div",
            tag("span", KIND_WORDS.get(each.kind, each.kind), cls="tag"),
            tag("p", tag("b", each.name), " ", each.title, cls="title", title=each.title),
            tag("p", *figures, cls="figures") if figures else None,
            tag("p", " · ".join(facts), cls="quiet"),
            tag(
                "div",
                action(
                    "Chosen ✓" if chosen else "Choose", "pick", each.id, cls="act main" if chosen else "act",
                    aria_pressed="true" if chosen else "false", aria_label=f"Choose run {each.id}",
                ),
                action("Reuse", "reuse", each.id, title="Fill the tab that made it with its settings"),
                action(
                    "✕", "discard", each.id, cls="act danger", title="Delete: move it to the bin",
                    aria_label=f"Delete run {each.id}",
                )
                if removable else None,
                cls="acts",
            ),
            cls="body",
        ),
        cls="card on" if chosen else "card",
    )  # fmt: skip


def _thumbnail(desk: Desk, each: Entry) -> Markup:
    for shot in each.shots[:1]:
        if where := desk.url(shot.path):
            image = tag("img", src=where, alt=shot.prompt or each.title, loading="lazy")
            return tag("a", image, href=where, target="_blank", data_large=f"{each.name} {each.title}")
    return tag("div", "No picture", cls="blank")


def _turner(found: history.Listing) -> Markup | None:
    if found.pages < 2:
        return None
    last = found.pages - 1
    return tag(
        "nav",
        action("Newer", "turn", found.page - 1, aria_disabled="true" if found.page == 0 else None),
        tag("span", f"page {found.page + 1} of {found.pages}", cls="quiet"),
        action("Older", "turn", found.page + 1, aria_disabled="true" if found.page == last else None),
        cls="acts turner",
        aria_label="Pages of the history",
    )


# ---- the comparison


def board(desk: Desk) -> Markup:
    """What is chosen: pictures side by side, figures, plot, what differs, commands, exports."""
    found = history.entries(desk, state(desk).chosen)
    if not found:
        return empty("Choose two runs or more", "They are laid side by side here, with all their figures.")
    head = tag(
        "div", tag("b", f"{count(len(found), 'run')} chosen"), action("Choose none", "clear"), cls="acts"
    )
    sides = tag("div", *(_side(desk, each) for each in found), cls="side", tabindex="0", role="region",
                aria_label="The chosen runs side by side")  # fmt: skip
    verdicts = [line for name in ("dino_i", "clip_t") if (line := verdict(found, name))]
    plot = scatter(
        points(found),
        "Likeness against obedience",
        "obedience (CLIP-T)",
        "likeness (DINO-I)",
        waiting=WAITING,
    )
    return join(
        [
            head,
            sides,
            *(note(each) for each in verdicts),
            tag("h3", "Figures"),
            _figures(found),
            tag("h3", "Likeness against obedience"),
            plot,
            tag("p", "Up and to the right is better. Small points are single pictures.", cls="quiet"),
            _differences(found),
            _commands(found),
            _exports(desk, found),
        ]
    )


def _side(desk: Desk, each: Entry) -> Markup:
    images = [
        tag("a", tag("img", src=where, alt=shot.prompt or each.title, loading="lazy"), href=where,
            target="_blank", data_large=f"{each.name} · {shot.prompt} · seed {told(shot.seed)}")
        for shot in each.shots
        if (where := desk.url(shot.path))
    ]  # fmt: skip
    figures = " · ".join(
        f"{READOUTS[name][0]} {now.value:.2f}"
        for name in ("dino_i", "clip_t")
        if (now := reading(each, name)) is not None
    )
    rest = images[PICTURES:]
    more = (
        tag("details", tag("summary", f"{len(rest)} more"), tag("div", *rest, cls="pair")) if rest else None
    )
    return tag(
        "section",
        tag("h3", tag("b", each.name), " ", each.title, title=each.title),
        tag("p", figures or "not measured", cls="quiet"),
        tag("div", *images[:PICTURES], cls="pair"),
        more,
        tag(
            "div",
            action("Use settings", "reuse", each.id),
            action("Vary in a grid", "vary", each.id) if each.kind in ("compose", "edit") else None,
            action("Take back", "pick", each.id),
            cls="acts",
        ),
        cls="side-run",
        data_title=f"{each.name} {each.title}",
        data_figures=figures,
    )


def _figures(found: Sequence[Entry]) -> Markup:
    extra = [
        name for name in dict.fromkeys(name for each in found for name in each.readings)
        if name not in READOUTS and name != "loss"
    ]  # fmt: skip
    known = [name for name in ("dino_i", "clip_t", "clip_i") if any(reading(each, name) for each in found)]
    columns = [("run", ""), ("kind", "")]
    columns += [(READOUTS[name][0], READOUTS[name][1]) for name in known]
    columns += [(name.replace("_", " "), "") for name in extra]
    columns += [("pictures", ""), ("time", "how long the run took"), ("adapter size", "on disk")]
    rows = [
        [
            Cell(f"{each.name} {each.title}", float(each.id)),
            Cell(KIND_WORDS.get(each.kind, each.kind)),
            *(measured(reading(each, name)) for name in (*known, *extra)),
            Cell(len(each.shots), float(len(each.shots)), True),
            number(each.seconds, duration),
            number(None if each.bytes is None else float(each.bytes), size),
        ]
        for each in found
    ]
    return table(columns, rows, "Figures of the chosen runs; ± is the 95 % interval over their pictures")


def _differences(found: Sequence[Entry]) -> Markup | None:
    if len(found) < 2:
        return None
    differing = history.differences(found)
    if not differing:
        return note("These runs have the same settings.")
    heads = tag(
        "tr", tag("th", "setting", scope="col"), *(tag("th", each.name, scope="col") for each in found)
    )
    rows = [
        tag("tr", tag("th", tag("code", path), scope="row"), *(tag("td", told(each)) for each in values))
        for path, values in differing.items()
    ]
    caption = tag("caption", "Settings in which the chosen runs differ", cls="sr")
    whole = tag("table", caption, tag("thead", heads), tag("tbody", *rows), cls="grid-table")
    frame = tag("div", whole, cls="scroll", tabindex="0", role="region", aria_label="What differs")
    return join([tag("h3", "What differs"), frame])


def _commands(found: Sequence[Entry]) -> Markup:
    lines = [tag("pre", line) for each in found if (line := said(each.spec))]
    help_ = tag("p", "Paste one into a terminal to do that run again, without the studio.", cls="quiet")
    return tag(
        "details", tag("summary", "The commands that do these runs again"), help_, *lines, cls="commands"
    )


def _exports(desk: Desk, found: Sequence[Entry]) -> Markup:
    name = f"runs-{'-'.join(str(each.id) for each in found)}"
    base = desk.export_url(name)
    links = [
        ("Table (CSV)", f"{base}.csv", f"likeness-{name}.csv"),
        ("Everything (JSON)", f"{base}.json", f"likeness-{name}.json"),
        ("Page that opens alone (HTML)", f"{base}.html", f"likeness-{name}.html"),
    ]
    picture = tag("button", "Picture (PNG)", type="button", cls="act", data_png=f"likeness-{name}.png")
    return tag("div", downloads(links), tag("div", picture, cls="acts"), cls="exports")
