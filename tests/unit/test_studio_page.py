"""The page as a whole: how its listeners are heard, and what the browser is told of it."""

from collections import defaultdict

import gradio as gr
import pytest

from studio import page
from studio.hall import Hall
from studio.heard import ACTIVE, CLICKED, QUIET, TYPED, one_last
from studio.settings import Settings
from tests.browser.replay import Replay


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """What the browser is told of the page."""
    folder = tmp_path_factory.mktemp("workspace")
    hall = Hall(Settings(workspace=folder, port=0, browser=False), {"cpu": Replay()})
    return page.build(hall).get_config_file()


def test_no_event_has_two_listeners_that_wait_for_its_last_value(config):
    waiting = defaultdict(list)
    for each in config["dependencies"]:
        for target, event in each["targets"]:
            if target is not None and event != "load" and each["trigger_mode"] == "always_last":
                waiting[target, event].append(each["id"])
    assert len(waiting) > 20
    assert {place: ids for place, ids in waiting.items() if len(ids) > 1} == {}


def test_the_page_keeps_no_status_for_what_shows_none(config):
    hidden = [each for each in config["dependencies"] if each["show_progress"] == "hidden"]
    assert len(hidden) > 100
    assert all(each["show_progress_on"] == [] for each in hidden)


def test_the_browser_knows_that_every_state_is_empty(config):
    states = [each for each in config["components"] if each["type"] == "state"]
    assert len(states) > 10
    assert all(each["props"]["value"] is None for each in states)


def test_what_is_typed_waits_where_nothing_else_does():
    with gr.Blocks() as demo:
        box, other = gr.Textbox(), gr.Textbox()
        box.input(len, box, None, **ACTIVE)
        for _ in range(2):
            other.change(len, other, None, **QUIET)
        gr.HTML().click(len, box, None, **CLICKED)
        gr.on([box.change, other.change], len, box, None, **TYPED)
    one_last(demo.fns.values())
    modes = [each.trigger_mode for each in demo.fns.values()]
    assert modes == ["always_last", "multiple", "multiple", "multiple", "always_last"]
