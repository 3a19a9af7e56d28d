"""How long a training will still take: steps and looks at samples are timed apart."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

RECENT = 50


class Pace:
    """Times the last 50 steps, checkpoints included, and every look, in seconds of `clock`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._looks: list[float] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time a step."""
        begun = self._clock()
        yield
        self._steps.append(self._clock() - begun)

    @contextmanager
    def look(self) -> Iterator[None]:
        """Time a look at samples."""
        begun = self._clock()
        yield
        self._looks.append(self._clock() - begun)

    def left(self, steps: int, looks: int) -> float:
        """Seconds for so many steps and looks, as far as either was measured."""
        return round(steps * _mean(self._steps) + looks * _mean(self._looks), 1)


def looks_left(step: int, total: int, every: int) -> int:
    """How often samples are looked at after `step` of `total`: every `every` steps, and at the end."""
    if not every or step >= total:
        return 0
    return total // every - step // every + bool(total % every)


def _mean(values: deque[float] | list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
