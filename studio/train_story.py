"""What a training told so far, gathered from its events: curves, samples, what is trained, what was said."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from pipelines.progress import Event
from studio.desk import Desk

KEPT = 8
ALARM = "Step "


@dataclass
class Story:
    """The events of one training, folded. Readings are one table a look; `samples` name files of its run."""

    upto: int = 0
    """The number of the last event that is in it."""
    step: int = 0
    total: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    smooth: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    readings: list[tuple[int, dict[str, float]]] = field(default_factory=list[tuple[int, dict[str, float]]])
    samples: list[tuple[int, list[str]]] = field(default_factory=list[tuple[int, list[str]]])
    anatomy: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    saved: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    seconds_left: float | None = None

    def take(self, event: Event) -> None:
        """Fold in the next event. A step before the last one means that the training began anew there."""
        if event.kind == "note" and event.text not in self.notes:
            self.notes.append(event.text)
        if event.kind != "report" or "caption" in event.values:
            return
        values = event.values
        if not values or not values.keys() & {"loss", "anatomy", "readings", "saved"}:
            return  # steps of what comes before: photos, class pictures
        if "anatomy" in values:
            self._rewind(event.step)
            self.anatomy = list(values["anatomy"])
        self.step, self.total = event.step, event.total or self.total
        if "loss" in values:
            self.losses.append((event.step, float(values["loss"])))
            self.smooth.append((event.step, float(values.get("smooth", values["loss"]))))
            self.seconds_left = values.get("seconds_left")
        if "readings" in values:
            figures = {str(name): float(each) for name, each in dict(values["readings"]).items()}
            self.readings = [each for each in self.readings if each[0] != event.step]
            self.readings.append((event.step, figures))
            names = [str(each) for each in values.get("samples") or ()]
            self.samples = [each for each in self.samples if each[0] != event.step]
            self.samples.append((event.step, names))
        if "saved" in values and values["saved"] not in self.saved:
            self.saved.append(str(values["saved"]))

    def _rewind(self, step: int) -> None:
        """Forget what came after `step`: the training goes on from there."""
        self.losses = [each for each in self.losses if each[0] <= step]
        self.smooth = [each for each in self.smooth if each[0] <= step]
        self.readings = [each for each in self.readings if each[0] <= step]
        self.samples = [each for each in self.samples if each[0] <= step]

    @property
    def alarms(self) -> list[str]:
        """What the training warned of."""
        return [each for each in self.notes if each.startswith(ALARM)]

    def curve(self, name: str) -> list[tuple[float, float]]:
        """One reading over the steps."""
        return [(step, values[name]) for step, values in self.readings if name in values]


class Stories:
    """The last few stories, so that a tick reads only what is new."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], Story] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, desk: Desk, ident: int) -> Story:
        """The story of a job, up to now."""
        key = (str(desk.store.path), ident)
        with self._lock:
            story = self._kept.pop(key, None) or Story()
            self._kept[key] = story
            for number, event in desk.store.events(ident, story.upto):
                story.take(event)
                story.upto = number
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return story
