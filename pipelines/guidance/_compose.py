"""Composed guidance: one base method, and methods around it under `with`.

    {"method": "cfg", "scale": 4, "with": {"pag": {"scale": 2}}}

They act in the fixed order of `STAGES`, whatever the order of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from pydantic import SerializeAsAny

from pipelines.errors import BadInput, UnknownName
from pipelines.guidance._base import Guidance, assemble
from pipelines.spec import catalog, parse, read

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone
    from pipelines.base.noise import Guide


class Composed(Guidance):
    """A base method with others around it, by name."""

    method: SerializeAsAny[Guidance]
    extras: dict[str, SerializeAsAny[Guidance]]

    def branches(self) -> tuple[str, ...]:
        """Those of all, each once: they share one batch."""
        every = (self.method, *self.extras.values())
        return tuple(dict.fromkeys(name for each in every for name in each.branches()))

    def extra_rows(self) -> int:
        """Those of all."""
        return sum(each.extra_rows() for each in (self.method, *self.extras.values()))

    def start(self, base: Backbone) -> Guide:
        """A fresh guide for one run. Raises NotAvailable where `base` lacks what any of them needs."""
        return assemble(base, self.method, self.extras.values())


def read_guidance(table: Mapping[str, Any]) -> Guidance:
    """A guidance table as the method, or the composition, that it describes.

    Raises UnknownName for an unknown method or setting, BadInput for what does not fit, or for a method under
    `with` that combines branches itself.
    """
    settings = dict(table)
    around = settings.pop("with", {})
    method = cast("Guidance", read("guidance", settings))
    if not isinstance(around, Mapping):
        raise BadInput("guidance.with is not a table.", "Write for example with.pag.scale = 2.")
    extras = {str(name): _extra(str(name), each) for name, each in around.items()}
    if settings["method"] in extras:
        raise BadInput(
            f'"{settings["method"]}" is both the method and under with.',
            "Keep one of the two, and its scale.",
        )
    return Composed(method=method, extras=extras) if extras else method


def _extra(name: str, settings: object) -> Guidance:
    methods = catalog("guidance")
    stackable = [each for each in methods if cast("type[Guidance]", methods[each]).stage != "combine"]
    if name not in methods:
        raise UnknownName("guidance method under with", name, stackable)
    if name not in stackable:
        raise BadInput(
            f'"{name}" combines the branches itself and cannot stand under with.',
            f"Make it the method, or put one of these under with: {', '.join(stackable)}.",
        )
    if not isinstance(settings, Mapping):
        raise BadInput(f"guidance.with.{name} is not a table.", f"Write for example with.{name}.scale = 2.")
    return cast("Guidance", parse(methods[name], settings, name))


def write_guidance(guidance: Guidance) -> dict[str, Any]:
    """The table that `read_guidance` reads back to an equal config."""
    if not isinstance(guidance, Composed):
        return {"method": _name(guidance), **guidance.model_dump(mode="json")}
    around = {name: each.model_dump(mode="json") for name, each in guidance.extras.items()}
    return {**write_guidance(guidance.method), "with": around}


def _name(guidance: Guidance) -> str:
    return type(guidance).__module__.rpartition(".")[2]
