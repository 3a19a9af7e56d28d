"""The toybox's own small vocabulary: a stock `CLIPTokenizer` in which every word of the world is one token.

Layout of the ids, so that words appended to the vocabulary later leave every earlier id where it was:

    0 … 511    the 256 bytes, and the 256 bytes that end a word ("</w>"), in CLIP's order
    512, 513   <|startoftext|>, <|endoftext|> (also the padding)
    514 …      one id for each merge, in the order of the words that needed them

`CLIPTextModel` pools at the first `config.eos_token_id`, which has to be set (`EOS`): then added tokens,
whose ids are larger, do not disturb the pooling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from pipelines.errors import BadInput
from pipelines.toybox.world.vocabulary import WORDS

LENGTH = 48
BOS_TOKEN, EOS_TOKEN = "<|startoftext|>", "<|endoftext|>"
BOS, EOS = 512, 513
_END = "</w>"

# CLIP's own splitting rule, narrowed to the characters of captions; other texts take the tokenizer's path
_CAPTION = re.compile(r"[a-zA-Z0-9 ,.;:!?'\-]*")
_PIECE = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+")

Merge = tuple[str, str]


def byte_symbols() -> tuple[str, ...]:
    """The printable character that stands for each byte in byte-level BPE: GPT-2's table, CLIP's order."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return tuple([chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))])


def _join(pieces: list[str], ranks: dict[Merge, int]) -> list[str]:
    """Byte-pair encoding: join the neighbours of the lowest rank until no known pair is left."""
    while len(pieces) > 1:
        best = min(pairwise(pieces), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        joined: list[str] = []
        index = 0
        while index < len(pieces):
            if tuple(pieces[index : index + 2]) == best:
                joined.append(best[0] + best[1])
                index += 2
            else:
                joined.append(pieces[index])
                index += 1
        pieces = joined
    return pieces


def merges_for(words: Iterable[str]) -> list[Merge]:
    """Merges under which every word is a single token.

    Each word gets the merges that the earlier ones leave it short of. A new merge ranks behind all others and
    an earlier word always has one of its own merges to do first, so no earlier word changes.
    """
    ranks: dict[Merge, int] = {}
    for word in words:
        if not re.fullmatch(r"[a-z]+", word):
            raise BadInput(f"{word!r} cannot be one token.", "Use lower-case letters only, without spaces.")
        while len(pieces := _join([*word[:-1], word[-1] + _END], ranks)) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
    return list(ranks)


def build_tokenizer(words: Sequence[str] = WORDS) -> CLIPTokenizer:
    """The tokenizer of these words: `CLIPTokenizer` as transformers ships it, 48 tokens at most."""
    symbols = byte_symbols()
    merges = merges_for(words)
    tokens = [*symbols, *(symbol + _END for symbol in symbols), BOS_TOKEN, EOS_TOKEN]
    tokens += [left + right for left, right in merges]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,  # pyright: ignore[reportArgumentType] - pairs, as the tokenizers library wants them
        model_max_length=LENGTH,
    )


def save(folder: Path | str) -> Path:
    """Write the tokenizer as a Hugging Face folder: tokenizer.json and its config, vocab.json, merges.txt."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
    return folder


@lru_cache(maxsize=1)
def _tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


@lru_cache(maxsize=16384)
def _piece_ids(piece: str) -> tuple[int, ...]:
    """The ids of one piece (a word, a digit or a run of punctuation), without start and end."""
    return tuple(_tokenizer()(piece, add_special_tokens=False)["input_ids"])


def _ids(text: str) -> list[int]:
    """Ids without start and end, as many as there are."""
    if not _CAPTION.fullmatch(text):
        return list(_tokenizer()(text, add_special_tokens=False)["input_ids"])
    return [index for piece in _PIECE.findall(text.lower()) for index in _piece_ids(piece)]


def tokenise(texts: Sequence[str]) -> Tensor:
    """Captions to padded ids, cut at 48 with the end in place. → int64 [B, 48]

    Equal to `build_tokenizer()(texts, padding="max_length", truncation=True)`, and faster: each word is
    encoded once and remembered.
    """
    out = torch.full((len(texts), LENGTH), EOS, dtype=torch.int64)
    for row, text in enumerate(texts):
        ids = [BOS, *_ids(text)[: LENGTH - 2], EOS]
        out[row, : len(ids)] = torch.tensor(ids)
    return out


def vocabulary_size() -> int:
    """How many ids there are: rows of the text tower's embedding."""
    return len(_tokenizer())
