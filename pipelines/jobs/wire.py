"""What travels between a runner and its worker process: one JSON object a line, both ways.

To the worker: {"do": "run", "id", "spec", "deadline", "workspace", "previews"}, {"do": "cancel", "id"},
{"do": "ask", "id", "what"}, {"do": "warm"}. Back: {"ready": …}, {"id", "event"}, {"id", "checkpoint"}, and at
the end one of {"id", "result"}, {"id", "error"}, {"id", "stopped"} and {"id", "fault"}.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pipelines.errors import LikenessError
from pipelines.progress import Event

PREVIEW = (512, 256)
_JSON = (str, int, float, bool, type(None))


def dump(message: Mapping[str, Any]) -> bytes:
    """A message as one line."""
    return json.dumps(message, ensure_ascii=False, default=_plain).encode() + b"\n"


def load(line: bytes) -> dict[str, Any] | None:
    """The message in a line, or None for anything else, such as what a library printed."""
    if not line.startswith(b"{"):
        return None
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", message) if isinstance(message, dict) else None


def pack_event(event: Event) -> dict[str, Any] | None:
    """An event as a table; None for a preview that is no picture (latents are the worker's own affair)."""
    if event.kind == "preview":
        picture = jpeg(event.image)
        return None if picture is None else {"kind": "preview", "jpeg": base64.b64encode(picture).decode()}
    if event.kind == "note":
        return {"kind": "note", "text": event.text}
    return {"kind": "report", "step": event.step, "total": event.total, "values": event.values}


def unpack_event(table: Mapping[str, Any]) -> Event:
    """The event in a table; the image of a preview is JPEG bytes, which the caller need not decode."""
    if table["kind"] == "preview":
        return Event("preview", image=base64.b64decode(table["jpeg"]))
    if table["kind"] == "note":
        return Event("note", text=str(table["text"]))
    return Event("report", step=table["step"], total=table["total"], values=dict(table["values"]))


def jpeg(image: Any) -> bytes | None:
    """A PIL image as a small JPEG of at most 512 × 256 px; bytes stay as they are, all else gives None."""
    if isinstance(image, bytes):
        return image
    if not hasattr(image, "thumbnail"):
        return None
    small = image.convert("RGB")
    small.thumbnail(PREVIEW)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()


def pack_error(error: LikenessError) -> dict[str, Any]:
    """A typed error as a table: type, message, remedy, and those of its attributes that JSON can hold."""
    more = {name: value for name, value in vars(error).items() if isinstance(value, _JSON)}
    return {**error.as_dict(), "more": more}


def unpack_error(table: Mapping[str, Any]) -> LikenessError:
    """The error as the worker raised it: of the same class where this process knows it, else of its name."""
    name = str(table["type"])
    known = next((each for each in _errors(LikenessError) if each.__name__ == name), None)
    kind = known or type(name, (LikenessError,), {})
    # not called: subclasses build their sentences from other arguments, and here they are finished
    error = kind.__new__(kind)
    LikenessError.__init__(error, str(table["message"]), str(table["remedy"]))
    vars(error).update(cast("dict[str, Any]", table.get("more") or {}))
    return error


def _errors(base: type[LikenessError]) -> Iterator[type[LikenessError]]:
    yield base
    for each in base.__subclasses__():
        yield from _errors(each)


def _plain(value: Any) -> Any:
    """What JSON does not know: paths, and the numbers of arrays and tensors."""
    if isinstance(value, Path):
        return str(value)
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
