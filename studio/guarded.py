"""Errors on the page: what a listener may raise, and how it is said."""

from __future__ import annotations

import functools
import html
import logging
from collections.abc import Callable
from typing import Any

import gradio as gr

from pipelines.errors import Cancelled, LikenessError

log = logging.getLogger("likeness.studio")


def said(error: BaseException) -> tuple[str, str]:
    """What happened and the way out, in plain words, of any error."""
    if isinstance(error, LikenessError):
        return error.message, error.remedy
    if isinstance(error, Cancelled):
        return str(error) or "Stopped as asked.", ""
    log.exception("a listener failed", exc_info=error)
    return (
        f"Something went wrong that should not have ({type(error).__name__}).",
        "Your work is safe. The log of the program says more; please report it.",
    )


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A listener whose errors become a message on the page; the page lives on."""

    @functools.wraps(function)
    def listener(*values: Any, **named: Any) -> Any:
        try:
            return function(*values, **named)
        except gr.Error:
            raise
        except Exception as error:
            message, remedy = said(error)
            # a message is shown as HTML: names in it are people's own
            sentence = html.escape(f"{message} {remedy}".strip(), quote=False)
            raise gr.Error(sentence, print_exception=False, duration=12) from error

    return listener
