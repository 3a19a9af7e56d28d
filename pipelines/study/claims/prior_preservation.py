"""Prior preservation (arXiv:2208.12242, section 3.2) keeps what the bare class word draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.data.opening import open_photo
from pipelines.progress import Job
from pipelines.study.claims._rabbit import BASE, CLASS_WORD, at, concept, draw, learn
from pipelines.study.effects import Effect, Measured, Run

TRAINED = {"steps": 50, "prior_images": 8}
COUNT = 4


def settings() -> dict[str, Any]:
    """What is trained and drawn."""
    return {**concept(**TRAINED), "count": COUNT}


def measure(run: Run, folder: Path, job: Job) -> Measured:
    """The drift of the bare class with a prior weight of 1 and of 0; everything else is the same."""
    # drawn here and now, not found in a cache, and the same for both
    priors = folder / "priors"
    draw(run, priors, job, f"a photo of {CLASS_WORD}", count=TRAINED["prior_images"], score=False)
    before = _class(run, folder / "before", job)

    def drifted(weight: float) -> float:
        part = folder / f"prior-{weight:g}"
        adapter = learn(run, part, job, **TRAINED, prior_weight=weight, prior_folder=str(priors))
        return _drift(before, _class(run, part / "pictures", job, adapters=at(adapter)))

    return Measured(on=drifted(1.0), off=drifted(0.0))


def _class(run: Run, folder: Path, job: Job, **settings: Any) -> list[Image.Image]:
    """Pictures of the bare class, with the same seeds every time."""
    told = draw(run, folder, job, f"a {CLASS_WORD}", count=COUNT, score=False, **settings)
    return [open_photo(each["path"]) for each in told["pictures"]]


def _drift(before: list[Image.Image], after: list[Image.Image]) -> float:
    """1 − the mean DINO similarity of a picture to that of the same seed before."""
    from pipelines.metrics import ScoreContext, score

    kept = [
        score([new], ScoreContext([""], [old], BASE, device="cpu"), ["dino_i"])[0].value
        for old, new in zip(before, after, strict=True)
    ]
    return 1 - sum(value or 0.0 for value in kept) / len(kept)


EFFECT = Effect(
    name="prior_preservation",
    claim="Prior preservation keeps the class: what the bare class word draws drifts less.",
    readout="drift: 1 − DINO-I of four pictures of the class to those of the same seeds before the training",
    better="lower",
    margin=0.05,
    measure=measure,
    settings=settings,
    modules=("pipelines.concepts.dreambooth_lora", "pipelines.concepts.trainer"),
)
