"""Presets and layers: the right one wins, and what does not exist is hinted."""

import tomllib

import pytest

from pipelines.errors import BadInput, MissingAsset, UnknownName
from pipelines.jobs import presets
from pipelines.jobs.spec import KINDS, Compose

SHIPPED = [
    (folder, name) for folder in presets.FOLDERS if folder != "bases" for name in presets.names(folder)
]
KIND = {"concepts": "train", "guidance": "compose", "compose": "compose", "edit": "edit", "grids": "compare"}


@pytest.mark.parametrize(("folder", "name"), SHIPPED, ids=str)
def test_every_shipped_preset_is_a_job_with_a_title(folder, name):
    table = presets.load(folder, name)
    assert table["title"]
    spec = presets.build(KIND[folder], preset=table)
    assert presets.changes(spec).keys() <= {*table, "kind"}


def test_every_folder_has_presets():
    assert {folder for folder, _ in SHIPPED} == set(KIND)


def test_the_higher_layer_wins():
    layers = {
        "base_defaults": {"sampler": {"steps": 30}, "width": 64, "height": 64, "concept": {"method": "x"}},
        "preset": {"title": "t", "width": 128, "guidance": {"method": "cfg", "scale": 3.0, "rescale": 0.5}},
        "sets": ["guidance.scale=4", "seed=5"],
        "form": {"seed": "6", "prompts": ["a"]},
    }
    spec = presets.build("compose", **layers)
    assert isinstance(spec, Compose)
    assert (spec.sampler.name, spec.sampler.steps) == ("ddim", 30)
    assert (spec.width, spec.height, spec.seed) == (128, 64, 6)
    assert spec.guidance == {"method": "cfg", "scale": 4, "rescale": 0.5}


def test_another_method_starts_afresh():
    low = {"guidance": {"method": "cfg", "scale": 3.0}}
    assert presets.merge(low, {"guidance": {"method": "apg"}}) == {"guidance": {"method": "apg"}}
    assert presets.merge(low, {"guidance": {"method": "cfg", "rescale": 1}})["guidance"]["scale"] == 3.0
    assert presets.merge(low, {"guidance": {"rescale": 1}})["guidance"]["scale"] == 3.0


def test_defaults_of_one_kind_are_for_it_alone():
    defaults = {"sampler": {"steps": 30}, "compose": {"count": 4}}
    assert presets.build("compose", base_defaults=defaults).model_dump()["count"] == 4
    assert presets.build("edit", base_defaults=defaults).model_dump()["count"] == 1


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("train", "rank=8", ("concept.rank", 8)),
        ("compose", "scale=2.5", ("guidance.scale", 2.5)),
        ("edit", "strength=0.5", ("edit.strength", 0.5)),
        ("compose", "seed=3", ("seed", 3)),
        ("train", "data.flip=true", ("data.flip", True)),
        ("train", 'targets=["attention", "conv"]', ("concept.targets", ["attention", "conv"])),
        ("compose", "negative=a, b = c", ("negative", "a, b = c")),
        ("compose", "negative=", ("negative", "")),
    ],
)
def test_assignments(kind, text, expected):
    assert presets.assignment(kind, text) == expected


@pytest.mark.parametrize("text", ["rank", "=3", ""])
def test_assignments_that_set_nothing_are_refused(text):
    with pytest.raises(BadInput):
        presets.assignment("train", text)


@pytest.mark.parametrize(
    ("layers", "hint"),
    [
        ({"sets": ["scael=3"]}, "scale"),
        ({"sets": ["sampler.stesp=3"]}, "sampler.steps"),
        ({"sets": ["guidance.method=cgf"]}, "cfg"),
        ({"preset": {"sampelr": {}}}, "sampler"),
        ({"preset": {"sampler": {"stesp": 3}}}, "sampler.steps"),
        ({"form": {"sede": 3}}, "seed"),
    ],
)
def test_unknown_settings_are_hinted(layers, hint):
    with pytest.raises(UnknownName) as caught:
        presets.build("compose", **layers)
    assert caught.value.suggestion == hint


def test_a_preset_is_written_and_read_back(tmp_path):
    spec = presets.build("compose", sets=["seed=4", "scale=2.0"], form={"prompts": ['a "quoted" 日 dog']})
    folder = tmp_path / "presets" / "compose"
    presets.save(folder / "mine.toml", 'Mine: "x"', presets.changes(spec))
    table = presets.load("compose", "mine", tmp_path)
    assert table["title"] == 'Mine: "x"'
    assert presets.build("compose", preset=table) == spec
    assert presets.load("compose", str(folder / "mine.toml")) == table


def test_the_users_own_replaces_a_shipped_one(tmp_path):
    folder, name = SHIPPED[0]
    presets.save(tmp_path / "presets" / folder / f"{name}.toml", "My own", {})
    assert presets.load(folder, name, tmp_path)["title"] == "My own"
    assert presets.load(folder, name)["title"] != "My own"


def test_unknown_presets_are_hinted_and_broken_ones_refused(tmp_path):
    folder, name = SHIPPED[0]
    with pytest.raises(UnknownName) as caught:
        presets.load(folder, f"{name}x")
    assert caught.value.suggestion == name
    with pytest.raises(MissingAsset):
        presets.read_file(tmp_path / "none.toml")
    for text in ("a = = 1", "a = " + "[" * 5000, "x = '" + "y" * 300_000 + "'"):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(BadInput):
            presets.read_file(tmp_path / "bad.toml")


def test_a_preset_for_another_kind_is_refused():
    with pytest.raises(BadInput, match="train"):
        presets.build("compose", preset={"kind": "train"})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_builds_from_nothing(kind):
    assert presets.build(kind) == KINDS[kind].model_validate({})


def test_values_are_toml_or_text():
    assert presets.scalar("1e-4") == pytest.approx(1e-4)
    assert presets.scalar("1\nb = 2") == "1\nb = 2"
    assert presets.scalar("1 # 2") == 1
    assert presets.scalar("a red dog") == "a red dog"
    assert tomllib.loads("value = 1")["value"] == presets.scalar("1")
