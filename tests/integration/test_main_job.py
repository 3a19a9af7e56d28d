"""The main job on the embedded base, its effect measured: photos → concept → pictures that show the subject.

Every bar is held from two sides: the method clears it, and the same job with the method off does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.jobs import presets
from pipelines.jobs.kinds import AdapterRef, Compose, PhotoSet, Sampler, Train, Watch
from pipelines.metrics import ScoreContext, score
from pipelines.progress import Job
from pipelines.worker.common import photos_of
from pipelines.worker.compose import compose
from pipelines.worker.train import train

BASE = "toybox"
# a rabbit that no part of Toybox was ever trained on
SUBJECT = PhotoSet(photos="asset:subjects/rabbit", token="sks", class_word="rabbit")  # noqa: S106 (a word)
PLACES = ("on the beach", "in the forest", "in the snow", "in a room")
CLOSER = 0.1
"""How much DINO-I has to rise: it was seen to rise by 0.2, and by less than 0.05 with the method off."""
DRIFT = 0.05
"""How much nearer to what it was the bare class has to stay."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class pictures are drawn here and now, not found in the user's cache."""
    monkeypatch.setattr("pipelines.data.cache.cache_dir", lambda: tmp_path / "cache")


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


@pytest.mark.slow  # two trainings and the class pictures of one of them: about a minute on a quiet core
def test_prior_preservation_drifts_less_than_none(tmp_path: Path) -> None:
    before = rabbits(tmp_path / "before")
    drifts: list[float] = []
    for prior in (0.0, 1.0):
        folder = tmp_path / f"prior-{prior:g}"
        adapter = learn(folder, steps=50, prior_weight=prior, prior_images=8)["adapter"]
        drifts.append(drift(before, rabbits(folder / "pictures", adapters=at(adapter, 1))))
    free, preserved = drifts

    assert free > DRIFT, "nothing drifts, so there is nothing to preserve"
    assert preserved < free - DRIFT


def rabbits(folder: Path, **settings: Any) -> list[Image.Image]:
    """Pictures of the bare class, with the same seeds every time."""
    return photos_of(draw(folder, ("a rabbit",), count=4, **settings)["out"])


def drift(before: list[Image.Image], after: list[Image.Image]) -> float:
    """1 − the mean DINO similarity of a picture to that of the same seed before."""
    pairs = zip(before, after, strict=True)
    kept = [
        score([new], ScoreContext([""], [old], BASE, device="cpu"), ["dino_i"])[0].value for old, new in pairs
    ]
    return 1 - sum(value or 0.0 for value in kept) / len(kept)
