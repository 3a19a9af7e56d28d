"""The form of a grid's axes: up to three settings, chosen by name or typed as a path, with their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from studio.compare_axes import Setting
from studio.compare_grid import axes_text
from studio.heard import ACTIVE, QUIET
from studio.markup import Markup, tag

AXES = ("Columns", "Rows", "Pages")
_HELP = ("What changes from left to right.", "What changes downwards.", "A sheet for each value.")

Known = Callable[[gr.Request, Mapping[str, Any]], dict[str, Setting]]


class AxesForm:
    """Three axes as one list in `state`: [{"path": …, "text": …} or {"path": …, "values": […]}, …].

    Built inside a Blocks. A list put into `state` by code shows once `revision` is raised.
    """

    def __init__(self) -> None:
        self.state = gr.State([])
        self.revision = gr.State(0)
        self._paths: list[Any] = []
        self._texts: list[Any] = []
        self._hints: list[Any] = []
        for index, (name, help_) in enumerate(zip(AXES, _HELP, strict=True)):
            with gr.Accordion(name, open=index == 0, elem_id=f"compare-axis-{index}"):
                self._paths.append(
                    gr.Dropdown(
                        [], label=f"{name}: setting", info=f"{help_} Choose one, or type a dotted path.",
                        allow_custom_value=True, interactive=True, elem_id=f"compare-path-{index}",
                    )
                )  # fmt: skip
                self._texts.append(
                    gr.Textbox(
                        label="Values", lines=1, max_lines=8, max_length=8000, interactive=True,
                        elem_id=f"compare-values-{index}",
                        info="0, 0.5, 1 · or 0..1 step 0.25 · or 8 seeds. Texts: one a line (Shift+Enter).",
                    )
                )  # fmt: skip
                self._hints.append(gr.HTML(elem_id=f"compare-hint-{index}"))

    @property
    def controls(self) -> list[Any]:
        """The controls as one sees them: three paths, then three texts; `collected` reads them."""
        return [*self._paths, *self._texts]

    def wire(self, job: Any, known: Known, load: Any) -> None:
        """Let the controls and the state follow each other; choices come from the drawing in `job`."""

        def typed(*values: Any) -> list[dict[str, Any]]:
            return collected(values[:3], values[3:])

        def refreshed(request: gr.Request, table: dict[str, Any], axes: list[Any]) -> list[Any]:
            settings = known(request, table)
            pairs = axes_text(axes, settings)
            paths = [gr.update(choices=choices(settings, path), value=path or None) for path, _ in pairs]
            texts = [gr.update(value=text) for _, text in pairs]
            return [*paths, *texts, *(hint(settings, path) for path, _ in pairs)]

        def hinted(request: gr.Request, table: dict[str, Any], *paths: Any) -> list[Markup]:
            settings = known(request, table)
            return [hint(settings, str(path or "")) for path in paths]

        controls = self.controls
        # reading first, then the hints: what is typed must never be put back into the controls
        inputs = [each.input for each in controls] + [each.blur for each in self._texts]
        # through the queue: the browser hears of a changed State only from there
        gr.on(inputs, typed, controls, self.state, trigger_mode="always_last", **ACTIVE)
        gr.on([each.input for each in self._paths], hinted, [job, *self._paths], self._hints, **QUIET)
        gr.on(
            [load, job.change, self.revision.change], refreshed, [job, self.state],
            [*controls, *self._hints], **QUIET,
        )  # fmt: skip


def collected(paths: Any, texts: Any) -> list[dict[str, Any]]:
    """What stands in the controls, as the state holds it."""
    return [
        {"path": str(path or ""), "text": str(text or "")} for path, text in zip(paths, texts, strict=True)
    ]


def choices(settings: Mapping[str, Setting], path: str) -> list[tuple[str, str]]:
    """What a dropdown offers: nothing first, then every setting by its name, and a typed path as it is."""
    listed = [("nothing", ""), *((each.label, each.path) for each in settings.values())]
    return listed if not path or path in settings else [*listed, (path, path)]


def hint(settings: Mapping[str, Setting], path: str) -> Markup:
    """What a setting does and takes."""
    if path not in settings:
        return Markup("")
    return tag("p", settings[path].hint, cls="quiet hint")
