"""The library in the side panel: every trained, merged and imported concept, and what to do with it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import gradio as gr

from pipelines.errors import BadInput
from pipelines.jobs import presets
from pipelines.jobs.library import Export
from pipelines.jobs.spec import from_table
from studio import base_manager, disk, library, post
from studio.desk import Desk
from studio.gallery import readouts
from studio.guarded import guarded
from studio.heard import ACTIVE
from studio.library import Entry
from studio.markup import Markup, action, clicked, empty, join, note, tag
from studio.panel_parts import CLICKS, asked, fold
from studio.words import ago, size

if TYPE_CHECKING:
    from studio.page import Page

SHOWN = 60
LOOK_EVERY = 15
_SEEN: WeakKeyDictionary[Desk, tuple[Any, Any]] = WeakKeyDictionary()
LAYOUTS = (
    ("as_is", "as it is"),
    ("diffusers", "for diffusers"),
    ("kohya", "for kohya and ComfyUI"),
    ("a1111", "for A1111"),
)
ORIGINS = {"trained": "trained here", "merged": "merged", "imported": "imported"}
_FETCH = (
    "() => { const link = document.querySelector('#library-packed a[download]'); if (link) link.click(); }"
)


def build(page: Page) -> None:
    """The section: cards, import, merge."""
    with gr.Accordion("Library of concepts", open=False, elem_id="panel-library"):
        cards = gr.HTML(js_on_load=CLICKS, elem_id="library-cards")
        packed = gr.HTML(elem_id="library-packed")
        bring = gr.UploadButton(
            "Import an adapter (.safetensors)",
            file_types=[".safetensors"],
            size="sm",
            elem_id="library-import",
        )
        with gr.Accordion("Merge two", open=False, elem_id="library-merge"):
            _merging(page)
    page.live.add(cards, _key, lambda desk: section(library.adapters(desk)))
    page.answers(cards, more={"use-adapter": use, "rename": rename, "discard": discard})

    def pack(event: gr.EventData, request: gr.Request) -> Any:
        act, value = clicked(event)
        return packing(page.desk(request), value) if act == "export" else gr.skip()

    def imported(file: str, request: gr.Request) -> None:
        made = library.bring_in(page.desk(request), Path(file))
        gr.Info(f"It is in your library{f', made for {made.base}' if made.base else ''}.", duration=5)

    cards.click(guarded(pack), None, packed, **ACTIVE).then(None, None, None, js=_FETCH)
    page.changed.append(bring.upload(guarded(imported), bring, None, **ACTIVE))


def section(found: list[Entry]) -> Markup:
    """The cards of a library."""
    if not found:
        return empty(
            "No concepts yet", "Teach one under Train Concept, or import a LoRA that you have already."
        )
    more = tag("p", f"… and {len(found) - SHOWN} older ones.", cls="quiet") if len(found) > SHOWN else None
    return join([*(card(each) for each in found[:SHOWN]), more])


def card(entry: Entry) -> Markup:
    """One concept: picture, words, figures; what is done rarely is folded away."""
    picture = (
        tag("img", src=entry.thumbnail, alt=f"Drawn with {entry.title}", loading="lazy")
        if entry.thumbnail
        else tag("span", (entry.title or "?")[:1].upper(), cls="no-picture", aria_hidden="true")
    )
    about = " · ".join(
        each
        for each in (entry.base or "unknown base", size(entry.bytes), ago(entry.when), ORIGINS[entry.origin])
    )
    words = tag(
        "div",
        tag("b", entry.title),
        tag("span", entry.trigger, cls="tag", title="Write this in the prompt") if entry.trigger else None,
        tag("div", about, cls="quiet"),
        readouts(entry.readings) if entry.readings else None,
        tag("div", action("Use in Compose", "use-adapter", entry.reference, cls="act main"), cls="acts"),
        cls="about-adapter",
    )
    return tag(
        "div", tag("div", picture, words, cls="adapter-top"), _rarely(entry), cls="adapter", data_row=True
    )


def use(desk: Desk, reference: str) -> dict[str, Any]:
    """The concept on its way to Compose, with its words in the prompt."""
    entry = library.entry(desk, reference)
    table: dict[str, Any] = {"adapters": [{"adapter": entry.reference, "weight": 1.0}]}
    if entry.trigger:
        table["prompts"] = [f"a {entry.trigger}"]
    return post.parcel("compose", table, f"Drawing with {entry.title}.")


def rename(desk: Desk, value: str) -> None:
    """Give a concept the title that was typed."""
    library.rename(desk, *asked(value))


def discard(desk: Desk, reference: str) -> None:
    """Move a concept with everything of its run into the bin. Raises StateBusy."""
    entry = library.entry(desk, reference)
    disk.throw_away(desk, entry.path.relative_to(desk.folder / "runs").parts[0])
    gr.Info("It is in the bin, under Disk.", duration=5)


def packing(desk: Desk, value: str) -> Markup:
    """Pack a concept in the chosen layout; → the link to it. `value` is the reference and the layout."""
    reference, layout = asked(value)
    if layout not in dict(LAYOUTS):
        raise BadInput("Nobody knows that layout.", f"Choose one of: {', '.join(dict(LAYOUTS))}.")
    entry = library.entry(desk, reference)
    base = _base(desk, entry) if layout != "as_is" else ""
    spec = from_table({"kind": "export", "adapter": entry.reference, "layout": layout, "base": base})
    assert isinstance(spec, Export)  # noqa: S101 -- for the type checker
    made = desk.ask(spec)
    path = Path(str(made["file"]))
    words = f"{path.name}, {size(made['bytes'])}: the adapter, its model card and samples."
    return note(
        tag("a", "Download", href=desk.url(path), download=path.name, cls="act main"), " ", words, kind="good"
    )


def merge(desk: Desk, one: str, other: str, share: float) -> int:
    """Queue a merge of two concepts, `share` of it the first, 0 to 1; → the job's number. Raises BadInput."""
    if not one or not other or one == other:
        raise BadInput("A merge takes two different concepts.", "Choose both.")
    pair = [library.entry(desk, each) for each in (one, other)]
    families = {each.family for each in pair if each.family}
    if len(families) > 1:
        raise BadInput(
            f"{pair[0].title} was made for {pair[0].base}, {pair[1].title} for {pair[1].base}.",
            "Only concepts of one kind of base can be merged.",
        )
    rows = [
        {"adapter": each.reference, "weight": round(weight, 3)}
        for each, weight in zip(pair, (share, 1 - share), strict=True)
    ]
    return desk.submit(presets.build("merge", form={"adapters": rows}))


def _merging(page: Page) -> None:
    one = gr.Dropdown(
        [], label="First", elem_id="merge-one", info="The concept that the slider favours at 1."
    )
    other = gr.Dropdown([], label="Second", elem_id="merge-other", info="Both must be for the same base.")
    share = gr.Slider(
        0, 1, value=0.5, step=0.05, label="How much of the first", elem_id="merge-share",
        info="0.5 takes half of each. For two subjects in one picture, stack both in Compose instead.",
    )  # fmt: skip
    go = gr.Button("Merge", size="sm", elem_id="merge-go")

    def choices(desk: Desk) -> list[Any]:
        listed = [(each.title, each.reference) for each in library.adapters(desk)]
        return [gr.update(choices=listed), gr.update(choices=listed)]

    def send(request: gr.Request, *values: Any) -> None:
        merge(page.desk(request), *values)
        gr.Info("Merging; the result appears in the library.", duration=5)

    page.live.add([one, other], _key, choices)
    page.changed.append(go.click(guarded(send), [one, other, share], None, **ACTIVE))


def _rarely(entry: Entry) -> Markup:
    """Rename, export, delete."""
    name = tag(
        "div",
        tag(
            "input", type="text", value=entry.title, maxlength=library.LONGEST_TITLE, cls="line-field",
            aria_label=f"New name of {entry.title}", data_enter="rename",
        ),
        action("Rename", "rename", entry.reference, data_field="input"),
        cls="acts", data_row=True,
    )  # fmt: skip
    layouts = tag(
        "div",
        tag(
            "select",
            *(tag("option", label, value=layout) for layout, label in LAYOUTS),
            cls="line-field",
            aria_label=f"Layout in which {entry.title} is packed",
        ),
        action("Export as zip", "export", entry.reference, data_field="select"),
        cls="acts",
        data_row=True,
    )
    question = f"Move {entry.title} and its samples to the bin?"
    bin_it = action("Move to the bin", "discard", entry.reference, cls="act danger", data_confirm=question)
    return fold(
        f"more-{entry.reference}", "Rename, export, delete", name, layouts, tag("div", bin_it, cls="acts")
    )


def _base(desk: Desk, entry: Entry) -> str:
    """The base that writing another layout needs: for names of layers that only it can tell; else ""."""
    if entry.family == base_manager.TOYBOX:
        return base_manager.TOYBOX
    here = [each for each in base_manager.found(desk).bases if each.installed and each.family == entry.family]
    return here[0].name if here and entry.origin == "imported" else ""


def _key(desk: Desk) -> Any:
    """What the cards show; looked for on the disk only when something may have changed."""
    moment = (desk.stamp("train", "merge", "demo", "library"), int(time.time() / LOOK_EVERY))
    seen = _SEEN.get(desk)
    if seen is None or seen[0] != moment:
        shown = [(each.reference, each.title, each.when, each.thumbnail) for each in library.adapters(desk)]
        seen = _SEEN[desk] = (moment, shown)
    return seen[1]
