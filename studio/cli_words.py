"""Results and progress in words: tables, lists and bars for a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO, cast

from pipelines.progress import Event, Printer

WIDTH = 24
LONG = 6
EMPTY = (None, "", [], {})


class Bar(Printer):
    """A printer that draws a bar and the time left on a terminal; elsewhere plain lines, as every printer."""

    def __init__(self, stream: TextIO | None = None, every: float | None = None) -> None:
        super().__init__(stream, every)
        self._event: Event | None = None
        self._begun: tuple[int | None, int, float] = (None, 0, 0.0)

    def __call__(self, event: Event) -> None:
        """Draw one event; previews are not drawn."""
        if event.kind == "report":
            # another total, or a step back, is another piece of work with a clock of its own
            if event.total != self._begun[0] or event.step < self._begun[1]:
                self._begun = (event.total, event.step, time.monotonic())
            self._event = event
        super().__call__(event)

    def _draw(self, text: str) -> None:
        super()._draw(f"{self._bar()}{text}" if self._terminal else text)

    def _bar(self) -> str:
        event, (_, first, since) = self._event, self._begun
        if event is None or not event.total:
            return ""
        part = min(1.0, max(0.0, event.step / event.total))
        full = round(part * WIDTH)
        done, took = event.step - first, time.monotonic() - since
        left = f"{_clock(took / done * (event.total - event.step))} left · " if done > 0 and took > 1 else ""
        return f"{'█' * full}{'░' * (WIDTH - full)} {left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def in_words(result: Mapping[str, Any]) -> str:
    """A result for people: lists of tables as Markdown tables, everything else as "name: value" lines."""
    tables, lines = [], []
    for name, value in result.items():
        if name == "rows" and _is_rows(value):
            tables.append(markdown(value) if value and "bar" in value[0] else grid(value))
        elif _is_rows(value) and value:
            tables.append(f"{name}:\n{grid(value)}")
        elif isinstance(value, Mapping) and len(cast("Mapping[str, Any]", value)) > LONG:
            inner = cast("Mapping[str, Any]", value)
            tables.append(
                "\n".join([f"{name}:", *(f"  {key}: {_value(each)}" for key, each in _said(inner))])
            )
        elif isinstance(value, str) and "\n" in value:
            tables.append(f"{name}:\n{value}")
        elif value not in EMPTY:
            lines.append(f"{name}: {_value(value)}")
    return "\n\n".join([*tables, *(["\n".join(lines)] if lines else [])]) or "Done."


def _said(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in table.items() if value not in EMPTY]


def grid(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; tables inside a row become columns of their own."""
    flat = [_flat(each) for each in rows]
    columns = list(dict.fromkeys(name for each in flat for name in each))
    if not columns:
        return "(none)"
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    lines += [f"| {' | '.join(_cell(each.get(name)) for name in columns)} |" for each in flat]
    return "\n".join(lines)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The judge's rows {bar, value, at_least, ok, note} as a Markdown table; `ok` None is a mere figure."""
    lines = ["| bar | value | at least | | note |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        ok = row.get("ok")
        mark = "" if ok is None else "✓" if ok else "✗"
        cells = [row["bar"], row["value"], row.get("at_least"), mark, row.get("note")]
        lines.append(f"| {' | '.join(_cell(each) for each in cells)} |")
    return "\n".join(lines)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in cast("list[Any]", value))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= cast("dict[str, Any]", value)
        else:
            flat[name] = value
    return flat


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        return " · ".join(f"{name} {_value(each)}" for name, each in table.items())
    if isinstance(value, list | tuple):
        return ", ".join(_value(each) for each in cast("Sequence[Any]", value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _value(value).replace("|", "\\|").replace("\n", " ")
