"""Gradio's page in less time: what is put into it, and that another Gradio would do without."""

from pathlib import Path

import gradio as gr
from gradio.route_utils import STATIC_TEMPLATE_LIB
from gradio.routes import templates
from jinja2 import FileSystemLoader

from studio.quicker import open_sooner, scripts

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
