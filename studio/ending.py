"""Ending a server whose pages hold event streams open, which would never end by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn import Server

    from studio.guards import App, Message, Receive, Send

GRACE = 0.2
"""Seconds that answers under way have when the server ends."""


class Ending:
    """Completes what is still being answered when `end` is called, as if it had been over anyway."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._running: set[asyncio.Task[Any]] = set()
        self._over = False

    def end(self) -> None:
        """Cut what is still running after a moment; to be called in the event loop."""
        asyncio.get_running_loop().call_later(GRACE, self._cut)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass the request on, and close its answer where it is cut."""
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self._app(scope, receive, send)
            return
        begun = complete = False

        async def noted(message: Message) -> None:
            nonlocal begun, complete
            begun = True
            complete = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        self._running.add(task)
        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if not self._over:
                raise
            task.uncancel()
            if not begun:
                await send({"type": "http.response.start", "status": 503, "headers": []})
            if not complete:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._running.discard(task)

    def _cut(self) -> None:
        self._over = True
        for task in self._running:
            task.cancel()


def server_of(app: App) -> Server:
    """A server for `app` that ends at once when it is asked to, with pages open or not."""
    from uvicorn import Config, Server

    ending = Ending(app)

    class Ended(Server):
        async def shutdown(self, sockets: Any = None) -> None:
            ending.end()
            await super().shutdown(sockets)

    return Ended(
        Config(ending, log_level="warning", access_log=False, timeout_graceful_shutdown=1, ws="none")
    )
