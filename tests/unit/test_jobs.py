import json
import sys
import types
from pathlib import Path

import pytest

from pipelines.errors import BadInput, LikenessError, NotAvailable, UnknownName
from pipelines.jobs.runner import InlineRunner
from pipelines.jobs.spec import KINDS, ToyboxBuild, ToyboxJudge, from_json, from_table, get_path, set_path
from pipelines.progress import Job


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_round_trips_through_json_and_explains_its_options(kind):
    spec = from_table({"kind": kind})
    assert from_json(spec.to_json()) == spec
    assert spec.summary
    for name, field in type(spec).model_fields.items():
        assert name in ("kind", "version") or field.description


def test_paths_survive_json_but_do_not_leave_in_pictures():
    spec = ToyboxBuild(state=Path("/home/somebody/state"), stage="vae")
    assert from_json(spec.to_json()) == spec
    assert "somebody" not in json.dumps(spec.shareable())


@pytest.mark.parametrize(
    ("table", "hint"),
    [
        ({"kind": "toybox_biuld"}, "toybox_build"),
        ({"kind": "toybox_build", "stage": "unte"}, "unet"),
        ({"kind": "toybox_build", "sede": 1}, "seed"),
        ({"kind": "toybox_judge", "device": "cdua"}, "cuda"),
    ],
)
def test_unknown_names_are_hinted(table, hint):
    with pytest.raises(UnknownName) as caught:
        from_table(table)
    assert caught.value.suggestion == hint


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"kind": "toybox_judge", "prompts": 0},
        {"kind": "toybox_judge", "guidance": float("nan")},
        {"kind": "toybox_build", "version": 2},
        {"kind": "toybox_build", "minutes": -1},
    ],
)
def test_bad_jobs_are_refused(table):
    with pytest.raises(BadInput):
        from_table(table)


@pytest.mark.parametrize("text", ["", "[1]", "{", '"x"', "[" * 100_000])
def test_what_is_no_job_is_refused(text):
    with pytest.raises(BadInput):
        from_json(text)


def test_dotted_paths_get_and_set():
    spec = ToyboxJudge()
    changed = set_path(spec, "steps", 50)
    assert (get_path(changed, "steps"), spec.steps) == (50, 20)
    with pytest.raises(UnknownName) as caught:
        set_path(spec, "stesp", 50)
    assert caught.value.suggestion == "steps"
    with pytest.raises(BadInput):
        set_path(spec, "steps", 0)
    with pytest.raises(BadInput, match="single value"):
        get_path(spec, "steps.more")


def fake(monkeypatch, module: str, **functions):
    made = types.ModuleType(module)
    for name, function in functions.items():
        setattr(made, name, function)
    monkeypatch.setitem(sys.modules, module, made)


def test_the_inline_runner_hands_the_typed_spec_to_the_stage_code(monkeypatch):
    pytest.importorskip("pipelines.toybox")
    seen = []

    def build(spec, job):
        job.report(1, 1)
        seen.append(spec)
        return {"stage": spec.stage}

    fake(monkeypatch, "pipelines.toybox.build", build=build)
    spec = ToyboxBuild(stage="clip")
    assert InlineRunner().run(spec, Job()) == {"stage": "clip"}
    assert seen == [spec]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_full_memory_is_an_error_with_a_way_out(monkeypatch, error):
    def build(spec, job):
        raise error

    fake(monkeypatch, "pipelines.toybox.build", build=build)
    with pytest.raises(LikenessError, match="memory") as caught:
        InlineRunner().run(ToyboxBuild(), Job())
    assert caught.value.as_dict()["type"] == "OutOfMemory"
    assert "smaller" in caught.value.remedy


def test_other_faults_stay_what_they_are(monkeypatch):
    def build(spec, job):
        raise RuntimeError("a bug")

    fake(monkeypatch, "pipelines.toybox.build", build=build)
    with pytest.raises(RuntimeError, match="a bug"):
        InlineRunner().run(ToyboxBuild(), Job())


def test_a_missing_package_is_said_with_its_name(monkeypatch):
    pytest.importorskip("pipelines.toybox")

    def build(spec, job):
        import no_such_package.inside  # type: ignore[import-not-found]  # noqa: F401

    fake(monkeypatch, "pipelines.toybox.build", build=build)
    with pytest.raises(NotAvailable, match="no_such_package"):
        InlineRunner().run(ToyboxBuild(), Job())
