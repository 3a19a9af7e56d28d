"""Where the studio listens, and the names and the address under which it is reached."""

from __future__ import annotations

import socket
import sys
from urllib.parse import urlsplit

from pipelines.errors import BadInput
from studio.settings import Settings, is_loopback

PORTS = 20
_TAKEN = frozenset({48, 98, 10013, 10048})  # EADDRINUSE of macOS and Linux, and what Windows says


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `port`, or on the next free one of 20. Raises BadInput where none is free."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise BadInput(f'There is no address "{host}" ({error}).', "Choose another with --host.") from None
    family, address = min((each[0] != socket.AF_INET, each[0], each[4]) for each in found)[1:]
    tries = range(port, min(port + PORTS, 65536)) if port else (0,)
    for each in tries:
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            # elsewhere this lets a port be used again at once; on Windows it would let others steal it
            option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
            listening.setsockopt(socket.SOL_SOCKET, option, 1)
            listening.bind((address[0], each, *address[2:]))
            listening.listen(256)
        except OSError as error:
            listening.close()
            if error.errno in _TAKEN:
                continue
            raise BadInput(
                f"Port {each} of {host} cannot be used: {error.strerror}.", "Choose others."
            ) from None
        if each != port:
            sys.stdout.write(f"Port {port} is in use; the studio takes {each}.\n")
        return listening
    raise BadInput(f"The ports {tries[0]} to {tries[-1]} are all in use.", "Choose another with --port.")


def names_of(settings: Settings) -> set[str]:
    """The hosts under which the studio may be asked for."""
    names = {"localhost", "127.0.0.1", "::1", settings.host, *settings.allowed_hosts}
    if not is_loopback(settings.host):
        own = socket.gethostname()
        names |= {own, f"{own.partition('.')[0]}.local"}
    if there := urlsplit(settings.root_path).hostname:
        names.add(there)
    return names


def url_of(settings: Settings) -> str:
    """The address to open on this machine."""
    if settings.root_path.startswith("http"):
        return settings.root_path
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
