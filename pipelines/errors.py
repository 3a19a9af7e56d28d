"""Typed errors: what went wrong, and the way out.

Everything a user may be shown derives from `LikenessError` and carries a remedy; anything else that
escapes is a bug. `Cancelled` is not an error: somebody asked for the stop.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from os import PathLike

AnyPath = str | PathLike[str]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name`, ignoring case, or None when nothing is close."""
    by_folded = {each.casefold(): each for each in known}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.5)
    return by_folded[found[0]] if found else None


class LikenessError(Exception):
    """An error with a remedy: both are sentences for the person in front of the screen."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def as_dict(self) -> dict[str, str]:
        """The error as it travels in JSON: type, message, remedy."""
        return {"type": type(self).__name__, "message": self.message, "remedy": self.remedy}


class BadInput(LikenessError):
    """A value is out of range, of the wrong type, or contradicts another."""


class UnknownName(LikenessError):
    """A name that is not in a list of known ones; the remedy is the nearest known name."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = nearest(name, names)
        listed = f"Known: {', '.join(names)}." if names else "There are none yet."
        remedy = f'Did you mean "{close}"? {listed}' if close else listed
        super().__init__(f'Unknown {what} "{name}".', remedy)
        self.name = name
        self.suggestion = close


class BrokenWeights(LikenessError):
    """A weights file that is truncated, damaged or of another format."""

    def __init__(self, path: AnyPath, reason: str, remedy: str | None = None) -> None:
        super().__init__(
            f"{path} cannot be used: {reason}.",
            remedy or "Get the file again, or build it again, and check that it arrived whole.",
        )
        self.path = path


class MissingAsset(LikenessError):
    """A file or folder that should be there is not."""

    def __init__(self, path: AnyPath, remedy: str) -> None:
        super().__init__(f"{path} does not exist.", remedy)
        self.path = path


class DiskFull(LikenessError):
    """No space was left while writing; the file that stood there before is untouched."""

    def __init__(self, path: AnyPath) -> None:
        super().__init__(
            f"No space is left to write {path}; what was there before is unchanged.",
            "Free some space, or choose a folder on another disk, and try again.",
        )
        self.path = path


class StateBusy(LikenessError):
    """Another process holds the state folder, the workspace or the device."""

    def __init__(self, path: AnyPath, holder: str) -> None:
        super().__init__(
            f"{path} is in use by {holder}.",
            "Wait for it to finish or stop it, or choose another folder.",
        )
        self.path = path


class NotAvailable(LikenessError):
    """A feature whose dependency or hardware is missing on this machine."""

    def __init__(self, feature: str, reason: str, remedy: str) -> None:
        super().__init__(f"{feature} is not available: {reason}.", remedy)
        self.feature = feature


class WorkerDied(LikenessError):
    """The process that did the work ended without a result: killed, out of memory, or crashed."""


class Cancelled(Exception):
    """The job was asked to stop, or ran out of its time; raised by `Job.check`."""
