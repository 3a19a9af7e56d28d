"""A LoRA of rank 16, trained as the base's preset has it, draws its subject where no photo shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.progress import Job
from pipelines.study.claims._rabbit import CLASS_WORD, TOKEN, at, concept, draw, learn
from pipelines.study.effects import Effect, Measured, Run

PLACES = ("on the beach", "in the forest", "in the snow", "in a room")
COUNT = 2


def settings() -> dict[str, Any]:
    """What is trained and drawn."""
    return {**concept(), "places": list(PLACES), "count": COUNT}


def measure(run: Run, folder: Path, job: Job) -> Measured:
    """DINO-I to the photos with the adapter at 1 and at 0; beside them that of the bare class."""
    adapter = learn(run, folder / "train", job)
    own = [f"a {TOKEN} {CLASS_WORD} {each}" for each in PLACES]
    bare = [f"a {CLASS_WORD} {each}" for each in PLACES]
    on = draw(run, folder / "on", job, *own, count=COUNT, adapters=at(adapter))
    off = draw(run, folder / "off", job, *own, count=COUNT, adapters=at(adapter, 0.0))
    without = draw(run, folder / "bare", job, *bare, count=COUNT)
    return Measured(
        on["readings"]["dino_i"],
        off["readings"]["dino_i"],
        {
            "dino_i of the bare class": without["readings"]["dino_i"],
            "clip_t on": on["readings"]["clip_t"],
            "clip_t off": off["readings"]["clip_t"],
        },
    )


EFFECT = Effect(
    name="low_rank",
    claim="A LoRA of rank 16 raises DINO-I on a rabbit that the base never saw, in places of no photo.",
    readout="DINO-I of eight pictures to the photos",
    better="higher",
    margin=0.1,
    measure=measure,
    settings=settings,
    modules=("pipelines.concepts.dreambooth_lora", "pipelines.concepts.trainer"),
    weights=("unet", "text_encoder", "vae", "dino", "clip"),
)
