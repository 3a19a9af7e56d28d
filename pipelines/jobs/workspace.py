"""The workspace: one folder with runs, uploads, presets and the store; and the way from references to files.

It stands where LIKENESS_WORKSPACE says, else in the user's data folder; `at` puts another in its place for a
while, since one worker may serve visitors who each have their own. `runs/NAME/run.json` holds the job
of a run, its status and its readings; the worker writes the rest beside it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, cast

import platformdirs

from pipelines.artifacts import assets, atomic_write
from pipelines.errors import BadInput, MissingAsset, nearest
from pipelines.jobs.model import JobSpec, references_of
from pipelines.jobs.references import ADAPTER, fingerprint, hashed, split

ENV = "LIKENESS_WORKSPACE"
RUN_LIMIT = 64 * 2**20
_ADAPTERS = (
    ADAPTER,
    "pytorch_lora_weights.safetensors",
    "learned_embeds.safetensors",
    "adapter_model.safetensors",
    "model",
)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
_LONGEST = 48

Want = Literal["", "adapter"]
_AT: ContextVar[Path | None] = ContextVar("workspace", default=None)


@contextmanager
def at(folder: Path | None) -> Generator[None]:
    """Let `root` be this folder while the context is open; None leaves it where it is.

    Other threads do not see it, and neither do those started inside.
    """
    if folder is None:
        yield
        return
    before = _AT.set(folder)
    try:
        yield
    finally:
        _AT.reset(before)


def root() -> Path:
    """The workspace folder; it may not exist yet."""
    if (chosen := _AT.get()) is not None:
        return chosen
    named = os.environ.get(ENV)
    if named:
        return Path(named).expanduser()
    return Path(platformdirs.user_data_dir("likeness-studio", appauthor=False))


def ready(folder: Path | None = None) -> Path:
    """The workspace folder, made if need be. Raises BadInput where it cannot be written."""
    folder = folder or root()
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise BadInput(
            f"The workspace {folder} cannot be written.",
            f"Choose another with --workspace or {ENV}, or name a folder with --out.",
        )
    return folder


def new_run(kind: str, title: str, folder: Path | None = None) -> Path:
    """A new, empty run folder with a readable name that no other run has: runs/train-brown-dog-2.

    Two processes never get the same one. Raises BadInput where the workspace cannot be written.
    """
    runs = ready(folder) / "runs"
    name = slug(f"{kind} {title}")
    taken = {each.name.casefold() for each in runs.iterdir()}
    for number in range(1, 1_000_000):
        fresh = name if number == 1 else f"{name}-{number}"
        if fresh.casefold() in taken:
            continue
        try:
            (runs / fresh).mkdir()
        except FileExistsError:  # another process was quicker
            continue
        return runs / fresh
    raise BadInput(f"{runs} holds too many runs of one name.", "Delete old runs.")


def vacant(out: Path, kind: str) -> None:
    """Check that a job of `kind` may write to `out` without taking anything from what stands there.

    Pictures join pictures, and a training knows by itself whether it is gone on with. Raises BadInput for a
    file, the run of another kind, or an adapter that merging would replace.
    """
    there = next((each for each in (out, *out.parents) if each.exists()), out)
    if there != out and not (there.is_dir() and os.access(there, os.W_OK)):
        raise BadInput(f"{out} cannot be made: {there} cannot be written.", "Choose another folder (--out).")
    if kind == "merge":
        path = out if out.suffix == ".safetensors" else out / ADAPTER
        if path.exists():
            raise BadInput(f"{path} exists already.", "Choose another place for the result (--out).")
        return
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file, not a folder.", "Choose a folder for the results (--out).")
    if out.exists() and not os.access(out, os.W_OK):
        raise BadInput(f"{out} cannot be written.", "Choose another folder (--out), or allow writing there.")
    if (out / "run.json").is_file():
        spec = read_run(out).get("spec")
        other = cast("dict[str, Any]", spec).get("kind") if isinstance(spec, dict) else None
        if other not in (None, kind):
            raise BadInput(
                f"{out} holds the results of another job ({other}).", "Choose another folder (--out)."
            )


@contextmanager
def run_folder(out: Path | None, kind: str, title: str) -> Generator[Path]:
    """The folder of a run: `out`, or a new one; that goes again where the work fails and it is empty."""
    if out is not None:
        yield out
        return
    folder = new_run(kind, title)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def slug(text: str) -> str:
    """Words as a file name that every system takes: lower case, hyphens, at most 48 characters."""
    words = re.findall(r"[^\W_]+", text.lower())
    name = "-".join(words)[:_LONGEST].strip("-") or "run"
    return f"x-{name}" if _RESERVED.fullmatch(name) else name


def write_run(
    folder: Path, spec: JobSpec, status: str, result: Mapping[str, Any] | None = None, note: str = ""
) -> Path:
    """Write run.json: the job, its status ("running", "done", "failed" …) and what came of it."""
    table: dict[str, Any] = {"spec": spec.portable(), "status": status, "at": time.time()}
    if note:
        table["note"] = note
    if result is not None:
        table |= {"result": dict(result), "readings": result.get("readings")}
    text = json.dumps(table, indent=1, ensure_ascii=False, default=str)
    return atomic_write(folder / "run.json", text.encode() + b"\n")


def read_run(folder: Path) -> dict[str, Any]:
    """The table in run.json. Raises MissingAsset without one, BadInput where it is damaged."""
    path = folder / "run.json"
    if not path.is_file():
        raise MissingAsset(path, "Name the folder of a run.")
    try:
        if path.stat().st_size > RUN_LIMIT:
            raise ValueError("it is too large")
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({error}).", "Restore it, or delete the run.") from None
    if not isinstance(table, dict):
        raise BadInput(f"{path} is not the description of a run.", "Restore it, or delete the run.")
    return cast("dict[str, Any]", table)


def resolve(reference: str, want: Want = "", folder: Path | None = None, local: bool = True) -> Path:
    """The file or folder behind a reference; with `want="adapter"` the weights inside a run folder.

    `local` is false for visitors from elsewhere: they may not name files of this machine. Raises BadInput for
    a reference that is refused or leaves its folder, MissingAsset where nothing stands there.
    """
    if not reference.strip():
        raise BadInput("No file was named.", "Name a file or a folder.")
    scheme, name = split(reference)
    travelled = hashed(reference)
    if travelled:
        path = _again(*travelled, folder or root(), local)
    elif scheme == "file":
        if not local:
            raise BadInput(
                "Files of this machine cannot be named from elsewhere.",
                "Upload the file, and choose it there.",
            )
        path = _plain(name)
    else:
        path = _inside(home(scheme, folder), name, reference)
    return adapter_in(path) if want == "adapter" else path


def check_references(spec: JobSpec, folder: Path | None = None, local: bool = True) -> None:
    """Resolve every file that a job names. Raises as `resolve` does, saying in which setting."""
    for where, reference in references_of(spec):
        try:
            resolve(reference, folder=folder, local=local)
        except (BadInput, MissingAsset) as error:
            raise BadInput(f"{where}: {error.message}", error.remedy) from None


def home(scheme: str, folder: Path | None = None) -> Path:
    """The folder that `asset:`, `run:` or `upload:` names stand in."""
    return assets() if scheme == "asset" else (folder or root()) / f"{scheme}s"


def adapter_in(path: Path) -> Path:
    """The weights that a path means: itself if a file, else the adapter or full model inside the folder.

    Raises MissingAsset where the folder holds none.
    """
    if not path.is_dir():
        return path
    if (path / "model_index.json").is_file():
        return path
    for name in _ADAPTERS:
        if (path / name).exists():
            return path / name
    alone = sorted(path.glob("*.safetensors"))
    if len(alone) == 1:
        return alone[0]
    raise MissingAsset(path / ADAPTER, "Train it to its end, or name the safetensors file itself.")


def _plain(name: str) -> Path:
    if "\0" in name or len(name) > 4096:
        raise BadInput("That is no path.", "Name a file or a folder.")
    path = Path(name).expanduser()
    try:
        there = path.exists()
    except OSError:  # a name that the system does not take
        there = False
    if not there:
        raise MissingAsset(path, _nearest(path.parent, path.name) or "Check the path.")
    return path


def _inside(base: Path, name: str, reference: str) -> Path:
    """`name` inside `base`: never above it, and no link out of it is followed."""
    parts = PurePosixPath(name).parts
    escapes = (
        not parts
        or ".." in parts
        or "\\" in name
        or "\0" in name
        or PurePosixPath(name).is_absolute()
        or bool(PureWindowsPath(name).drive)
    )
    path = base / name
    if escapes or not path.resolve().is_relative_to(base.resolve()):
        raise BadInput(f'"{reference}" leaves its folder.', "Name something inside it.")
    if not path.exists():
        hint = _nearest(path.parent, path.name)
        raise MissingAsset(reference, hint or "Check the name.")
    return path


def _again(name: str, digest: str, folder: Path, local: bool) -> Path:
    """The file that a picture named by name and hash, looked for where such files stand."""
    places: list[Path] = [folder / "uploads", folder / "runs"]
    if local:
        places.insert(0, Path.cwd())
    for path in _candidates(places, name):
        if fingerprint(path) == digest:
            return path
    raise MissingAsset(
        name, f"The picture was made with this very file; put {name} into the current folder, or name it."
    )


def _candidates(places: Iterable[Path], name: str) -> Iterable[Path]:
    """Files of a name in the places and in the folders directly below them; not a search of the disk."""
    for place in places:
        if place.is_dir():
            yield place / name
            yield from (each / name for each in sorted(place.iterdir()) if each.is_dir())


def _nearest(folder: Path, name: str) -> str | None:
    """A hint at the entry of `folder` whose name is closest."""
    try:
        names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
    except OSError:
        return None
    close = nearest(name, names)
    return f'Did you mean "{close}"?' if close else None
