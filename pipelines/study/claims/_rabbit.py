"""What the claims about training share: a rabbit that no part of Toybox was ever trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.jobs import presets
from pipelines.jobs.kinds import AdapterRef, Compose, PhotoSet, Sampler, Train, Watch
from pipelines.progress import Job
from pipelines.study.effects import Run

BASE = "toybox"
PHOTOS = "asset:subjects/rabbit"
TOKEN, CLASS_WORD = "sks", "rabbit"
STEPS = 10


def concept(**changes: Any) -> dict[str, Any]:
    """The training method as the base's preset has it, but for `changes`."""
    return {**presets.native(BASE)["concept"], **changes}


def learn(run: Run, folder: Path, job: Job, **changes: Any) -> str:
    """Train on the photos; → the adapter's path."""
    spec = Train(
        base=BASE,
        data=PhotoSet(photos=PHOTOS, token=TOKEN, class_word=CLASS_WORD),
        concept=concept(**changes),
        watch=Watch(every=0),
        device="cpu",
        out=folder,
    )
    return str(run(spec, job)["adapter"])


def draw(run: Run, folder: Path, job: Job, *prompts: str, **settings: Any) -> dict[str, Any]:
    """Draw the prompts with fixed seeds; → what the job tells, likeness to the photos included."""
    spec = Compose(
        base=BASE,
        prompts=prompts,
        guidance=presets.native(BASE)["guidance"],
        sampler=Sampler(steps=STEPS),
        references=PHOTOS,
        seed=1,
        device="cpu",
        out=folder,
        **settings,
    )
    return run(spec, job)


def at(adapter: str, weight: float = 1.0) -> tuple[AdapterRef, ...]:
    """A stack of one; weight 0 is the method switched off."""
    return (AdapterRef(adapter=adapter, weight=weight),)
