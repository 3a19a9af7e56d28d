"""`likeness caption`: a text file beside each photo that says what is in it, with the new word in it once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.artifacts import assets, atomic_write
from pipelines.data.captions import beside, check_words, fill, lint_all, with_trigger
from pipelines.data.opening import list_photos, open_photo
from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import workspace
from pipelines.jobs.kinds import Caption, PhotoSet
from pipelines.progress import Job

AT_ONCE = 4


def caption(spec: Caption, job: Job) -> dict[str, Any]:
    """Caption every photo that has no caption yet (every photo with `overwrite`).

    → rows {name, caption, written, why}, `why` saying why nothing was written. Raises NotAvailable where a
    captioner is needed and none is installed (before anything is written), BadInput for a folder that cannot
    be written.
    """
    data = PhotoSet(token=spec.token, class_word=spec.class_word)
    check_words(data)
    _check_template(spec)
    paths = list_photos(workspace.resolve(spec.photos))
    if not spec.dry_run:
        _check_own(paths[0].parent)
    owners: dict[Path, Path] = {}
    rows = {path: _kept(path, owners.setdefault(path.with_suffix(".txt"), path), spec) for path in paths}
    wanted = [path for path, row in rows.items() if row is None]
    told = _from_template(wanted, spec, data) if spec.plain else _from_captioner(wanted, spec, job)
    for count, (path, text, trouble) in enumerate(told, 1):
        if not trouble and not spec.dry_run:
            _write(path.with_suffix(".txt"), text)
        why = trouble or ("nothing is written in a dry run" if spec.dry_run else "")
        rows[path] = {"name": path.name, "caption": text, "written": not why, "why": why}
        job.report(count, len(wanted), caption=text)
    found = [row for row in rows.values() if row is not None]
    written = sum(row["written"] for row in found)
    # a template is the same everywhere, and whoever asks for one knows that
    texts = [] if spec.plain else [row["caption"] for row in found if row["caption"]]
    return {
        "rows": found,
        "photos": len(found),
        "written": written,
        "notes": lint_all(texts, spec.token, spec.class_word),
    }


def _check_template(spec: Caption) -> None:
    if not spec.plain and spec.template != Caption.model_fields["template"].default:
        raise BadInput(
            "A template is only written with --plain.",
            "Add --plain, or leave the template out and let a captioner look at the photos.",
        )


def _check_own(folder: Path) -> None:
    """Raise BadInput for the photos that come with the program: they are everybody's."""
    if folder.resolve().is_relative_to(assets().resolve()):
        raise BadInput(
            "The photos that come with the program are not written to.",
            "Copy them into a folder of your own, or look first with --dry-run.",
        )


def _kept(path: Path, owner: Path, spec: Caption) -> dict[str, Any] | None:
    """The row of a photo that gets no new caption; None for one that does. `owner` has its text file."""
    own = beside(path)
    if owner != path:
        why = f"its text file is that of {owner.name}; give one of them another name"
    elif own and not spec.overwrite:
        why = "it has a caption already; --overwrite replaces it"
    else:
        return None
    return {"name": path.name, "caption": own, "written": False, "why": why}


Told = tuple[Path, str, str]
"""A photo, its caption, and what is in the way of writing it."""


def _from_template(paths: Sequence[Path], spec: Caption, data: PhotoSet) -> Iterator[Told]:
    """The template for every photo, looked at by nobody."""
    text = fill(spec.template, data)
    yield from ((path, text, "") for path in paths)


def _from_captioner(paths: Sequence[Path], spec: Caption, job: Job) -> Iterator[Told]:
    """What the captioner says of every photo, a few at a time."""
    if not paths:
        return
    from pipelines.vision.captions import captioner

    writer = captioner(spec.device)
    for start in range(0, len(paths), AT_ONCE):
        job.check()
        some = paths[start : start + AT_ONCE]
        opened = [_opened(path) for path in some]
        texts = iter(writer.captions([image for image, _ in opened if image is not None]))
        for path, (image, trouble) in zip(some, opened, strict=True):
            text = "" if image is None else with_trigger(next(texts), spec.token, spec.class_word)
            yield path, text, trouble


def _opened(path: Path) -> tuple[Any, str]:
    try:
        return open_photo(path), ""
    except LikenessError as error:
        return None, f"{error.message} {error.remedy}"


def _write(path: Path, text: str) -> None:
    try:
        atomic_write(path, text.encode() + b"\n")
    except PermissionError as error:
        raise BadInput(
            f"{path.parent} cannot be written ({error.strerror}).",
            "Copy the photos into a folder of your own, or allow writing there.",
        ) from None
