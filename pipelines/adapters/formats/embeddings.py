"""Textual inversion files: the vectors of new words, in the layouts that go around.

    diffusers  {"<sks>": [n, D]}, file `learned_embeds.safetensors`
    kohya      {"emb_params": [n, D]}, the word is the file's name; SDXL {"clip_l": …, "clip_g": …}
    A1111      {"string_to_param.*": [n, D]} (its pickles' layout), the word is the file's name

Shapes: n vectors, D width of the text encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from pipelines.adapters.adapter import Adapter
from pipelines.adapters.families import family_of
from pipelines.adapters.formats._file import GENERIC, File, Names, one_token, open_file, save_file
from pipelines.base.backbone import Backbone
from pipelines.errors import BadInput

Layout = Literal["diffusers", "a1111"]
TOKEN = "likeness.token"  # noqa: S105 - a word of a prompt
_CLIPS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_3"}
_NAMELESS = ("emb_params", "string_to_param.*", "string_to_param", "*")


def matches(names: list[str]) -> bool:
    """Whether tensors of these names are of these layouts: no name of a layer among them."""
    special = {*_CLIPS, *_NAMELESS}
    return all(each in special or not each.endswith((".weight", ".bias", ".alpha")) for each in names)


def read(path: Path | str, base: Backbone | None = None, token: str | None = None) -> Adapter:
    """A file as an Adapter of words. `token` overrides the word of a file that brings one word.

    Raises MissingAsset or BrokenWeights, and BadInput for a word that no prompt can hold.
    """
    file = open_file(path)
    names = Names.of(base)
    words: dict[str, dict[str, Tensor]] = {}
    for key, tensor in file.tensors.items():
        if tensor.ndim not in (1, 2) or 0 in tensor.shape:
            raise file.broken(f"{key} is {list(tensor.shape)}, no vectors of a word")
        vectors = tensor.reshape(-1, tensor.shape[-1])
        own = _word(file) if key in _CLIPS or key in _NAMELESS else key
        rows = words.setdefault(one_token(token or own), {})
        rows[_CLIPS.get(key) or names.encoder(vectors.shape[1], len(rows))] = vectors
    if token and len({_word(file) if each in _CLIPS else each for each in file.tensors}) > 1:
        raise BadInput(f"{file.name} brings several words.", "Rename them one by one.")
    return Adapter(file.name, family_of(file.header), {}, words, file.header.metadata)


def write(
    path: Path | str,
    adapter: Adapter,
    metadata: Mapping[str, str] | None = None,
    layout: Layout = "diffusers",
) -> Path:
    """Write the one word of an adapter; for a base of several text encoders as {"clip_l", "clip_g"}.

    In A1111's layout the file's name is the word that people type. Raises BadInput for none or several.
    """
    if len(adapter.words) != 1:
        raise BadInput(f"{adapter.name} has {len(adapter.words)} words; such a file holds one.", "Split it.")
    ((word, rows),) = adapter.words.items()
    if set(rows) == {"text_encoder"}:
        tensors = {word if layout == "diffusers" else "emb_params": rows["text_encoder"]}
    else:
        names = {encoder: key for key, encoder in _CLIPS.items()}
        tensors = {names[encoder]: vectors for encoder, vectors in rows.items()}
    about = {**adapter.metadata, **(metadata or {}), TOKEN: word}
    if adapter.family:
        about.setdefault("likeness.family", adapter.family)
    return save_file(path, tensors, about)


def _word(file: File) -> str:
    """The word of a file whose tensors do not name it: as we noted it, else the file's name."""
    stem = file.path.parent.name if file.path.stem in GENERIC else file.path.stem
    return file.header.metadata.get(TOKEN) or "_".join(stem.split())
