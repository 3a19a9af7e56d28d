"""Gradio in less time: half of it for the import, a fifth less for a page."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_SLOW = "gradio.component_meta"
_PAGES = ("", "/", "/config")
_ENTRY = '<script type="module"'
_PLAIN = """<script>
  (() => {
    // Svelte watches every plain array that it is given, and the page walks this one for every control
    class Plain extends Array {}
    const config = window.gradio_config;
    if (config?.dependencies) config.dependencies = Plain.from(config.dependencies);
  })();
</script>
"""


def skip_stub_files() -> None:
    """Keep Gradio from writing stub files for editors while it is imported: half of the time it takes.

    The function is none of its public ones: where it is gone, nothing happens.
    """
    if "gradio.component_meta" not in sys.modules and not any(
        isinstance(each, _NoStubs) for each in sys.meta_path
    ):
        sys.meta_path.insert(0, _NoStubs())


class Packed:
    """Compresses the page itself, a tenth remains of it: Gradio does so only with what is called .html."""

    def __init__(self, app: Any) -> None:
        from starlette.middleware.gzip import GZipMiddleware

        self._app, self._packing = app, GZipMiddleware(app, compresslevel=5)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, with its answer compressed where it is for the page or its description."""
        page = scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) in _PAGES
        await (self._packing if page else self._app)(scope, receive, send)


def open_sooner(kinds: Iterable[str]) -> int:
    """Let Gradio's page fetch the scripts of these kinds of components at once, not as it meets them.

    Its page is a template; this puts a few lines before the first script of it. → how many scripts are named.
    """
    from gradio.route_utils import STATIC_TEMPLATE_LIB
    from gradio.routes import templates
    from jinja2 import ChoiceLoader, DictLoader

    folder = Path(STATIC_TEMPLATE_LIB) / "frontend"
    named = scripts(folder / "assets", set(kinds))
    links = "".join(f'<link rel="modulepreload" href="./assets/{each}">\n' for each in named)
    page = (folder / "index.html").read_text(encoding="utf-8").replace(_ENTRY, _PLAIN + links + _ENTRY, 1)
    loaders = [DictLoader({"frontend/index.html": page}), *filter(None, [templates.env.loader])]
    templates.env.loader = ChoiceLoader(loaders)
    if templates.env.cache is not None:
        templates.env.cache.clear()
    return len(named)


def scripts(assets: Path, kinds: Iterable[str]) -> list[str]:
    """The scripts that Gradio's page loads for kinds of components, by the table in its own core script.

    None where another version of Gradio keeps that table in another way.
    """
    found: dict[str, None] = dict.fromkeys(sorted(each.name for each in assets.glob("Blocks-*.js")))
    for core in assets.glob("core-*.js"):
        text = core.read_text(encoding="utf-8")
        table = re.search(r"m\.f=\[([^\]]*)\]", text)
        names = re.findall(r'"\./([^"]+)"', table[1]) if table else []
        for kind in kinds:
            entry = re.search(
                rf"\b{re.escape(kind)}:\{{[^{{}}]*?component:.*?__vite__mapDeps\(\[([\d,]*)\]\)", text
            )
            numbers = [int(each) for each in entry[1].split(",") if each] if entry else []
            found |= dict.fromkeys(names[each] for each in numbers if each < len(names))
    return [each for each in found if each.endswith(".js")]


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
