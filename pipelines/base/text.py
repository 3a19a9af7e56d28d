"""Door 5, words: new tokens with their own rows, prompt weights, and what a base cannot read.

A row is looked up in place of a row of the token embedding, before positions are added; the vocabulary's own
rows are never touched, and gradients reach the rows that are given. `(word:1.2)` moves a token's state away
from the empty prompt's, z ← z∅ + w·(z − z∅), as ComfyUI weighs; A1111's product needs a mean that is not near
zero, which the states of a layer norm do not have.

Shapes: B batch, L text tokens, D width, n vectors a word.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipelines.base.features import wrapped_forward
from pipelines.errors import BadInput

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone

CLOSED = 8192
"""A vocabulary smaller than this knows whole words only: what it splits, its base never learned."""

Read = Callable[[Any, Tensor], tuple[Tensor, Tensor | None]]
"""(encoder, ids [B, L]) → states [B, L, D], and the pooled state [B, P] where there is one."""

_NUMBER = re.compile(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*$")
_WORD = re.compile(r"[^\W\d_]+")


def tokenizer_of(encoder: str) -> str:
    """The tokenizer that belongs to a text encoder: "text_encoder_2" → "tokenizer_2"."""
    return encoder.replace("text_encoder", "tokenizer")


def embedding_of(encoder: Any) -> nn.Embedding:
    """The token embedding that an encoder's forward looks up."""
    inner: Any = getattr(encoder, "encoder", None)
    if hasattr(inner, "embed_tokens"):  # T5 keeps a second one, tied but never called
        return inner.embed_tokens
    return encoder.get_input_embeddings()


def fix_pooling(encoder: Any, tokenizer: Any) -> None:
    """Let a CLIP encoder pool at the first end of text.

    Published configs say 2 for its id; pooling then takes the largest id, which an added token would be.
    """
    core = getattr(encoder, "text_model", encoder)
    encoder.config.eos_token_id = core.eos_token_id = tokenizer.eos_token_id


@contextmanager
def added(base: Backbone, rows: Mapping[str, Mapping[str, Tensor]]) -> Iterator[None]:
    """New words while the context is open: token → text encoder → rows [n, D].

    The tokenizers know the n vectors of a token as token, token_1 … and a prompt names them by the token
    alone. Encoders without rows read the token as ordinary text. Rows are read at every look-up, so that an
    optimiser may change them. On exit tokenizers and encoders are the objects that they were.
    Raises BadInput for tokens with spaces, unknown encoders, or rows of another width.
    """
    _check(base, rows)
    kept: dict[str, Any] = dict(base.tokenizers)
    with ExitStack() as stack:
        try:
            for key, encoder in base.texts.items():
                own = {token: each[key] for token, each in rows.items() if key in each}
                if own:
                    _register(base, tokenizer_of(key), {token: len(each) for token, each in own.items()})
                    words = base.tokenizers[tokenizer_of(key)].likeness_words
                    ids = [index for token in own for index in words[token]]
                    stack.enter_context(_looked_up(embedding_of(encoder), ids, list(own.values())))
            yield
        finally:
            _put(base, kept)


def unknown_words(base: Backbone, prompt: str) -> list[str]:
    """Words of a prompt that the base never learned, in order: those that a closed vocabulary splits.

    A vocabulary of tens of thousands of pieces spells any word, so for such bases the list is empty.
    """
    tokenizer = base.tokenizers["tokenizer"]
    words = getattr(tokenizer, "likeness_words", {})
    if len(tokenizer) >= CLOSED:
        return []
    plain = "".join(piece for piece, _ in weighted(prompt))
    if words:
        plain = _pattern(words).sub(" ", plain)
    found = dict.fromkeys(_WORD.findall(plain))
    return [each for each in found if len(tokenizer(each, add_special_tokens=False)["input_ids"]) != 1]


def cut(base: Backbone, prompt: str) -> str:
    """What of a prompt lies beyond the token limit of every text encoder, and is ignored; "" if nothing."""
    limits: Mapping[str, int] = getattr(base, "text_limits", {})
    rests: list[str] = []
    for key in base.texts:
        tokenizer = base.tokenizers[tokenizer_of(key)]
        text, _ = _spelled(tokenizer, prompt)
        room = limits.get(key, tokenizer.model_max_length) - tokenizer.num_special_tokens_to_add()
        offsets = _offsets(tokenizer, text)
        rests.append(text[offsets[room][0] :].strip() if len(offsets) > room else "")
    return min(rests, key=len, default="")


def weighted(prompt: str) -> list[tuple[str, float]]:
    """A prompt as pieces with weights: "a (red:1.5) hat" → [("a ", 1), ("red", 1.5), (" hat", 1)].

    Brackets nest, and their weights multiply. Brackets without a number are ordinary text.
    """
    stack: list[list[tuple[str, float]]] = [[]]
    for part in re.split(r"([()])", prompt):
        if part == "(":
            stack.append([])
        elif part == ")" and len(stack) > 1:
            inner = stack.pop()
            number = _NUMBER.search(inner[-1][0]) if inner else None
            if number is None:
                stack[-1] += [("(", 1.0), *inner, (")", 1.0)]
            else:
                inner[-1] = (inner[-1][0][: number.start()], inner[-1][1])
                stack[-1] += [(text, weight * float(number[1])) for text, weight in inner]
        else:
            stack[-1].append((part, 1.0))
    while len(stack) > 1:
        inner = stack.pop()
        stack[-1] += [("(", 1.0), *inner]
    return [(text, weight) for text, weight in stack[0] if text]


def encoded(
    base: Backbone, key: str, prompts: Sequence[str], read: Read, length: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Prompts through the text encoder `key`: added words spelled out, cut, padded, weighted.

    `length` is L where it is not the tokenizer's own. Without weights the states are the encoder's, bitwise.
    """
    tokenizer, encoder = base.tokenizers[tokenizer_of(key)], base.texts[key]
    spelled = [_spelled(tokenizer, prompt) for prompt in prompts]
    weights = [each for _, each in spelled]
    texts = [text for text, _ in spelled]
    heavy = any(each is not None for each in weights)
    batch = tokenizer(
        [*texts, ""] if heavy else texts, padding="max_length", truncation=True, return_tensors="pt",
        max_length=length or tokenizer.model_max_length, return_offsets_mapping=heavy,
    )  # fmt: skip
    device = embedding_of(encoder).weight.device
    states, pooled = read(encoder, batch["input_ids"].to(device))
    if not heavy:
        return states, pooled
    factors = torch.ones(states.shape[:2])
    for row, own in enumerate(weights):
        for column, (start, end) in enumerate(batch["offset_mapping"][row].tolist()):
            if own is not None and end > start:  # special tokens cover nothing
                factors[row, column] = own[end - 1]
    empty = states[-1:]
    moved = empty + factors.to(states)[..., None] * (states - empty)
    moved = torch.where((factors == 1).to(states.device)[..., None], states, moved)  # neutral is exact
    return moved[:-1], None if pooled is None else pooled[:-1]


def _check(base: Backbone, rows: Mapping[str, Mapping[str, Tensor]]) -> None:
    for token, own in rows.items():
        if not token or re.search(r"[\s()]", token):
            raise BadInput(f'"{token}" cannot be a token.', "Use one word without spaces or brackets.")
        for key, each in own.items():
            if key not in base.texts:
                known = ", ".join(base.texts)
                raise BadInput(f"{base.name} has no {key} for the rows of {token}.", f"It has: {known}.")
            width = embedding_of(base.texts[key]).embedding_dim
            if each.ndim != 2 or not len(each) or each.shape[1] != width:
                raise BadInput(
                    f"The rows of {token} for {key} have the shape {list(each.shape)}, not [n, {width}].",
                    f"Use rows that were made for a base like {base.name} ({base.family}).",
                )


def _register(base: Backbone, key: str, counts: Mapping[str, int]) -> None:
    """Swap a tokenizer for a copy that knows the tokens and carries `likeness_words`: token → its ids."""
    from transformers import AddedToken

    tokenizer = copy.deepcopy(base.tokenizers[key])
    words: dict[str, list[int]] = dict(getattr(tokenizer, "likeness_words", {}))
    names: dict[str, list[str]] = dict(getattr(tokenizer, "likeness_names", {}))
    taken = set(tokenizer.get_vocab())
    for token, count in counts.items():
        names[token] = []
        for index in range(count):
            name = token if index == 0 else f"{token}_{index}"
            while name in taken:  # a piece of the vocabulary, or another token's vector: never shared
                name = f"<{name}>"
            taken.add(name)
            names[token].append(name)
            whole = name.replace("_", "").isalnum()
            tokenizer.add_tokens([AddedToken(name, single_word=whole, normalized=True)])
        words[token] = [int(each) for each in tokenizer.convert_tokens_to_ids(names[token])]
    tokenizer.likeness_words, tokenizer.likeness_names = words, names
    _put(base, {**base.tokenizers, key: tokenizer})


def _put(base: Any, tokenizers: Mapping[str, Any]) -> None:
    base.tokenizers.clear()
    base.tokenizers.update(tokenizers)


def _looked_up(
    embedding: nn.Embedding, ids: Sequence[int], rows: Sequence[Tensor]
) -> AbstractContextManager[None]:
    """Let the embedding answer `ids` with `rows`; its weight is not touched."""
    most = max(ids) + 1

    def make(before: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def forward(tokens: Tensor) -> Tensor:
            places = torch.full((most,), -1, device=tokens.device)
            places[list(ids)] = torch.arange(len(ids), device=tokens.device)
            place = places[tokens.clamp_max(most - 1)].where(tokens < most, -1)
            out = before(tokens.masked_fill(place >= 0, 0))
            own = torch.cat([each.to(out.device, out.dtype) for each in rows])
            return torch.where((place >= 0)[..., None], own[place.clamp_min(0)], out)

        return forward

    return wrapped_forward(embedding, make)


def _pattern(words: Mapping[str, object]) -> re.Pattern[str]:
    """Any of the tokens as a whole word, the longest first; one pass, so that nothing is replaced twice."""
    ends = (r"(?<!\w)", r"(?!\w)")
    alternatives = [
        (ends[0] if re.match(r"\w", token) else "")
        + re.escape(token)
        + (ends[1] if re.search(r"\w$", token) else "")
        for token in sorted(words, key=len, reverse=True)
    ]
    return re.compile("|".join(alternatives), re.IGNORECASE)


def _spelled(tokenizer: Any, prompt: str) -> tuple[str, list[float] | None]:
    """The text to tokenise, with every added word as its vectors' names, and a weight a character."""
    names: Mapping[str, list[str]] = getattr(tokenizer, "likeness_names", {})
    folded = {token.casefold(): own for token, own in names.items()}
    pattern = _pattern(names) if names else None
    text, weights = "", list[float]()
    for piece, weight in weighted(prompt):
        whole = piece
        if pattern is not None:
            whole = pattern.sub(lambda found: " ".join(folded[found[0].casefold()]), piece)
        text += whole
        weights += [weight] * len(whole)
    return text, None if all(math.isclose(each, 1.0) for each in weights) else weights


def _offsets(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Where each token of a text stands in it, without special tokens and without a limit."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return list(found["offset_mapping"])
