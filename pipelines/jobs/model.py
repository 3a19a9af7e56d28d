"""What every job carries, whatever its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

VERSION = 1
Device = Literal["auto", "cpu", "cuda"]


class JobSpec(BaseModel, frozen=True, extra="forbid"):
    """What every job carries: the version of its schema and its kind."""

    summary: ClassVar[str] = ""
    kind: str
    version: Literal[1] = VERSION

    def to_json(self) -> str:
        """The whole job as JSON, from which `from_json` restores an equal one."""
        return self.model_dump_json()

    def shareable(self) -> dict[str, Any]:
        """The job in plain JSON values with paths cut down to names: what a picture may carry."""
        table = self.model_dump()
        return {key: value.name if isinstance(value, Path) else value for key, value in table.items()}
