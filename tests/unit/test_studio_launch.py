"""Starting and ending the studio: words, ports, the page behind its guards, Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from typing import get_args

import gradio as gr
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pipelines.errors import BadInput, UnknownName
from pipelines.jobs import model, workspace
from studio import launch, settings
from studio.port import PORTS, listen, names_of, url_of
from studio.settings import Settings, from_words

ROOT = Path(__file__).resolve().parents[2]
EVERYWHERE = "0.0.0.0"  # noqa: S104 -- the setting under test


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    """`prepare` sets variables for the whole process: they are put back, and point nowhere else before."""
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("LIKENESS_WORKSPACE", str(tmp_path))
    for name in settings.TWINS - {"LIKENESS_WORKSPACE"}:
        monkeypatch.delenv(name, raising=False)


class Hall:
    """A hall with one route, that says what was done to it."""

    def __init__(self, given: Settings):
        self.settings = given
        self.done: list[str] = []
        self.warmed = threading.Event()
        self.routes = [Route("/studio/work/{path:path}", self._work)]

    def start(self):
        self.done.append("start")

    def warm(self):
        self.warmed.set()

    def close(self):
        self.done.append("close")

    def _work(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"work {request.path_params['path']}")


def page(hall) -> gr.Blocks:
    with gr.Blocks(title="A page", analytics_enabled=False) as demo:
        box = gr.Textbox("hello")
        box.submit(lambda text: text.upper(), box, box, api_name="shout")
    return demo


def assembled(given: Settings) -> tuple[TestClient, Hall]:
    hall = Hall(given)
    app, _ = launch.assemble(given, hall, page(hall), {})  # pyright: ignore[reportArgumentType]
    return TestClient(app, base_url=f"http://127.0.0.1:{given.port}"), hall


# ---- words


def test_without_words_the_studio_is_for_this_machine_alone():
    found = from_words([], {})
    assert found == Settings(workspace=settings.default_workspace())
    assert found is not None
    assert (found.host, found.port, found.hosting.kind, found.open) == ("127.0.0.1", 7860, "local", False)


def test_the_studio_and_the_command_line_mean_the_same_workspace(monkeypatch):
    monkeypatch.delenv("LIKENESS_WORKSPACE")
    assert settings.default_workspace() == workspace.root()
    assert get_args(settings.Device) == get_args(model.Device)


def test_words_overrule_the_environment():
    table = {
        "LIKENESS_HOST": EVERYWHERE,
        "LIKENESS_PORT": "9000",
        "LIKENESS_SHARE": "yes",
        "LIKENESS_AUTH": "ann:a:b, bob:c",
        "LIKENESS_WORKSPACE": "/somewhere",
        "LIKENESS_BASE": "sdxl",
        "LIKENESS_DEVICE": "cpu",
        "LIKENESS_ROOT_PATH": "studio/",
        "LIKENESS_NO_BROWSER": "1",
        "LIKENESS_ALLOWED_HOSTS": "A.example, b.example",
        "LIKENESS_OPEN": "1",
    }
    found = from_words([], table)
    assert found == Settings(
        EVERYWHERE, 9000, True, (("ann", "a:b"), ("bob", "c")), Path("/somewhere"), "sdxl", "cpu", "/studio",
        False, settings.LOCAL, ("a.example", "b.example"), False,
    )  # fmt: skip
    assert found is not None
    assert found.open
    words = ["--host", "localhost", "--port=1", "--auth", "eve:x", "--workspace", "/w", "--base", "b"]
    over = from_words([*words, "--device", "cuda", "--root-path", "https://a.b/c/"], table)
    assert over is not None
    assert (over.host, over.port, over.auth, over.workspace) == ("localhost", 1, (("eve", "x"),), Path("/w"))
    assert (over.base, over.device, over.root_path) == ("b", "cuda", "https://a.b/c")


@pytest.mark.parametrize(
    "words",
    [
        ["--port", "70000"], ["--port", "-1"], ["--port", "x"], ["--port"], ["--host", "a b"], ["--host", ""],
        ["--auth", "nobody"], ["--auth", "a:"], ["--auth", ":b"], ["--root-path", "/a b"], ["word"],
    ],
)  # fmt: skip
def test_bad_words_are_refused_with_a_remedy(words):
    with pytest.raises(BadInput) as caught:
        from_words(words, {})
    assert caught.value.remedy


def test_unknown_words_name_the_nearest():
    with pytest.raises(UnknownName, match="--prot") as caught:
        from_words(["--prot", "1"], {})
    assert caught.value.suggestion == "--port"
    with pytest.raises(UnknownName):
        from_words(["--device", "tpu"], {})
    with pytest.raises(BadInput, match="LIKENESS_SHARE"):
        from_words([], {"LIKENESS_SHARE": "perhaps"})


def test_help_and_version_are_printed(capsys):
    assert from_words(["--version"], {}) is None
    assert from_words(["--help"], {}) is None
    printed = capsys.readouterr().out
    for name in settings.TWINS:
        assert name in printed
    assert launch.main(["--version"]) == 0


def test_bad_words_end_with_two(capsys):
    assert launch.main(["--port", "x"]) == 2
    assert '"x" is no port' in capsys.readouterr().err


def test_a_space_is_open_private_to_each_and_limited():
    space = from_words([], {"SPACE_ID": "me/x"})
    assert space is not None
    assert space.open
    assert space.host == EVERYWHERE
    assert not space.browser
    limits = space.hosting
    assert (limits.kind, limits.bases) == ("space", "toybox")
    sizes = (
        limits.uploads_mb,
        limits.photos,
        limits.steps,
        limits.pixels,
        limits.pictures,
        limits.keep_hours,
    )
    assert all(sizes)
    zero = from_words(["--share"], {"SPACE_ID": "me/x", "SPACES_ZERO_GPU": "true"})
    assert zero is not None
    assert (zero.hosting.kind, zero.device, zero.share) == ("zero", "cuda", False)


@pytest.mark.parametrize(
    ("host", "open_"),
    [("127.0.0.1", False), ("127.9.9.9", False), ("localhost", False), ("::1", False), (EVERYWHERE, True),
     ("::", True), ("192.168.0.4", True), ("box.lan", True)],
)  # fmt: skip
def test_who_can_reach_it(host, open_):
    assert Settings(host=host).open is open_
    assert Settings(host=host, share=True).open


# ---- the port


def test_a_taken_port_gives_way_to_the_next(capsys):
    with closing(listen("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with closing(listen("127.0.0.1", port)) as second:
            taken = second.getsockname()[1]
            assert port < taken < port + PORTS
            assert f"Port {port} is in use; the studio takes {taken}." in capsys.readouterr().out


def test_no_free_port_is_said(monkeypatch):
    monkeypatch.setattr("studio.port.PORTS", 1)
    with closing(listen("127.0.0.1", 0)) as first, pytest.raises(BadInput, match="in use"):
        listen("127.0.0.1", first.getsockname()[1])


def test_an_address_that_is_not_ours_is_said():
    with pytest.raises(BadInput, match="cannot be used"):
        listen("192.0.2.1", 0)
    with pytest.raises(BadInput, match="no address"):
        listen("no-such-name.invalid", 0)


def test_addresses_and_names():
    assert url_of(Settings(host=EVERYWHERE, port=80)) == "http://127.0.0.1:80"
    assert url_of(Settings(host="::1")) == "http://[::1]:7860"
    assert url_of(Settings(root_path="https://a.b/c")) == "https://a.b/c"
    assert names_of(Settings()) == {"127.0.0.1", "localhost", "::1"}
    assert socket.gethostname() in names_of(Settings(host=EVERYWHERE))
    assert "a.b" in names_of(Settings(root_path="https://a.b/c"))


# ---- the page behind its guards


def test_the_page_is_served_and_the_worker_warms_up():
    given = Settings()
    hall = Hall(given)
    app, _ = launch.assemble(given, hall, page(hall), {})  # pyright: ignore[reportArgumentType]
    with TestClient(app, base_url="http://127.0.0.1:7860") as visitor:
        assert not hall.warmed.is_set()
        answer = visitor.get("/")
        assert answer.status_code == 200
        assert "A page" in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in answer.headers  # one's own machine knows no visitors
        assert not hall.warmed.is_set()
        visitor.get(settings.PULSE)
        assert hall.warmed.wait(timeout=5)
        assert visitor.get("/studio/work/a.png").text == "work a.png"


def test_nothing_is_published_or_recorded():
    visitor, _ = assembled(Settings())
    for path in ("/openapi.json", "/docs", "/redoc"):
        assert visitor.get(path).status_code == 404
    assert visitor.get("/monitoring/summary").status_code == 403
    config = visitor.get("/config").json()
    assert config["run_history"] is False
    assert config["footer_links"] == []
    assert config["enable_queue"] is True


def test_other_sites_cannot_drive_it():
    visitor, _ = assembled(Settings())
    call = "/gradio_api/call/shout"
    assert (
        visitor.post(call, json={"data": ["x"]}, headers={"origin": "https://evil.example"}).status_code
        == 403
    )
    assert visitor.post(call, json={"data": ["x"]}).status_code == 200
    assert visitor.get("/", headers={"host": "evil.example"}).status_code == 400
    assert visitor.get("/studio/work/a", headers={"host": "evil.example"}).status_code == 400


def test_a_login_guards_page_and_files():
    visitor, _ = assembled(Settings(host=EVERYWHERE, auth=(("ann", "secret"),)))
    assert visitor.get("/studio/work/a.png").status_code == 401
    assert visitor.get("/config").status_code == 401
    assert visitor.post("/login", data={"username": "ann", "password": "wrong"}).status_code == 400
    assert visitor.post("/login", data={"username": "ann", "password": "secret"}).status_code == 200
    assert visitor.get("/studio/work/a.png").status_code == 200
    assert visitor.get("/config").status_code == 200
    assert "likeness_visitor" in visitor.cookies


def test_what_others_can_reach_gets_a_password(capsys):
    found = launch._with_password(Settings(share=True))
    ((name, password),) = found.auth
    assert len(password) >= 16
    said = capsys.readouterr().err
    assert name in said
    assert password in said
    assert launch._with_password(Settings(share=True)).auth != found.auth
    capsys.readouterr()
    chosen = Settings(share=True, auth=(("likeness", "my own"),))
    assert launch._with_password(chosen) == chosen
    assert "my own" not in capsys.readouterr().err
    assert launch._with_password(Settings(share=True, password=False)).auth == ()
    assert "WARNING" in capsys.readouterr().err
    assert launch._with_password(Settings()).auth == ()
    assert capsys.readouterr() == ("", "")


def test_every_option_is_one_of_gradios():
    import inspect

    options = launch.gradio_options(Settings())
    for function in (gr.mount_gradio_app, gr.Blocks.launch):
        assert set(options) <= set(inspect.signature(function).parameters)
    assert launch.gradio_options(Settings(hosting=settings.SPACE))["max_file_size"] == "64mb"


def test_a_workspace_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot be written"):
        launch.prepare(Settings(workspace=tmp_path / "file"))


def test_the_environment_is_set_before_gradio_reads_it(tmp_path):
    launch.prepare(Settings(workspace=tmp_path / "w"))
    assert Path(os.environ["GRADIO_TEMP_DIR"]).is_relative_to(tmp_path / "w")
    assert Path(os.environ["LIKENESS_WORKSPACE"]) == tmp_path / "w"
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


class AtOnce:
    """A thread whose work is done when it starts."""

    def __init__(self, target, args, daemon):
        self.start = lambda: target(*args)


@pytest.mark.parametrize(
    ("wanted", "screen", "user", "opens"),
    [(True, ":0", 1000, True), (False, ":0", 1000, False), (True, "", 1000, False), (True, ":0", 0, False)],
)
def test_the_browser_opens_where_somebody_can_see_it(monkeypatch, wanted, screen, user, opens):
    opened: list[str] = []
    monkeypatch.setattr(launch.webbrowser, "open", opened.append)
    monkeypatch.setattr(launch.sys, "platform", "linux")
    monkeypatch.setattr(launch.os, "geteuid", lambda: user, raising=False)
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(launch.threading, "Thread", AtOnce)
    launch._open_browser(Settings(browser=wanted), "http://127.0.0.1:1")
    assert opened == (["http://127.0.0.1:1"] if opens else [])


def test_behind_a_proxy_the_page_knows_its_address():
    visitor, _ = assembled(Settings(root_path="/studio"))
    assert visitor.get("/config").json()["root"] == "http://127.0.0.1:7860/studio"


def test_a_failed_tunnel_leaves_the_studio_standing(monkeypatch, capsys):
    from gradio import networking

    def refuse(*given):
        raise RuntimeError("no network")

    monkeypatch.setattr(networking, "setup_tunnel", refuse)
    server = type("Server", (), {"started": True, "should_exit": False})()
    launch._share(Settings(), server, pytest.fail)  # pyright: ignore[reportArgumentType]
    assert "no network" in capsys.readouterr().err
    monkeypatch.setattr(networking, "setup_tunnel", lambda *given: "https://abc.gradio.live")
    allowed: list[str] = []
    launch._share(Settings(), server, allowed.append)  # pyright: ignore[reportArgumentType]
    assert allowed == ["abc.gradio.live"]
    assert "https://abc.gradio.live" in capsys.readouterr().out


# ---- from start to end, with a real socket

CHILD = """
import sys, time
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from studio import launch
from studio.settings import from_words

class Hall:
    def __init__(self, given): pass
    def start(self): time.sleep(0.3)
    def close(self): sys.stdout.write("closed\\n")

async def forever(request):
    import asyncio
    async def ticks():
        while True:
            yield b"tick"
            await asyncio.sleep(0.05)
    return StreamingResponse(ticks())

routes = [Route("/", lambda request: PlainTextResponse("here")), Route("/forever", forever)]
launch.studio_parts = lambda *given: (lambda hall: None, Hall, {})
launch.assemble = lambda *given: (Starlette(routes=routes), lambda name: None)
sys.exit(launch.serve(from_words(sys.argv[1:])))
"""


def get(port: int, path: str = "/") -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_from_splash_to_page_to_the_end(number, tmp_path):
    with closing(listen("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["--port", str(port), "--no-browser", "--workspace", str(tmp_path)]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        seen: list[int] = []
        ends = time.monotonic() + 20
        while 200 not in seen and time.monotonic() < ends:
            try:
                seen.append(get(port))
            except OSError:
                assert not seen, "refused or cut after the first answer"
            time.sleep(0.01)
        assert seen[0] == 503
        assert set(seen) == {503, 200}
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/forever", timeout=5) as stream:
            assert stream.read(4) == b"tick"  # a page that is open holds such a stream
            began = time.monotonic()
            child.send_signal(number)
            out, complaints = child.communicate(timeout=10)
        assert time.monotonic() - began < 5  # a second where nothing else runs
        assert child.returncode == 0
        assert complaints == ""
        assert out.splitlines()[-1] == "closed"
    finally:
        child.kill()
        child.communicate()


def test_before_the_port_answers_nothing_heavy_is_imported():
    heavy = ("gradio", "pydantic", "starlette", "fastapi", "uvicorn", "numpy", "torch", "PIL", "asyncio")
    code = f"import sys, json, studio.launch; print(json.dumps([x for x in {heavy!r} if x in sys.modules]))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


def test_gradio_writes_no_stub_files_and_a_gradio_without_them_is_no_matter(tmp_path, monkeypatch):
    package = tmp_path / "gradio"
    package.mkdir()
    (package / "__init__.py").write_text("import gradio.component_meta")
    for text, expected in (
        (
            "def create_or_modify_pyi(*x):\n    raise SystemExit('slow')\ndef use(): create_or_modify_pyi(1)",
            "True",
        ),
        ("def use(): pass", "False"),
    ):
        (package / "component_meta.py").write_text(text)
        code = (
            "import sys; from studio.quicker import skip_stub_files as s; s(); s(); n = len(sys.meta_path);"
            "import gradio; m = gradio.component_meta; m.use();"
            "print(hasattr(m, 'create_or_modify_pyi'), n - len(sys.meta_path))"
        )
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        found = subprocess.run(
            [sys.executable, "-B", "-c", code],
            check=False,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert found.stdout.split() == [expected, "1"], found.stderr


def test_the_worker_warms_up_when_a_page_stands_not_while_it_is_made():
    warmed = []

    async def app(scope, receive, send):
        pass

    greeter = launch.Greeter(app, lambda: warmed.append(True))
    for path in ("/", "/assets/index.js", "/inner/studio/pulse", "/studio/pulse"):
        before = len(warmed)
        with suppress(StopIteration):  # it never waits for anything: no event loop is needed
            greeter({"type": "http", "path": path}, None, None).__await__().__next__()
        assert len(warmed) - before == (path == "/inner/studio/pulse")
