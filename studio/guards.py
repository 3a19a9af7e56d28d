"""What stands between the network and the studio: small ASGI layers, each with one duty.

A page that a person visits elsewhere can send requests to a server on their own machine. So a local studio
answers only to its own names (`HostGuard`), takes no writing requests from other sites (`OriginGuard`),
bounds what it reads (`BodyLimit`) and tells the browser what may be done with its answers (`Headers`).
`Visitors` tells the visitors of a shared studio apart; `Login` asks for the password where Gradio does not.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any, Protocol

from starlette.routing import BaseRoute, Match

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "likeness_visitor"
HEADER = "x-likeness-visitor"
_SECRET = re.compile(r"[A-Za-z0-9_-]{32,128}")
_MONTH = 30 * 24 * 3600
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class _Asked(Protocol):
    """A request of Starlette or Gradio."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def cookies(self) -> Mapping[str, str]: ...


def visitor_of(request: _Asked | None) -> str:
    """The secret by which a visitor of a shared studio is known; empty on one's own machine.

    It stands in the cookie that `Visitors` gave, or in the header of a program that chose its own.
    """
    if request is None:
        return ""
    return next((each for each in (_of(request.cookies, COOKIE), _of(request.headers, HEADER)) if each), "")


class HostGuard:
    """Answers only requests to the studio's own names: a foreign name that was pointed here is refused.

    `names` are hosts without port; `numbers` also allows every plain IP address, which no other site can own;
    `allow` adds a name later.
    """

    def __init__(self, app: App, names: Iterable[str], numbers: bool = False) -> None:
        self._app = app
        self._names = {each.lower() for each in names}
        self._numbers = numbers

    def allow(self, name: str) -> None:
        """Answer to one more name."""
        self._names.add(name.lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it asks for this studio."""
        if scope["type"] == "lifespan" or self._known(_bare(_header(scope, b"host"))):
            await self._app(scope, receive, send)
            return
        message = "The studio is not known under this name."
        remedy = "Open it under its own address, or add the name to LIKENESS_ALLOWED_HOSTS."
        await _refuse(scope, receive, send, 400, "ForeignHost", (message, remedy))

    def _known(self, host: str) -> bool:
        return host in self._names or (self._numbers and _is_number(host))


class OriginGuard:
    """Refuses writing requests and web sockets that a page of another site sends."""

    def __init__(self, app: App, names: Collection[str] = ()) -> None:
        self._app = app
        self._names = {each.lower() for each in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on unless a page of another site writes with it."""
        writes = scope["type"] == "websocket" or scope.get("method", "GET") not in _READING
        if scope["type"] == "lifespan" or not writes or self._ours(scope):
            await self._app(scope, receive, send)
            return
        message = "This request comes from a page of another site."
        await _refuse(
            scope, receive, send, 403, "ForeignOrigin", (message, "Open the studio itself and do it there.")
        )

    def _ours(self, scope: Scope) -> bool:
        origin = _header(scope, b"origin")
        if not origin:  # programs send none; browsers always do
            return True
        place = _place(origin.partition("://")[2])
        # no other site can make a browser send the second header without asking this server first
        here = (_header(scope, b"host"), _header(scope, b"x-forwarded-host"))
        return bool(place) and (place in map(_place, here) or _bare(place) in self._names)


class BodyLimit:
    """Refuses request bodies of more than `limit` bytes, declared or not."""

    def __init__(self, app: App, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count what it brings."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = _header(scope, b"content-length")
        size = f"{self._limit / 2**20:,.0f} MB"
        said = (f"This upload is larger than {size}.", f"Send less than {size} at once, in several uploads.")
        if declared.isdigit() and int(declared) > self._limit:
            await _refuse(scope, receive, send, 413, "TooLarge", said)
            return
        count, refused, begun = 0, False, False

        async def counted() -> Message:
            nonlocal count, refused
            if refused:
                return {"type": "http.disconnect"}
            message = await receive()
            count += len(message.get("body", b""))
            if count > self._limit and not begun:
                refused = True
                await _refuse(scope, receive, send, 413, "TooLarge", said)
                return {"type": "http.disconnect"}
            return message

        async def answered(message: Message) -> None:
            nonlocal begun
            if not refused:  # what the app says of the broken upload comes too late
                begun = True
                await send(message)

        try:
            await self._app(scope, counted, answered)
        except Exception:
            if not refused:
                raise


class Headers:
    """Adds the headers that keep browsers from guessing, telling and framing.

    With `framed` other sites may show the page in a frame and fetch its files, as a Space needs it.
    """

    def __init__(self, app: App, framed: bool = False) -> None:
        self._app = app
        self._headers = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
        if not framed:
            self._headers += [
                (b"content-security-policy", b"frame-ancestors 'self'"),
                (b"cross-origin-resource-policy", b"same-origin"),
            ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add to the answer."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = list(message.get("headers", []))
                names = {name.lower() for name, _ in there}
                message["headers"] = there + [each for each in self._headers if each[0] not in names]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class Visitors:
    """Gives every visitor a secret of 256 bits in a cookie, by which their workspace is found again.

    The request that brings none is given one before it is answered, and sees it in its cookies and in
    `scope["state"]["visitor"]`. On a Space (`framed`) the page stands in a frame of another site: the cookie
    is made for that, and bound to that site.
    """

    def __init__(self, app: App, framed: bool = False) -> None:
        self._app = app
        self._flags = "SameSite=None; Secure; Partitioned" if framed else "SameSite=Lax"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its visitor's secret."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        known = _of(_cookies(scope), COOKIE) or _of({HEADER: _header(scope, HEADER.encode())}, HEADER)
        visitor = known or secrets.token_urlsafe(32)
        scope.setdefault("state", {})["visitor"] = visitor
        if known:
            await self._app(scope, receive, send)
            return
        _put_cookie(scope, visitor)
        value = f"{COOKIE}={visitor}; Path=/; Max-Age={_MONTH}; HttpOnly; {self._flags}".encode()

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"set-cookie", value)]
            await send(message)

        await self._app(scope, receive, with_cookie)


class Login:
    """Asks for Gradio's login at our own routes, which Gradio itself does not guard.

    `entered` tells from a request's cookies whether its visitor has logged in.
    """

    def __init__(
        self, app: App, routes: Collection[BaseRoute], entered: Callable[[Mapping[str, str]], bool]
    ) -> None:
        self._app, self._routes, self._entered = app, list(routes), entered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on unless it asks for ours without a login."""
        ours = scope["type"] in ("http", "websocket") and any(
            each.matches(scope)[0] is not Match.NONE for each in self._routes
        )
        if not ours or self._entered(_cookies(scope)):
            await self._app(scope, receive, send)
            return
        said = ("This studio asks for a name and a password.", "Open its first page and log in.")
        await _refuse(scope, receive, send, 401, "NotLoggedIn", said)


def _of(table: Mapping[str, str], name: str) -> str:
    value = table.get(name) or ""
    return value if _SECRET.fullmatch(value) else ""


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope.get("headers", ()) if key == name), "")


def _cookies(scope: Scope) -> dict[str, str]:
    jar: SimpleCookie = SimpleCookie()
    for part in _header(scope, b"cookie").split(";"):
        try:  # one by one: a cookie that cannot be read hides no other
            jar.load(part)
        except CookieError:
            continue
    return {name: morsel.value for name, morsel in jar.items()}


def _put_cookie(scope: Scope, visitor: str) -> None:
    """Let the request look as if it had brought the cookie; one that was no secret is taken out."""
    parts = [each.strip() for each in _header(scope, b"cookie").split(";")]
    kept = [each for each in parts if each and each.partition("=")[0].strip() != COOKIE]
    line = "; ".join([*kept, f"{COOKIE}={visitor}"]).encode("latin-1")
    others = [(key, value) for key, value in scope.get("headers", ()) if key != b"cookie"]
    scope["headers"] = [*others, (b"cookie", line)]


def _place(host: str) -> str:
    """A host with its port, without the ports that browsers leave out."""
    return re.sub(r":(80|443)$", "", host.strip().lower())


def _bare(host: str) -> str:
    """A host without its port and brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _is_number(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def _refuse(
    scope: Scope, receive: Receive, send: Send, status: int, kind: str, said: tuple[str, str]
) -> None:
    """Answer with a typed error in JSON."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    error = {"type": kind, "message": said[0], "remedy": said[1]}
    body = json.dumps({"ok": False, "error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
