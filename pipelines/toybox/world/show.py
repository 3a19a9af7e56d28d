"""A contact sheet of the world itself, each scene under one of its captions."""

from pathlib import Path

from pipelines.artifacts import write_png
from pipelines.jobs.spec import ToyboxShow
from pipelines.progress import Job
from pipelines.toybox.world.captions import caption
from pipelines.toybox.world.drawing import render_image
from pipelines.toybox.world.scene import sample_scene


def show(spec: ToyboxShow, job: Job) -> dict:
    """Draws `spec.n` scenes of a split to one PNG; returns its path."""
    from pipelines.toybox.sheet import grid

    pictures, captions = [], []
    for index in range(spec.n):
        job.check()
        scene = sample_scene(spec.seed + index, spec.split)
        pictures.append(render_image(scene))
        captions.append(caption(scene, 0))
        job.report(index + 1, spec.n)
    out = Path(spec.out)
    write_png(out, grid(pictures, captions))
    return {"path": str(out), "captions": captions}
