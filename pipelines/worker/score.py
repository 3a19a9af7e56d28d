"""`likeness score`: what pictures are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.artifacts import read_png_spec, read_safetensors_header
from pipelines.data.photos import list_photos, open_photo
from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import workspace
from pipelines.jobs.kinds import Score
from pipelines.metrics import ScoreContext
from pipelines.metrics import score as measure
from pipelines.progress import Job
from pipelines.worker.common import by_picture, photos_of, remarks, summary, without


def score(spec: Score, job: Job) -> dict[str, Any]:
    """Measure pictures against a prompt (each one's own where none is given) and references."""
    if not spec.images:
        raise BadInput("There are no pictures to measure.", "Name pictures, or a folder of them.")
    paths = [each for one in spec.images for each in list_photos(workspace.resolve(one))]
    images = [open_photo(each) for each in paths]
    prompts = [spec.prompt or _own_prompt(each) for each in paths]
    references = photos_of(spec.references)
    if not references and not all(prompts):
        raise BadInput(
            "There is nothing to measure against: no prompt, no references, and none in the pictures.",
            'Give --prompt "…", or --references with photos of the subject.',
        )
    context = ScoreContext(prompts, references, family_of(spec.base), device=spec.device)
    overall = measure(images, context, spec.metrics)
    rows: list[dict[str, Any]] = [
        {"path": str(path), "prompt": prompt, **values}
        for path, prompt, values in zip(paths, prompts, by_picture(overall, len(paths)), strict=True)
    ]
    return {
        **summary(overall),
        "pictures": rows,
        "encoders": sorted({each.encoder for each in overall if each.encoder}),
        "notes": remarks(overall),
    }


def family_of(base: str) -> str:
    """The family whose encoders measure: the preset's, without loading any weights."""
    from pipelines.base.loading import bases

    return next((each.family for each in bases() if each.name == base), "sd1")


def _own_prompt(path: Path) -> str:
    """The prompt that a picture of ours carries, without the new words of its adapters; empty for others."""
    try:
        table = read_png_spec(path) or {}
    except LikenessError:
        return ""
    prompts = table.get("prompts") or [""]
    own = {_token(str(each.get("adapter", ""))) for each in table.get("adapters") or ()}
    return without(str(prompts[0]), own)


def _token(reference: str) -> str:
    """The new word of an adapter, where its file is at hand and says so."""
    try:
        return read_safetensors_header(workspace.resolve(reference, want="adapter")).metadata.get(
            "likeness.token", ""
        )
    except LikenessError:
        return ""
