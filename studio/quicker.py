"""Importing Gradio in half the time."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_SLOW = "gradio.component_meta"


def skip_stub_files() -> None:
    """Keep Gradio from writing stub files for editors while it is imported: half of the time it takes.

    The function is none of its public ones: where it is gone, nothing happens.
    """
    if "gradio.component_meta" not in sys.modules and not any(
        isinstance(each, _NoStubs) for each in sys.meta_path
    ):
        sys.meta_path.insert(0, _NoStubs())


class _NoStubs:
    """An import hook for one module, which takes itself away afterwards."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _SLOW:
            return None
        sys.meta_path.remove(self)  # pyright: ignore[reportArgumentType]
        spec = PathFinder.find_spec(name, path, target)
        loader: Any = spec.loader if spec else None
        if loader is None:
            return spec
        execute = loader.exec_module

        def without_stubs(module: ModuleType) -> None:
            execute(module)
            if hasattr(module, "create_or_modify_pyi"):
                module.create_or_modify_pyi = lambda *given, **named: None  # pyright: ignore[reportAttributeAccessIssue]

        loader.exec_module = without_stubs
        return spec
