"""How a listener is heard: the kinds of listeners on the page, as arguments of Gradio's events.

None shows a spinner, and none lets Gradio keep a status for its outputs (`show_progress_on`): the page walks
all controls for each status that it keeps, at every event, which made a page of this size take seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SILENT: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
QUIET: dict[str, Any] = {**SILENT, "queue": False}
"""For what answers at once. Nobody hears of the States that it changes."""
ACTIVE: dict[str, Any] = {**SILENT, "concurrency_limit": None}
"""For what may take a moment, and for what changes a State: from the queue alone the page hears of that."""
CLICKED: dict[str, Any] = {**SILENT, "concurrency_limit": 1, "trigger_mode": "multiple"}
"""For the buttons inside our own HTML: a click during the answer to the last one counts, and in its turn."""
TYPED: dict[str, Any] = {**ACTIVE, "trigger_mode": "always_last"}
"""For what is typed or dragged: while one value is being heard, the last of those that follow waits."""
DRAWN: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": 1, "concurrency_id": "drawn"}
"""For whatever draws controls: one after another, since Gradio walks all controls of a page meanwhile."""

_IN_VIEW = """() => {
  if (innerWidth <= 720) document.querySelector('#NAME').scrollIntoView({behavior: 'smooth', block: 'start'});
}"""


def then_in_view(sent: Any, place: str) -> None:
    """Once a job was taken, bring the column of what comes of it into view: on a phone it stands below the
    form. Not an element that is empty by then: Gradio hides those, and nothing scrolls to them."""
    sent.success(None, None, None, js=_IN_VIEW.replace("NAME", place), **QUIET)


def one_last(listeners: Iterable[Any]) -> None:
    """Let at most one listener of an event, the newest, wait for the last of its values; others hear all.

    Where two listeners of one event wait, Gradio's page dispatches the whole event again for each, and never
    comes to rest. What listens to "input" alone waits too, lest the end of a word that is typed be missed.
    """
    taken: set[tuple[int, str]] = set()
    for each in reversed(list(listeners)):
        events = {(target, event) for target, event in each.targets if target is not None and event != "load"}
        typed = bool(events) and all(event == "input" for _, event in events)
        if not events or not (each.trigger_mode == "always_last" or (typed and each.trigger_mode == "once")):
            continue
        each.trigger_mode = "multiple" if events & taken else "always_last"
        if each.trigger_mode == "always_last":
            taken |= events
