"""`likeness edit`: one picture, changed by words."""

from __future__ import annotations

from typing import Any, cast

from pipelines.editing._base import EditMethod, EditRequest
from pipelines.errors import BadInput
from pipelines.jobs import workspace
from pipelines.jobs.kinds import Edit
from pipelines.progress import Job
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


def edit(spec: Edit, job: Job) -> dict[str, Any]:
    """Edit `image` towards every prompt; → the pictures, the method's own figures, and the readings."""
    if not any(each.strip() for each in spec.prompts):
        raise BadInput("There is no instruction.", 'Say what to see: --prompt "a blue dog".')
    method = cast("EditMethod", read("editing", spec.edit))
    image = picture_of(spec.image, "picture to edit")
    clock = Clock()
    base, guidance = opened(spec, job, clock)
    prompts, seeds = spread(spec)
    request = EditRequest(
        image=image,
        prompts=prompts,
        seeds=seeds,
        source=spec.source,
        negative=spec.negative,
        steps=spec.sampler.steps,
        sampler=spec.sampler.name,
        width=spec.width,
        height=spec.height,
        mask=picture_of(spec.mask, "mask") if spec.mask else None,
    )
    references = photos_of(spec.references)
    with dressed(base, spec.adapters, job) as adapters, guarded(base, "editing"):
        said = unheard(base, (*prompts, spec.source, spec.negative), own_words(adapters))
        for each in said:
            job.note(each)
        with clock("draw"):
            edited = method.run(base, request, guidance, job)
    with clock("measure"), guarded(base, "measuring"):
        heard = [told(prompt, adapters) for prompt in prompts]
        each, overall = readings_of(base, edited.images, heard, references) if spec.score else ([], [])
    folder = spec.out or workspace.new_run("edit", prompts[0])
    pictures = write_pictures(folder, edited.images, spec, prompts, seeds, each)
    result = {
        "pictures": [one.table() for one in pictures],
        "readings": summary(overall) | edited.readings,
        "notes": [*said, *edited.notes, *remarks(overall)],
        "seconds": clock.seconds,
    }
    return finished(spec, folder, result)
