"""Job: the handle that a caller holds on running work, passed down explicitly and never global.

The work calls `report`, `preview`, `note`, and `check` once a step; the caller subscribes to events,
may `cancel`, and may `ask` for things on the way, such as a sample now, which the work `take`s. No torch
here: a preview is handed on as it is.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from pipelines.errors import Cancelled


@dataclass(frozen=True)
class Event:
    """One thing that happened: a step was reached, a preview was drawn, or a sentence was said."""

    kind: Literal["report", "preview", "note"]
    step: int = 0
    total: int | None = None
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    text: str = ""
    image: Any = None


Subscriber = Callable[[Event], None]


class Job:
    """Progress out, wishes in. `cancel` may be called from a signal handler, it and `ask` from any thread.

    `deadline` is the time limit in seconds from now; once it has passed, `check` raises Cancelled.
    `checkpoint` is the last complete checkpoint, set by trainings, named to the user on a stop. `previews`
    says whether anybody looks at previews: where nobody does, none are drawn.
    """

    def __init__(
        self, *subscribers: Subscriber, deadline: float | None = None, previews: bool = False
    ) -> None:
        self._subscribers = list(subscribers)
        self._stop = threading.Event()
        self._asked: set[str] = set()
        self._asking = threading.Lock()
        self.previews = previews
        self._ends = None if deadline is None else time.monotonic() + deadline
        self.checkpoint: Path | None = None

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber` with every later event, in the thread that does the work."""
        self._subscribers.append(subscriber)

    def report(self, step: int, total: int | None = None, **values: Any) -> None:
        """Step `step` of `total` (None: open-ended) is done; `values` are figures such as loss=0.12."""
        self._send(Event("report", step=step, total=total, values=values))

    def preview(self, image: Any) -> None:
        """Show a picture of the work so far: a PIL image, an array or latents."""
        self._send(Event("preview", image=image))

    def note(self, text: str) -> None:
        """Say one sentence."""
        self._send(Event("note", text=text))

    def cancel(self) -> None:
        """Ask the work to stop at its next `check`."""
        self._stop.set()

    def ask(self, what: str) -> None:
        """Ask the work for something on the way ("sample", "save"); work that does not know it goes on."""
        with self._asking:
            self._asked.add(what)

    def take(self, what: str) -> bool:
        """Whether this was asked for since it was last taken."""
        with self._asking:
            asked = what in self._asked
            self._asked.discard(what)
            return asked

    def take_all(self) -> list[str]:
        """Everything that was asked for and not yet taken: for whoever passes it on to another process."""
        with self._asking:
            asked = sorted(self._asked)
            self._asked.clear()
            return asked

    @property
    def cancelled(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop.is_set()

    def remaining(self) -> float | None:
        """Seconds until the time limit, at least 0; None without a limit."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    def check(self) -> None:
        """Raise Cancelled if a stop was asked for or the time is up. Every loop calls it once a step."""
        if self._stop.is_set():
            raise Cancelled("Stopped as asked.")
        if self.remaining() == 0.0:
            raise Cancelled("Stopped: the time limit was reached.")

    def _send(self, event: Event) -> None:
        for subscriber in self._subscribers:
            subscriber(event)


class Printer:
    """Draws events as text: one line that overwrites itself on a terminal, plain lines elsewhere.

    `every` is the least time in seconds between two drawn steps; the default is 0.2 on a terminal and
    10 elsewhere, so that a log stays readable. Notes and last steps are always drawn.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        every: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._every = every if every is not None else (0.2 if self._terminal else 10.0)
        self._clock = clock
        self._drawn_at: float | None = None
        self._open = False

    def __call__(self, event: Event) -> None:
        """Draw one event; previews are not drawn."""
        if event.kind == "note":
            self.close()
            self._write(event.text + "\n")
        elif event.kind == "report" and self._due(event):
            self._drawn_at = self._clock()
            self._draw(line(event))

    def close(self) -> None:
        """End the open line, so that what is printed next starts on its own."""
        if self._open:
            self._open = False
            self._write("\n")

    def _due(self, event: Event) -> bool:
        last = event.total is not None and event.step >= event.total
        return last or self._drawn_at is None or self._clock() - self._drawn_at >= self._every

    def _draw(self, text: str) -> None:
        if not self._terminal:
            self._write(text + "\n")
            return
        width = shutil.get_terminal_size().columns - 1
        self._open = True
        self._write("\r\x1b[2K" + text[:width])

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def line(event: Event) -> str:
    """A reported step in words: "120/500 · 24% · loss 0.1234"."""
    parts = [str(event.step) if event.total is None else f"{event.step}/{event.total}"]
    if event.total:
        parts.append(f"{100 * event.step // event.total}%")
    for name, value in event.values.items():
        if isinstance(value, list | tuple | dict):  # tables are for screens that can draw them
            continue
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        parts.append(f"{name.replace('_', ' ')} {shown}")
    return " · ".join(parts)
