"""The sheets of the page as it is built, and what their controls hold: for tests without a browser."""

import gradio as gr

from studio.page import Page, build


def sheet_of(hall, name):
    """A registered sheet of the page."""
    sheets = {}
    register = Page.register
    Page.register = lambda self, name, sheet: sheets.update({name: sheet}) or register(self, name, sheet)
    try:
        build(hall)
    finally:
        Page.register = register
    return sheets[name]


def shown(sheet, table):
    """What the controls hold once they show a job."""
    values = []
    for bound, update in zip(sheet.bound, sheet.filled(table, *(0 for _ in sheet.forms)), strict=False):
        held = getattr(bound.component, "value", None)
        if isinstance(bound.component, gr.State):
            values.append(held if isinstance(update, dict) and update.get("__type__") else update)
        else:
            values.append(update.get("value", held))
    return values
