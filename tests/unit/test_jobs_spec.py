"""Jobs as data: version 1 stays readable, no path leaves in a picture, dotted paths reach everywhere."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from pipelines.artifacts import sha256
from pipelines.errors import BadInput, UnknownName
from pipelines.jobs import presets
from pipelines.jobs.spec import (
    KINDS,
    Compare,
    Compose,
    Score,
    Train,
    from_json,
    from_table,
    get_path,
    references_of,
    set_path,
)

GOLDEN = Path(__file__).parents[1] / "fixtures" / "jobs_v1.json"


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_that_version_1_wrote_are_read_and_mean_the_same(kind):
    """The file was written once and is never written again: new fields need defaults, old ones stay."""
    for table in json.loads(GOLDEN.read_text(encoding="utf-8"))[kind]:
        spec = from_table(table)
        now = json.loads(spec.to_json())
        assert _known(table, now) == table


def _known(old: Any, now: Any) -> Any:
    """What of `now` the old file had a name for, all the way down."""
    if not (isinstance(old, dict) and isinstance(now, dict)):
        return now
    return {key: _known(value, now[key]) for key, value in old.items()}


def compose(**more: Any) -> Compose:
    table = {"kind": "compose", "prompts": ["/imagine a dog and/or a cat", "./b"], **more}
    return cast("Compose", from_table(table))


def test_nothing_that_a_picture_carries_is_a_path(tmp_path):
    (tmp_path / "private").mkdir()
    picture = tmp_path / "private" / "start.png"
    picture.write_bytes(b"pixels")
    there = str(tmp_path / "private")
    spec = compose(
        base=f"{there}/model.safetensors",
        start=str(picture),
        mask="private/mask.png",
        references=f"file:{there}",
        adapters=[{"adapter": f"{there}/dog.safetensors"}, {"adapter": "run:train-dog"}],
        reference={
            "method": "ip_adapter",
            "images": [f"{there}/face.jpg", "~/me.jpg", "C:\\Users\\me\\a.png"],
        },
        out=there,
    )
    table = spec.shareable()
    assert "private" not in json.dumps(table).replace('"out": "private"', "").replace(
        '"references": "private"', ""
    )
    assert table["start"] == f"start.png#sha256={sha256(picture)}"
    assert table["adapters"][0]["adapter"] == "dog.safetensors"
    assert table["adapters"][1]["adapter"] == "run:train-dog"
    assert table["reference"]["images"] == ["face.jpg", "me.jpg", "a.png"]
    assert table["prompts"] == ["/imagine a dog and/or a cat", "./b"]
    assert from_table(table).shareable() == table


def test_a_grid_carries_no_path_of_its_drawing():
    job = {"prompts": ["a"], "references": "holiday/dog", "adapters": [{"adapter": "mine/a.safetensors"}]}
    table = Compare(job=job).shareable()["job"]
    assert table == {"prompts": ["a"], "references": "dog", "adapters": [{"adapter": "a.safetensors"}]}
    assert Compare(job=job).portable()["job"] == job


def test_the_files_of_a_job_are_listed():
    spec = compose(start="a.png", adapters=[{"adapter": "run:x"}, {"adapter": "y"}])
    assert dict(references_of(spec)) == {"start": "a.png", "adapters.adapter": "y"}
    assert [each for _, each in references_of(spec)] == ["run:x", "y", "a.png"]
    assert [each for _, each in references_of(Score(images=("a", "b")))] == ["a", "b"]
    assert [each for each, _ in references_of(from_table({"kind": "train", "data": {"photos": "p"}}))] == [
        "data.photos"
    ]


def test_the_files_of_a_method_are_files_of_the_job():
    """Or a visitor could have any file of the machine read as a reference."""
    pictures = {"reference.images": ["file:/etc/a.png", "upload:b/c.png"]}
    table = {"method": "ip_adapter", "weights": "/etc/w.safetensors", "encoder": ""}
    spec = presets.build("compose", form={"reference": table, **pictures})
    assert list(references_of(spec)) == [
        ("reference.images", "file:/etc/a.png"),
        ("reference.images", "upload:b/c.png"),
        ("reference.weights", "/etc/w.safetensors"),
    ]
    alone = presets.build("compose", form={"reference": {"method": "ip_adapter", "images": "run:x"}})
    assert list(references_of(alone)) == [("reference.images", "run:x")]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 7),
        ("prompts.1", "c"),
        ("prompts.2", "appended"),
        ("adapters.0.weight", 0.5),
        ("sampler.steps", 9),
        ("guidance.scale", 3.0),
    ],
)
def test_every_path_sets_what_it_gets(path, value):
    spec = compose(adapters=[{"adapter": "a"}])
    changed = set_path(spec, path, value)
    assert get_path(changed, path) == value
    assert spec == compose(adapters=[{"adapter": "a"}])
    assert from_json(changed.to_json()) == changed


def test_an_open_setting_of_a_method_has_its_default():
    assert get_path(compose(), "guidance.scale") == 5.0
    assert compose().guidance == {"method": "cfg"}


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("sed", "seed"),
        ("sampler.stesp", "sampler.steps"),
        ("guidance.scael", "scale"),
        ("adapters.0.wieght", "adapters.0.weight"),
    ],
)
def test_unknown_paths_are_hinted(path, hint):
    with pytest.raises(UnknownName) as caught:
        set_path(compose(adapters=[{"adapter": "a"}]), path, 1)
    assert caught.value.suggestion == hint


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("prompts.3", "gap"),
        ("prompts.-1", "x"),
        ("prompts.²", "x"),
        ("adapters.0.weight", 1),
        ("seed.x", 1),
        ("guidance.scale", 1000),
        ("guidance.scale.deep", 1),
        ("seed", "many"),
        ("sampler", 3),
    ],
)
def test_paths_to_nowhere_and_values_that_do_not_fit_are_refused(path, value):
    with pytest.raises(BadInput):
        set_path(compose(), path, value)


def test_a_combined_guidance_is_checked_too():
    spec = set_path(compose(), "guidance.with.pag.scale", 2.0)
    assert spec.guidance["with"] == {"pag": {"scale": 2.0}}
    with pytest.raises(UnknownName):
        set_path(compose(), "guidance.with.pga.scale", 2.0)


def test_kinds_have_the_names_the_studio_counts_on():
    assert {"train": Train, "compose": Compose, "compare": Compare}.items() <= KINDS.items()
