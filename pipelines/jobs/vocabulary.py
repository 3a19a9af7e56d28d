"""Words of a prompt that a base never learned, told while it is typed: no network and no tokenizer is loaded.

Only a base with a closed vocabulary on this machine can tell; one with tens of thousands of pieces spells any
word. The answer is that of the engine (`base.text.unknown_words`): a word is known if byte-pair encoding with
the merges on disk leaves one piece of it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from pipelines.artifacts import assets
from pipelines.jobs import presets
from pipelines.jobs.wildcards import LISTED

CLOSED = 8192
"""A vocabulary smaller than this knows whole words only, as in `base.text`."""
LIMIT = 16 * 2**20
_END = "</w>"
_WORD = re.compile(r"[^\W\d_]+")
_WEIGHT = re.compile(r"\(([^()]*):\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\)")
_LIST = re.compile(LISTED)

Merges = dict[tuple[str, str], int]


def unknown(base: str, prompt: str, known: Iterable[str] = ()) -> list[str]:
    """Words of the prompt that a base never learned, in order, each once; `known` are trained words.

    `base` is the name of a preset, or a folder in diffusers' layout. [] for bases that cannot tell.
    """
    folder = _tokenizer(base)
    if folder is None:
        return []
    path = folder / "tokenizer.json"
    merges = _merges(path, path.stat().st_mtime_ns)
    if merges is None:
        return []
    text, changed = _LIST.sub(" ", prompt), 1
    while changed:  # from the inside out, as brackets nest
        text, changed = _WEIGHT.subn(r"\1", text)
    own = {each.casefold() for each in known}
    words = dict.fromkeys(_WORD.findall(text))
    return [each for each in words if each.casefold() not in own and len(_pieces(each, merges)) != 1]


def _tokenizer(base: str) -> Path | None:
    """The folder of a base's first tokenizer, where it is on this machine and its preset or path says so."""
    if base in presets.names("bases"):
        asset = presets.load("bases", base).get("asset")
        home = assets() / str(asset) if asset else None
    else:
        home = Path(base).expanduser()
    folder = None if home is None else home / "tokenizer"
    return folder if folder is not None and (folder / "tokenizer.json").is_file() else None


@lru_cache(maxsize=8)
def _merges(path: Path, changed: int) -> Merges | None:
    """Pairs of pieces and their rank, of a closed vocabulary of whole words; None for any other."""
    if path.stat().st_size > LIMIT:
        return None
    try:
        table = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        model = table["model"]
        size = len({*model["vocab"], *(each["content"] for each in table["added_tokens"])})
        closed = model["type"] == "BPE" and model["end_of_word_suffix"] == _END and size < CLOSED
        pairs = [tuple(each.split(" ") if isinstance(each, str) else each) for each in model["merges"]]
        return {(left, right): rank for rank, (left, right) in enumerate(pairs)} if closed else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


@lru_cache(maxsize=1)
def _symbols() -> tuple[str, ...]:
    """The printable character that stands for each byte: itself, or the next one from 256 on."""
    own = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return tuple(chr(byte) if byte in own else chr(next(others)) for byte in range(256))


def _pieces(word: str, merges: Merges) -> list[str]:
    """A word as byte-pair encoding leaves it: the pair of the lowest rank is joined until none is known."""
    text = unicodedata.normalize("NFC", word).lower()
    pieces = [_symbols()[byte] for byte in text.encode()]
    pieces[-1] += _END
    while len(pieces) > 1:
        best = min(pairwise(pieces), key=lambda pair: merges.get(pair, len(merges)))
        if best not in merges:
            break
        joined: list[str] = []
        for piece in pieces:
            if joined and (joined[-1], piece) == best:
                joined[-1] += piece
            else:
                joined.append(piece)
        pieces = joined
    return pieces
