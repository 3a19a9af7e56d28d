"""Plain words about a training that goes wrong, from readings taken while it runs. Measures nothing itself.

Readings by name, all optional: `closest`, the highest likeness of any sample to any single photo; `dino_i`,
likeness of samples to the photos; `clip_t`, obedience; `kept_class` and `kept_world`, how much a bare class
prompt and an unrelated canary prompt still give the picture that the untrained base gave (1: the same);
`spread`, how far the samples differ from each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from pipelines.jobs.kinds import KEPT


@dataclass
class Watcher:
    """Alarms of one training. Limits are shares of 1, and of the best reading so far for `falls_to`."""

    copy: float = 0.95
    """`closest` above this: samples are the photos again."""
    class_kept: float = KEPT
    """`kept_class` below this: the class became the subject."""
    world_kept: float = KEPT
    """`kept_world` below this: unrelated pictures changed."""
    falls_to: float = 0.6
    """Obedience below this share of its best: words are no longer heard."""
    alike: float = 0.02
    """`spread` below this: every sample is the same."""
    _best: dict[str, float] = field(default_factory=dict[str, float])
    _said: set[str] = field(default_factory=set[str])

    def alarms(self, step: int, values: Mapping[str, float]) -> list[str]:
        """What is newly wrong at this step, one sentence each with a way out. Each kind is said once."""
        broken = [name for name, value in values.items() if not isfinite(value)]
        if broken:
            found = {
                "broken": f"the samples cannot be measured ({', '.join(broken)} is not a number): it has "
                "collapsed. Lower the learning rate."
            }
        else:
            found = self._copies(values) | self._drifts(values) | self._collapses(values)
            for name, value in values.items():
                self._best[name] = max(value, self._best.get(name, value))
        new = {kind: text for kind, text in found.items() if kind not in self._said}
        self._said |= new.keys()
        return [f"Step {step}: {text}" for text in new.values()]

    def _copies(self, values: Mapping[str, float]) -> dict[str, str]:
        closest = values.get("closest", 0.0)
        if closest <= self.copy:
            return {}
        return {
            "copies": f"a sample is all but one of the photos (likeness {closest:.2f}): it copies instead of "
            "learning. Use fewer steps, a lower rank or more varied photos."
        }

    def _drifts(self, values: Mapping[str, float]) -> dict[str, str]:
        found: dict[str, str] = {}
        if (kept := values.get("kept_class", 1.0)) < self.class_kept:
            found["class"] = (
                f"the bare class no longer looks as it did ({kept:.2f} of 1 kept): every member of it turns "
                "into the subject. Set prior_weight, or use fewer steps."
            )
        if (kept := values.get("kept_world", 1.0)) < self.world_kept:
            found["world"] = (
                f"an unrelated prompt no longer looks as it did ({kept:.2f} of 1 kept): the base forgets. "
                "Lower the learning rate or the rank, or use fewer steps."
            )
        return found

    def _collapses(self, values: Mapping[str, float]) -> dict[str, str]:
        found: dict[str, str] = {}
        best = self._best.get("clip_t", 0.0)
        if best > 0 and (now := values.get("clip_t", best)) < self.falls_to * best:
            found["deaf"] = (
                f"prompts are hardly followed any more (obedience {now:.2f}, it was {best:.2f}). Use an "
                "earlier checkpoint, or a lower learning rate."
            )
        if values.get("spread", 1.0) < self.alike:
            found["alike"] = (
                "all samples look the same: it has collapsed. Use an earlier checkpoint, or a lower "
                "learning rate."
            )
        return found
