"""The door: foreign names, foreign pages, endless uploads, and who is who on a shared studio."""

import re

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from studio import guards


async def _echo(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse(
        {
            "size": len(body),
            "visitor": guards.visitor_of(request),
            "state": getattr(request.state, "visitor", None),
        }
    )


APP = Starlette(routes=[Route("/{path:path}", _echo, methods=["GET", "POST", "PUT", "DELETE"])])
OWN = "A" * 43


def client(layer, host: str = "127.0.0.1:7860") -> TestClient:
    return TestClient(layer, base_url=f"http://{host}")


# ---- names


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:7860", "LOCALHOST", "[::1]:7860", "localhost."])
def test_a_local_studio_answers_to_its_own_names(host):
    guard = guards.HostGuard(APP, ["localhost", "127.0.0.1", "::1"])
    assert client(guard).get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", ""]
)
def test_a_foreign_name_is_refused(host):
    answer = client(guards.HostGuard(APP, ["localhost", "127.0.0.1"])).get("/", headers={"host": host})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "ForeignHost"
    assert "LIKENESS_ALLOWED_HOSTS" in answer.json()["error"]["remedy"]


def test_on_the_network_any_number_is_an_own_name_but_no_other_word():
    guard = guards.HostGuard(APP, ["localhost"], numbers=True)
    assert client(guard).get("/", headers={"host": "192.168.1.20:7860"}).status_code == 200
    assert client(guard).get("/", headers={"host": "[fe80::1]:7860"}).status_code == 200
    assert client(guard).get("/", headers={"host": "evil.example"}).status_code == 400
    guard.allow("Abc.gradio.live")
    assert client(guard).get("/", headers={"host": "abc.gradio.live"}).status_code == 200


# ---- other sites


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://localhost:3000", "null", "chrome-extension://abcdef", "http://"],
)
def test_a_page_of_another_site_cannot_write(method, origin):
    answer = client(guards.OriginGuard(APP)).request(method, "/", headers={"origin": origin})
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "ForeignOrigin"


@pytest.mark.parametrize(
    ("origin", "headers"),
    [
        ("http://127.0.0.1:7860", {}),
        (None, {}),
        ("https://studio.example", {"x-forwarded-host": "studio.example"}),
        ("https://studio.example", {"host": "studio.example:443"}),
        ("https://named.example:8443", {}),
    ],
)
def test_the_page_itself_and_programs_can(origin, headers):
    headers = headers | ({"origin": origin} if origin else {})
    guard = guards.OriginGuard(APP, ["named.example"])
    assert client(guard).post("/", headers=headers).status_code == 200


def test_reading_is_left_to_the_browser():
    assert client(guards.OriginGuard(APP)).get("/", headers={"origin": "https://a.b"}).status_code == 200


# ---- sizes


def test_a_large_upload_is_refused_by_what_it_declares():
    answer = client(guards.BodyLimit(APP, 2**20)).post("/", content=b"x" * (2**20 + 1))
    assert answer.status_code == 413
    assert "1 MB" in answer.json()["error"]["message"]


def test_a_large_upload_is_refused_by_what_it_brings():
    def pieces():
        for _ in range(40):
            yield b"x" * 2**16

    answer = client(guards.BodyLimit(APP, 2**20)).post("/", content=pieces())
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "TooLarge"


def test_an_upload_within_the_limit_arrives_whole():
    def pieces():
        for _ in range(16):
            yield b"x" * 2**16

    answer = client(guards.BodyLimit(APP, 2**20)).post("/", content=pieces())
    assert answer.json()["size"] == 2**20


# ---- headers


def test_answers_tell_browsers_what_may_be_done_with_them():
    own = client(guards.Headers(APP)).get("/").headers
    assert own["x-content-type-options"] == "nosniff"
    assert own["referrer-policy"] == "same-origin"
    assert own["content-security-policy"] == "frame-ancestors 'self'"
    assert own["cross-origin-resource-policy"] == "same-origin"
    framed = client(guards.Headers(APP, framed=True)).get("/").headers
    assert framed["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in framed


def test_a_stricter_policy_stays():
    def strict(request):
        return PlainTextResponse("x", headers={"Content-Security-Policy": "default-src 'none'"})

    app = guards.Headers(Starlette(routes=[Route("/", strict)]))
    assert client(app).get("/").headers.get_list("content-security-policy") == ["default-src 'none'"]


# ---- visitors


def test_a_visitor_is_known_from_the_first_request_on():
    visits = client(guards.Visitors(APP))
    first = visits.get("/")
    secret = first.json()["visitor"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", secret)
    assert first.json()["state"] == secret
    cookie = first.headers["set-cookie"]
    assert cookie.startswith(f"likeness_visitor={secret};")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    second = visits.get("/")
    assert second.json()["visitor"] == secret
    assert "set-cookie" not in second.headers
    assert client(guards.Visitors(APP)).get("/").json()["visitor"] != secret


def test_on_a_space_the_cookie_works_inside_a_frame():
    cookie = client(guards.Visitors(APP, framed=True)).get("/").headers["set-cookie"]
    assert "SameSite=None; Secure; Partitioned" in cookie


def test_a_program_brings_its_own_secret():
    answer = client(guards.Visitors(APP)).get("/", headers={"x-likeness-visitor": OWN})
    assert answer.json() == {"size": 0, "visitor": OWN, "state": OWN}
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("bad", ["short", "A" * 31, "A" * 129, "../" * 20, "A" * 40 + " ", "é" * 40, ""])
def test_what_is_no_secret_is_ignored(bad):
    visits = client(guards.Visitors(APP))
    by_header = visits.get("/", headers={"x-likeness-visitor": bad.encode("utf-8")}).json()["visitor"]
    assert by_header != bad
    assert len(by_header) == 43
    cookie = b"other=1; likeness_visitor=" + bad.encode("utf-8") + b"; more=2"
    by_cookie = client(guards.Visitors(APP)).get("/", headers={"cookie": cookie}).json()
    assert by_cookie["visitor"] not in ("", bad)
    assert by_cookie["visitor"] == by_cookie["state"]


def test_other_cookies_stay():
    async def cookies(request: Request) -> JSONResponse:
        return JSONResponse(request.cookies)

    app = guards.Visitors(Starlette(routes=[Route("/", cookies)]))
    found = client(app).get("/", headers={"cookie": "access-token-x=abc; likeness_visitor=bad"}).json()
    assert found["access-token-x"] == "abc"
    assert len(found["likeness_visitor"]) == 43


def test_nobody_has_no_secret():
    assert guards.visitor_of(None) == ""
    assert client(APP).get("/").json()["visitor"] == ""


# ---- the login


def test_our_own_routes_ask_for_the_login_too():
    routes = [Route("/studio/work/{path:path}", _echo)]
    app = guards.Login(APP, routes, lambda cookies: cookies.get("token") == "good")
    assert client(app).get("/").status_code == 200  # the page asks by itself
    refused = client(app).get("/studio/work/a.png")
    assert refused.status_code == 401
    assert refused.json()["error"]["type"] == "NotLoggedIn"
    assert client(app).get("/studio/work/a.png", headers={"cookie": "token=bad"}).status_code == 401
    assert client(app).get("/studio/work/a.png", headers={"cookie": "token=good"}).status_code == 200
