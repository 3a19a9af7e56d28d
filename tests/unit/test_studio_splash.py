"""The page on the port while the studio loads: nobody is refused, nobody is cut off."""

import json
import socket
import threading
import time

import pytest

from studio.port import listen
from studio.splash import Splash, answer


def ask(port: int, request: bytes) -> tuple[str, dict[str, str], str]:
    """Send a request → status line, headers in lower case, body."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request)
        data = b""
        while part := connection.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return first, {k.lower(): v for k, v in (each.split(": ", 1) for each in rest)}, body.decode()


@pytest.fixture
def splash():
    listening = listen("127.0.0.1", 0)
    made = Splash(listening).start()
    yield made, listening.getsockname()[1]
    if listening.fileno() >= 0:
        made.hand_over().close()


def test_browsers_get_a_page_that_asks_again_by_itself(splash):
    made, port = splash
    made.doing = "Sharpening pencils"
    first, headers, body = ask(port, b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html,*/*\r\n\r\n")
    assert first == "HTTP/1.1 503 Service Unavailable"
    assert headers["retry-after"] == "1"
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"].startswith("text/html")
    assert int(headers["content-length"]) == len(body.encode())
    assert '<meta http-equiv="refresh"' in body
    assert "Likeness Studio is starting" in body
    assert "Sharpening pencils" in body
    assert "prefers-color-scheme: dark" in body
    assert "src=" not in body
    assert "//" not in body.replace("<!doctype", "")  # nothing is fetched from elsewhere


@pytest.mark.parametrize(
    "request_line", ["GET / HTTP/1.1\r\nAccept: application/json", "POST /gradio_api/call/v2/train HTTP/1.1"]
)
def test_programs_get_a_typed_error(splash, request_line):
    first, headers, body = ask(splash[1], f"{request_line}\r\nHost: x\r\n\r\n".encode())
    assert " 503 " in first
    assert headers["content-type"] == "application/json"
    error = json.loads(body)["error"]
    assert error["type"] == "Starting"
    assert error["remedy"]


def test_head_has_no_body(splash):
    first, headers, body = ask(splash[1], b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert " 503 " in first
    assert int(headers["content-length"]) > 100
    assert body == ""


def test_an_upload_is_read_before_the_connection_closes(splash):
    body = b"x" * 3_000_000
    request = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    assert " 503 " in ask(splash[1], request)[0]


def test_a_silent_connection_keeps_nobody_waiting(splash):
    with socket.create_connection(("127.0.0.1", splash[1])):
        began = time.monotonic()
        ask(splash[1], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert time.monotonic() - began < 2


def test_garbage_is_answered_too():
    for head in (b"", b"\xff\xfe\x00", b"GET", b"GET / HTTP/1.1\r\nno colon here"):
        assert b" 503 " in answer(head, "Loading", 0.0)


def test_nobody_is_refused_while_the_socket_changes_hands(splash):
    made, port = splash
    seen: list[str] = []
    failed: list[OSError] = []
    stop = threading.Event()

    def poll():
        while not stop.is_set():
            try:
                seen.append(ask(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[0])
            except OSError as error:
                failed.append(error)

    poller = threading.Thread(target=poll)
    poller.start()
    while len(seen) < 3:
        time.sleep(0.005)
    listening = made.hand_over()
    assert not listening.getblocking()
    listening.setblocking(True)
    time.sleep(0.1)  # whoever comes now waits in the backlog
    for _ in range(3):
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    stop.set()
    listening.settimeout(0.5)
    try:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    except TimeoutError:
        pass
    poller.join(timeout=5)
    assert not failed
    assert {each.split()[1] for each in seen} == {"503", "200"}
    assert sum(" 200 " in each for each in seen) >= 3


def test_a_socket_that_is_closed_ends_it():
    listening = listen("127.0.0.1", 0)
    made = Splash(listening).start()
    listening.close()
    made._thread.join(timeout=2)
    assert not made._thread.is_alive()
