r"""Prompts that say several things at once, and what they say for one seed.

`{red|blue|green}` is one of the three; braces nest, and braces without a bar are ordinary text. `__colours__`
is a line of `wildcards/colours.txt` in the workspace, or of a shipped list of that name; lines may use
wildcards in turn. `\{`, `\}`, `\|` and `\_` stand for themselves. What is chosen depends on the seed of the
picture and on which wildcard of the prompt it is, and on nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from pipelines.errors import BadInput, UnknownName
from pipelines.jobs import workspace
from pipelines.jobs.presets import shipped

FOLDER = "wildcards"
LIMIT = 256 * 1024
DEEPEST, MOST = 8, 1000
LISTED = r"__([^\W_](?:[\w-]*?[^\W_])?)__"
_TOKEN = re.compile(rf"\\([{{}}|_])|([{{}}|])|{LISTED}")
_SPECIAL = re.compile(rf"[{{}}]|(?<=\\)[|_]|{LISTED}")


@dataclass
class _List:
    """A line of a list. `place` is the number of the wildcard in its text."""

    name: str
    place: int


@dataclass
class _Choice:
    """One of several texts; while it is read, the last is still growing."""

    place: int
    options: list[list[_Node]] = field(default_factory=lambda: [[]])

    def as_text(self) -> list[_Node]:
        """The same as ordinary text, without its closing brace."""
        nodes: list[_Node] = ["{"]
        for index, option in enumerate(self.options):
            nodes += [*(["|"] if index else []), *option]
        return nodes


_Node = str | _List | _Choice


def expand(prompt: str, seed: int, folder: Path | None = None) -> str:
    """What a prompt says for a seed. `folder` is the workspace; None: the current one.

    Raises UnknownName for a list that is not there, BadInput for one that is empty, too long, or leads back
    to itself.
    """
    if not _TOKEN.search(prompt):
        return prompt
    return _Picker(seed, lists(folder)).said(_read(prompt), "", 0)


def lists(folder: Path | None = None) -> dict[str, Path]:
    """The lists by name; one of the workspace replaces a shipped one of its name."""
    found: dict[str, Path] = {}
    for home in (shipped(), folder or workspace.root()):
        found |= {each.stem: each for each in sorted((home / FOLDER).glob("*.txt"))}
    return dict(sorted(found.items()))


def escaped(text: str) -> str:
    """A text that `expand` gives back as this one, whatever the seed."""
    return _SPECIAL.sub(lambda found: re.sub(r"[{}|_]", r"\\\g<0>", found[0]), text)


def has_wildcards(prompt: str) -> bool:
    """Whether a prompt may say different things for different seeds."""
    return any(not isinstance(each, str) for each in _read(prompt))


@dataclass
class _Picker:
    """The choices of one seed."""

    seed: int
    known: dict[str, Path]
    looked_up: int = 0
    _lists: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def said(self, nodes: Sequence[_Node], place: str, depth: int) -> str:
        return "".join(self._one(each, place, depth) for each in nodes)

    def _one(self, node: _Node, place: str, depth: int) -> str:
        if isinstance(node, str):
            return node
        own = f"{place}.{node.place}"
        if isinstance(node, _Choice):
            # numbers go on inside, so that what is chosen here never moves a choice further on
            return self.said(node.options[self._pick(own, len(node.options))], place, depth)
        self.looked_up += 1
        if depth >= DEEPEST or self.looked_up > MOST:
            raise BadInput(
                f"The wildcard list {node.name} leads back to itself.",
                "Take its own name out of it, and out of the lists that it names.",
            )
        lines = self._lists.get(node.name) or self._lists.setdefault(node.name, _lines(node.name, self.known))
        return self.said(_read(lines[self._pick(own, len(lines))]), own, depth + 1)

    def _pick(self, place: str, options: int) -> int:
        digest = hashlib.sha256(f"{self.seed}{place}".encode()).digest()
        return int.from_bytes(digest[:8]) % options


def _lines(name: str, known: dict[str, Path]) -> list[str]:
    """The entries of a list; empty lines and those that begin with # are none."""
    if name not in known:
        raise UnknownName("wildcard list", name, known)
    path = known[name]
    if path.stat().st_size > LIMIT:
        raise BadInput(f"The wildcard list {name} is too long.", f"Keep it below {LIMIT // 1024} KiB.")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise BadInput(f"The wildcard list {name} is empty.", f"Write one choice a line into {path.name}.")
    return found


def _read(prompt: str) -> list[_Node]:
    """A prompt as texts and wildcards. Braces that do not close, or hold no bar, are ordinary text."""
    numbers = count()
    done: list[_Node] = []
    open_ones: list[_Choice] = []

    def here() -> list[_Node]:
        return open_ones[-1].options[-1] if open_ones else done

    at = 0
    for found in _TOKEN.finditer(prompt):
        here().append(prompt[at : found.start()])
        at = found.end()
        literal, mark, name = found.groups()
        if literal:
            here().append(literal)
        elif name:
            here().append(_List(name, next(numbers)))
        elif mark == "{":
            open_ones.append(_Choice(next(numbers)))
        elif mark == "|" and open_ones:
            open_ones[-1].options.append([])
        elif mark == "}" and open_ones:
            closed = open_ones.pop()
            here().extend([closed] if len(closed.options) > 1 else [*closed.as_text(), "}"])
        else:
            here().append(mark)
    here().append(prompt[at:])
    while open_ones:
        left = open_ones.pop()
        here().extend(left.as_text())
    return done
