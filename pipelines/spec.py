"""What a method is: a frozen config whose fields carry range, unit, default and help.

Form, command line, docs, validation and metadata all derive from these fields. The name of a method
is the name of its file.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.errors import BadInput, LikenessError, UnknownName

ModelT = TypeVar("ModelT", bound=BaseModel)


class Config(BaseModel):
    """Settings of one method. A subclass with a `title` is a method; one without is a building block."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()


def knob(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    help: str = "",
    unit: str = "",
    expert: bool = False,
    file: bool = False,
) -> Any:
    """A config field: default, inclusive range, help, unit, and whether it hides in the expert panel.

    `file`: its text names a file, so that only what a visitor may name gets there.
    """
    extra: dict[str, Any] = {"unit": unit, "expert": expert} | ({"reference": True} if file else {})
    return Field(default=default, ge=low, le=high, description=help, json_schema_extra=extra)


def catalog(family: str, broken: dict[str, str] | None = None) -> dict[str, type[Config]]:
    """Every method of a family, by file stem: the titled Config of each module of `pipelines.<family>`.

    Modules whose name starts with an underscore, those that the package lists as its ENGINE (they may import
    torch), and those without a titled Config, are no methods.
    A module that fails to import raises; with `broken` given its reason is put there instead, which
    is how the app greys a method that CI would refuse.
    """
    try:
        package = import_module(f"pipelines.{family}")
    except ModuleNotFoundError as error:
        if error.name != f"pipelines.{family}":
            raise
        raise UnknownName("family", family, _families()) from None
    methods: dict[str, type[Config]] = {}
    engine: Iterable[str] = getattr(package, "ENGINE", ())
    for module in pkgutil.iter_modules(package.__path__):
        if module.ispkg or module.name.startswith("_") or module.name in engine:
            continue
        try:
            method = _titled(f"pipelines.{family}.{module.name}")
        except Exception as error:
            if broken is None:
                raise
            broken[module.name] = f"{type(error).__name__}: {error}"
            continue
        if method is not None:
            methods[module.name] = method
    return dict(sorted(methods.items()))


def read(family: str, table: Mapping[str, Any]) -> Config:
    """A table such as `{"method": "apg", "scale": 6}` as that method's config.

    Raises UnknownName for an unknown method or key (with the nearest known one) and BadInput for
    values that do not fit.
    """
    settings = dict(table)
    name = settings.pop("method", None)
    if not isinstance(name, str):
        raise BadInput(f'A {family} table has no "method".', f'Add method = "…", one of: {_names(family)}.')
    methods = catalog(family)
    if name not in methods:
        raise UnknownName(f"{family} method", name, methods)
    return parse(methods[name], settings, name)


def parse(model: type[ModelT], table: Mapping[str, Any], where: str) -> ModelT:
    """Validate `table` as `model`; pydantic's complaints become UnknownName or BadInput about `where`."""
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        raise explain(error, model, where) from None


def explain(error: ValidationError, model: type[BaseModel], where: str) -> LikenessError:
    """The first complaint about an unknown key or choice with its nearest match, else all of them."""
    problems = error.errors(include_url=False)
    for problem in problems:
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            return UnknownName(f"setting of {where}", path, _siblings(model, problem["loc"]))
        if problem["type"] == "literal_error":
            name = ".".join(part for part in problem["loc"] if isinstance(part, str))
            return UnknownName(name, str(problem["input"]), _choices(model, problem["loc"]))
    lines = [f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in problems]
    allowed = [_range(_inner(model, each["loc"]), each["loc"]) for each in problems]
    listed = next((each["loc"][-1] for each in problems if each["type"] in ("tuple_type", "list_type")), None)
    if listed is not None:
        return BadInput(f"{where}: {listed} takes a list.", f'Write it as one: {listed}=["a", "b"].')
    remedy = f"Allowed: {', '.join(filter(None, allowed))}." if any(allowed) else "Correct the value."
    return BadInput(f"{where}: {'; '.join(lines)}.", remedy)


def _titled(module_name: str) -> type[Config] | None:
    module = import_module(module_name)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Config) and value.__module__ == module_name
        if "title" in vars(value)
    ]
    if len(found) > 1:
        names = ", ".join(each.__name__ for each in found)
        raise TypeError(f"{module_name} defines {len(found)} methods ({names}); a file is one method")
    return found[0] if found else None


def _families() -> list[str]:
    package = sys.modules[__package__ or "pipelines"]
    return [each.name for each in pkgutil.iter_modules(package.__path__) if each.ispkg]


def _names(family: str) -> str:
    return ", ".join(catalog(family)) or "none yet"


def _inner(model: type[BaseModel], loc: Iterable[int | str]) -> type[BaseModel]:
    """The model that holds the last part of `loc`, found by walking annotations; else `model`."""
    for part in tuple(loc)[:-1]:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        options = (field.annotation, *get_args(field.annotation))
        nested = [each for each in options if isinstance(each, type) and issubclass(each, BaseModel)]
        if nested:
            model = nested[0]
    return model


def _siblings(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Dotted paths of the fields beside the one at `loc`."""
    prefix = "".join(f"{part}." for part in loc[:-1])
    return [prefix + name for name in _inner(model, loc).model_fields]


def _choices(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The words that the field at `loc`, or the items of the list there, may be."""
    names = tuple(each for each in loc if isinstance(each, str))
    field = _inner(model, loc).model_fields.get(names[-1]) if names else None
    return _words(field.annotation) if field else []


def _words(annotation: Any) -> list[str]:
    """The strings of a Literal, however deep it stands in the annotation."""
    return [
        word for each in get_args(annotation) for word in ([each] if isinstance(each, str) else _words(each))
    ]


def _range(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """The range of the field at `loc` in words: "steps 1 to 1000"; empty when it has none."""
    name = str(loc[-1]) if loc else ""
    field = model.model_fields.get(name)
    low, high = limits(field.metadata) if field else (None, None)
    if low is None and high is None:
        return ""
    if high is None:
        return f"{name} at least {low}"
    return f"{name} at most {high}" if low is None else f"{name} {low} to {high}"


def limits(metadata: Iterable[Any]) -> tuple[float | None, float | None]:
    """The inclusive range (low, high) in a field's metadata; None where it is open."""
    low = high = None
    for each in metadata:
        low = getattr(each, "ge", low)
        high = getattr(each, "le", high)
    return low, high
