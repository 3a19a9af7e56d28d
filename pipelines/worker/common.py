"""What the bodies of several jobs share: opening what a spec names, and writing what came of it."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.adapters import formats
from pipelines.adapters.adapter import Adapter
from pipelines.adapters.stack import attached
from pipelines.artifacts import atomic_write
from pipelines.base.backbone import Backbone
from pipelines.base.loading import open_base
from pipelines.base.memory import UNMANAGED, Device, Policy
from pipelines.data.photos import list_photos, open_photo
from pipelines.errors import BadInput
from pipelines.guidance._base import Guidance
from pipelines.guidance._compose import read_guidance
from pipelines.jobs import wildcards, workspace
from pipelines.jobs.kinds import AdapterRef, Drawing, Train
from pipelines.jobs.model import JobSpec
from pipelines.jobs.pictures import save as save_picture
from pipelines.metrics import Reading, ScoreContext, score
from pipelines.progress import Job
from pipelines.worker.words import own_words


@dataclass
class Clock:
    """Seconds by name: `with clock("load"): …`."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a part; the same name twice adds up."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - begun
            self.seconds[name] = round(self.seconds.get(name, 0.0) + took, 3)


@dataclass(frozen=True)
class Picture:
    """One result: where it stands, how it was made, and what was read from it."""

    path: Path
    prompt: str
    seed: int
    readings: dict[str, float]

    def table(self) -> dict[str, Any]:
        """As it is told in JSON."""
        return {"path": str(self.path), "prompt": self.prompt, "seed": self.seed, "readings": self.readings}


def policy_of(spec: Drawing | Train) -> Policy | None:
    """The memory policy that a job asks for; None lets the device decide."""
    return None if spec.memory == "auto" else spec.memory


def opened(spec: Drawing, job: Job, clock: Clock) -> tuple[Backbone, Guidance]:
    """The base and the guidance of a drawing. Raises what opening and reading raise."""
    guidance = read_guidance(spec.guidance)
    with clock("load"):
        base = open_base(spec.base, spec.device, job, policy=policy_of(spec))
    return base, guidance


@contextmanager
def dressed(base: Backbone, adapters: Sequence[AdapterRef], job: Job) -> Iterator[list[Adapter]]:
    """The base with a spec's adapter stack attached; gives the adapters in their order."""
    stack: list[tuple[Adapter, float]] = []
    for each in adapters:
        adapter = formats.load(workspace.resolve(each.adapter, want="adapter"), base)
        if adapter.unused:
            job.note(
                f"{adapter.name}: {len(adapter.unused)} tensors could not be used ({adapter.unused[0]} …)."
            )
        if each.weight > 1:
            job.note(f"{adapter.name} at {each.weight:g}: above 1 pictures start to burn.")
        stack.append((adapter, each.weight))
    with attached(base, stack) if stack else nullcontext():
        yield [adapter for adapter, _ in stack]


def guarded(base: Backbone, what: str) -> AbstractContextManager[None]:
    """Around work that may fill the device: out of memory becomes an error that names what to try next."""
    memory: Device = getattr(base, "memory", UNMANAGED)
    return memory.guard(what)


def photos_of(reference: str) -> list[Image.Image]:
    """The pictures behind a reference: a photo, or a folder of them; none for an empty one."""
    if not reference:
        return []
    return [open_photo(each) for each in list_photos(workspace.resolve(reference))]


def picture_of(reference: str, what: str) -> Image.Image:
    """The one picture behind a reference. Raises BadInput where there is none."""
    if not reference:
        raise BadInput(f"There is no {what}.", f"Name a picture as {what}.")
    return open_photo(workspace.resolve(reference))


def readings_of(
    base: Backbone,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    references: Sequence[Image.Image],
    names: Sequence[str] = (),
) -> tuple[list[dict[str, float]], list[Reading]]:
    """Readouts of every picture by name, and of all together."""
    readings = score(images, ScoreContext(prompts, references, base.family), names)
    return by_picture(readings, len(images)), readings


def by_picture(readings: Sequence[Reading], count: int) -> list[dict[str, float]]:
    """Name → value of each of `count` pictures, as far as readings tell pictures apart."""
    each: list[dict[str, float]] = [{} for _ in range(count)]
    for reading in readings:
        for values, value in zip(each, reading.each, strict=False):
            values[reading.name] = round(value, 4)
    return each


def spread(spec: Drawing) -> tuple[list[str], list[int]]:
    """Prompts and seeds of every picture: each prompt gets the same seeds, and says what it says for them.

    Raises as `wildcards.expand` does.
    """
    seeds = [spec.seed + index for index in range(spec.count)]
    prompts = [wildcards.expand(prompt, seed) for prompt in spec.prompts for seed in seeds]
    return prompts, seeds * len(spec.prompts)


def told(prompt: str, adapters: Sequence[Adapter]) -> str:
    """A prompt as the encoders should read it: without the new words, which they never learned."""
    return without(prompt, own_words(adapters))


def without(prompt: str, own: Collection[str]) -> str:
    """A prompt without some words."""
    return " ".join(word for word in prompt.split() if word.strip(",.;:()") not in own)


def carried(spec: JobSpec, seed: int, prompt: str | None = None) -> dict[str, Any]:
    """The job that a single picture carries: that of its own seed and prompt, so that `--like` repeats it."""
    table = spec.shareable()
    table |= {"seed": seed, "count": 1, "out": None}
    if prompt is not None and "prompts" in table:
        table["prompts"] = [wildcards.escaped(prompt)]  # what was chosen stays chosen
    return table


def write_pictures(
    folder: Path, images: Sequence[Image.Image], spec: JobSpec, prompts: Sequence[str], seeds: Sequence[int],
    readings: Sequence[dict[str, float]],
) -> list[Picture]:  # fmt: skip
    """Write every picture with its job inside; names count up and never overwrite."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = len(list(folder.glob("[0-9][0-9][0-9][0-9]*.png")))
    written: list[Picture] = []
    for index, (image, prompt, seed) in enumerate(zip(images, prompts, seeds, strict=True)):
        path = folder / f"{taken + index + 1:04d}-seed{seed}.png"
        save_picture(path, image, carried(spec, seed, prompt))
        written.append(Picture(path, prompt, seed, readings[index] if readings else {}))
    return written


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows with the union of their keys as columns, atomically."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue().encode())


def summary(readings: Sequence[Reading]) -> dict[str, float]:
    """Name → value of the readings that have one."""
    return {each.name: round(each.value, 4) for each in readings if each.value is not None}


def remarks(readings: Sequence[Reading]) -> list[str]:
    """What the readings say beside their values, each once."""
    return list(dict.fromkeys(each.note for each in readings if each.note))


def finished(spec: JobSpec, folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Write down that a run is done, and what came of it; → the result, with the folder that it stands in."""
    told = {"out": str(folder), **result}
    workspace.write_run(folder, spec, "done", told)
    return told
