"""What a reference method is: pictures become an attachment, and the base draws with it while it is open."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines.base.needs import require
from pipelines.errors import BadInput
from pipelines.spec import Config

if TYPE_CHECKING:
    from PIL import Image

    from pipelines.base.backbone import Backbone
    from pipelines.progress import Job

UNGUIDED = frozenset({"uncond", "negative"})
"""Branches that are told of no reference; every other one is told of it."""


class Attachment(Protocol):
    """What was read from reference pictures, ready to be given to the base that it was prepared for."""

    def open(self, base: Backbone) -> AbstractContextManager[None]:
        """Draw with it while open; the base is bitwise as before afterwards, also after an exception."""
        ...


@dataclass(frozen=True)
class Wanted:
    """A published file that a method draws with and everybody fetches for themselves.

    `what` is it in plain words, `file` its name where it is published (`source`), `where` its place here.
    """

    what: str
    file: str
    bytes: int
    licence: str
    source: str
    where: Path

    @property
    def here(self) -> bool:
        """Whether it stands in its place."""
        return self.where.exists()


class Reference(Config):
    """A method defines `prepare`: all work that needs the pictures; nothing of the base is touched yet."""

    def wants(self, family: str) -> tuple[Wanted, ...]:
        """The published files that it draws with on bases of a family; none where it brings its own.

        Raises NotAvailable where none were published for such bases.
        """
        return ()

    def prepare(self, base: Backbone, images: Sequence[Image.Image], job: Job) -> Attachment:
        """Read the pictures. Raises NotAvailable for missing weights or a base without what is needed,
        BrokenWeights for damaged ones, BadInput without a picture.
        """
        raise NotImplementedError

    def check(self, base: Backbone, images: Sequence[Image.Image]) -> None:
        """Raise what `prepare` owes before any work."""
        require(self.title, self.needs, base)
        if not images:
            raise BadInput(f"{self.title} has no reference picture.", "Give one picture or more.")
