"""Wildcards on their way through a drawing: what was chosen is what is drawn, told and carried."""

from pathlib import Path

import pytest
from PIL import Image

from pipelines.artifacts import read_png_spec
from pipelines.errors import UnknownName
from pipelines.jobs import workspace
from pipelines.jobs.spec import from_table
from pipelines.jobs.wildcards import expand
from pipelines.progress import Job
from pipelines.worker import run
from tests import tiny

PROMPT = r"a {red|blue|green} dog with \{curls}"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny.sd1(tmp_path_factory.mktemp("base") / "sd1"))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(workspace.ENV, str(tmp_path))
    return tmp_path


def drawing(base, **more):
    settings = {"sampler": {"name": "ddim", "steps": 1}, "score": False, "device": "cpu"}
    return {"kind": "compose", "base": base, "prompts": [PROMPT], **settings, **more}


def test_every_picture_of_a_batch_says_what_was_chosen_for_its_seed(base, folder):
    result = run(from_table(drawing(base, count=6, seed=3)), Job())
    pictures = result["pictures"]
    wanted = [expand(PROMPT, seed) for seed in range(3, 9)]
    assert [each["prompt"] for each in pictures] == wanted
    assert len(set(wanted)) > 1
    for each, prompt in zip(pictures, wanted, strict=True):
        carried = read_png_spec(Path(each["path"]))
        assert carried is not None
        assert [expand(text, 99) for text in carried["prompts"]] == [prompt]
    again = run(from_table({**(read_png_spec(Path(pictures[2]["path"])) or {}), "base": base}), Job())
    with Image.open(pictures[2]["path"]) as one, Image.open(again["pictures"][0]["path"]) as other:
        assert one.tobytes() == other.tobytes()


def test_cells_of_a_grid_say_what_was_chosen(base, folder):
    spec = {"kind": "compare", "job": drawing(base), "axes": [{"path": "seed", "values": [1, 2, 3]}]}
    cells = run(from_table(spec), Job())["cells"]
    assert [each["drawn"] for each in cells] == [expand(PROMPT, seed) for seed in (1, 2, 3)]


def test_a_wildcard_without_a_list_is_told_before_anything_is_drawn(base, folder):
    job = drawing(base, prompts=["a dog __placs__"])
    spec = {"kind": "compare", "job": job, "axes": [{"path": "seed", "values": [1]}]}
    for table in (job, spec):
        with pytest.raises(UnknownName) as error:
            run(from_table(table), Job())
        assert error.value.suggestion == "places"
    assert not list((folder / "runs").glob("*"))
