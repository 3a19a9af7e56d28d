"""References: how a job names files, and how their names travel without a path.

`asset:photos/dog` stands in the embedded folder, `run:NAME` and `upload:NAME` in the workspace, `file:PATH`
anywhere on this machine; a bare path means `file:`. What travels in a picture is `NAME#sha256=HEX`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from pipelines.artifacts import sha256

SCHEMES = ("asset", "run", "upload")
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"})
ADAPTER = "adapter.safetensors"
_HASHED = PICTURES | {".safetensors"}
_HASH = re.compile(r"(?P<name>[^/\\#]+)#sha256=(?P<digest>[0-9a-f]{64})")


def split(reference: str) -> tuple[str, str]:
    """A reference as (scheme, name); a bare path has the scheme "file"."""
    scheme, colon, name = reference.partition(":")
    return (scheme, name) if colon and scheme in (*SCHEMES, "file") else ("file", reference)


def hashed(reference: str) -> tuple[str, str] | None:
    """(name, SHA-256) of a reference that travelled in a picture, else None."""
    match = _HASH.fullmatch(reference)
    return (match["name"], match["digest"]) if match else None


def shared(text: str, named: bool) -> str:
    """A string as it may leave this machine: whatever is a path becomes a name.

    `named`: the field is known to name files, so that relative paths are cut too; elsewhere (prompts, free
    tables) only what is plainly a path on this machine is.
    """
    scheme, name = split(text)
    if scheme != "file" or not text or hashed(text):
        return text
    if not (named or text.startswith("file:") or _absolute(text)):
        return text
    leaf = PureWindowsPath(name).name if "\\" in name else PurePosixPath(name).name
    digest = fingerprint(Path(name).expanduser())
    return f"{leaf}#sha256={digest}" if digest and leaf else leaf


def fingerprint(path: Path) -> str | None:
    """The SHA-256 of a picture, of an adapter, or of the adapter of a run folder; None for anything else."""
    try:
        if path.is_dir():
            path = path / ADAPTER
        if path.suffix.lower() not in _HASHED or not path.is_file():
            return None
        about = path.stat()
        return _digest(str(path.resolve()), about.st_mtime_ns, about.st_size)
    except (OSError, ValueError):  # unreadable, or no path at all: the name has to do
        return None


@lru_cache(maxsize=256)
def _digest(path: str, changed: int, size: int) -> str:
    """One hash a file and state of it: a run of a hundred pictures names the same adapter a hundred times."""
    return sha256(path)


def _absolute(text: str) -> bool:
    """Whether a string is a path from the root, the home or the current folder, on any system."""
    if "\n" in text or len(text) > 4096:
        return False
    rooted = text.startswith(("/", "~/", "~\\", "./", "../", "..\\", "\\\\"))
    return rooted or bool(re.match(r"[A-Za-z]:[\\/]", text))
