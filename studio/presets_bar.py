"""The presets bar: settings by name, as TOML files that can be kept, given away and brought back."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from pipelines.errors import BadInput, LikenessError
from pipelines.jobs import presets, workspace
from studio.binding import Sheet, same
from studio.desk import Desk
from studio.guarded import guarded
from studio.heard import ACTIVE
from studio.markup import Markup, note, tag

if TYPE_CHECKING:
    from studio.page import Page

Table = dict[str, Any]
LONGEST = 60
WORDS = ("prompts", "negative", "source", "image", "start", "mask", "references", "seed")
"""What is of one picture and not of a way to draw: left out of a preset unless it is asked for."""
_NOT_SETTINGS = ("kind", "title", "note", "for", "version", "out", "resume", "device", "memory")


class PresetsBar:
    """Load, save, bring and take away the settings of a sheet. Build it where it shall stand.

    `folders` are those of the presets that fit, the first takes what is saved here; `adjust` may change a
    table before it is shown. Call `wire` once the sheet is whole.
    """

    def __init__(
        self,
        page: Page,
        sheet: Sheet,
        folders: Sequence[str],
        *,
        name: str,
        adjust: Callable[[Table], Table] = same,
    ) -> None:
        self._page, self._sheet, self._folders, self._adjust = page, sheet, tuple(folders), adjust
        known = choices(self._folders)
        with gr.Row(elem_classes="preset-row"):
            self.choice = gr.Dropdown(
                known, value=None, label="Preset", elem_id=f"{name}-preset", interactive=True,
                info="Settings that belong together. Choosing one fills the form; the rest stays as it is.",
            )  # fmt: skip
        with gr.Accordion("Keep these settings", open=False, elem_id=f"{name}-preset-keep"):
            title = gr.Textbox(
                label="Name", max_length=LONGEST, placeholder="Soft watercolour",
                elem_id=f"{name}-preset-name", info="What you will know it by.",
            )  # fmt: skip
            whole = gr.Checkbox(
                label="With the prompt, the pictures and the seed", value=False,
                elem_id=f"{name}-preset-whole",
                info="On: to draw this very picture again. Off: its way of drawing.",
            )  # fmt: skip
            with gr.Row():
                save = gr.Button("Save", elem_id=f"{name}-preset-save", size="sm")
                bring = gr.UploadButton(
                    "Open a preset file", file_types=[".toml"], elem_id=f"{name}-preset-open", size="sm"
                )
            link = gr.HTML(elem_id=f"{name}-preset-link")
        self._controls = (title, whole, save, bring, link)

    def wire(self) -> None:
        """Connect it to the sheet; call this once every control of the sheet is there."""
        sheet, (title, whole, save, bring, link) = self._sheet, self._controls
        self.choice.input(guarded(self._load), [self.choice, *sheet.revisions], sheet.outputs, **ACTIVE)
        bring.upload(guarded(self._bring), [bring, *sheet.revisions], sheet.outputs, **ACTIVE)
        saved = save.click(
            guarded(self._save), [title, whole, *sheet.components], [link, self.choice], **ACTIVE
        )
        self._page.changed.append(saved)
        self._page.live.add(
            self.choice,
            lambda desk: desk.stamp("presets"),
            lambda desk: gr.update(choices=choices(self._folders, desk.folder)),
        )

    def _load(self, request: gr.Request, chosen: str, *revisions: int) -> list[Any]:
        folder, _, name = (chosen or "").partition("/")
        if folder not in self._folders:
            raise BadInput("There is no such preset.", "Choose one from the list.")
        desk = self._page.desk(request)
        return self._shown(presets.load(folder, _known(name, folder, desk), desk.folder), revisions)

    def _bring(self, request: gr.Request, path: str, *revisions: int) -> list[Any]:
        table = presets.read_file(Path(path))
        shown = self._shown(table, revisions)
        gr.Info("These are the settings of the file. Save them here to keep them.", duration=5)
        return shown

    def _shown(self, table: Table, revisions: Sequence[int]) -> list[Any]:
        return self._sheet.filled(self._adjust(checked(self._sheet.kind, table)), *revisions)

    def _save(self, request: gr.Request, title: str, whole: bool, *values: Any) -> Any:
        desk = self._page.desk(request)
        path = keep(desk, self._folders[0], title, kept(self._sheet, values, whole=whole))
        chosen = f"{self._folders[0]}/{path.stem}"
        return link_to(path), gr.update(choices=choices(self._folders, desk.folder), value=chosen)


def choices(folders: Sequence[str], home: Path | None = None) -> list[tuple[str, str]]:
    """(title, "folder/name") of every preset in the folders; damaged ones go by their names."""
    found: list[tuple[str, str]] = []
    for folder in folders:
        for name, path in presets.names(folder, home).items():
            try:
                title = str(presets.read_file(path).get("title") or name)
            except LikenessError:
                title = name
            found.append((title, f"{folder}/{name}"))
    return found


def checked(kind: str, preset: Mapping[str, Any]) -> Table:
    """The settings in a preset. Raises UnknownName for one that a job of the kind does not have, BadInput."""
    presets.build(kind, preset=preset)
    return {name: value for name, value in preset.items() if name not in _NOT_SETTINGS}


def kept(sheet: Sheet, values: Sequence[Any], *, whole: bool) -> Table:
    """What a preset of the form holds: settings that are not the defaults. Raises BadInput, UnknownName."""
    table = presets.changes(sheet.job(values))
    return {name: value for name, value in table.items() if whole or name not in WORDS}


def keep(desk: Desk, folder: str, title: str, table: Mapping[str, Any]) -> Path:
    """Write a preset of one's own; one of the same name is replaced. Raises BadInput without a name."""
    words = " ".join((title or "").split())[:LONGEST]
    if not words:
        raise BadInput("The preset has no name.", "Write one above the button.")
    path = desk.folder / "presets" / folder / f"{workspace.slug(words)}.toml"
    if path.stem in presets.names(folder) and not path.exists():
        raise BadInput(f'"{words}" is the name of a preset that comes with the studio.', "Choose another.")
    presets.save(path, words, table)
    desk.touch("presets")
    return path


def link_to(path: Path) -> Markup:
    """A saved preset to take away: the file is small enough to travel inside the link."""
    data = base64.b64encode(path.read_bytes()).decode()
    where = f"data:application/toml;base64,{data}"
    return note("Saved. ", tag("a", f"Download {path.name}", href=where, download=path.name), kind="good")


def _known(name: str, folder: str, desk: Desk) -> str:
    """The name, where it is one of the list: a path would reach other files. Raises BadInput."""
    if name not in presets.names(folder, desk.folder):
        raise BadInput(f'There is no preset "{name}".', "Choose one from the list.")
    return name
