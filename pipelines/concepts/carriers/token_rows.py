"""Rows of the token embedding (arXiv:2208.01618): n vectors that stand for a new word in every text encoder.

They start at the embedding of the class word, without its position. No row of the vocabulary is touched, so
none has to be put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.concepts._base import ParamGroup
from pipelines.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.adapters.adapter import Adapter
    from pipelines.base.backbone import Backbone


@dataclass
class TokenRowsCarrier:
    """`vectors` rows [n, D] for `token` in each text encoder, started at the word `initial`."""

    base: Backbone
    token: str
    initial: str
    vectors: int
    rate: float
    touches: frozenset[str] = frozenset({"tokens"})
    rows: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = {
            key: word_row(self.base, key, self.initial).repeat(self.vectors, 1).requires_grad_(True)
            for key in self.base.texts
        }

    def start(self, seed: int) -> None:
        """Every row is the class word's; their places in the text tell them apart."""
        import torch

        with torch.no_grad():
            for key, own in self.rows.items():
                own.copy_(word_row(self.base, key, self.initial).expand_as(own))

    def attached(self, base: Backbone) -> AbstractContextManager[None]:
        """Let the base read the token."""
        from pipelines.base.text import added

        return added(base, {self.token: self.rows})

    def groups(self) -> list[ParamGroup]:
        """One group."""
        return [ParamGroup("tokens", dict(self.rows), self.rate)]

    def state(self) -> dict[str, Tensor]:
        """Rows by text encoder."""
        return {key: each.detach() for key, each in self.rows.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take rows back."""
        from pathlib import Path

        from pipelines.concepts.checkpoint import fill

        fill(self.state(), state, Path("weights.safetensors"))

    def adapter(self, name: str, metadata: Mapping[str, str]) -> Adapter:
        """The word, on the CPU."""
        from pipelines.adapters.adapter import Adapter

        rows = {key: each.detach().float().cpu().clone() for key, each in self.rows.items()}
        return Adapter(name, self.base.family, words={self.token: rows}, metadata=metadata)


def word_row(base: Backbone, encoder: str, word: str) -> Tensor:
    """The embedding of a word in a text encoder, [D] in float32: the mean where it has several tokens.

    Raises BadInput for an empty word.
    """
    from pipelines.base.text import embedding_of, tokenizer_of

    tokenizer = base.tokenizers[tokenizer_of(encoder)]
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    if not ids:
        raise BadInput(
            "There is no word to start from.", 'Say what the subject is: a class word such as "dog".'
        )
    return embedding_of(base.texts[encoder]).weight.detach()[ids].float().mean(0)
