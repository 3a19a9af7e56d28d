"""Forms: every setting of every method has a control that gives back what it shows."""

from typing import Any, Literal

import gradio as gr
import pytest

from pipelines.spec import Config, catalog, knob, read
from studio.forms import Kept, about, broken, choices, control, set_to

FAMILIES = ("concepts", "guidance", "editing", "reference", "adapters.merge")


class Sample(Config):
    whole: int = knob(3, 1, 10)
    steps: int = knob(400, 1, 100_000, "Steps.", "steps")
    share: float = knob(0.5, 0, 1)
    rate: float = knob(1e-4, 1e-8, 1)
    maybe: int | None = knob(None, 16, 4096, unit="px")
    word: str = knob("x", expert=True)
    yes: bool = knob(True)
    one: Literal["a_b", "c"] = knob("c")
    many: tuple[Literal["a", "b"], ...] = knob(("a",))
    numbers: tuple[float, ...] = knob((1.0, 2.0))
    table: dict[str, int] = knob({})


def made(name, value=None) -> Any:
    field = Sample.model_fields[name]
    with gr.Blocks():
        found = control(name, field, field.get_default() if value is None else value)
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("whole", gr.Slider), ("steps", gr.Number), ("share", gr.Slider), ("rate", gr.Number),
        ("maybe", gr.Textbox), ("word", gr.Textbox), ("yes", gr.Checkbox), ("one", gr.Radio),
        ("many", gr.CheckboxGroup), ("numbers", gr.Textbox),
    ],
)  # fmt: skip
def test_every_kind_of_setting_has_its_control(name, kind):
    assert isinstance(made(name).component, kind)


def test_what_no_control_shows_is_left_out():
    assert made("table") is None


def test_controls_read_what_they_show():
    assert made("whole").read(4.0) == 4
    assert isinstance(made("whole").read(4.0), int)
    assert made("maybe").read(None) is None
    assert made("maybe").read(" 64 ") == 64
    assert made("maybe").read("many") == "many"  # the job refuses it, and says what may stand there
    assert made("numbers").read(" 1, 2.5 ,") == (1.0, 2.5)
    assert made("many").read(["b"]) == ("b",)
    assert made("word").read("") is None
    assert made("steps").component.label == "Steps"  # not "Steps (steps)"
    assert made("maybe").component.label == "Maybe (px)"
    assert made("steps").component.info == "Steps."


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_that_is_here_can_be_filled_in(family):
    assert broken(family) == {}
    assert [name for _, name in choices(family)] == list(catalog(family))
    for name, method in catalog(family).items():
        assert about(method), name
        table = {"method": name}
        with gr.Blocks():
            for key, field in method.model_fields.items():
                default = field.get_default(call_default_factory=True)
                kept = control(key, field, default)
                if kept is None:
                    continue
                assert isinstance(kept, Kept)
                assert kept.component.label
                assert kept.component.info, f"{name}.{key} has no help"
                table[key] = kept.read(kept.component.value)
        settings = {key: value for key, value in table.items() if value is not None}
        assert read(family, settings) == read(family, {"method": name}), name


def test_an_emptied_setting_goes_back_to_its_default():
    table = {"method": "m", "steps": 5}
    assert set_to(table, "steps", 7) == {"method": "m", "steps": 7}
    assert set_to(table, "steps", None) == {"method": "m"}
