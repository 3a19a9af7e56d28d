"""Files that are whole or absent: atomic writes, safetensors headers, pictures that carry their job.

Nothing here imports torch when the module is imported.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import platformdirs

from pipelines.errors import BadInput, BrokenWeights, DiskFull, LikenessError, MissingAsset

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

COMPLETE = "complete"
PNG_KEY = "likeness"
PNG_LIMIT = 256 * 1024
HEADER_LIMIT = 100_000_000
_STALE_AFTER = 3600.0
_OURS = "Choose a PNG that this program wrote."
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


def assets() -> Path:
    """The folder of embedded models, photos and fonts: the checkout's, or the installed package's copy.

    Raises MissingAsset when there is neither.
    """
    package = Path(__file__).resolve().parent
    checkout, installed = package.parent / "assets", package / "_assets"
    if (package.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    if installed.is_dir():
        return installed
    raise MissingAsset(checkout, "Clone the repository whole, or install the package again.")


def cache_dir() -> Path:
    """The user's cache folder for this project, outside the repository; it may not exist yet."""
    return Path(platformdirs.user_cache_dir("likeness-studio", appauthor=False))


def atomic_write(path: Path | str, data: bytes | Callable[[Path], object]) -> Path:
    """Write `path` so that a reader, or a kill at any moment, finds the old file or the whole new one.

    `data` is the content, or a function that writes it to the temporary path it is given: a new name
    in the same folder, with the same suffix. Raises DiskFull when the disk is.
    """
    path = Path(path)
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_stale(path)
        temporary = _temporary(path)
        try:
            if isinstance(data, bytes):
                temporary.write_bytes(data)
            else:
                data(temporary)
            _sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    return path


@contextmanager
def atomic_dir(path: Path | str) -> Generator[Path]:
    """Fill a folder under a temporary name beside `path`; on success mark it complete and rename it.

    An existing `path` is replaced; after an exception it stands as it was. `is_complete` tells whether
    a folder was finished. Raises DiskFull when the disk is.
    """
    path = Path(path)
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.aside")
        _restore(path, aside)
        _clear_stale(path)
        temporary = _temporary(path)
        temporary.mkdir()
        try:
            yield temporary
            for each in temporary.rglob("*"):
                if each.is_file():
                    _sync(each)
            (temporary / COMPLETE).write_bytes(b"")
            _sync_folder(temporary)
            if path.exists():
                path.rename(aside)
            temporary.rename(path)
            _sync_folder(path.parent)
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            _restore(path, aside)


def is_complete(folder: Path | str) -> bool:
    """Whether `atomic_dir` finished this folder."""
    return (Path(folder) / COMPLETE).is_file()


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a safetensors header: dtype as written there ("F16"), shape, and byte range."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself: free metadata, and its tensors by name."""

    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]

    @property
    def parameters(self) -> int:
        """How many numbers the file holds."""
        return sum(prod(each.shape) for each in self.tensors.values())


def read_safetensors_header(path: Path | str) -> Header:
    """Read and check a safetensors header against the size of its file, without reading the tensors.

    Raises MissingAsset when there is no file, BrokenWeights when it is truncated or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingAsset(path, "Check the path, or build the model: likeness toybox build --stage all.")
    size = path.stat().st_size
    with path.open("rb") as file:
        _refuse_foreign(path, file.read(9))
        file.seek(0)
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= HEADER_LIMIT:
            raise BrokenWeights(path, "it does not start like a safetensors file")
        text = file.read(length)
    if len(text) < length:
        raise BrokenWeights(path, f"it is truncated: {size} bytes, and its header alone needs {length + 8}")
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        raise BrokenWeights(path, "its safetensors header is not JSON") from None
    try:
        header = _header(table)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenWeights(path, f"its safetensors header is damaged ({error})") from None
    _check_ranges(path, header, size - 8 - length)
    return header


def save_safetensors(
    path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write tensors atomically; each is made contiguous and moved to the CPU first."""
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"format": "pt", **(metadata or {})}
    return atomic_write(path, lambda temporary: save_file(ready, temporary, metadata=about))


def load_safetensors(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a checked safetensors file, on the CPU. Raises as `read_safetensors_header` does."""
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    read_safetensors_header(path)
    return load_file(path)


def write_png(
    path: Path | str, image: Image, spec: Mapping[str, Any] | None = None, parameters: str | None = None
) -> Path:
    """Write a PNG atomically; `spec`, a job in plain JSON values, travels inside it.

    `parameters` is the text in which other programs look for settings (`jobs.pictures` writes it). Raises
    BadInput when the job is larger than 256 KiB as JSON.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if spec is not None:
        text = json.dumps(spec, ensure_ascii=False)
        if len(text.encode()) > PNG_LIMIT:
            raise BadInput("The settings are too large for a picture to carry.", "Shorten the prompts.")
        info.add_itxt(PNG_KEY, text)
    if parameters is not None:
        info.add_text("parameters", parameters)  # beyond Latin-1 Pillow writes an iTXt, as others do
    return atomic_write(path, lambda temporary: image.save(temporary, format="PNG", pnginfo=info))


def read_png_spec(path: Path | str) -> dict[str, Any] | None:
    """The job a PNG carries, as a table, or None if it carries none. Pixels are not decoded.

    Raises MissingAsset without a file, BadInput for a file that is no PNG or whose job is damaged or
    larger than 256 KiB.
    """
    text = read_png_text(path, PNG_KEY)
    if text is None:
        return None
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise BadInput(f"{path} carries settings that are damaged.", _OURS)
    return cast("dict[str, Any]", table)


def read_png_text(path: Path | str, key: str) -> str | None:
    """One text of a PNG, or None if it has none of that name. Pixels are not decoded.

    Raises MissingAsset without a file, BadInput for a file that is no PNG or a text beyond 256 KiB.
    """
    from PIL import Image as images

    path = Path(path)
    if not path.is_file():
        raise MissingAsset(path, "Check the path of the picture.")
    try:
        with images.open(path, formats=["PNG"]) as picture:
            text = picture.info.get(key)
    except (OSError, ValueError, SyntaxError, images.DecompressionBombError) as error:
        raise BadInput(f"{path} cannot be read as a PNG ({error}).", _OURS) from None
    if text is None:
        return None
    if len(str(text).encode(errors="replace")) > PNG_LIMIT:
        raise BadInput(f"{path} carries settings that are too large.", _OURS)
    return str(text)


@contextmanager
def _disk(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(path) from error
        raise
    except LikenessError:
        raise
    except Exception as error:
        # safetensors and torch report a full disk as errors of their own, with the system's words inside
        if "No space left" in str(error) or f"os error {errno.ENOSPC}" in str(error):
            raise DiskFull(path) from error
        raise


def _temporary(path: Path) -> Path:
    """A fresh hidden name beside `path`; the suffix stays, for writers that look at it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")


def _clear_stale(path: Path) -> None:
    """Remove temporaries of `path` that a kill left behind: those older than an hour."""
    for each in path.parent.glob(f".{path.name}.????????.tmp*"):
        try:
            if time.time() - each.stat().st_mtime < _STALE_AFTER:
                continue
        except FileNotFoundError:  # another writer renamed or removed its own
            continue
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)


def _restore(path: Path, aside: Path) -> None:
    """Undo a replacement that was cut between its two renames, or finish one cut after them."""
    if not aside.exists():
        return
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.rename(path)


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Make a rename durable; systems that cannot open folders (Windows) do without."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse_foreign(path: Path, start: bytes) -> None:
    if start.startswith(b"version "):
        raise BrokenWeights(path, "it is a Git LFS pointer, not the weights", "Fetch it with: git lfs pull.")
    # the length of a safetensors header may well begin with these bytes; its header then begins at the ninth
    if start[8:9] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
        raise BrokenWeights(
            path, "it is a pickled checkpoint, which could run code", "Convert it to safetensors elsewhere."
        )


def _header(table: Any) -> Header:
    """The parsed header; raises KeyError, TypeError or ValueError where it is not well-formed."""
    entries = dict(table)
    metadata = {str(key): str(value) for key, value in dict(entries.pop("__metadata__", {})).items()}
    tensors: dict[str, TensorInfo] = {}
    for name, entry in entries.items():
        shape = tuple(int(size) for size in entry["shape"])
        start, end = (int(offset) for offset in entry["data_offsets"])
        info = TensorInfo(str(entry["dtype"]), shape, start, end)
        bits = _BITS.get(info.dtype)
        if bits is not None and (end - start) * 8 != prod(shape) * bits:
            raise ValueError(f"{name} says {info.dtype} {list(shape)} in {end - start} bytes")
        tensors[str(name)] = info
    return Header(metadata, tensors)


def _check_ranges(path: Path, header: Header, available: int) -> None:
    """The tensors must tile the data section exactly, as the format demands."""
    position = 0
    for info in sorted(header.tensors.values(), key=lambda each: (each.start, each.end)):
        if info.start != position or info.end < info.start:
            raise BrokenWeights(path, "its safetensors header is damaged (gaps or overlaps)")
        position = info.end
    if available < position:
        raise BrokenWeights(path, f"it is truncated: {position} bytes of tensors, {available} in the file")
    if available > position:
        raise BrokenWeights(path, f"{available - position} bytes follow after its last tensor")
