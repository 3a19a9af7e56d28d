"""What Compose makes of its form: prompts, notes while typing, photos to measure against, the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pipelines.artifacts import assets
from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import vocabulary, wildcards, workspace
from pipelines.jobs.references import PICTURES
from pipelines.jobs.spec import Compose
from studio import library
from studio.binding import Sheet
from studio.compose_gallery import fresh_seed
from studio.desk import Desk
from studio.markup import Markup, join, note, tag

AUTO, NOTHING = "auto", ""
MOST_PROMPTS = 100
_SAMPLES = ("photos", "subjects")
_HIDDEN = ("start", "masks")


def prompts_of(text: str | None, lines: bool) -> list[str]:
    """The prompts in the box: one, or with `lines` one a line; empty ones are none."""
    found = (text or "").splitlines() if lines else [text or ""]
    return [each.strip() for each in found if each.strip()]


def notes(desk: Desk, base: str, text: str, negative: str, stack: Sequence[Mapping[str, Any]]) -> Markup:
    """What of the words the base will not hear, and wildcard lists that are not there."""
    said: list[Markup] = []
    known = trained(desk, stack)
    strange = vocabulary.unknown(base, f"{text or ''}\n{negative or ''}", known)
    if strange and base in desk.base_names():
        words = ", ".join(f"“{each}”" for each in strange[:12]) + (" …" if len(strange) > 12 else "")
        it = "this word" if len(strange) == 1 else "these words"
        said.append(note("This base never learned ", it, ": ", tag("strong", words), kind="warning"))
    try:
        wildcards.expand(text or "", 0, desk.folder)
    except LikenessError as error:
        said.append(note(tag("strong", error.message), " ", error.remedy, kind="bad"))
    return join(said)


def trained(desk: Desk, stack: Sequence[Mapping[str, Any]]) -> set[str]:
    """The words that the adapters of a stack taught."""
    words: set[str] = set()
    for each in stack:
        try:
            words |= set(library.entry(desk, str(each["adapter"])).trigger.split())
        except LikenessError:
            continue
    return words


def help_lines(desk: Desk) -> Markup:
    """How a prompt may be written, with the lists that wildcards may name."""
    named = ", ".join(f"__{each}__" for each in sorted(wildcards.lists(desk.folder))[:12])
    rows = [
        ("(word:1.3)", "this word counts more; below 1 less"),
        ("{red|blue}", "one of them, chosen by the seed"),
        (named or "__list__", "a line of that list, chosen by the seed"),
        ("Ctrl + Enter", "draws"),
    ]
    return tag(
        "dl", *(part for key, said in rows for part in (tag("dt", key), tag("dd", said))), cls="prompt-help"
    )


def reference_sets(desk: Desk) -> list[tuple[str, str]]:
    """(label, reference) of the photo sets that likeness can be measured against."""
    found = [
        ("The photos that the first trained concept learned from", AUTO),
        ("Nothing: measure obedience alone", NOTHING),
    ]
    for part in _SAMPLES:
        names = [folder.name for folder in sorted((assets() / part).iterdir()) if folder.is_dir()]
        found += [(f"Sample: {name.replace('_', ' ')}", f"asset:{part}/{name}") for name in names]
    uploads = desk.folder / "uploads"
    for folder in sorted(uploads.iterdir()) if uploads.is_dir() else []:
        own = folder.is_dir() and not folder.name.startswith((".", *_HIDDEN))
        if own and any(each.suffix.lower() in PICTURES for each in folder.iterdir()):
            found.append((f"Yours: {folder.name}", f"upload:{folder.name}"))
    return found


def own_photos(desk: Desk, stack: Sequence[Mapping[str, Any]]) -> str:
    """The photos that the first adapter of a stack was trained on, where they are still here; else ""."""
    for each in stack:
        try:
            run = workspace.read_run(library.entry(desk, str(each["adapter"])).folder)
            data = cast("dict[str, Any]", cast("dict[str, Any]", run.get("spec") or {}).get("data") or {})
            photos = str(data.get("photos") or "")
            workspace.resolve(photos, folder=desk.folder, local=False)
        except LikenessError:
            continue
        return photos
    return ""


def job_of(desk: Desk, sheet: Sheet, values: Sequence[Any]) -> Compose:
    """The job that the form describes. Raises BadInput where there is nothing to draw, or UnknownName."""
    form = {each.path: each.read(value) for each, value in zip(sheet.bound, values, strict=True)}
    prompts = prompts_of("\n".join(form.get("prompts") or ()), bool(form.get("_lines")))
    if not prompts:
        raise BadInput(
            "There is nothing to draw yet.", "Write a prompt, for example: a red dog on the beach."
        )
    if len(prompts) > MOST_PROMPTS:
        raise BadInput(f"These are {len(prompts):,} prompts.", f"Give at most {MOST_PROMPTS} at once.")
    more: dict[str, Any] = {"prompts": prompts}
    if form.get("seed") is None:
        more["seed"] = fresh_seed()
    if form.get("references") is None:
        more["references"] = own_photos(desk, form.get("adapters") or ())
    if not form.get("start"):
        more["mask"] = ""
    return cast("Compose", sheet.job(values, desk.native(str(form["base"])), more))
