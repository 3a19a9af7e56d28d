"""What every job carries, whatever its kind; and which of its fields are references or methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_args

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from pipelines.jobs.references import shared
from pipelines.spec import catalog

VERSION = 1
PICTURES_OF_METHOD = "images"
"""Where the pictures of a reference method stand in its table, beside its settings."""
_PLACES = ("base", "value", "values")
Device = Literal["auto", "cpu", "cuda"]


def files(default: Any = "", help: str = "") -> Any:
    """A field that names files: `asset:`, `run:`, `upload:`, `file:` or a bare path."""
    return Field(default=default, description=help, json_schema_extra={"reference": True})


def method(family: str, default: str | None, help: str = "") -> Any:
    """A field that holds a method of a family as a table: `{"method": "apg", "scale": 6}`."""
    extra: dict[str, Any] = {"family": family}
    if default is None:
        return Field(default=None, description=help, json_schema_extra=extra)
    return Field(default_factory=lambda: {"method": default}, description=help, json_schema_extra=extra)


def mark(field: FieldInfo, name: str) -> Any:
    """A field's mark ("reference", "family"), or None."""
    extra = field.json_schema_extra
    return cast("dict[str, Any]", extra).get(name) if isinstance(extra, dict) else None


def part_of(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation such as `Sampler`, `tuple[AdapterRef, ...]` or `Watch | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := part_of(each)) is not None), None)


class JobSpec(BaseModel, frozen=True, extra="forbid"):
    """What every job carries: the version of its schema and its kind."""

    summary: ClassVar[str] = ""
    kind: str
    version: Literal[1] = VERSION

    def to_json(self) -> str:
        """The whole job as JSON, from which `from_json` restores an equal one."""
        return self.model_dump_json()

    def shareable(self) -> dict[str, Any]:
        """The job in plain JSON values without any path: what a picture may carry.

        A file that a field names becomes its name, with the SHA-256 of its content where it is a picture or
        an adapter ("dog.png#sha256=…"), by which `workspace.resolve` finds it again.
        """
        return shareable_table(type(self), self.model_dump())

    def portable(self) -> dict[str, Any]:
        """The job in plain JSON values, paths included: for run folders and the store, not for pictures."""
        return _shareable(type(self), self.model_dump(), secret=False)


def references_of(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Every file that a job names, as (dotted path, reference); empty ones are left out."""
    yield from _references(type(spec), spec.model_dump(), "")


def _references(model: type[BaseModel], table: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        value, inner = table.get(name), part_of(field.annotation)
        if (family := mark(field, "family")) and isinstance(value, Mapping):
            yield from _of_method(family, cast("Mapping[str, Any]", value), f"{where}{name}.")
        elif mark(field, "reference"):
            for each in _many(value):
                if each:
                    yield where + name, str(each)
        elif inner is not None:
            for row in _many(value):
                if row is not None:
                    yield from _references(inner, row, f"{where}{name}.")


def _of_method(family: str, table: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """The files in a method's table: its pictures, and whatever settings of its own name files."""
    method = catalog(family, {}).get(str(table.get("method")))
    for each in _many(table.get(PICTURES_OF_METHOD)):
        if each:
            yield where + PICTURES_OF_METHOD, str(each)
    if method is not None:
        yield from _references(method, table, where)
    around: Any = table.get("with")  # what is combined with the method, each with settings of its own
    if isinstance(around, Mapping):
        for name, each in cast("Mapping[str, Any]", around).items():
            if isinstance(each, Mapping):
                settings = {**cast("Mapping[str, Any]", each), "method": name}
                yield from _of_method(family, settings, f"{where}with.{name}.")


def shareable_table(model: type[BaseModel], table: Mapping[str, Any]) -> dict[str, Any]:
    """`JobSpec.shareable` of a table, whole or partial, that is not a job yet."""
    return _shareable(model, table, secret=True)


def _many(value: Any) -> list[Any]:
    return list(cast("list[Any]", value)) if isinstance(value, tuple | list) else [value]


def _shareable(model: type[BaseModel], table: Mapping[str, Any], secret: bool) -> dict[str, Any]:
    done: dict[str, Any] = {}
    for name, value in table.items():
        field = model.model_fields.get(name)
        inner = part_of(field.annotation) if field else None
        if isinstance(value, dict) and inner is not None:
            done[name] = _shareable(inner, cast("dict[str, Any]", value), secret)
        elif isinstance(value, tuple | list) and inner is not None:
            rows = cast("list[dict[str, Any]]", value)
            done[name] = [_shareable(inner, each, secret) for each in rows]
        else:
            named = bool(field and mark(field, "reference"))
            # a prompt may begin with a slash: only what can name files is looked at for paths
            words = not named and name not in _PLACES and isinstance(value, str | tuple | list)
            done[name] = _plain(value, secret and not words, named)
    return done


def _plain(value: Any, secret: bool, named: bool) -> Any:
    """A value in JSON's types; with `secret` without paths. `named`: it is one, or several, references."""
    if isinstance(value, Path):
        return value.name if secret else str(value)
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        return {str(key): _plain(each, secret, False) for key, each in table.items()}
    if isinstance(value, tuple | list):
        return [_plain(each, secret, named) for each in cast("list[Any]", value)]
    if isinstance(value, str) and secret:
        return shared(value, named)
    return value
