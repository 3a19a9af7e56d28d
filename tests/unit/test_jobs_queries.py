"""What the asking commands answer, through the worker's own dispatch."""

import importlib
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipelines.adapters import formats
from pipelines.adapters.adapter import Adapter, LowRank
from pipelines.errors import BadInput, MissingAsset, UnknownName
from pipelines.jobs import pictures, workspace
from pipelines.jobs.spec import KINDS, Compose, from_table
from pipelines.jobs.store import FILE, Store
from pipelines.progress import Job
from pipelines.worker import BODIES, run


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKENESS_WORKSPACE", str(tmp_path))
    return tmp_path


def ask(kind, **settings):
    return run(from_table({"kind": kind, **settings}), Job())


def test_every_kind_of_job_has_a_body():
    assert BODIES.keys() == KINDS.keys()
    for each in BODIES.values():
        module, _, function = each.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_methods_are_listed_with_their_settings():
    rows = ask("methods")["rows"]
    assert {"family": "guidance", "method": "cfg"}.items() <= next(
        each for each in rows if each["method"] == "cfg"
    ).items()
    told = ask("methods", family="guidance")
    scale = next(each for each in told["settings"] if (each["method"], each["setting"]) == ("cfg", "scale"))
    assert (scale["default"], scale["range"]) == (5.0, "0 to 30")
    assert scale["help"]
    assert {each["family"] for each in told["rows"]} == {"guidance"}
    with pytest.raises(UnknownName) as caught:
        ask("methods", family="guidnace")
    assert caught.value.suggestion == "guidance"


def test_methods_say_which_published_files_they_lack_for_a_base(folder):
    told = ask("methods", family="reference", base="sd15")["files"]
    assert [each["here"] for each in told] == [False, False]
    for each in told:
        assert each["bytes"] > 1e6
        assert each["licence"]
        assert each["source"].startswith("huggingface.co/")
        assert str(folder) in each["where"]
    own = Path(told[0]["where"])
    own.parent.mkdir(parents=True)
    own.write_bytes(b"x")
    assert [each["here"] for each in ask("methods", family="reference", base="sd15")["files"]] == [
        True,
        False,
    ]
    settings = {"method": told[0]["method"], "weights": "upload:mine.safetensors"}
    [encoder] = ask("methods", family="reference", base="sd15", settings=settings)["files"]
    assert encoder["file"] == told[1]["file"]


def test_methods_say_that_nothing_was_published_for_a_base():
    told = ask("methods", family="reference", base="toybox")
    assert told["files"] == []
    assert "toybox" in told["refused"][0]["reason"]
    assert told["refused"][0]["remedy"]
    assert "files" not in ask("methods", family="reference", base="/a/folder/of/mine")


def test_bases_are_listed():
    rows = {each["base"]: each for each in ask("bases")["rows"]}
    assert rows["toybox"]["installed"] is True
    assert rows["sd15"]["hub"]


def test_info_of_a_picture_is_what_it_carries(folder):
    spec = Compose.model_validate({"prompts": ["a dog"], "seed": 3})
    path = pictures.save(folder / "a.png", Image.new("RGB", (8, 8)), spec.shareable())
    told = ask("info", file=str(path))
    assert told["job"]["seed"] == 3
    assert told["parameters"].startswith("a dog\n")
    Image.new("RGB", (8, 8)).save(folder / "bare.png")
    (folder / "a.txt").write_text("x")
    for name in ("bare.png", "a.txt"):
        with pytest.raises(BadInput):
            ask("info", file=str(folder / name))
    with pytest.raises(MissingAsset):
        ask("info", file=str(folder / "none.png"))


def lora(path, seed, rank=2):
    made = torch.Generator().manual_seed(seed)
    down, up = torch.randn(rank, 6, generator=made), torch.randn(5, rank, generator=made)
    layer = "net.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    formats.save(path, Adapter(path.stem, "toybox", {layer: LowRank(down, up, float(rank))}))
    return up @ down


def test_a_merge_is_the_weighted_sum_and_describes_itself(folder):
    first, second = lora(folder / "a.safetensors", 1), lora(folder / "b.safetensors", 2)
    stack = [
        {"adapter": str(folder / "a.safetensors"), "weight": 0.5},
        {"adapter": str(folder / "b.safetensors")},
    ]
    told = ask("merge", adapters=stack, out=str(folder / "c.safetensors"))
    (change,) = formats.load(told["adapter"]).layers.values()
    assert isinstance(change, LowRank)
    merged = change.scale * change.up @ change.down
    torch.testing.assert_close(merged, 0.5 * first + second)
    assert (told["rank"], told["out"]) == (4, str(folder))
    assert ask("info", file=str(folder / "c.safetensors"))["rank"] == 4
    inside = ask("merge", adapters=stack)
    assert inside["adapter"].startswith(str(folder / "runs" / "merge-"))
    assert ask("info", file=inside["out"])["rank"] == 4
    with pytest.raises(BadInput):
        ask("merge")


def test_info_of_a_run_is_its_job_its_readings_and_its_adapter(folder):
    run_folder = workspace.new_run("train", "dog")
    workspace.write_run(
        run_folder, from_table({"kind": "train", "seed": 9}), "done", {"readings": {"dino_i": 0.5}}
    )
    lora(run_folder / "adapter.safetensors", 3)
    told = ask("info", file="run:train-dog")
    assert (told["status"], told["readings"], told["job"]["seed"]) == ("done", {"dino_i": 0.5}, 9)
    assert told["adapter"]["rank"] == 2


def test_jobs_are_listed_and_stopped(folder):
    assert ask("jobs")["rows"] == []
    with pytest.raises(MissingAsset):
        ask("jobs", action="cancel", id=1)
    store = Store(folder / FILE)
    first, second = (store.add(Compose(), device="cpu") for _ in range(2))
    store.claim("cpu", first)
    rows = ask("jobs")["rows"]
    assert [(each["id"], each["status"]) for each in rows] == [(second, "queued"), (first, "running")]
    assert ask("jobs", action="cancel", id=second)["status"] == "cancelled"
    assert "next step" in ask("jobs", action="cancel", id=first)["note"]
    assert store.wants_cancel(first)
    with pytest.raises(BadInput, match="no job"):
        ask("jobs", action="cancel")
    with pytest.raises(UnknownName):
        ask("jobs", action="cancel", id=99)


def test_a_running_job_whose_process_is_gone_is_listed_as_interrupted(folder):
    store = Store(folder / FILE)
    ident = store.add(Compose(), device="cpu")
    store.claim("cpu", ident)
    with store.writing() as base:
        base.execute("UPDATE jobs SET owner_since = 1")
    assert ask("jobs")["rows"][0]["status"] == "interrupted"


def test_the_doctor_finds_this_installation_well():
    told = ask("doctor")
    found = {each["check"]: each for each in told["rows"]}
    assert found["packages"]["ok"] is True
    assert found["embedded model"]["ok"] is True
    assert found["methods"]["ok"] is True, found["methods"]
    assert all(each["fix"] for each in told["rows"] if each["ok"] is False)


def test_the_doctor_names_the_fix(folder, monkeypatch):
    from pipelines.worker import doctor

    (folder / "toybox").mkdir()
    (folder / "toybox" / "unet.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    (folder / "file").write_text("")
    monkeypatch.setattr(doctor, "assets", lambda: folder)
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "peft" else "1")
    monkeypatch.setenv("LIKENESS_WORKSPACE", os.fspath(folder / "file"))
    told = ask("doctor")
    fixes = {each["check"]: each["fix"] for each in told["rows"] if each["ok"] is False}
    assert told["ok"] is False
    assert fixes["packages"] == "Run: pip install peft"
    assert "git lfs pull" in fixes["embedded model"]
    assert "--workspace" in fixes["workspace"]


def test_a_check_writes_small_copies_where_it_is_told_to(folder):
    Image.new("RGB", (640, 480), "red").save(folder / "1.png")
    crops = {"1.png": [0.0, 0.0, 0.5, 1.0]}
    (row,) = ask("check", photos=str(folder), out=str(folder / "small"), crops=crops)["photos"]
    assert (row["small"], row["width"], row["height"]) == ("1.png.jpg", 320, 480)
    with Image.open(folder / "small" / "1.png.jpg") as small:
        assert small.size == (320, 240)


def test_photos_are_checked_and_unusable_is_a_result(folder):
    (folder / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / "photos" / name).write_text("no picture")
    told = ask("check", photos=str(folder / "photos"))
    assert told["verdict"] == "unusable"
    assert [each["verdict"] for each in told["photos"]] == ["unusable", "unusable"]
