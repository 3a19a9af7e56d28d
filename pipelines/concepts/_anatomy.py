"""What of a base a training changes, and what it leaves alone: a row a part and group of layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipelines.concepts._result import network_folder

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.base.backbone import Backbone

ATTENTION, FEEDFORWARD, CONV, WORDS, OTHER = "attention", "feedforward", "conv", "words", "other"
Row = dict[str, Any]


def anatomy(base: Backbone, trained: Mapping[str, Tensor]) -> list[Row]:
    """Rows of part, group, `parameters` of the base, how many are `trained` for it, and their `bytes` saved.

    `trained` are a carrier's tensors by name: "net.…", "text_encoder.…" or names inside the network; the name
    of a text encoder alone means rows of its words. Frozen groups have 0 trained.
    """
    rows: dict[tuple[str, str], Row] = {}

    def row(part: str, group: str) -> Row:
        name = _words(base, part)
        fresh = {"part": name, "group": group, "parameters": 0, "trained": 0, "bytes": 0}
        return rows.setdefault((part, group), fresh)

    groups = {part: dict(_groups(base, part)) for part in ("net", *base.texts)}
    for part, module in _parts(base):
        for name, tensor in module.named_parameters():
            group = groups[part].get(_owner(name), OTHER) if part in groups else "all"
            row(part, group)["parameters"] += tensor.numel()
    for name, tensor in trained.items():
        part, inside = _place(base, name)
        own = row(part, groups[part].get(_owner(inside), OTHER) if inside else WORDS)
        own["trained"] += tensor.numel()
        own["bytes"] += tensor.numel() * tensor.element_size()
    return list(rows.values())


def _parts(base: Backbone) -> Iterator[tuple[str, Any]]:
    yield "net", base.net
    yield from base.texts.items()
    yield "vae", base.vae


def _groups(base: Backbone, part: str) -> Iterator[tuple[str, str]]:
    """Module name → group, inside a part."""
    if part == "net":
        for group in (ATTENTION, FEEDFORWARD, CONV):
            yield from ((name, group) for name in base.targets.get(group, ()))
        return
    from pipelines.base.text import embedding_of

    encoder = base.texts[part]
    words = embedding_of(encoder)
    yield from ((name, WORDS) for name, each in encoder.named_modules() if each is words)
    yield from ((name, ATTENTION) for name in base.targets.get("text", ()))


def _place(base: Backbone, name: str) -> tuple[str, str]:
    """A trained tensor's part, and its name inside it."""
    part, _, inside = name.partition(".")
    return (part, inside) if part == "net" or part in base.texts else ("net", name)


def _owner(name: str) -> str:
    """The module that a tensor belongs to."""
    return name.rpartition(".")[0]


def _words(base: Backbone, part: str) -> str:
    """A part's name as people read it."""
    if part == "net":
        return network_folder(base)
    return "autoencoder" if part == "vae" else part.replace("_", " ")
