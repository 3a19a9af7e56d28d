"""`likeness demo`: the main job from end to end. Photos → LoRA → pictures, with it and without → a table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipelines.artifacts import write_png
from pipelines.jobs import presets, workspace
from pipelines.jobs.kinds import AdapterRef, Compose, PhotoSet, Train, Watch
from pipelines.jobs.queries import Demo
from pipelines.progress import Job
from pipelines.worker.common import finished, photos_of
from pipelines.worker.compose import compose
from pipelines.worker.train import PLACES, train

CELL, GAP, FONT = 128, 6, 13
PAPER, INK = (255, 255, 255), (30, 30, 34)
BETTER = {"dino_i": "likeness (DINO-I)", "clip_i": "likeness (CLIP-I)", "clip_t": "obedience (CLIP-T)"}


def demo(spec: Demo, job: Job) -> dict[str, Any]:
    """Run it; → the sheet, the adapter, and a row of readouts without and with the concept."""
    with workspace.run_folder(spec.out, "demo", spec.class_word) as folder:
        return _run(spec, folder, job)


def _run(spec: Demo, folder: Path, job: Job) -> dict[str, Any]:
    born = psutil.Process().create_time()
    native = presets.native(spec.base)
    concept = native.get("concept", {"method": "dreambooth_lora"})
    if spec.steps is not None:
        concept = {**concept, "steps": spec.steps}
    words = PhotoSet(photos=spec.photos, token=spec.token, class_word=spec.class_word)
    trained = train(
        Train(
            base=spec.base,
            data=words,
            concept=concept,
            watch=Watch(every=0),
            seed=spec.seed,
            device=spec.device,
            out=folder / "train",
        ),
        job,
    )
    job.note(f"Trained {trained['trainable_parameters']:,} numbers in {trained['seconds']['train']:.1f} s.")
    plain = spec.prompts or tuple(f"a {{token}} {spec.class_word} {place}" for place in PLACES)
    own = tuple(each.replace("{token}", spec.token) for each in plain)
    bare = tuple(" ".join(each.replace("{token}", "").split()) for each in plain)
    common: dict[str, Any] = {
        "base": spec.base,
        "guidance": native.get("guidance", {"method": "cfg"}),
        "seed": spec.seed + 1,
        "device": spec.device,
        "references": spec.photos,
    }
    adapters = (AdapterRef(adapter=trained["adapter"]),)
    first = Compose(prompts=own[:1], adapters=adapters, out=folder / "first", **common)
    compose(first, job)
    to_first = time.time() - born
    after = compose(Compose(prompts=own, adapters=adapters, out=folder / "with", **common), job)
    before = compose(Compose(prompts=bare, out=folder / "without", **common), job)
    sheet = write_png(
        folder / "demo.png", _sheet(photos_of(spec.photos), before, after, own), spec.shareable()
    )
    result = {
        "sheet": str(sheet),
        "adapter": trained["adapter"],
        "rows": [
            {
                "readout": title,
                "without": before["readings"].get(name),
                "with the concept": after["readings"].get(name),
            }
            for name, title in BETTER.items()
        ],
        "trainable_parameters": trained["trainable_parameters"],
        "bytes": trained["bytes"],
        "seconds": {**trained["seconds"], "to first picture": round(to_first, 1)},
        "notes": [*trained["notes"], *after["notes"]],
    }
    return finished(spec, folder, result)


def _sheet(
    photos: list[Image.Image], before: dict[str, Any], after: dict[str, Any], prompts: tuple[str, ...]
) -> Image.Image:
    """Three labelled rows: the photos, the untrained base, the concept."""
    cell = (CELL, CELL)
    shown = [ImageOps.fit(each, cell) for each in photos[: len(prompts)]]
    rows = [
        ("the photos", shown),
        ("the base alone", [_opened(each) for each in before["pictures"]]),
        ("with the concept", [_opened(each) for each in after["pictures"]]),
    ]
    font = ImageFont.load_default(FONT)
    line = FONT + 8
    wide = GAP + len(prompts) * (CELL + GAP)
    canvas = Image.new("RGB", (wide, GAP + len(rows) * (line + CELL + GAP)), PAPER)
    pen = ImageDraw.Draw(canvas)
    for number, (title, images) in enumerate(rows):
        top = GAP + number * (line + CELL + GAP)
        pen.text((GAP, top), title, INK, font)
        for column, image in enumerate(images):
            canvas.paste(image, (GAP + column * (CELL + GAP), top + line))
    return canvas


def _opened(picture: dict[str, Any]) -> Image.Image:
    return ImageOps.fit(Image.open(Path(picture["path"])).convert("RGB"), (CELL, CELL))
