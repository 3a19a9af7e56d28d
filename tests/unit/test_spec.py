import sys
from typing import Literal

import pytest
from pydantic import BaseModel, ValidationError

import pipelines
from pipelines.errors import BadInput, UnknownName
from pipelines.spec import Config, catalog, knob, parse, read

METHOD = '''
from typing import Literal
from pipelines.spec import Config, knob

class Shared(Config):
    """No title: a building block."""

class Sharpen(Config):
    title = "Sharpen"
    source = "nobody, 2020"
    amount: float = knob(1.0, 0, 4, "how much", unit="x")
    shape: Literal["box", "gauss"] = knob("box", expert=True)
'''


@pytest.fixture
def family(tmp_path, monkeypatch):
    """A family `pipelines.filters` of one method, in a folder of its own."""
    folder = tmp_path / "filters"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "_ops.py").write_text("raise RuntimeError('helpers are not scanned')")
    (folder / "sharpen.py").write_text(METHOD)
    (folder / "plain.py").write_text("x = 1")
    monkeypatch.setattr(pipelines, "__path__", [*pipelines.__path__, str(tmp_path)])
    yield folder
    for name in [each for each in sys.modules if each.startswith("pipelines.filters")]:
        del sys.modules[name]


def test_the_file_name_is_the_registration(family):
    methods = catalog("filters")
    assert list(methods) == ["sharpen"]
    assert methods["sharpen"].title == "Sharpen"


def test_read_fills_in_defaults(family):
    config = read("filters", {"method": "sharpen", "amount": 2})
    assert config.model_dump() == {"amount": 2.0, "shape": "box"}
    with pytest.raises(ValidationError):
        config.amount = 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("table", "hint"),
    [
        ({"method": "sharpne"}, "sharpen"),
        ({"method": "sharpen", "amuont": 2}, "amount"),
        ({"method": "sharpen", "shape": "gaus"}, "gauss"),
    ],
)
def test_unknown_names_come_with_the_nearest(family, table, hint):
    with pytest.raises(UnknownName) as caught:
        read("filters", table)
    assert caught.value.suggestion == hint


def test_values_out_of_range_say_the_range(family):
    with pytest.raises(BadInput) as caught:
        read("filters", {"method": "sharpen", "amount": 9})
    assert "amount" in caught.value.message
    assert "0 to 4" in caught.value.remedy


def test_a_table_without_a_method(family):
    with pytest.raises(BadInput, match="method"):
        read("filters", {"amount": 1})


def test_an_unknown_family():
    with pytest.raises(UnknownName, match="family"):
        catalog("guidence")


def test_two_methods_in_a_file_are_refused(family):
    (family / "sharpen.py").write_text(METHOD + "\nclass Other(Config):\n    title = 'Other'\n")
    with pytest.raises(TypeError, match="2 methods"):
        catalog("filters")


def test_a_broken_module_raises_or_is_listed(family):
    (family / "worse.py").write_text("import no_such_package_at_all")
    with pytest.raises(ModuleNotFoundError):
        catalog("filters")
    broken: dict[str, str] = {}
    assert list(catalog("filters", broken)) == ["sharpen"]
    assert "no_such_package_at_all" in broken["worse"]


def test_a_knob_carries_unit_and_help():
    class Sample(Config):
        rate: float = knob(0.1, 0, 1, "learning rate", unit="1/step", expert=True)

    field = Sample.model_fields["rate"]
    assert field.description == "learning rate"
    assert field.json_schema_extra == {"unit": "1/step", "expert": True}


def test_nested_unknown_keys_are_hinted_with_their_path():
    class Inner(BaseModel, extra="forbid"):
        scale: float = 1.0
        mode: Literal["a", "b"] = "a"

    class Outer(BaseModel, extra="forbid"):
        guidance: Inner | None = None

    with pytest.raises(UnknownName) as caught:
        parse(Outer, {"guidance": {"scael": 2}}, "outer")
    assert caught.value.suggestion == "guidance.scale"
