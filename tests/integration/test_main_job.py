"""The main job on the embedded base, its effect measured: photos → concept → pictures that show the subject.

Every bar is held from two sides: the method clears it, and the same job with the method off does not. What
takes longer (prior preservation, a whole training) is measured once and kept: `pipelines.study.effects`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.jobs import presets
from pipelines.jobs.kinds import AdapterRef, Compose, PhotoSet, Sampler, Train, Watch
from pipelines.progress import Job
from pipelines.worker.compose import compose
from pipelines.worker.train import train

BASE = "toybox"
# a rabbit that no part of Toybox was ever trained on
SUBJECT = PhotoSet(photos="asset:subjects/rabbit", token="sks", class_word="rabbit")  # noqa: S106 (a word)
PLACES = ("on the beach", "in the forest", "in the snow", "in a room")
CLOSER = 0.1
"""How much DINO-I has to rise: it was seen to rise by 0.2, and by less than 0.05 with the method off."""


def learn(folder: Path, **concept: Any) -> dict[str, Any]:
    """Train on the photos as the base's preset has it, but for `concept`."""
    table = {**presets.native(BASE)["concept"], **concept}
    spec = Train(
        base=BASE, data=SUBJECT, concept=table, watch=Watch(every=0), device="cpu", out=folder / "train"
    )
    return train(spec, Job())


def draw(folder: Path, prompts: tuple[str, ...], **settings: Any) -> dict[str, Any]:
    """Pictures of the prompts with fixed seeds, measured against the photos."""
    spec = Compose(
        base=BASE,
        prompts=prompts,
        guidance=presets.native(BASE)["guidance"],
        sampler=Sampler(steps=10),
        references=SUBJECT.photos,
        seed=1,
        device="cpu",
        out=folder,
        **settings,
    )
    return compose(spec, Job())


def at(adapter: str, weight: float) -> tuple[AdapterRef, ...]:
    """A stack of one; weight 0 is the method switched off."""
    return (AdapterRef(adapter=adapter, weight=weight),)


def test_a_trained_concept_draws_its_subject_where_it_never_was(tmp_path: Path) -> None:
    adapter = learn(tmp_path, steps=40)["adapter"]
    own = tuple(f"a sks rabbit {place}" for place in PLACES)
    bare = tuple(f"a rabbit {place}" for place in PLACES)

    untrained = draw(tmp_path / "bare", bare, count=2)["readings"]["dino_i"]
    trained = draw(tmp_path / "on", own, count=2, adapters=at(adapter, 1))["readings"]["dino_i"]
    off = draw(tmp_path / "off", own, count=2, adapters=at(adapter, 0))["readings"]["dino_i"]

    assert trained > untrained + CLOSER
    assert trained > off + CLOSER
    assert not off > untrained + CLOSER, "the bar is cleared by the base alone: it measures nothing"
