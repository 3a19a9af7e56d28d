"""Uploaded files on their way into a workspace: counted, named by us, judged by content and not by name.

Nothing is decoded here: whether a picture is whole is for the worker to find out, in a process of its own.
"""

from __future__ import annotations

import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from pipelines.artifacts import atomic_write
from pipelines.errors import BadInput, DiskFull
from pipelines.jobs import workspace
from studio.settings import Settings

MOST_PHOTOS, MOST_BYTES = 2000, 64 * 2**20
MOST_ZIP_FILES, MOST_ZIP_BYTES, MOST_RATIO = 2000, 2 * 2**30, 200
MOST_DIRECTORY = MOST_ZIP_FILES * 512
"""Bytes of an archive's table of contents: each file takes 46, its name, and a few more."""
ROOM = 200 * 2**20
TEXT_LIMIT = 64 * 1024
_PICTURES = "JPEG, PNG, WebP or HEIC"


def keep_photos(
    files: Sequence[Path], home: Path, name: str, settings: Settings, *, trusted: bool = False
) -> Path:
    """Copy pictures, with the captions beside them, into a new folder below `home`; → the folder.

    Archives are unpacked flat. Raises BadInput where nothing of it is a picture or there is too much,
    DiskFull. Nothing is left behind then. `trusted` files are our own and are not counted.
    """
    most = settings.hosting.photos or MOST_PHOTOS
    plain = [each for each in files if each.is_file()]
    if not trusted and len(plain) > most:
        raise BadInput(
            f"These are {len(plain):,} files.", f"Give at most {most:,}; 5 to 30 photos are usual."
        )
    if shutil.disk_usage(home.parent).free < ROOM:
        raise DiskFull(home)
    folder = _new_folder(home, name)
    try:
        kept = _copy_all(plain, folder, settings, most)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)
        raise BadInput("None of these files is a picture.", f"Choose photos as {_PICTURES}.")
    return folder


def kind_of(start: bytes) -> str:
    """The ending that a picture's first bytes tell (".jpg" …); "" for anything else."""
    if start.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return ".webp"
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return ".heic"
    if start[4:8] == b"ftyp" and start[8:12] == b"avif":
        return ".avif"
    return ""


def _copy_all(files: Sequence[Path], folder: Path, settings: Settings, most: int) -> int:
    kept = total = 0
    limit = (settings.hosting.uploads_mb or 64) * 2**20
    for name, data in _contents(files):
        if Path(name).suffix.lower() == ".txt":
            if len(data) <= TEXT_LIMIT:
                atomic_write(folder / _fresh(folder, Path(name).stem, ".txt"), data)
            continue
        ending = kind_of(data[:16])
        if not ending:
            continue
        if len(data) > limit:
            raise BadInput(
                f"{PurePosixPath(name).name} is larger than {limit >> 20} MB.",
                "Make it smaller and try again.",
            )
        kept, total = kept + 1, total + len(data)
        if settings.hosting.uploads_mb and total > limit:
            raise BadInput(
                f"These photos take more than {limit >> 20} MB together.",
                "Give fewer or smaller ones; 5 to 30 photos are usual.",
            )
        if kept > most:
            raise BadInput(f"There are more than {most:,} photos.", "5 to 30 photos are usual.")
        atomic_write(folder / _fresh(folder, Path(name).stem, ending), data)
    return kept


def _contents(files: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file, of those inside archives too."""
    for each in files:
        if each.stat().st_size > MOST_ZIP_BYTES:
            raise BadInput(f"{each.name} is too large.", "Choose fewer or smaller photos.")
        with each.open("rb") as file:
            start = file.read(4)
        if start == b"PK\x03\x04":
            yield from _unpacked(each)
        elif each.stat().st_size <= MOST_BYTES * 2:
            yield each.name, each.read_bytes()
        elif kind_of(start + b"\0" * 12) or each.suffix.lower() in (".png", ".jpg", ".jpeg", ".heic"):
            raise BadInput(f"{each.name} is larger than {MOST_BYTES * 2 >> 20} MB.", "Make it smaller.")


def _unpacked(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of an archive, read with a counter: what it declares of its sizes may be a lie."""
    if _directory_size(path) > MOST_DIRECTORY:
        raise BadInput(f"{path.name} holds too many files.", f"At most {MOST_ZIP_FILES:,} are taken.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if not each.is_dir()]
            if len(members) > MOST_ZIP_FILES:
                raise BadInput(
                    f"{path.name} holds {len(members):,} files.", f"At most {MOST_ZIP_FILES:,} are taken."
                )
            total = 0
            for each in members:
                link = (each.external_attr >> 16) & 0o170000 == 0o120000
                if link or each.filename.lower().endswith((".zip", ".tar", ".gz")):
                    continue
                with archive.open(each) as file:
                    data = file.read(MOST_BYTES + 1)
                total += len(data)
                if len(data) > MOST_BYTES or total > MOST_ZIP_BYTES:
                    raise BadInput(f"{path.name} unpacks to too much.", "Choose fewer or smaller photos.")
                if each.compress_size and len(data) / each.compress_size > MOST_RATIO and len(data) > 2**20:
                    raise BadInput(f"{path.name} is packed in a way that photos never are.", "Pack it again.")
                yield PurePosixPath(each.filename.replace("\\", "/")).name, data
    except (
        zipfile.BadZipFile, zlib.error, LZMAError, NotImplementedError, RuntimeError, EOFError, ValueError,
        OSError,
    ) as error:  # fmt: skip
        raise BadInput(
            f"{path.name} cannot be unpacked ({error}).", "Pack it again, or drop the photos."
        ) from None


def _directory_size(path: Path) -> int:
    """Bytes of the table of contents that an archive declares: zipfile reads the whole of it at once."""
    end = 76 + 22 + 0xFFFF  # the last records, and the longest comment after them
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - end))
        tail = file.read()
    # found as zipfile finds it, lest an archive shows us another table than it shows there
    plain = tail[-22:-18] == b"PK\x05\x06" and tail.endswith(b"\0\0")
    at = len(tail) - 22 if plain else tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        return 0  # no archive after all: zipfile says so
    size = int(struct.unpack_from("<I", tail, at + 12)[0])
    large = tail[at - 76 : at - 20]  # of an archive with 64-bit sizes: the record before its locator
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\x06\x07" and large.startswith(b"PK\x06\x06"):
        size = max(size, int(struct.unpack_from("<Q", large, 40)[0]))
    return size


def _new_folder(home: Path, name: str) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    stem = workspace.slug(name)
    for number in range(1, 100_000):
        fresh = home / (stem if number == 1 else f"{stem}-{number}")
        try:
            fresh.mkdir()
        except FileExistsError:
            continue
        return fresh
    raise BadInput("There are too many uploads of one name.", "Delete some.")


def _fresh(folder: Path, stem: str, ending: str) -> str:
    """A safe name that is not taken: letters, digits, hyphens."""
    words = re.sub(r"[^\w-]+", "-", stem, flags=re.ASCII).strip("-_")[:60] or "photo"
    if ending == ".txt":
        return words + ending
    for number in range(1, 100_000):
        name = f"{words}{ending}" if number == 1 else f"{words}-{number}{ending}"
        if not (folder / name).exists():
            return name
    raise BadInput("Too many photos have one name.", "Rename them.")
