"""The command that does a job again, read back by the command line itself."""

import shlex
from typing import Any

import pytest

from pipelines.errors import BadInput
from pipelines.jobs import presets
from pipelines.jobs.spec import Check, Compare, JobSpec, Methods, from_table
from studio import cli
from studio.command import GRID, command, grid_file, words


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKENESS_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def built(kind: str, form: dict[str, Any], base: str = "toybox") -> JobSpec:
    return presets.build(kind, base_defaults=presets.native(base), form=form)


JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("compose", {"prompts": ["a red dog"]}),
    "two prompts, quotes": ("compose", {"prompts": ['say "hi" & go', "it's $HOME {red|blue}"], "seed": 7}),
    "a hyphen first": ("compose", {"prompts": ["-n"], "negative": "--blur"}),
    "adapters": (
        "compose",
        {"prompts": ["x"], "adapters": [{"adapter": "run:train-dog"}, {"adapter": "run:5", "weight": -0.25}]},
    ),
    "another method": ("compose", {"prompts": ["x"], "guidance.method": "apg", "guidance.scale": 6.5}),
    "tiny and exact numbers": ("compose", {"prompts": ["x"], "guidance.scale": 0.1 + 0.2, "count": 3}),
    "no scores": ("compose", {"prompts": ["x"], "score": False, "width": 128, "sampler.steps": 9}),
    "a text like a number": ("compose", {"prompts": ["x"], "negative": "12"}),
    "line breaks": ("compose", {"prompts": ["one\ntwo"], "negative": " a\nb "}),
    "edit": ("edit", {"image": "run:compose-dog/0001-seed0.png", "prompts": ["blue"], "source": "a dog"}),
    "edit by a method": ("edit", {"image": "asset:photos/dog", "prompts": ["x"], "edit.method": "sdedit"}),
    "train": (
        "train",
        {
            "data.photos": "asset:photos/dog",
            "data.class_word": "dog",
            "data.exclude": ["a, b.png"],
            "data.flip": True,
            "data.captions": False,
            "data.crops": {"my photo.v2.png": [0.1, 0.0, 0.9, 1.0]},
            "watch.prompts": ["a = b", "true"],
            "seed": 3,
        },
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_the_command_gives_an_equal_job(name):
    kind, form = JOBS[name]
    spec = built(kind, form)
    line = command(spec)
    assert line.startswith("likeness ")
    assert shlex.split(line)[1:] == words(spec)
    assert cli.read_command(words(spec)) == spec


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_what_the_base_would_say_is_said_otherwise_where_the_job_differs(base):
    spec = built("compose", {"prompts": ["x"]}, base="toybox").model_copy(update={"base": base})
    again = cli.read_command(words(spec))
    assert again is not None
    assert getattr(again, "sampler", None) == getattr(spec, "sampler", None)
    usual = built("compose", {"prompts": ["x"], "base": base}, base=base)
    assert words(usual) == ["generate", "x", "--base", base]


def test_of_a_run_only_what_another_could_share_is_said(folder):
    spec = built("compose", {"prompts": ["x"]}).model_copy(update={"out": folder / "runs" / "x"})
    assert "--out" not in words(spec)


def test_a_grid_is_a_file_and_a_command(folder):
    spec = from_table(
        {
            "kind": "compare",
            "job": {"kind": "compose", "prompts": ['a "dog"', "ünï"], "width": None, "seed": 4},
            "axes": [
                {"path": "guidance.scale", "values": [1, 2.5]},
                {"path": "prompts.0", "values": ["a, b"]},
            ],
        }
    )
    (folder / GRID).write_text(grid_file(spec), encoding="utf-8")
    again = cli.read_command(shlex.split(command(spec))[1:])
    assert isinstance(again, Compare)
    assert isinstance(spec, Compare)
    assert again.axes == spec.axes
    assert again.job == {"kind": "compose", "prompts": ['a "dog"', "ünï"], "seed": 4}


def test_light_jobs_too_but_not_what_has_no_command():
    check = Check(photos="asset:photos/dog", class_word="dog")
    assert cli.read_command(words(check)) == check
    with pytest.raises(BadInput):
        words(Methods())
