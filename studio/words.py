"""How the studio says sizes, times and states."""

from __future__ import annotations

import time

STATES = {
    "queued": "waiting",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "cancelled": "stopped",
    "interrupted": "interrupted",
}
KINDS = {
    "train": "Training",
    "compose": "Pictures",
    "edit": "Edit",
    "compare": "Comparison",
    "score": "Measuring",
    "merge": "Merge",
    "demo": "Demo",
    "caption": "Captions",
    "check": "Photo check",
    "fetch": "Download",
}
READOUTS = {
    "clip_t": ("obedience", "CLIP-T: how well the picture shows what the prompt says, −1 to 1"),
    "dino_i": ("likeness", "DINO-I: how like the photos of the subject, −1 to 1"),
    "clip_i": ("theme", "CLIP-I: how like the photos in content and style, −1 to 1"),
}
"""Readouts that have a plain name: (name, help)."""


def size(count: float) -> str:
    """Bytes as people say them: 812 B, 14.2 KB, 3.4 MB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """8 s, 2 min 5 s, 3 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def ago(at: float, now: float | None = None) -> str:
    """How long since a time in seconds since 1970: just now, 5 min ago, 2 days ago."""
    past = max(0.0, (time.time() if now is None else now) - at)
    for least, length, word in ((86_400, 86_400, "day"), (3600, 3600, "hour"), (60, 60, "min")):
        if past >= least:
            count = int(past // length)
            plural = "s" if count > 1 and word != "min" else ""
            return f"{count} {word}{plural} ago"
    return "just now"


def count(number: int, word: str, plural: str = "") -> str:
    """1 photo, 3 photos."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"
