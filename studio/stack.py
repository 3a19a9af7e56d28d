"""The adapter stack: which trained concepts to draw with, and how much of each. Shared by the tabs that draw.

Two places of our own HTML: the tray shows the library and follows the store, the rows show the stack that
stands in `state` as a job takes it, [{"adapter": reference, "weight": 1.0}, …].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import presets
from studio import library
from studio.binding import Sheet
from studio.desk import Desk
from studio.guarded import guarded
from studio.heard import CLICKED, QUIET
from studio.library import Entry
from studio.markup import ACT, Markup, action, clicked, empty, join, tag
from studio.words import size

if TYPE_CHECKING:
    from studio.page import Page

Row = dict[str, Any]
MOST, SHOWN = 8, 40
WEIGHT, HOT = 1.5, 1.0
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
"""What "Try strengths" draws: from without the concept to more than was trained."""
DIALS = (
    ACT
    + """
const told = (event) => event.target.closest('input[data-dial]');
element.addEventListener('input', (event) => {
  const dial = told(event);
  if (!dial) return;
  const row = dial.closest('.stack-row');
  row.querySelector('output').textContent = Number(dial.value).toFixed(2);
  row.classList.toggle('hot', Number(dial.value) > 1);
});
element.addEventListener('change', (event) => {
  const dial = told(event);
  if (dial) trigger('click', {act: 'weight', value: dial.dataset.dial + ' ' + dial.value});
});
"""
)


class Stack:
    """The control; bound to `adapters` of the sheet. Build it inside the column where it shall stand.

    `prompt` takes the words of a concept on a click, `base` (a control with a base's name) lets the rows say
    which adapters do not fit. `swept` holds (index, number of the click) of the last "Try strengths": wire
    `swept.change` to `sweep_of`, or leave the button out with `sweeps=False`.
    """

    def __init__(
        self, page: Page, sheet: Sheet, prompt: Any, *, name: str, base: Any = None, sweeps: bool = True
    ) -> None:
        self._page, self._sweeps = page, sweeps
        self.state = gr.State([])
        self.revision = gr.State(0)
        self.swept = gr.State((-1, 0))
        self.rows = gr.HTML(js_on_load=DIALS, elem_id=f"{name}-stack")
        with gr.Accordion(
            "Add a trained concept", open=True, elem_id=f"{name}-library", elem_classes="tray-fold"
        ):
            self.tray = gr.HTML(js_on_load=ACT, elem_id=f"{name}-tray")
        sheet.add("adapters", self.state, list, rows_of)
        sheet.add_form("adapters", self, bind=False)
        where = base if base is not None else gr.State(page.base)
        drawn = guarded(self._drawn)
        gr.on(
            [self.revision.change, where.change, page.demo.load], drawn, [self.state, where], self.rows,
            **QUIET,
        )  # fmt: skip
        self.tray.click(guarded(self._added), [self.state, where], [self.state, self.rows], **CLICKED)
        # first, and not through the queue: a page asks the listeners of an event one after another
        self.rows.click(guarded(_worded), prompt, prompt, **{**QUIET, "trigger_mode": "multiple"})
        self.rows.click(
            guarded(self._asked),
            [self.state, where, self.swept],
            [self.state, self.rows, self.swept],
            **CLICKED,
        )
        page.live.add(self.tray, lambda desk: desk.stamp("train", "merge", "demo", "library"), tray)

    def _drawn(self, request: gr.Request, stack: list[Row], base: str) -> Markup:
        return rows(self._page.desk(request), stack, base, sweeps=self._sweeps)

    def _added(self, stack: list[Row], base: str, event: gr.EventData, request: gr.Request) -> Any:
        act, reference = clicked(event)
        if act != "add":
            return gr.skip(), gr.skip()
        stack = added(stack, library.entry(self._page.desk(request), reference).reference)
        return stack, self._drawn(request, stack, base)

    def _asked(
        self, stack: list[Row], base: str, swept: Sequence[int], event: gr.EventData, request: gr.Request
    ) -> Any:
        act, value = clicked(event)
        unchanged = gr.skip()
        if act == "weight":  # the page shows the new weight already: drawing anew would take the focus away
            return weighed(stack, value), unchanged, unchanged
        if act == "remove":
            stack = [each for index, each in enumerate(stack) if str(index) != value]
            return stack, self._drawn(request, stack, base), unchanged
        if act == "sweep" and value.isdigit():
            return unchanged, unchanged, (int(value), swept[1] + 1)
        return unchanged, unchanged, unchanged


def _worded(prompt: str, event: gr.EventData) -> Any:
    act, value = clicked(event)
    return inserted(prompt, value) if act == "insert" else gr.skip()


def rows_of(value: Any) -> list[Row]:
    """A job's stack as rows, whatever it holds them in."""
    return [{"adapter": str(each["adapter"]), "weight": float(each.get("weight", 1))} for each in value or ()]


def added(stack: Sequence[Row], reference: str) -> list[Row]:
    """The stack with one more at full weight; as it is where that is in there already. Raises BadInput."""
    if any(each["adapter"] == reference for each in stack):
        return list(stack)
    if len(stack) >= MOST:
        raise BadInput(f"The stack holds {MOST} concepts already.", "Remove one first.")
    return [*stack, {"adapter": reference, "weight": 1.0}]


def weighed(stack: Sequence[Row], told: str) -> list[Row]:
    """The stack with one weight changed; `told` is "INDEX WEIGHT" as the page sends it."""
    found = re.fullmatch(r"(\d{1,2}) (-?\d(?:\.\d{1,4})?)", told)
    if found is None:
        return list(stack)
    index, weight = int(found[1]), float(found[2])
    return [{**each, "weight": weight} if at == index else each for at, each in enumerate(stack)]


def inserted(prompt: str, words: str) -> str:
    """A prompt with the words of a concept in it, once.

    "a dog on the beach" with "sks dog" becomes "a sks dog on the beach"; where no word of the prompt is the
    concept's own kind, the words are put at the end; an empty prompt becomes "a photo of sks dog".
    """
    text, words = (prompt or "").strip(), words.strip()
    if not words or re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text):
        return prompt
    if not text:
        return f"a photo of {words}"
    kind = words.partition(" ")[2]
    if kind:
        place = re.search(rf"(?<!\w){re.escape(kind)}(?!\w)", text)
        if place:
            return text[: place.start()] + words + text[place.end() :]
    return f"{text}, {words}"


def sweep_of(job: Mapping[str, Any], index: int, title: str) -> dict[str, Any]:
    """A Compare job, as a table, that draws one picture of `job` at every strength of one of its adapters."""
    table = {**job, "count": 1}
    axis = {"path": f"adapters.{index}.weight", "values": list(STRENGTHS)}
    return {"kind": "compare", "title": f"Strengths of {title}", "job": table, "axes": [axis]}


def called(desk: Desk, reference: str) -> str:
    """What people call an adapter; its reference where it is gone."""
    found = _entry(desk, reference)
    return found.title if found else reference


def tray(desk: Desk) -> Markup:
    """The library as cards that add themselves to the stack."""
    found = library.adapters(desk)
    if not found:
        return empty("No trained concepts yet", "Teach one in Train Concept; it appears here when done.")
    cards = [_card(each) for each in found[:SHOWN]]
    more = f"The newest {SHOWN} of {len(found):,}." if len(found) > SHOWN else None
    return join([tag("div", *cards, cls="tray"), tag("p", more, cls="quiet") if more else None])


def _card(each: Entry) -> Markup:
    picture = tag("img", src=each.thumbnail, alt="", loading="lazy") if each.thumbnail else tag("i")
    words = tag("span", tag("b", each.title), tag("small", _facts(each)), cls="words")
    return action(
        join([picture, words]), "add", each.reference, cls="tray-card", aria_label=f"Add {each.title}"
    )


def _facts(each: Entry) -> str:
    return " · ".join(part for part in (each.base, size(each.bytes)) if part)


def rows(desk: Desk, stack: Sequence[Row], base: str, *, sweeps: bool = True) -> Markup:
    """The stack: a weight, the words of each concept, and what to mind."""
    family = family_of(desk, base)
    shown = [_row(desk, index, each, family, sweeps) for index, each in enumerate(stack)]
    return tag("div", *shown, cls="stack") if shown else Markup("")


def _row(desk: Desk, index: int, each: Row, family: str, sweeps: bool) -> Markup:
    found = _entry(desk, each["adapter"])
    title = found.title if found else str(each["adapter"])
    weight = float(each["weight"])
    picture = tag("img", src=found.thumbnail, alt="") if found and found.thumbnail else tag("i")
    dial = tag(
        "input", type="range", min=min(0.0, weight), max=max(WEIGHT, weight), step=0.05, value=weight,
        data_dial=index, aria_label=f"How much of {title}",
    )  # fmt: skip
    acts = [
        action(f"Insert “{found.trigger}”", "insert", found.trigger, title="Put its words into the prompt")
        if found and found.trigger
        else None,
        action("Try strengths", "sweep", index, title="Draw it at six strengths, side by side, in Compare")
        if sweeps
        else None,
        action("Remove", "remove", index, aria_label=f"Remove {title}"),
    ]
    return tag(
        "div",
        picture,
        tag(
            "div",
            tag("div", tag("b", title), tag("output", f"{weight:.2f}"), cls="line"),
            dial,
            tag(
                "p",
                "Above 1.00 pictures start to burn: colours harden, words are ignored.",
                cls="burn",
            ),
            _misfit(found, family),
            tag("div", *acts, cls="acts"),
            cls="body",
        ),
        cls="stack-row hot" if weight > HOT else "stack-row",
    )


def _misfit(found: Entry | None, family: str) -> Markup | None:
    if found is None:
        return tag("p", "It is no longer in the library. Remove it, or import it again.", cls="misfit")
    if found.family and family and found.family != family:
        said = f"It was made for {found.base}, and will not fit this base. Choose another base, or remove it."
        return tag("p", said, cls="misfit")
    return None


def _entry(desk: Desk, reference: str) -> Entry | None:
    try:
        return library.entry(desk, reference)
    except LikenessError:
        return None


def family_of(desk: Desk, base: str) -> str:
    """The family of a base that has a preset ("toybox", "sd1" …); "" where it is not known."""
    if base not in presets.names("bases", desk.folder):
        return ""
    return str(presets.load("bases", base, desk.folder).get("family", ""))
