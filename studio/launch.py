"""Starting the studio: a page on the port at once, the real one on the same socket as soon as it is there.

Only the standard library is imported before the port answers. Gradio cannot take over a listening socket, so
the page is mounted on an app of ours and served by our own uvicorn; on a Space, which shows a page of its own
while it builds, Gradio launches it (`studio.space`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipelines.errors import BadInput, LikenessError, MissingAsset, UnknownName
from studio.port import listen, names_of, url_of
from studio.quicker import Packed, open_sooner, skip_stub_files
from studio.settings import PULSE, Settings, from_words
from studio.splash import Splash

if TYPE_CHECKING:
    import gradio as gr
    from uvicorn import Server

    from studio.guards import App
    from studio.hall import Hall

DONE, FAILED, BAD_INPUT = 0, 1, 2
LARGEST = 2 * 2**30
"""Bytes of one upload to a studio that others can reach; on one's own machine there is no limit."""

Build = Callable[[Any], "gr.Blocks"]
MakeHall = Callable[[Settings], Any]


def main(words: list[str], program: str = "likeness studio") -> int:
    """Start the studio as the command line says and serve until it is stopped; → the exit code."""
    try:
        settings = from_words(words, program=program)
        if settings is None:
            return DONE
        if settings.hosting.kind != "local":
            from studio import space

            return space.launch(settings)
        return serve(settings)
    except LikenessError as error:
        _say(f"{error.message}\n{error.remedy}", True)
        return BAD_INPUT if isinstance(error, BadInput | UnknownName | MissingAsset) else FAILED
    except KeyboardInterrupt:
        return DONE


def serve(
    settings: Settings,
    build: Build | None = None,
    hall: MakeHall | None = None,
    look: Mapping[str, Any] | None = None,
    told: Callable[[Server], object] | None = None,
) -> int:
    """Serve the studio on this machine until Ctrl-C or SIGTERM; → the exit code.

    `build` makes the page from a hall, `hall` the hall from the settings, `look` are Gradio's keywords for
    its appearance; by default they are the studio's own. `told` gets the server before it runs:
    `should_exit` ends it. Raises BadInput where the port or the workspace cannot be used.
    """
    listening = listen(settings.host, settings.port)
    splash = Splash(listening).start()
    port = listening.getsockname()[1]
    settings = _with_password(replace(settings, port=port))
    address = url_of(settings)
    _say(f"Likeness Studio: {address}   (Ctrl-C ends it)")
    end_on_terminate()
    try:
        prepare(settings)
        _open_browser(settings, address)
        return _load_and_run(settings, splash, (build, hall, look), told)
    except KeyboardInterrupt:
        return DONE
    finally:
        listening.close()


def _load_and_run(
    settings: Settings,
    splash: Splash,
    parts: tuple[Build | None, MakeHall | None, Mapping[str, Any] | None],
    told: Callable[[Server], object] | None,
) -> int:
    """Load the page behind the splash, hand the socket over, and serve."""
    with _without_collections():
        build, make_hall, look = studio_parts(*parts)
    hall: Hall = make_hall(settings)
    try:
        hall.start()
        splash.doing = "Laying out the tools"
        app, allow = assemble(settings, hall, build(hall), look)
        from studio.ending import server_of

        server = server_of(app)
        if settings.share:
            threading.Thread(target=_share, args=(settings, server, allow), daemon=True).start()
        if told is not None:
            told(server)
        server.run(sockets=[splash.hand_over()])
    finally:
        hall.close()
    return DONE


@contextlib.contextmanager
def _without_collections() -> Generator[None]:
    """Load modules without looking for garbage among them, then or ever: at the end it would take seconds."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def studio_parts(
    build: Build | None = None, hall: MakeHall | None = None, look: Mapping[str, Any] | None = None
) -> tuple[Build, MakeHall, Mapping[str, Any]]:
    """What was given, and the studio's own for the rest. Imports Gradio, which takes its time."""
    skip_stub_files()
    if build is None or look is None:
        from studio import page

        build = build or page.build
        look = page.LOOK if look is None else look
    if hall is None:
        from studio.hall import Hall

        hall = Hall
    return build, hall, look


def assemble(
    settings: Settings, hall: Hall, demo: gr.Blocks, look: Mapping[str, Any]
) -> tuple[App, Callable[[str], None]]:
    """The whole app behind its guards, and how to let it answer to one more name."""
    import gradio as gr
    from fastapi import FastAPI

    from studio import guards

    open_sooner(str(each["type"]) for each in demo.config["components"])
    parent = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    parent.router.routes.extend(hall.routes)
    gr.mount_gradio_app(
        parent,
        demo,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        **gradio_options(settings),
        **look,
    )
    app: App = Packed(Greeter(parent, hall.warm))
    if settings.auth:
        inner = parent.router.routes[-1].app  # pyright: ignore[reportAttributeAccessIssue]
        app = guards.Login(app, hall.routes, lambda cookies: has_logged_in(inner, cookies))
    if settings.open:
        app = guards.Visitors(app)
        app = guards.BodyLimit(app, LARGEST)
    app = guards.OriginGuard(app, settings.allowed_hosts)
    host = guards.HostGuard(app, names_of(settings), numbers=settings.host in ("0.0.0.0", "::"))  # noqa: S104
    return guards.Headers(host), host.allow


def gradio_options(settings: Settings) -> dict[str, Any]:
    """What Gradio is told however it serves: nothing is recorded, published or reported."""
    most = settings.hosting.uploads_mb
    return {
        "run_history": False,
        "footer_links": [],
        "enable_monitoring": False,
        "max_file_size": f"{most}mb" if most else None,
        "show_error": False,
        "pwa": False,
        "ssr_mode": False,
        "mcp_server": False,
        "allowed_paths": [],
        "auth": list(settings.auth) or None,
        "root_path": settings.root_path or None,
        "app_kwargs": {"openapi_url": None, "docs_url": None, "redoc_url": None},
    }


def has_logged_in(app: Any, cookies: Mapping[str, str]) -> bool:
    """Whether a request's cookies hold a token that Gradio's login gave."""
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(cookies.get(name) in app.tokens for name in names)


def prepare(settings: Settings) -> None:
    """Set the environment of this process and its workers, before Gradio is imported, which reads it then.

    Raises BadInput where the workspace cannot be written.
    """
    files = settings.workspace.absolute() / "gradio"
    try:
        files.mkdir(parents=True, exist_ok=True)
        writable = os.access(settings.workspace, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise BadInput(
            f"The workspace {settings.workspace} cannot be written.", "Choose another with --workspace."
        )
    os.environ["LIKENESS_WORKSPACE"] = str(settings.workspace.absolute())
    os.environ["GRADIO_TEMP_DIR"] = str(files)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


class Greeter:
    """Warms the worker up once a page asks for its first pulse: until then the machine is needed for it."""

    def __init__(self, app: App, warm: Callable[[], object]) -> None:
        self._app, self._warm, self._met = app, warm, False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on; after the first pulse, begin to warm up."""
        await self._app(scope, receive, send)
        if not self._met and scope["type"] == "http" and scope["path"].endswith(PULSE):
            self._met = True
            self._warm()


def _with_password(settings: Settings) -> Settings:
    """The settings; of a studio that others can reach, with a password for once where none was chosen."""
    if not settings.open or settings.auth:
        return settings
    if not settings.password:
        _say("WARNING: everybody who can reach this machine can use this studio and see its pictures.", True)
        return settings
    password = secrets.token_urlsafe(12)
    _say("WARNING: others can reach this studio. Without --auth it has this password until it ends:", True)
    _say(f"  name: likeness   password: {password}", True)
    return replace(settings, auth=(("likeness", password),))


def _open_browser(settings: Settings, address: str) -> None:
    """Open the page, where somebody sits who can see it."""
    screen = (
        sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if settings.browser and screen and not root:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _share(settings: Settings, server: Server, allow: Callable[[str], None]) -> None:
    """Ask Gradio's servers for a public link to this one. Where that fails, the studio goes on without."""
    from gradio import networking

    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.05)
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "localhost") else settings.host  # noqa: S104
    try:
        url = networking.setup_tunnel(host, settings.port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # noqa: BLE001 -- of the network, the download of the tunnel, or its server
        _say(f"There is no public link: {error}\nThe studio goes on without it.", True)
        return
    there = urlsplit(url).hostname or ""
    allow(there)
    _say(f"Public link, for at most a week: https://{there}")


def end_on_terminate() -> None:
    """Let SIGTERM end the studio as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # not in the main thread: the caller's signals are not ours
        signal.signal(signal.SIGTERM, stop)


def _say(text: str, loud: bool = False) -> None:
    stream = sys.stderr if loud else sys.stdout
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stream.write(text + "\n")
        stream.flush()
