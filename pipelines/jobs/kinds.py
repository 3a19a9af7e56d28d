"""The jobs of the studio: check, caption, train, compose, edit, score, compare.

Methods stand in them as tables, `{"method": "apg", "scale": 6}`, read against the catalog of their family.
Pictures, adapters and runs are named by references (DESIGN 7): `asset:photos/dog`, `run:NAME`,
`upload:NAME`, and `file:PATH` only from the command line or a local desktop; a bare path means `file:`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, Field

from pipelines.errors import BadInput
from pipelines.jobs.model import Device, JobSpec, files, method, shareable_table
from pipelines.spec import knob

Table = dict[str, Any]
Memory = Literal["auto", "resident", "model", "tiled"]
MEMORY_HELP = (
    "what is on the device: resident, everything; model, one component at a time; tiled, also the picture in "
    "parts; auto, whatever fits"
)


Crop = tuple[float, float, float, float]
CROPS_HELP = "by file name the part to keep: left, top, right, bottom as shares of 0 to 1"


def sound_crops(crops: dict[str, Crop]) -> dict[str, Crop]:
    """The crops, each of which must lie inside its picture and hold something of it. Raises BadInput."""
    for name, (left, top, right, bottom) in crops.items():
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise BadInput(
                f"The crop of {name} is empty, or leaves the picture.",
                "Give left, top, right and bottom as shares from 0 to 1, left before right and top above "
                "bottom, such as 0.1, 0, 0.9, 1.",
            )
    return crops


Crops = Annotated[dict[str, Crop], AfterValidator(sound_crops)]


class Part(BaseModel, frozen=True, extra="forbid"):
    """A part of a job."""


class PhotoSet(Part, frozen=True):
    """The photos of one subject, and the words for it."""

    photos: str = files("", help="a folder of photos, or one photo")
    exclude: tuple[str, ...] = knob((), help="file names to leave out")
    token: str = knob("sks", help="the new word for the subject; short, and rare in ordinary text")
    class_word: str = knob("", help='what it is, in one or two ordinary words: "dog", "glass teapot"')
    captions: bool = knob(True, help="use the text file beside a photo as its caption, where there is one")
    template: str = knob("a photo of {token} {class_word}", help="the caption of photos without one")
    flip: bool = knob(False, help="also show photos mirrored; not for faces, text or anything one-sided")
    crops: Crops = Field(default_factory=dict[str, Crop], description=CROPS_HELP)
    focus: bool = knob(True, help="crop around the middle; off: whole photos in size buckets", expert=True)


class AdapterRef(Part, frozen=True):
    """One adapter of the stack, and how much of it."""

    adapter: str = files("", help="a safetensors file, a run, or a folder that holds one")
    weight: float = knob(1.0, -4, 4, help="0 is none, 1 as trained; above 1 pictures start to burn")


class Sampler(Part, frozen=True):
    """How noise becomes a picture."""

    name: str = knob("ddim", help="ddim, euler, dpmpp_2m, unipc or lcm")
    steps: int = knob(20, 1, 1000, help="denoising steps; more is slower, and rarely better above 40")


class Drawing(JobSpec, frozen=True):
    """What every job that draws has in common."""

    base: str = knob("toybox", help="a base preset, a local folder or file, or a Hub id")
    prompts: tuple[str, ...] = knob((), help="what to draw, one text a picture")
    negative: str = knob("", help="what to avoid")
    adapters: tuple[AdapterRef, ...] = knob((), help="trained concepts to draw with")
    guidance: Table = method("guidance", "cfg", help="how words are weighed")
    sampler: Sampler = Field(default_factory=Sampler, description="how noise becomes a picture")
    width: int | None = knob(None, 8, 8192, help="picture width; default: the base's own", unit="px")
    height: int | None = knob(None, 8, 8192, help="picture height; default: the base's own", unit="px")
    count: int = knob(1, 1, 1000, help="pictures a prompt")
    seed: int = knob(0, 0, 2**63 - 1, help="seed of the first picture; the others count up")
    device: Device = knob("auto", help="where to draw; auto takes a GPU if there is one")
    memory: Memory = knob("auto", help=MEMORY_HELP, expert=True)
    references: str = files("", help="photos of the subject to measure likeness against")
    score: bool = knob(True, help="measure every picture: obedience, and likeness where there are references")
    out: Path | None = knob(None, help="folder for the results; default: a new run in the workspace")


class Compose(Drawing, frozen=True):
    """Draw pictures."""

    summary: ClassVar[str] = "draw pictures, with any stack of adapters"
    kind: Literal["compose"] = "compose"
    reference: Table | None = method("reference", None, help="a reference method and its pictures")
    start: str = files("", help="a picture to begin from")
    strength: float = knob(0.6, 0, 1, help="how much of the starting picture is drawn again")
    mask: str = files("", help="a picture that is white where to draw again")


class Edit(Drawing, frozen=True):
    """Change a picture."""

    summary: ClassVar[str] = "change a picture by words"
    kind: Literal["edit"] = "edit"
    image: str = files("", help="the picture to change")
    source: str = knob("", help="what the picture shows now, in words; helps inversion")
    edit: Table = method("editing", "sdedit", help="the editing method")
    mask: str = files("", help="a picture that is white where the change may happen")


KEPT = 0.6
"""Of the untrained base's picture of a prompt (1: the same): where less is left, a training is warned."""


class Watch(Part, frozen=True):
    """What is looked at while training."""

    every: int = knob(50, 0, 100_000, help="steps between samples and readouts; 0 for none", unit="steps")
    prompts: tuple[str, ...] = knob((), help="prompts to sample; empty: some of our own, never trained on")
    guidance: float = knob(0.0, 0, 30, help="guidance of samples; 0 takes the base's own")
    count: int = knob(4, 1, 16, help="samples each time")
    best: bool = knob(True, help="keep the checkpoint with the best readouts, not the last")


class Train(JobSpec, frozen=True):
    """Teach a concept."""

    summary: ClassVar[str] = "teach a base model a subject from a folder of photos"
    kind: Literal["train"] = "train"
    base: str = knob("toybox", help="a base preset, a local folder or file, or a Hub id")
    data: PhotoSet = Field(default_factory=PhotoSet, description="the photos and the words for them")
    concept: Table = method("concepts", "dreambooth_lora", help="the training method")
    watch: Watch = Field(default_factory=Watch, description="samples and readouts while training")
    seed: int = knob(0, 0, 2**31 - 1, help="seed of noise, timesteps and order")
    device: Device = knob("auto", help="where to train; auto takes a GPU if there is one")
    memory: Memory = knob("auto", help=MEMORY_HELP, expert=True)
    resume: bool = knob(False, help="go on from the last checkpoint of the run")
    out: Path | None = knob(None, help="run folder; default: a new run in the workspace")


class Check(JobSpec, frozen=True):
    """Look at photos before training."""

    summary: ClassVar[str] = "look at a folder of photos and say what is wrong with each"
    kind: Literal["check"] = "check"
    photos: str = files("", help="the folder")
    size: int = knob(512, 16, 4096, help="the training size they should have", unit="px")
    crops: Crops = Field(default_factory=dict[str, Crop], description=CROPS_HELP)
    out: Path | None = knob(
        None, help="folder for small upright copies (JPEG, at most 320 px) of the photos; default: none"
    )
    token: str = knob("", help="the new word that the captions beside the photos should have")
    class_word: str = knob("", help="what the subject is; captions should have it after the new word")


class Caption(JobSpec, frozen=True):
    """Write captions beside photos."""

    summary: ClassVar[str] = "write a caption into a text file beside each photo"
    kind: Literal["caption"] = "caption"
    photos: str = files("", help="a folder of photos, or one photo")
    token: str = knob("sks", help="the new word for the subject; put into every caption once")
    class_word: str = knob("", help='what it is, in one or two ordinary words: "dog", "glass teapot"')
    plain: bool = knob(False, help="write the template; no network looks at the photos")
    template: str = knob("a photo of {token} {class_word}", help="the caption that --plain writes")
    overwrite: bool = knob(False, help="replace captions that are there already")
    dry_run: bool = knob(False, help="show the captions and write nothing")
    device: Device = knob("auto", help="where to look at the photos; auto takes a GPU if there is one")


class Score(JobSpec, frozen=True):
    """Measure pictures."""

    summary: ClassVar[str] = "measure pictures: obedience to a prompt, likeness to references"
    kind: Literal["score"] = "score"
    images: tuple[str, ...] = files((), help="pictures, or folders of them")
    prompt: str = knob("", help="the prompt they should show; default: the one each picture carries")
    references: str = files("", help="photos of the subject they should be like")
    metrics: tuple[str, ...] = knob((), help="readouts to take; empty: all that can be taken")
    base: str = knob("toybox", help="the base whose encoders measure")
    device: Device = knob("auto", help="where to measure; auto takes a GPU if there is one")


class Axis(Part, frozen=True):
    """One setting that varies over a grid."""

    path: str = knob("", help='a dotted path: "guidance.scale", "seed", "prompts.0", "adapters.0.weight"')
    values: tuple[Any, ...] = knob((), help="its values, in order")


class Compare(JobSpec, frozen=True):
    """Draw a grid."""

    summary: ClassVar[str] = "draw a grid over one to three settings, with readouts"
    kind: Literal["compare"] = "compare"
    title: str = knob("", help="what the grid is about")
    job: Table = Field(default_factory=dict[str, Any], description="the drawing that varies, as a job table")
    axes: tuple[Axis, ...] = knob((), help="what varies: columns, rows, pages")
    out: Path | None = knob(None, help="folder for picture, CSV and JSON; default: a new run")

    def shareable(self) -> dict[str, Any]:
        """As every job, the drawing inside included."""
        return super().shareable() | {"job": shareable_table(_drawing(self.job), self.job)}


def _drawing(table: Table) -> type[Drawing]:
    return Edit if table.get("kind") == "edit" else Compose
