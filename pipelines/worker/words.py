"""What a base does not hear of the words it is given: what is cut, never learned, or mixed up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.adapters.adapter import Adapter
from pipelines.base import text
from pipelines.base.backbone import Backbone

COMMON = 0.97
"""Vocabularies are sorted by how often a piece occurs: in this first part a whole word is an ordinary one."""
SHOWN = 6

RARE = frozenset({"sks", "ohwx", "zwx", "olis", "mth", "vtk"})
"""Words that personalization uses because they mean next to nothing; Toybox has them, and never saw them."""


def unheard(base: Backbone, prompts: Iterable[str], own: Iterable[str] = ()) -> list[str]:
    """Sentences on what of the prompts is cut or was never learned; `own` are trained words, which are heard.

    Call it while the adapters are attached: a new word may take the room of several.
    """
    different = [each for each in dict.fromkeys(prompts) if each.strip()]
    said: list[str] = []
    for prompt in different:
        rest = _whole(prompt, text.cut(base, prompt)).split()
        if rest:
            count = "1 word was" if len(rest) == 1 else f"{len(rest):,} words were"
            tail = " …" if len(rest) > SHOWN else ""
            said.append(
                f'{base.name} reads only the beginning of a prompt this long: {count} cut, from "'
                f'{" ".join(rest[:SHOWN])}{tail}" on.'
            )
    known = {each.casefold() for each in own}
    unknown = dict.fromkeys(
        word
        for prompt in different
        for word in text.unknown_words(base, prompt)
        if word.casefold() not in known
    )
    if unknown:
        names = ", ".join(list(unknown)[: 4 * SHOWN])
        said.append(f"{base.name} never learned these words: {names}. Say it in others.")
    return said


def _whole(prompt: str, rest: str) -> str:
    """The end of a prompt that is cut, from the start of the word in which the cut falls."""
    if not rest or not prompt.endswith(rest):
        return rest
    start = len(prompt) - len(rest)
    while start and not prompt[start - 1].isspace():
        start -= 1
    return prompt[start:]


def mixed_up(base: Backbone, token: str) -> list[str]:
    """A sentence where the token for a subject is an ordinary word of the base; else nothing."""
    if token.casefold() in RARE:
        return []
    tokenizer = base.tokenizers["tokenizer"]
    pieces = tokenizer(token, add_special_tokens=False)["input_ids"]
    size = len(tokenizer)
    if len(pieces) != 1 or (size >= text.CLOSED and pieces[0] >= COMMON * size):
        return []
    return [
        f'"{token}" is a word that {base.name} knows already: its meaning will mix with the subject\'s, and '
        "prompts that use it will show the subject. A rare word, such as sks, is safer (--token sks)."
    ]


def own_words(adapters: Sequence[Adapter]) -> set[str]:
    """The new words that adapters bring."""
    words = {word for each in adapters for word in (*each.words, each.metadata.get("likeness.token", ""))}
    return words - {""}
