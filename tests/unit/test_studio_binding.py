"""Binding: controls to a job and back."""

import gradio as gr
import pytest

from pipelines.errors import BadInput, UnknownName
from studio.binding import Sheet, at


def skipped(update):
    return isinstance(update, dict) and update.get("__type__") == "update" and "value" not in update


class Form:
    def __init__(self):
        self.state, self.revision = gr.State({"method": "cfg"}), gr.State(0)


@pytest.fixture
def sheet():
    with gr.Blocks():
        made = Sheet("compose")
        made.add(
            "prompts", gr.Textbox(), read=lambda text: (text,), show=lambda value: value[0] if value else ""
        )
        made.add("seed", gr.Number())
        made.add("sampler.steps", gr.Slider(1, 100))
        made.add("_own", gr.Checkbox())
        made.add_form("guidance", Form())
    return made


def test_values_become_a_job_and_the_job_the_same_values(sheet):
    job = sheet.job(["a dog", 7, 30, True, {"method": "apg", "scale": 6}])
    assert (job.prompts, job.seed, job.sampler.steps, job.guidance["scale"]) == (("a dog",), 7, 30, 6)
    filled = sheet.filled(job.portable(), 4)
    assert [each["value"] for each in filled[:3]] == ["a dog", 7, 30]
    assert skipped(filled[3])
    assert filled[4:] == [{"method": "apg", "scale": 6}, 5]


def test_what_is_left_open_is_the_default_of_the_base_or_the_job(sheet):
    values = ["a dog", None, None, None, {"method": "cfg"}]
    assert sheet.job(values).sampler.steps == 20
    assert sheet.job(values, {"sampler": {"steps": 12}}).sampler.steps == 12
    assert sheet.job(values, more={"seed": 3}).seed == 3
    assert "_own" not in sheet.form(["a", 1, 2, True, {}])


def test_a_partial_job_leaves_the_rest_as_it_is(sheet):
    filled = sheet.filled({"seed": 9}, 0)
    assert filled[1]["value"] == 9
    assert all(skipped(each) for index, each in enumerate(filled) if index != 1)


def test_clearing_shows_every_default_again(sheet):
    filled = sheet.cleared({"sampler": {"steps": 12}}, 0)
    assert [each["value"] for each in filled[:3]] == ["", 0, 12]
    assert filled[4] == {"method": "cfg"}


def test_a_fresh_page_shows_what_a_draft_says_of_the_defaults(sheet):
    fresh = {each.path: each.read(each.component.value) for each in sheet.bound}
    assert sheet.unlike(fresh) == {}
    assert sheet.unlike({**fresh, "seed": 9, "gone": 1}) == {"seed": 9, "gone": 1}
    assert sheet.unlike({"prompts": [None]}) == {}  # a tuple comes back from a file as a list


def test_values_that_do_not_fit_are_told(sheet):
    with pytest.raises(BadInput):
        sheet.job(["a", -1, 20, False, {"method": "cfg"}])
    with pytest.raises(UnknownName):
        sheet.job(["a", 1, 20, False, {"method": "cgf"}])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.b", (True, 1)), ("c.0", (True, "x")), ("c.1.d", (True, 2)), ("c.7", (False, None)),
        ("a.b.c", (False, None)), ("z", (False, None)), ("c.x", (False, None)), ("n", (True, None)),
    ],
)  # fmt: skip
def test_paths_into_partial_jobs(path, found):
    assert at({"a": {"b": 1}, "c": ["x", {"d": 2}], "n": None}, path) == found
