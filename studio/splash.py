"""The page that stands on the port while the studio is still being loaded.

Importing a web framework takes seconds; a socket listens after milliseconds. `Splash` answers every request
on it with a small page that asks again by itself, and then hands over the same listening socket: connections
that come in between wait in its backlog, so that none is ever refused or cut.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress

LONGEST_WAIT = 10.0
"""Seconds that a connection may take to say what it wants; browsers open some only in case."""
_POLL = 0.05
_HEAD_LIMIT = 64 * 1024
_EXPECTED = 6.0

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<noscript><meta http-equiv="refresh" content="1"></noscript>
<title>Likeness Studio is starting…</title>
<style>
:root {{ color-scheme: light dark; --back: #fbfaf8; --ink: #1c1a17; --soft: #57524a; --line: #e7e4dd;
  --bar: #0f6668 }}
@media (prefers-color-scheme: dark) {{
  :root {{ --back: #12110f; --ink: #f4f2ee; --soft: #b5afa3; --line: #403c36; --bar: #6fc2c2 }} }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--back);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif }}
main {{ width: min(24rem, calc(100vw - 3rem)); text-align: center }}
svg {{ width: 4rem; height: 4rem; color: var(--bar) }}
h1 {{ margin: 1rem 0 .25rem; font-size: 1.25rem; font-weight: 600; text-wrap: balance }}
p {{ margin: 0; color: var(--soft); text-wrap: balance }}
.track {{ margin-top: 1.75rem; height: 4px; border-radius: 2px; background: var(--line); overflow: hidden }}
.bar {{ height: 100%; border-radius: 2px; background: var(--bar); transform-origin: left;
  animation: grow {seconds}s steps(48) -{elapsed:.2f}s both }}
@keyframes grow {{ from {{ transform: scaleX(.03) }} to {{ transform: scaleX(.97) }} }}
@media (prefers-reduced-motion: reduce) {{ .bar {{ animation-play-state: paused }} }}
</style>
</head>
<body>
<main role="status">
<svg viewBox="0 0 64 64" fill="none" stroke="currentColor" stroke-width="2.5" stroke-linejoin="round"
 stroke-linecap="round" aria-hidden="true"><rect x="9" y="7" width="46" height="50" rx="5"/>
<circle cx="32" cy="27" r="8"/><path d="M17 50c2-9 8-13 15-13s13 4 15 13"/></svg>
<h1>Likeness Studio is starting…</h1>
<p>{doing}. This page opens by itself.</p>
<div class="track"><div class="bar"></div></div>
</main>
<script>
setInterval(async () => {{
  try {{
    const answer = await fetch(location.href, {{cache: 'no-store', headers: {{Accept: 'text/html'}}}});
    if (answer.ok) return location.reload();
    const next = new DOMParser().parseFromString(await answer.text(), 'text/html').querySelector('p');
    if (next) document.querySelector('p').textContent = next.textContent;
  }} catch {{}}
}}, 200);
</script>
</body>
</html>
"""


class Splash:
    """Answers on a listening socket until `hand_over`; `doing` is what the page says is going on."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self._began = time.monotonic()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True, name="splash")
        self.doing = "Loading the workshop"

    def start(self) -> Splash:
        """Begin to answer."""
        self._socket.settimeout(_POLL)
        self._thread.start()
        return self

    def hand_over(self) -> socket.socket:
        """Stop accepting and give back the socket, which goes on listening, set for an event loop.

        What was accepted before is still answered.
        """
        self._closing.set()
        self._thread.join()
        self._socket.setblocking(False)
        return self._socket

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:  # the visitor was gone before the connection was made, or the socket is closed
                if self._socket.fileno() < 0:
                    return
                continue
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(LONGEST_WAIT)
            head = _read_request(connection)
            if not head:
                return
            connection.sendall(answer(head, self.doing, time.monotonic() - self._began))
            connection.shutdown(socket.SHUT_WR)
            # closed with bytes unread, the connection would be reset, and the answer lost with it
            connection.settimeout(1.0)
            while connection.recv(65536):
                pass


def answer(head: bytes, doing: str, elapsed: float) -> bytes:
    """The whole response to a request with this head: the page, or JSON for programs, with status 503."""
    lines = head.decode("latin-1").split("\r\n")
    method, _, rest = lines[0].partition(" ")
    accept = next((each.lower() for each in lines[1:] if each.lower().startswith("accept:")), "")
    wants_json = "json" in accept and "html" not in accept
    if wants_json or rest.startswith("/gradio_api/"):
        error = {
            "type": "Starting",
            "message": "Likeness Studio is starting.",
            "remedy": "Ask again in a second.",
        }
        kind, body = "application/json", json.dumps({"ok": False, "error": error})
    else:
        kind = "text/html; charset=utf-8"
        body = _PAGE.format(doing=doing, seconds=_EXPECTED, elapsed=min(elapsed, _EXPECTED))
    content = body.encode()
    headers = (
        "HTTP/1.1 503 Service Unavailable\r\n"
        f"Content-Type: {kind}\r\n"
        f"Content-Length: {len(content)}\r\n"
        "Cache-Control: no-store\r\n"
        "Retry-After: 1\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return headers.encode() + (b"" if method == "HEAD" else content)


def _read_request(connection: socket.socket) -> bytes:
    """The head of a request; empty where none comes."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_LIMIT:
        part = connection.recv(65536)
        if not part:
            return b""
        head += part
    return head.partition(b"\r\n\r\n")[0]
