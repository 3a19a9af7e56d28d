"""Live parts: what on the page follows the store.

Each page asks once a second for a number that changes when anything did (`PULSE`, a few bytes and no event of
Gradio's); only when it has, the parts that depend on what changed are drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.desk import Desk
from studio.guarded import said
from studio.heard import QUIET
from studio.markup import problem

PULSE = """
let home = null, last = null, drawn = 0, failed = 0, busy = false;
const timer = setInterval(async () => {
  if (!element.isConnected) return clearInterval(timer);
  if (busy) return;
  busy = true;
  try {
    const answer = await fetch(props.address, {cache: 'no-store'});
    const [born, now] = answer.ok ? (await answer.text()).split(' ') : [home, last];
    failed = 0;
    // another studio answers now: the controls of this page are not its own
    if (home !== null && born !== home) return location.reload();
    home = born;
    if (now !== last || Date.now() - drawn > 60000) { last = now; drawn = Date.now(); trigger('click'); }
  } catch { failed += 1; } finally { busy = false; }
  document.body.classList.toggle('away', failed > 3);
}, 1000);
"""
Key = Callable[[Desk], Hashable]
Draw = Callable[[Desk], Any]


@dataclass(frozen=True)
class Part:
    """Components, what they depend on, and what they show."""

    outputs: tuple[Any, ...]
    key: Key
    draw: Draw


class Live:
    """The live parts of a page. `wire` is called once, after all of them were added."""

    def __init__(self, desk_of: Callable[[Any], Desk], address: str) -> None:
        self._desk_of, self._address = desk_of, address
        self._parts: list[Part] = []

    def add(self, outputs: Any | Sequence[Any], key: Key, draw: Draw) -> None:
        """Show `draw(desk)` (one value an output) in `outputs`, again whenever `key(desk)` changes."""
        listed = tuple(outputs) if isinstance(outputs, list | tuple) else (outputs,)
        self._parts.append(Part(listed, key, draw))

    def wire(self, load: Any, after: Sequence[Any] = ()) -> None:
        """Draw all when the page loads, and what changed at every pulse and after the listeners `after`."""
        seen = gr.State([])
        pulse = gr.HTML(js_on_load=PULSE, address=self._address, elem_id="pulse", elem_classes="sr")
        outputs = [each for part in self._parts for each in part.outputs]
        load(self._fresh, None, [*outputs, seen], **QUIET)
        for ask in (pulse.click, *(each.then for each in after)):
            ask(self._tick, seen, [*outputs, seen], **QUIET, trigger_mode="once")

    def _fresh(self, request: gr.Request) -> list[Any]:
        return self._tick([], request)

    def _tick(self, seen: list[Any], request: gr.Request) -> list[Any]:
        desk = self._desk_of(request)
        values: list[Any] = []
        keys: list[Any] = []
        for index, part in enumerate(self._parts):
            key = repr(part.key(desk))
            keys.append(key)
            if index < len(seen) and seen[index] == key:
                values += [gr.skip()] * len(part.outputs)
                continue
            values += _drawn(part, desk)
        return [*values, keys if keys != seen else gr.skip()]


def _drawn(part: Part, desk: Desk) -> list[Any]:
    """What a part shows; where it cannot be drawn, the others still are."""
    try:
        shown = part.draw(desk)
    except Exception as error:  # noqa: BLE001 -- said in its place
        first = problem(*said(error)) if isinstance(part.outputs[0], gr.HTML) else gr.skip()
        return [first, *(gr.skip() for _ in part.outputs[1:])]
    return [shown] if len(part.outputs) == 1 else list(shown)
