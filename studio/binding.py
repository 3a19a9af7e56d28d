"""Binding: which control on the page holds which setting of a job, in both directions.

A tab lists its controls once, as (dotted path, component). From that come the job that its button sends, the
filling of the controls from a job, a picture's settings or a preset, and the draft that survives a reload.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import gradio as gr

from pipelines.jobs import presets
from pipelines.jobs.spec import KINDS, JobSpec

Value = Callable[[Any], Any]


class Form(Protocol):
    """A control that draws itself from `state`, anew when `revision` is raised."""

    state: Any
    revision: Any


FormT = TypeVar("FormT", bound=Form)


def same(value: Any) -> Any:
    """A value as it is."""
    return value


@dataclass(frozen=True)
class Bound:
    """One control. `read` turns its value into the job's, `show` the job's into its own.

    A value that reads as None leaves the setting at its default. A path that begins with an underscore is
    the page's own: it is kept in drafts and stands in no job.
    """

    path: str
    component: Any
    read: Value = same
    show: Value = same


@dataclass
class Sheet:
    """The controls of one kind of job."""

    kind: str
    bound: list[Bound] = field(default_factory=list[Bound])
    forms: dict[str, Form] = field(default_factory=dict[str, Form])

    def add(self, path: str, component: Any, read: Value = same, show: Value = same) -> Any:
        """Bind a control; → the control."""
        self.bound.append(Bound(path, component, read, show))
        return component

    def add_form(self, path: str, form: FormT, *, bind: bool = True) -> FormT:
        """Bind what draws itself from a state, such as the table of a method; → it.

        With `bind` off the state is bound already, and only the drawing anew is.
        """
        if bind:
            self.add(path, form.state)
        self.forms[path] = form
        return form

    @property
    def revisions(self) -> list[Any]:
        """The states by which the forms of methods are told to draw themselves anew."""
        return [each.revision for each in self.forms.values()]

    @property
    def outputs(self) -> list[Any]:
        """What `filled` gives values for."""
        return [*self.components, *self.revisions]

    @property
    def components(self) -> list[Any]:
        """The controls, in the order in which `job` and `draft` take their values."""
        return [each.component for each in self.bound]

    def form(self, values: Sequence[Any]) -> dict[str, Any]:
        """Dotted path → value, without what is left open."""
        pairs = ((each.path, each.read(value)) for each, value in zip(self.bound, values, strict=True))
        return {path: value for path, value in pairs if value is not None and not path.startswith("_")}

    def job(
        self,
        values: Sequence[Any],
        defaults: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> JobSpec:
        """The job that the controls describe, validated. `more` are further settings by dotted path.

        Raises BadInput or UnknownName.
        """
        return presets.build(self.kind, base_defaults=defaults, form={**self.form(values), **(more or {})})

    def filled(self, table: Mapping[str, Any], *revisions: int) -> list[Any]:
        """Updates of `outputs` that show a partial job; what it does not say stays as it is."""
        told = [at(table, path) for path in self.forms]
        raised = [
            revision + 1 if found and not _open(value) else gr.skip()
            for (found, value), revision in zip(told, revisions, strict=True)
        ]
        return [*(_update(each, table) for each in self.bound), *raised]

    def unlike(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Dotted path → value, without what a fresh page shows anyway: nothing has to be drawn for that."""
        fresh = {each.path: _stored(each.read(each.component.value)) for each in self.bound}
        return {
            path: value for path, value in table.items() if path not in fresh or fresh[path] != _stored(value)
        }

    def cleared(self, defaults: Mapping[str, Any], *revisions: int) -> list[Any]:
        """Updates of `outputs` that set every control to the job's default, or to that of `defaults`."""
        whole = KINDS[self.kind].model_validate({}).portable()
        return self.filled(presets.merge(whole, defaults), *revisions)


def at(table: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    """Whether a partial job says something at a dotted path, and what."""
    value: Any = table
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = cast("Mapping[str, Any]", value)[part]
        elif (
            isinstance(value, Sequence)
            and not isinstance(value, str)
            and part.isdigit()
            and int(part) < len(value)
        ):
            value = cast("Sequence[Any]", value)[int(part)]
        else:
            return False, None
    return True, value


def _update(bound: Bound, table: Mapping[str, Any]) -> Any:
    found, value = at(table, bound.path)
    if not found or (isinstance(bound.component, gr.State) and _open(value)):
        return gr.skip()
    shown = bound.show(value)
    # a State takes its value as it is; other components take an update, lest a dict be read as one
    return shown if isinstance(bound.component, gr.State) else gr.update(value=shown)


def _stored(value: Any) -> Any:
    """A value as a draft gives it back: tuples as lists."""
    return json.loads(json.dumps(value, default=str))


def _open(value: Any) -> bool:
    """Whether a table is left open; an empty list or text says that there is nothing."""
    return value is None or value == {}
