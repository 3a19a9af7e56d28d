"""`likeness train`: a folder of photos → a concept, with samples, readouts and alarms on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from PIL import Image

from pipelines.adapters import card, formats
from pipelines.artifacts import atomic_write, write_png
from pipelines.base.backbone import Backbone
from pipelines.base.loading import open_base
from pipelines.base.memory import Training, forecast, pick
from pipelines.concepts._base import Concept, Recipe
from pipelines.concepts.trainer import Trained
from pipelines.concepts.trainer import train as train_concept
from pipelines.concepts.watch import Watcher
from pipelines.data import dataset
from pipelines.data.captions import check_words, remarks_on
from pipelines.data.crops import open_cropped
from pipelines.data.photos import check, list_photos
from pipelines.errors import BadInput, Cancelled, LikenessError
from pipelines.guidance.cfg import CFG
from pipelines.jobs import presets, workspace
from pipelines.jobs.kinds import PhotoSet, Train
from pipelines.progress import Job
from pipelines.sampling.generate import Request, generate
from pipelines.sampling.preview import strip
from pipelines.spec import read
from pipelines.worker.common import Clock, guarded, policy_of, readings_of, summary
from pipelines.worker.words import mixed_up, unheard

PLACES = ("on the beach", "in the forest", "in the snow", "in a room")
CANARY = "a red car in a city at night"
SAMPLE_SEED = 1000
STEPS = 15


def train(spec: Train, job: Job) -> dict[str, Any]:
    """Teach a base the subject of `spec.data`; → the run folder, its adapter, and what came of it."""
    concept = cast("Concept", read("concepts", spec.concept))
    check_words(spec.data)
    listed(spec.data)
    clock = Clock()
    with clock("load"):
        base = open_base(spec.base, spec.device, job, policy=policy_of(spec))
    paths = subject_photos(spec.data, concept.resolution or base.latent.size, job)
    quiet = Quiet(job)
    scale = spec.watch.guidance or native_scale(spec.base)
    with clock("prepare"), guarded(base, "preparing the photos"):
        recipe = concept.recipe(base, spec.data)
        said = _heard(base, spec, job)
        job.note(_memory(base, spec, concept, recipe))
        data = dataset.build(
            base,
            paths,
            spec.data,
            concept,
            job,
            draw=lambda prompts, seeds: _draw(base, scale, prompts, seeds, quiet),
            settings=f"cfg {scale:g}, {STEPS} steps",
        )
    folder = spec.out or workspace.new_run("train", f"{spec.data.token} {spec.data.class_word}")
    photos = [open_cropped(each, spec.data.crops) for each in paths]
    watch = Watching(base, spec, photos, folder, quiet, scale, recipe.steps)
    if spec.watch.every:  # without, samples come only when they are asked for, and nothing is kept to compare
        with clock("watch"), guarded(base, "drawing samples"):
            watch.before()
    with clock("train"), _written_down(folder, spec) as started:
        trained = train_concept(
            base,
            recipe,
            data,
            job,
            folder,
            seed=spec.seed,
            watch=watch,
            every=spec.watch.every,
            best=spec.watch.best,
            resume=spec.resume,
            started=started,
        )
        _card(base, folder, trained, recipe)
    result = _result(trained, folder) | {
        "alarms": watch.alarms,
        "notes": said,
        "seconds": clock.seconds,
    }
    workspace.write_run(folder, spec, "done", result)
    return result


def _memory(base: Backbone, spec: Train, concept: Concept, recipe: Recipe) -> str:
    """What the training will take, against what is free, in a sentence."""
    size = concept.resolution or base.latent.size
    need = forecast(
        base,
        Training(
            sum(each.numel() for group in recipe.carrier.groups() for each in group.tensors.values()),
            concept.batch * (2 if recipe.data.prior else 1),
            size,
            size,
            concept.checkpointing,
            bool(recipe.carrier.touches & {"tokens", "text"}),
        ),
    )
    return f"Memory of the training: {need.sentence(pick(spec.device).available())}"


def _heard(base: Backbone, spec: Train, job: Job) -> list[str]:
    """Say what the base knows of the token and does not know of the other words."""
    data = spec.data
    texts = (*spec.watch.prompts, data.class_word, data.template.replace("{class_word}", data.class_word))
    known = (data.token, "{token}", "token")
    said = [*mixed_up(base, data.token), *unheard(base, texts, known)]
    for each in said:
        job.note(each)
    return said


@contextmanager
def _written_down(folder: Path, spec: Train) -> Iterator[Callable[[], object]]:
    """Keep run.json true: "running" once the training began (gives what to call then), and how it ended.

    A training that is refused leaves the run of another that stands in the folder as it was.
    """
    begun: list[Path] = []
    try:
        yield lambda: begun.append(workspace.write_run(folder, spec, "running"))
    except (Cancelled, LikenessError) as error:
        if begun:
            status = "cancelled" if isinstance(error, Cancelled) else "failed"
            with suppress(
                OSError, LikenessError
            ):  # of a full disk, say: the error under way is the one to tell
                workspace.write_run(folder, spec, status, note=str(error))
        raise


def _result(trained: Trained, folder: Path) -> dict[str, Any]:
    return {
        "out": str(folder),
        "adapter": str(trained.path),
        "trigger": trained.trigger,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "trainable_parameters": trained.parameters,
        "bytes": _bytes(trained.path),
        "loss": round(trained.loss, 5),
        "curve": trained.readings,
        "anatomy": trained.anatomy,
        "readings": _kept(trained),
    }


def _kept(trained: Trained) -> dict[str, float] | None:
    """The readings of the step that is kept, where samples were looked at then."""
    return next((each for each in trained.readings if each["step"] == trained.best_step), None)


def _bytes(path: Path) -> int:
    """The size of a file, or of everything in a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


def _card(base: Backbone, folder: Path, trained: Trained, recipe: Recipe) -> None:
    """Write card.md beside an adapter."""
    if not trained.path.is_file():
        return
    samples = sorted((folder / "samples").glob(f"step-{trained.best_step:06d}-*.png"))[:4]
    kept = _kept(trained) or {}
    text = card.card(
        formats.load(trained.path, base),
        base_model=base.name,
        method=recipe.method,
        settings=recipe.settings,
        readings={name: kept[name] for name in ("dino_i", "clip_i", "clip_t") if name in kept},
        pictures=[each.relative_to(folder).as_posix() for each in samples],
        class_word=recipe.class_word,
    )
    atomic_write(folder / "card.md", text.encode())


def listed(data: PhotoSet) -> list[Path]:
    """The photos that are named, looked at by nobody yet. Raises BadInput for none, MissingAsset."""
    if not data.photos:
        raise BadInput("There are no photos.", "Name a folder of photos: likeness train photos/dog …")
    found = [each for each in list_photos(workspace.resolve(data.photos)) if each.name not in data.exclude]
    if not found:
        raise BadInput("Every photo is left out.", "Leave out fewer (--exclude).")
    return found


def subject_photos(data: PhotoSet, size: int, job: Job) -> list[Path]:
    """The photos that can be used; says what is wrong with the others. Raises BadInput for none."""
    found = listed(data)
    report = check(found, size, job, data.crops)
    bad = [each for each in report.photos if each.verdict in ("unusable", "poor")]
    good = [each.path for each in report.photos if each.verdict != "unusable"]
    if not good:
        said = "; ".join(f"{each.path.name}: {', '.join(each.reasons)}".rstrip(".") for each in bad[:3])
        more = f"; and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        what = "The only photo" if len(found) == 1 else f"None of the {len(found):,} photos"
        raise BadInput(
            f"{what} can{'not' if len(found) == 1 else ''} be used. {said}{more}.",
            "Add a few sharp, well-lit photos of the subject; to look at them first: likeness check PHOTOS.",
        )
    for each in bad:
        job.note(f"{each.path.name} is {each.verdict}: {'; '.join(each.reasons)}")
    for reason in (*report.reasons, *remarks_on(good, data)):
        job.note(reason)
    return good


class Quiet(Job):
    """A job whose stop is another's, and whose progress nobody sees: drawing inside a training."""

    def __init__(self, outer: Job) -> None:
        super().__init__()
        self.outer = outer

    def check(self) -> None:
        """Stop when the training is asked to."""
        self.outer.check()


def native_scale(base: str) -> float:
    """The guidance scale that a base draws with unless told otherwise."""
    return float(presets.native(base).get("guidance", {}).get("scale", 5.0))


def _draw(base: Backbone, scale: float, prompts: list[str], seeds: list[int], job: Job) -> list[Image.Image]:
    return generate(base, Request(prompts, seeds, steps=STEPS), CFG(scale=scale), job)


@dataclass
class Watching:
    """Called by the trainer every N steps, with the concept attached: samples, readouts, alarms.

    `score`, by which the best checkpoint is chosen, is the geometric mean of likeness (DINO-I to the photos)
    and obedience (CLIP-T of the prompt without the token), each as a share of 1, both on prompts that were
    never trained on.
    """

    base: Backbone
    spec: Train
    photos: list[Image.Image]
    folder: Path
    job: Quiet
    scale: float
    steps: int
    alarms: list[str] = field(default_factory=list[str])
    _before: dict[str, list[Image.Image]] = field(default_factory=dict[str, list[Image.Image]])
    _watcher: Watcher = field(default_factory=Watcher)

    def prompts(self) -> list[tuple[str, str]]:
        """Pairs: what is drawn, and what it should show in words that the encoder knows."""
        data = self.spec.data
        plain = [f"a {data.class_word} {place}" for place in PLACES]
        own = self.spec.watch.prompts or tuple(
            f"a {data.token} {data.class_word} {place}" for place in PLACES
        )
        known = [each.replace(f"{data.token} ", "") for each in self.spec.watch.prompts] or plain
        return list(zip(own, known, strict=True))[: self.spec.watch.count]

    def before(self) -> None:
        """Draw the canaries with the untrained base: what drifting is measured from."""
        for name, prompt in self._canaries().items():
            self._before[name] = _draw(self.base, self.scale, [prompt], [SAMPLE_SEED], self.job)

    def __call__(self, step: int) -> dict[str, float]:
        """Sample and measure after a step. → readings by name, "score" among them."""
        pairs = self.prompts()
        seeds = [SAMPLE_SEED + index for index in range(len(pairs))]
        images = _draw(self.base, self.scale, [own for own, _ in pairs], seeds, self.job)
        names = [f"samples/step-{step:06d}-{index + 1}.png" for index in range(len(images))]
        for name, image in zip(names, images, strict=True):
            write_png(self.folder / name, image)
        self.job.outer.preview(strip(images))
        _, overall = readings_of(self.base, images, [known for _, known in pairs], self.photos)
        values = summary(overall)
        values["closest"] = self._closest(images)
        for name, prompt in self._canaries().items():
            if name in self._before:
                now = _draw(self.base, self.scale, [prompt], [SAMPLE_SEED], self.job)
                each, _ = readings_of(self.base, now, [prompt], self._before[name], ("dino_i",))
                values[f"kept_{name}"] = each[0].get("dino_i", 0.0)
        # cosines as shares of their range: those of a young encoder may be negative
        likeness, obedience = ((1 + values.get(name, 0.0)) / 2 for name in ("dino_i", "clip_t"))
        values["score"] = round((likeness * obedience) ** 0.5, 4)
        self.job.outer.report(step, self.steps, readings=values, samples=names)
        for alarm in self._watcher.alarms(step, values):
            if alarm not in self.alarms:
                self.alarms.append(alarm)
                self.job.outer.note(alarm)
        return values

    def _canaries(self) -> dict[str, str]:
        return {"class": f"a {self.spec.data.class_word}", "world": CANARY}

    def _closest(self, images: list[Image.Image]) -> float:
        """The highest DINO similarity of any sample to any single photo: near 1, it copies."""
        likes = [readings_of(self.base, images, [""], [photo], ("dino_i",))[0] for photo in self.photos]
        return max((one.get("dino_i", 0.0) for each in likes for one in each), default=0.0)
