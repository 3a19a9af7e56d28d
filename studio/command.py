"""The command line that does a job again: `likeness generate "a red dog" --seed 3 --set guidance.scale=7`.

What the command would take by itself (the kind's defaults, and those of the base) is left out; everything
else is said, so that reading the command gives an equal job.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import presets
from pipelines.jobs.model import JobSpec, part_of
from pipelines.jobs.paths import families, get_path
from studio.cli_commands import COMMANDS, Command, Word

_RUNS_OWN = frozenset({"kind", "version", "out", "resume"})
GRID = "grid.toml"
"""What `grid_file` is to be saved as for the command of a grid."""

Table = dict[str, Any]


def command(spec: JobSpec, workspace: Path | None = None) -> str:
    """The line to type in a shell. A grid's names the file `GRID`, whose text is `grid_file(spec)`.

    Raises BadInput for a kind of job that has no command of its own.
    """
    return shlex.join(["likeness", *words(spec, workspace)])


def words(spec: JobSpec, workspace: Path | None = None) -> list[str]:
    """The words of the command, from which `studio.cli.read_command` gives the job again."""
    found = next(((name, each) for name, each in COMMANDS.items() if each.kind == spec.kind), None)
    if found is None:
        raise BadInput(f"There is no command for a {spec.kind} job.", "Start it in the studio.")
    name, known = found
    if spec.kind == "compare":
        return [name, GRID]
    table = spec.portable()
    native = presets.native(str(table.get("base", "")), workspace) if "base" in table else {}
    usual = presets.build(spec.kind, base_defaults=native).portable()
    positional = next((each for each in known.words if not each.flag), None)
    line: list[str] = []
    done: set[str] = set(_RUNS_OWN)
    if positional is not None and (said := _positional(positional, table)):
        line += said
        done.add(positional.path)
    if table.get("adapters") and "adapters" in {each.path for each in known.words}:
        for each in cast("Sequence[Table]", table["adapters"]):
            line += ["--adapter", f"{each['adapter']}:{each['weight']!r}"]
        done.add("adapters")
    return [name, *line, *_options(spec, known, _flat(type(spec), table), _flat(type(spec), usual), done)]


def grid_file(spec: JobSpec) -> str:
    """A grid as TOML, as `likeness compare` and the folder of presets take it."""
    import tomli_w

    table = _without_none({key: value for key, value in spec.portable().items() if key not in _RUNS_OWN})
    return tomli_w.dumps({"title": table.pop("title", "") or "A grid", "kind": "compare", **table})


def _positional(word: Word, table: Table) -> list[str]:
    value: Any = table
    for part in word.path.split("."):
        value = value.get(part)
    many = [str(each) for each in cast("Sequence[Any]", value)] if word.many else [str(value or "")]
    # a word that begins with a hyphen would be read as an option
    return [] if any(not each or each.startswith("-") for each in many) else many


def _options(spec: JobSpec, known: Command, table: Table, usual: Table, done: set[str]) -> list[str]:
    """Every setting that is not as usual: by its option where it has a plain one, else by --set."""
    methods = families(type(spec))
    flags = {
        each.path: each.flag
        for each in known.words
        if each.flag and not each.many and each.path.partition(".")[0] not in methods
    }
    plain: list[str] = []
    sets: list[str] = []
    names = sorted(dict.fromkeys([*table, *usual]), key=lambda each: not each.endswith(".method"))
    changed = {each for each in methods if table.get(f"{each}.method") != usual.get(f"{each}.method")}
    for path in names:
        head = path.partition(".")[0]
        if path in done or head in done:
            continue
        # a setting of the base that is not this job's: the method's default has to be said
        missing = None if head in changed or path in table else _default(spec, path)
        value = table.get(path, missing)
        if value is None or (path in table and head not in changed and usual.get(path) == value):
            continue
        if path in flags and isinstance(value, bool):
            plain.append(flags[path] if value else f"--no-{flags[path][2:]}")
        elif path in flags:
            text = str(value)
            plain += [f"{flags[path]}={text}"] if text.startswith("-") else [flags[path], text]
        else:
            sets += ["--set", f"{path}={_toml(value)}"]
    return [*plain, *sets]


def _default(spec: JobSpec, path: str) -> Any:
    try:
        return get_path(spec, path)
    except LikenessError:
        return None


def _flat(model: type[JobSpec], table: Mapping[str, Any]) -> Table:
    """Dotted path → value, opened where the parts of a job and its methods are, and nowhere else."""
    flat: Table = {}
    for name, value in table.items():
        inner = part_of(model.model_fields[name].annotation) if name in model.model_fields else None
        opened = name in families(model) or (inner is not None and isinstance(value, Mapping))
        flat |= _opened(name, value, inner) if opened and isinstance(value, Mapping) else {name: value}
    return flat


def _opened(where: str, table: Mapping[str, Any], model: type[BaseModel] | None) -> Table:
    flat: Table = {}
    for name, value in table.items():
        # of a free table all is opened; of a part only its own fields, whose keys are no file names
        if isinstance(value, Mapping) and model is None:
            flat |= _opened(f"{where}.{name}", cast("Table", value), None)
        else:
            flat[f"{where}.{name}"] = value
    return flat


def _toml(value: Any) -> str:
    """A value as `--set` reads it; a text that TOML would not take for anything else stays as it is."""
    if isinstance(value, str) and value and value == value.strip() and presets.scalar(value) == value:
        return value
    return _quoted(value)


def _quoted(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(str(key))} = {_quoted(each)}" for key, each in cast("Table", value).items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_quoted(each) for each in cast("Sequence[Any]", value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        return {name: _without_none(each) for name, each in table.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_without_none(each) for each in cast("Sequence[Any]", value)]
    return value
