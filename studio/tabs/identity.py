"""Identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.page import Page


def build(page: Page) -> None:
    """The tab."""
