"""The values of an axis as people type them: "0, 0.5, 1", "0..1 step 0.25", "1 to 9 in 5", "8 seeds".

Texts such as prompts stand one a line, since they hold commas themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from pipelines.errors import BadInput

MOST = 400
LONGEST = 80
Kind = Literal["whole", "number", "choice", "yes", "text", "any"]
_NUMBER = r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?"
_RANGE = re.compile(
    rf"\s*({_NUMBER})\s*(?:\.\.+|…|to|–)\s*({_NUMBER})\s*(?:(step|by|in)\s*({_NUMBER}))?\s*", re.IGNORECASE
)
_SEEDS = re.compile(r"\s*(\d{1,18})\s+seeds?(?:\s+from\s+(\d{1,18}))?\s*", re.IGNORECASE)
_WORDS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
EXAMPLES: dict[str, str] = {
    "whole": "10, 20, 40  or  10..40 step 10",
    "number": "0, 0.5, 1  or  0..1 step 0.25",
    "choice": "names with commas between",
    "yes": "yes, no",
    "text": "one text a line",
    "any": "values with commas between",
}


def parse(text: str, kind: Kind = "any", start: int = 0) -> list[Any]:
    """Typed text as a list of values, in their order, each once. `start` is the first of "8 seeds".

    Raises BadInput with an example where the text does not fit the kind.
    """
    text = (text or "").strip()
    if not text:
        return []
    if kind == "text":
        return _once([each.strip() for each in text.splitlines() if each.strip()])
    if found := _SEEDS.fullmatch(text):
        count, first = int(found[1]), int(found[2]) if found[2] else start
        return [first + number for number in range(_few(count))]
    values: list[Any] = []
    for part in re.split(r"[,;\n]", text):
        if not part.strip():
            continue
        ranged = kind in ("whole", "number", "any") and len(part) < LONGEST
        spread = _RANGE.fullmatch(part) if ranged else None
        values += _ranged(spread, kind) if spread else [_value(part.strip(), kind)]
        _few(len(values))
    return _once(values)


def shown(values: Sequence[Any], kind: Kind = "any") -> str:
    """Values as the text from which `parse` gives them again."""
    words = [_word(each) for each in values]
    lines = kind == "text" or any(isinstance(each, str) and re.search(r"[,;]", each) for each in values)
    return "\n".join(words) if lines else ", ".join(words)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ranged(found: re.Match[str], kind: Kind) -> list[Any]:
    """The numbers of a range, in decimals: 0..1 step 0.1 holds 0.3, not 0.30000000000000004."""
    low, high = _number(found[1]), _number(found[2])
    word, amount = (found[3] or "").lower(), _number(found[4]) if found[4] else Decimal(1)
    if word == "in":
        count = int(amount)
        if count < 2 or count != amount:
            raise BadInput(f'"{found[0].strip()}" is no range.', "Ask for two values or more: 1 to 9 in 5.")
        step = (high - low) / (_few(count) - 1)
        numbers = [low + step * index for index in range(count)]
    else:
        if amount <= Decimal("1e-9"):
            raise BadInput(f'"{found[0].strip()}" never arrives.', "Take a step above 0: 0..1 step 0.25.")
        step = amount if high >= low else -amount
        numbers = [low + step * index for index in range(_few(int((high - low) / step) + 1))]
    if kind == "whole" and any(each != each.to_integral_value() for each in numbers):
        raise BadInput(f'"{found[0].strip()}" holds fractions.', "This setting takes whole numbers.")
    whole = kind == "whole" or (kind == "any" and all(each == each.to_integral_value() for each in numbers))
    return [int(each) if whole else round(float(each), 6) for each in numbers]


def _value(word: str, kind: Kind) -> Any:
    if kind == "choice":
        return word
    if kind in ("yes", "any") and word.lower() in _WORDS:
        return _WORDS[word.lower()]
    try:
        number = _number(word)
    except InvalidOperation:
        if kind == "any":
            return word
        raise BadInput(f'"{word}" does not fit here.', f"Write, for example: {EXAMPLES[kind]}.") from None
    if kind == "yes":
        return bool(number)
    whole = number == number.to_integral_value()
    if kind == "whole" and not whole:
        raise BadInput(f'"{word}" is no whole number.', f"Write, for example: {EXAMPLES[kind]}.")
    return int(number) if kind == "whole" or (kind == "any" and whole and "." not in word) else float(number)


def _number(word: str) -> Decimal:
    """A finite number of at most 2^63: beyond that neither seeds nor anything else has a meaning."""
    number = Decimal(word)
    if not number.is_finite() or number.copy_abs() > 2**63:
        raise BadInput(f'"{word}" is no number that a setting could take.', "Take a smaller one.")
    return number


def _once(values: Sequence[Any]) -> list[Any]:
    """Each value once; yes and 1 are two values, though Python calls them equal."""
    return list({(type(each), each): each for each in values}.values())


def _few(count: int) -> int:
    if count > MOST:
        raise BadInput(f"These are {count:,} values.", f"A grid has room for {MOST} pictures: take fewer.")
    return count
