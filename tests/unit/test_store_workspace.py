"""The workspace: run folders, and references that never leave their folder."""

from pathlib import Path

import pytest

from pipelines.errors import BadInput, MissingAsset
from pipelines.jobs import workspace
from pipelines.jobs.references import fingerprint
from pipelines.jobs.spec import Compose, Train


def test_the_environment_names_the_workspace(tmp_path, monkeypatch):
    monkeypatch.setenv(workspace.ENV, str(tmp_path / "mine"))
    assert workspace.root() == tmp_path / "mine"
    assert workspace.new_run("train", "Brown dog!").relative_to(tmp_path / "mine") == Path(
        "runs/train-brown-dog"
    )


def test_another_workspace_can_stand_in_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setenv(workspace.ENV, str(tmp_path / "mine"))
    with workspace.at(tmp_path / "visitor"):
        with workspace.at(None):
            assert workspace.root() == tmp_path / "visitor"
        assert workspace.new_run("compose", "dog").is_relative_to(tmp_path / "visitor")
        assert workspace.home("upload") == tmp_path / "visitor" / "uploads"
    assert workspace.root() == tmp_path / "mine"


def test_run_names_are_readable_and_never_taken_twice(tmp_path):
    names = [workspace.new_run("compose", "a Red/dog: on ../the beach", tmp_path).name for _ in range(3)]
    assert names == [f"compose-a-red-dog-on-the-beach{end}" for end in ("", "-2", "-3")]


@pytest.mark.parametrize("text", ["", "../..", "CON", "日本 犬", "x" * 300, "a\0b", "...", "-rf"])
def test_every_title_becomes_a_harmless_name(text):
    name = workspace.slug(text)
    assert 0 < len(name) <= 50
    assert Path(name).name == name
    assert not name.startswith(("-", "."))
    assert name.casefold() != "con"


def test_run_json_round_trips(tmp_path):
    spec = Train(out=tmp_path / "r", seed=3)
    workspace.write_run(tmp_path, spec, "done", {"readings": {"dino_i": 0.5}, "out": tmp_path})
    table = workspace.read_run(tmp_path)
    assert (table["status"], table["readings"], table["spec"]["seed"]) == ("done", {"dino_i": 0.5}, 3)
    assert Train.model_validate(table["spec"]) == spec
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(BadInput):
        workspace.read_run(tmp_path)


def test_references_find_their_files(tmp_path, monkeypatch):
    run = workspace.new_run("train", "dog", tmp_path)
    (run / "adapter.safetensors").write_bytes(b"weights")
    assert workspace.resolve("run:train-dog", folder=tmp_path) == run
    assert workspace.resolve("run:train-dog", "adapter", tmp_path) == run / "adapter.safetensors"
    assert workspace.resolve("asset:photos/dog").is_dir()
    monkeypatch.chdir(run)
    assert workspace.resolve("adapter.safetensors") == Path("adapter.safetensors")
    assert workspace.resolve(f"file:{run}", "adapter") == run / "adapter.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../secret",
        "a/../../secret",
        "/etc/passwd",
        "//etc",
        "..\\secret",
        "C:\\x",
        "C:x",
        "",
        "link/x",
        "\0",
    ],
)
@pytest.mark.parametrize("scheme", ["run", "upload"])
def test_references_never_leave_their_folder(tmp_path, scheme, name):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x").write_bytes(b"")
    home = workspace.home(scheme, tmp_path)
    home.mkdir()
    (home / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(BadInput):
        workspace.resolve(f"{scheme}:{name}", folder=tmp_path)


def test_visitors_cannot_name_files_of_the_machine(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    for reference in (f"file:{tmp_path}/a.png", f"{tmp_path}/a.png", "pyproject.toml"):
        with pytest.raises(BadInput, match="from elsewhere"):
            workspace.resolve(reference, folder=tmp_path, local=False)
    with pytest.raises(BadInput, match=r"adapters\.adapter.*from elsewhere"):
        workspace.check_references(Compose.model_validate({"adapters": [{"adapter": "/etc"}]}), local=False)


def test_what_is_missing_is_hinted(tmp_path):
    workspace.new_run("train", "teapot", tmp_path)
    with pytest.raises(MissingAsset) as caught:
        workspace.resolve("run:train-taepot", folder=tmp_path)
    assert "train-teapot" in caught.value.remedy


def test_a_travelled_name_is_found_again_by_its_content_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = workspace.new_run("train", "dog", tmp_path)
    (run / "adapter.safetensors").write_bytes(b"weights")
    spec = Compose.model_validate({"adapters": [{"adapter": str(run)}]})
    carried = spec.shareable()["adapters"][0]["adapter"]
    assert carried == f"train-dog#sha256={fingerprint(run)}"
    assert workspace.resolve(carried, "adapter", tmp_path) == run / "adapter.safetensors"
    (run / "adapter.safetensors").write_bytes(b"others!")
    with pytest.raises(MissingAsset, match="train-dog"):
        workspace.resolve(carried, "adapter", tmp_path)


def test_a_folder_without_weights_says_so(tmp_path):
    with pytest.raises(MissingAsset, match="adapter"):
        workspace.resolve(str(tmp_path), "adapter")


def test_an_unwritable_workspace_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        workspace.new_run("train", "dog", tmp_path / "file")
