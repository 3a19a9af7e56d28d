"""The photos on a desk: which set, what the check said of each, what is left out, what is cropped.

Kept with the desk, not with the page: a reload and a second tab show the same. The set itself is a folder
of the workspace (`upload:NAME`) or an embedded one (`asset:…`), which is copied before anything is written
to it. Photos are opened in the worker alone; here they are names.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import presets, workspace
from pipelines.jobs.kinds import Check
from pipelines.jobs.references import split
from studio.desk import Desk

NAME = "photos"
SHOWN = 60
"""Cards that are drawn at once."""
_CHANGING = threading.Lock()

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    """A set of photos that comes with the program. `kind` is the chooser's word for it."""

    reference: str
    title: str
    class_word: str
    kind: str
    drawn: bool


SAMPLES = (
    Sample("asset:subjects/rabbit", "Spotted rabbit", "rabbit", "animal", True),
    Sample("asset:subjects/cat", "Checkered cat", "cat", "animal", True),
    Sample("asset:subjects/bearded_man", "Bearded man", "man", "person", True),
    Sample("asset:photos/dog", "Dog", "dog", "animal", False),
    Sample("asset:photos/cat", "Cat", "cat", "animal", False),
    Sample("asset:photos/bear_plushie", "Toy bear", "stuffed animal", "thing", False),
    Sample("asset:photos/backpack", "Backpack", "backpack", "thing", False),
    Sample("asset:photos/teapot", "Teapot", "teapot", "thing", False),
    Sample("asset:photos/clock", "Clock", "clock", "thing", False),
)


@dataclass(frozen=True)
class Photos:
    """The set on a desk. `report` is the result of the check job, empty until it came."""

    reference: str = ""
    source: str = ""
    """The reference that the set was first taken from: an embedded one stays a sample when it is copied."""
    report: dict[str, Any] = field(default_factory=dict[str, Any])
    exclude: tuple[str, ...] = ()
    crops: dict[str, Box] = field(default_factory=dict[str, Box])
    shown: int = SHOWN
    problem: tuple[str, str] = ("", "")
    """What went wrong with the check, and the way out."""

    @property
    def sample(self) -> Sample | None:
        """The sample set that this is."""
        return next((each for each in SAMPLES if each.reference == self.source), None)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the check says of each photo: name, verdict, reasons, width, height, small."""
        return cast("list[dict[str, Any]]", self.report.get("photos") or [])

    @property
    def names(self) -> list[str]:
        """The file names of the photos."""
        return [str(row["name"]) for row in self.rows]

    @property
    def used(self) -> list[str]:
        """The photos that a training would see."""
        return [
            str(row["name"])
            for row in self.rows
            if row["name"] not in self.exclude and row["verdict"] != "unusable"
        ]


def read(desk: Desk) -> Photos:
    """The set on a desk; an empty one where nothing was chosen, or where it is gone."""
    table = desk.draft(NAME)
    try:
        crops = {str(name): _box(box) for name, box in dict(table.get("crops") or {}).items()}
        found = Photos(
            str(table.get("reference", "")),
            str(table.get("source", "")),
            dict(table.get("report") or {}),
            tuple(str(each) for each in table.get("exclude") or ()),
            crops,
            int(table.get("shown", SHOWN)),
            cast("tuple[str, str]", tuple(table.get("problem") or ("", ""))),
        )
        if found.reference:
            desk.path(found.reference)
    except (LikenessError, TypeError, ValueError):
        return Photos()
    return found


def change(desk: Desk, **values: Any) -> Photos:
    """The set with some of it changed, kept and shown anew."""
    with _CHANGING:
        fresh = replace(read(desk), **values)
        desk.keep(NAME, asdict(fresh))
    desk.touch(NAME)
    return fresh


def choose(
    desk: Desk, reference: str, exclude: Sequence[str] = (), crops: Mapping[str, Box] | None = None
) -> Photos:
    """Take another set; its check is still to come. Raises BadInput or MissingAsset for a foreign one."""
    desk.path(reference)
    with _CHANGING:
        fresh = Photos(reference, reference, {}, tuple(exclude), dict(crops or {}))
        desk.keep(NAME, asdict(fresh))
    desk.touch(NAME)
    return fresh


def clear(desk: Desk) -> None:
    """Nothing is chosen any more; the copies stay for the trainings that name them."""
    change(desk, **vars(Photos()))


def add(desk: Desk, files: Sequence[str | Path], name: str = "photos") -> Photos:
    """Uploaded files as the set, together with what was uploaded before. Raises BadInput, DiskFull."""
    now = read(desk)
    before: list[Path] = []
    own = split(now.reference)[0] == "upload" and now.sample is None
    if own:
        before = [each for each in sorted(desk.path(now.reference).iterdir()) if each.is_file()]
    reference = desk.upload([*before, *(Path(each) for each in files)], name)
    with _CHANGING:
        kept = now if own else Photos()
        fresh = Photos(reference, reference, {}, kept.exclude, kept.crops)
        desk.keep(NAME, asdict(fresh))
    desk.touch(NAME)
    return fresh


def check(desk: Desk, base: str, resolution: int | None = None) -> Photos:
    """Look at the set in the worker, and keep what it says. A refusal is kept too, with its way out."""
    now = read(desk)
    if not now.reference:
        return now
    try:
        spec = presets.build(
            "check",
            form={
                "photos": now.reference,
                "size": resolution or size_of(desk, base),
                "crops": {name: list(box) for name, box in now.crops.items()},
                "out": desk.folder / "thumbs" / thumbs_of(now.reference),
            },
        )
        report, problem = desk.ask(spec), ("", "")
    except LikenessError as error:
        report, problem = {}, (error.message, error.remedy)
    if read(desk).reference != now.reference:  # another set was chosen meanwhile
        return read(desk)
    return change(desk, report=report, problem=problem)


def size_of(desk: Desk, base: str) -> int:
    """The pixels a side that photos should have for a base."""
    native = desk.native(base)
    own = cast("dict[str, Any]", native.get("check") or {}).get("size")
    return int(own or native.get("width") or Check.model_fields["size"].default)


def thumbs_of(reference: str) -> str:
    """The name of the folder of a set's small copies."""
    return workspace.slug(reference.replace("/", " ").replace(":", " "))


def small_url(desk: Desk, photos: Photos, row: Mapping[str, Any]) -> str:
    """The address of a photo's small upright copy; "" where it could not be opened."""
    name = str(row.get("small") or "")
    return desk.url(desk.folder / "thumbs" / thumbs_of(photos.reference) / name) if name else ""


def leave_out(desk: Desk, name: str) -> None:
    """A training shall not see this photo."""
    now = read(desk)
    if name in now.names and name not in now.exclude:
        change(desk, exclude=(*now.exclude, name))


def take_back(desk: Desk, name: str) -> None:
    """A training shall see this photo again."""
    change(desk, exclude=tuple(each for each in read(desk).exclude if each != name))


def leave_out_poor(desk: Desk) -> None:
    """Leave out every photo that the check calls poor."""
    now = read(desk)
    poor = [str(row["name"]) for row in now.rows if row["verdict"] in ("poor", "unusable")]
    change(desk, exclude=tuple(dict.fromkeys((*now.exclude, *poor))))


def crop(desk: Desk, name: str, box: Sequence[float] | None) -> None:
    """Keep only a part of a photo, in shares of it; None: the whole. Raises BadInput for no part of it."""
    now = read(desk)
    if name not in now.names:
        raise BadInput(f'There is no photo "{name}" in the set.', "Choose one of those that are shown.")
    crops = {key: value for key, value in now.crops.items() if key != name}
    if box is not None:
        crops[name] = _box(box)
    change(desk, crops=crops)


def _box(box: Sequence[float]) -> Box:
    try:
        left, top, right, bottom = (round(float(each), 4) for each in box)
    except (TypeError, ValueError):
        raise BadInput("That is no crop.", "Drag a rectangle over the photo.") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise BadInput("The crop keeps nothing of the photo.", "Drag a larger rectangle over it.")
    return left, top, right, bottom


def folder_of(desk: Desk, photos: Photos) -> Path:
    """The folder of a set."""
    return desk.path(photos.reference)


def own_copy(desk: Desk) -> Photos:
    """The set in a folder that may be written to: an embedded one is copied first."""
    now = read(desk)
    if not now.reference:
        raise BadInput("There are no photos yet.", "Drop some, or take a sample set.")
    if split(now.reference)[0] == "upload":
        return now
    reference = desk.borrow(now.reference, Path(split(now.reference)[1]).name)
    old, new = (desk.folder / "thumbs" / thumbs_of(each) for each in (now.reference, reference))
    if old.is_dir() and not new.exists():
        new.mkdir(parents=True)
        for each in old.iterdir():
            (new / each.name).write_bytes(each.read_bytes())
    return change(desk, reference=reference)
