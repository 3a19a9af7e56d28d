"""Gradio's page in less time: what is put into it, and that another Gradio would do without."""

from pathlib import Path

import gradio as gr
from gradio.route_utils import STATIC_TEMPLATE_LIB
from gradio.routes import templates
from jinja2 import FileSystemLoader
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.quicker import Packed, open_sooner, scripts

ASSETS = Path(STATIC_TEMPLATE_LIB) / "frontend/assets"


def page() -> str:
    """The template of the page as it is served now."""
    assert templates.env.loader
    return templates.env.loader.get_source(templates.env, "frontend/index.html")[0]


def test_the_page_names_the_scripts_of_its_controls_and_keeps_everything_else(monkeypatch):
    monkeypatch.setattr(templates.env, "loader", FileSystemLoader(STATIC_TEMPLATE_LIB))
    before = page()
    with gr.Blocks() as demo:
        gr.Textbox()
    named = open_sooner({each["type"] for each in demo.config["components"]})
    after = page()
    assert named > 5
    assert after.count('rel="modulepreload"') - before.count('rel="modulepreload"') == named
    assert after.index("class Plain") < after.index('<script type="module"')
    start, end = after.index("<script>\n  (() => {\n    // Svelte"), after.index('<script type="module"')
    assert after[:start] + after[end:] == before


def test_every_script_named_is_there(tmp_path):
    found = scripts(ASSETS, ["textbox", "dropdown", "nosuch"])
    assert len(found) > 8
    assert all((ASSETS / each).is_file() for each in found)
    assert set(found) > set(scripts(ASSETS, ["textbox"]))
    (tmp_path / "core-1.js").write_text("another way of keeping it")
    assert scripts(tmp_path, ["textbox"]) == []


def test_the_page_travels_packed_and_nothing_else_of_ours_does():
    words = "a page of many words " * 100

    async def answer(request):
        return PlainTextResponse(words)

    paths = ("/", "/config", "/studio/work/a.png")
    with TestClient(Packed(Starlette(routes=[Route(path, answer) for path in paths]))) as visitor:
        answers = [visitor.get(path, headers={"accept-encoding": "gzip"}) for path in paths]
        plain = visitor.get("/", headers={"accept-encoding": "identity"})
    assert [each.headers.get("content-encoding") for each in answers] == ["gzip", "gzip", None]
    assert int(answers[0].headers["content-length"]) < len(words) / 5
    assert {each.text for each in (*answers, plain)} == {words}
