"""`likeness generate`: prompts → pictures with readouts."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, cast

from PIL import Image

from pipelines.base.backbone import Backbone
from pipelines.errors import BadInput
from pipelines.guidance._base import Guidance
from pipelines.jobs import workspace
from pipelines.jobs.kinds import Compose
from pipelines.jobs.model import PICTURES_OF_METHOD
from pipelines.progress import Job
from pipelines.reference._base import Reference
from pipelines.sampling.generate import Request, generate
from pipelines.spec import read
from pipelines.worker.common import (
    Clock,
    dressed,
    finished,
    guarded,
    opened,
    photos_of,
    picture_of,
    readings_of,
    remarks,
    spread,
    summary,
    told,
    write_pictures,
)
from pipelines.worker.words import own_words, unheard


def compose(spec: Compose, job: Job) -> dict[str, Any]:
    """Draw `count` pictures of every prompt; → their paths, seeds and readings. Raises BadInput for none."""
    if not any(each.strip() for each in spec.prompts):
        raise BadInput("There is nothing to draw.", 'Say what: likeness generate "a red dog on the beach".')
    clock = Clock()
    base, guidance = opened(spec, job, clock)
    prompts, seeds = spread(spec)
    shown = pictures_of(spec)
    references = photos_of(spec.references) or shown
    with dressed(base, spec.adapters, job) as adapters, guarded(base, "drawing"):
        said = unheard(base, (*prompts, spec.negative), own_words(adapters))
        for each in said:
            job.note(each)
        with clock("draw"):
            images = draw(base, guidance, spec, prompts, seeds, job, shown)
    with clock("measure"), guarded(base, "measuring"):
        heard = [told(prompt, adapters) for prompt in prompts]
        each, overall = readings_of(base, images, heard, references) if spec.score else ([], [])
    folder = spec.out or workspace.new_run("compose", prompts[0])
    pictures = write_pictures(folder, images, spec, prompts, seeds, each)
    result = {
        "pictures": [one.table() for one in pictures],
        "readings": summary(overall),
        "notes": [*said, *remarks(overall)],
        "seconds": clock.seconds,
        "seconds_a_picture": round(clock.seconds["draw"] / len(images), 3),
    }
    return finished(spec, folder, result)


def pictures_of(spec: Compose) -> list[Image.Image]:
    """The pictures in the table of a reference method, named one by one or as a folder; none without one."""
    named = (spec.reference or {}).get(PICTURES_OF_METHOD) or ()
    listed = cast("list[str]", named) if isinstance(named, list | tuple) else [str(named)]
    return [image for each in listed for image in photos_of(str(each))]


def draw(
    base: Backbone,
    guidance: Guidance,
    spec: Compose,
    prompts: list[str],
    seeds: list[int],
    job: Job,
    shown: list[Image.Image],
) -> list[Image.Image]:
    """The pictures of a spec, with its reference method open while they are drawn.

    `shown` are that method's pictures.
    """
    request = Request(
        prompts,
        seeds,
        negative=spec.negative,
        steps=spec.sampler.steps,
        sampler=spec.sampler.name,
        width=spec.width,
        height=spec.height,
        start=picture_of(spec.start, "starting picture") if spec.start else None,
        strength=spec.strength,
        mask=picture_of(spec.mask, "mask") if spec.mask else None,
    )
    with ExitStack() as doors:
        if spec.reference is not None:
            table = {name: value for name, value in spec.reference.items() if name != PICTURES_OF_METHOD}
            method = cast("Reference", read("reference", table))
            doors.enter_context(method.prepare(base, shown, job).open(base))
        return generate(base, request, guidance, job)
