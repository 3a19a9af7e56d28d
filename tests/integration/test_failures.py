"""When things go wrong: every failure is a sentence with a way out, and what stood there before still stands.

Real jobs through the command line, on a tiny base of random weights.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines import artifacts
from pipelines.artifacts import assets
from pipelines.base.memory import Device
from pipelines.concepts import trainer
from pipelines.jobs import workspace
from studio import cli
from tests import tiny

TRAIN = ("--token", "vtk", "--class-word", "dog", "--set", "watch.every=0", "--set", "prior_weight=0")
SMALL = ("--set", "rank=2", "--set", "batch=1", "--set", "precision=float32")
DRAW = ("--steps", "2", "--set", "score=false")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.sd1(tmp_path_factory.mktemp("base") / "tiny"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace, a cache and a current folder of its own."""
    monkeypatch.setenv(workspace.ENV, str(tmp_path / "workspace"))
    monkeypatch.setattr("pipelines.data.cache.cache_dir", lambda: tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], base: str):
    """Run a command with --json on the tiny base; → exit code, result or error, what stderr says."""

    def run(*words: object) -> tuple[int, dict[str, Any], str]:
        code = cli.main([*map(str, words), "--base", base, "--json"])
        out, heard = capsys.readouterr()
        answer = json.loads(out)  # one object and nothing else
        assert "Traceback" not in heard
        assert answer["ok"] == ("result" in answer)
        return code, answer.get("result") or answer["error"], heard

    return run


def photos() -> Path:
    return assets() / "photos" / "dog"


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def learn(say: Any, out: Path, steps: int = 2, *more: object) -> tuple[int, dict[str, Any], str]:
    return say("train", photos(), *TRAIN, *SMALL, "--steps", steps, "--out", out, *more)


def test_a_picture_repeats_itself_bit_for_bit_with_its_adapter(say: Any, here: Path) -> None:
    assert learn(say, workspace.ready() / "runs" / "dog")[0] == 0
    code, first, _ = say("generate", "a vtk dog", "--adapter", "run:dog:0.8", *DRAW, "--out", here / "a")
    assert code == 0
    path = first["pictures"][0]["path"]
    code, again, _ = say("generate", "--like", path, "--out", here / "b")
    assert code == 0
    np.testing.assert_array_equal(pixels(path), pixels(again["pictures"][0]["path"]))
    _, bare, _ = say("generate", "a vtk dog", *DRAW, "--out", here / "c")
    assert not np.array_equal(pixels(path), pixels(bare["pictures"][0]["path"]))


def test_pictures_join_pictures_but_take_nothing_from_another_job(say: Any, here: Path) -> None:
    say("generate", "a dog", *DRAW, "--out", here / "a")
    _, second, _ = say("generate", "a cat", *DRAW, "--out", here / "a")
    assert Path(second["pictures"][0]["path"]).name == "0002-seed0.png"
    before = (here / "a" / "run.json").read_bytes()
    code, error, _ = learn(say, here / "a")
    assert (code, error["type"]) == (2, "BadInput")
    assert "compose" in error["message"]
    assert (here / "a" / "run.json").read_bytes() == before
    assert not (here / "a" / "checkpoints").exists()


def test_a_training_that_is_refused_leaves_the_one_that_stands_there(say: Any, here: Path) -> None:
    learn(say, here / "run")
    before = {each: each.read_bytes() for each in (here / "run").glob("*.*")}
    code, error, _ = learn(say, here / "run")
    assert code == 2
    assert "--resume" in error["remedy"]
    code, error, _ = learn(say, here / "run", 2, "--resume", "--seed", 5)
    assert code == 2
    assert "another seed" in error["message"]
    assert {each: each.read_bytes() for each in (here / "run").glob("*.*")} == before


def test_a_merge_does_not_replace_an_adapter(say: Any, here: Path) -> None:
    learn(say, here / "a")
    assert say("merge", here / "a:0.5", here / "a:0.5", "--out", here / "m")[0] == 0
    before = (here / "m" / "adapter.safetensors").read_bytes()
    code, error, _ = say("merge", here / "a", "--out", here / "m")
    assert (code, error["type"]) == (2, "BadInput")
    assert (here / "m" / "adapter.safetensors").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_at_the_last_good_checkpoint(
    say: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.concepts.trainer.EVERY_STEPS", 2)
    monkeypatch.setattr("pipelines.concepts.trainer.SHARE_OF_TIME", 1e9)  # however long saving takes
    honest = trainer.target

    def overflowing(*given: Any) -> torch.Tensor:
        calls.append(0)
        return honest(*given) * (float("nan") if len(calls) > 5 else 1)

    calls: list[int] = []
    monkeypatch.setattr(trainer, "target", overflowing)
    code, error, _ = learn(say, here / "run", 9)
    assert (code, error["type"]) == (1, "Diverged")
    assert "Step 6: the loss is nan" in error["message"]
    assert "step-000004" in error["message"]
    assert "learning_rate" in error["remedy"]
    assert not (here / "run" / "adapter.safetensors").exists()
    kept = load_file(here / "run" / "checkpoints" / "step-000004" / "weights.safetensors")
    assert all(bool(each.isfinite().all()) for each in kept.values())
    told = workspace.read_run(here / "run")
    assert told["status"] == "failed"
    assert "not finite" in told["note"] or "nan" in told["note"]


def test_a_full_disk_keeps_what_was_there(say: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say("generate", "a dog", *DRAW, "--out", here / "a")
    before = sorted((here / "a").iterdir())

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(artifacts, "_sync", full)
    code, error, _ = say("generate", "a dog", *DRAW, "--out", here / "a")
    assert (code, error["type"]) == (1, "DiskFull")
    assert sorted((here / "a").iterdir()) == before
    code, error, _ = learn(say, here / "run")
    assert (code, error["type"]) == (1, "DiskFull")
    assert not list((here / "run").rglob("*.safetensors"))


@pytest.mark.parametrize("command", ["generate", "train"])
def test_a_folder_that_cannot_be_made_is_told_before_the_work(say: Any, here: Path, command: str) -> None:
    (here / "file").write_text("in the way")
    for out in (here / "file", here / "file" / "inside"):
        if command == "train":
            code, error, heard = learn(say, out)
        else:
            code, error, heard = say("generate", "a dog", *DRAW, "--out", out)
        assert (code, error["type"]) == (2, "BadInput")
        assert "--out" in error["remedy"]
        assert "2/2" not in heard


def test_a_failed_job_leaves_no_empty_run(say: Any, here: Path) -> None:
    (here / "photos").mkdir()
    (here / "photos" / "a.jpg").write_text("no picture")
    code, error, _ = say("train", here / "photos", *TRAIN)
    assert code == 2
    assert "a.jpg" in error["message"]
    assert say("generate", "a dog", "--adapter", here / "photos" / "a.jpg", *DRAW)[0] == 1
    assert say("compare", "samplers", "--adapter", here / "photos" / "a.jpg")[0] == 1
    assert list((workspace.root() / "runs").iterdir()) == []


def test_a_word_of_a_list_that_is_unknown_names_the_nearest(say: Any) -> None:
    code, error, _ = say("train", photos(), *TRAIN, "--set", 'targets=["attentoin"]')
    assert (code, error["type"]) == (2, "UnknownName")
    assert 'Did you mean "attention"?' in error["remedy"]
    code, error, _ = say("train", photos(), *TRAIN, "--set", "targets=attention")
    assert code == 2
    assert "targets=[" in error["remedy"]


def test_an_adapter_of_another_family_is_named(say: Any, here: Path) -> None:
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{name}.lora_down.weight": torch.ones(2, 2048),
        f"{name}.lora_up.weight": torch.ones(640, 2),
    }
    save_file(tensors, here / "x.safetensors", {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"})
    code, error, _ = say("generate", "a dog", "--adapter", here / "x.safetensors", *DRAW)
    assert code == 1
    assert "made for SDXL" in error["message"]


def test_a_prompt_of_five_thousand_words_says_what_was_cut(say: Any, here: Path) -> None:
    prompt = "dog " * 20 + "beach " * 4980
    code, result, heard = say("generate", prompt, *DRAW, "--out", here / "a")
    assert code == 0
    (cut,) = [each for each in result["notes"] if "cut" in each]
    assert cut in heard
    count = int(cut.split(": ")[1].split(" ")[0].replace(",", ""))
    assert 4980 <= count < 5000
    assert "dog" in cut or "beach" in cut


def test_words_that_were_never_learned_are_named_but_trained_ones_are_not(say: Any, here: Path) -> None:
    learn(say, here / "run", 2, "--token", "qzx")
    words = ("generate", "a qzx dog and a flibbert", *DRAW)
    _, bare, _ = say(*words, "--out", here / "a")
    assert any("qzx, flibbert" in each for each in bare["notes"])
    _, own, _ = say(*words, "--adapter", here / "run", "--out", here / "b")
    assert any("flibbert" in each and "qzx" not in each for each in own["notes"])


def test_a_token_that_is_a_word_already_is_warned_of(say: Any, here: Path) -> None:
    _, result, heard = learn(say, here / "a", 1, "--token", "red")
    assert any('"red" is a word' in each for each in result["notes"])
    assert '"red" is a word' in heard
    _, result, _ = learn(say, here / "b", 1, "--token", "sks")
    assert result["notes"] == []


def test_class_pictures_of_ones_own_are_named_as_other_files_are(say: Any, here: Path) -> None:
    extra = ("--set", "prior_weight=0.5", "--set", "prior_folder=asset:photos/cat")
    assert learn(say, here / "a", 1, *extra)[0] == 0
    code, error, _ = learn(say, here / "b", 1, *extra[:2], "--set", "prior_folder=asset:photos/cta")
    assert code == 2
    assert "cat" in error["remedy"]


def test_out_of_memory_frees_and_names_what_to_try(
    say: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("generate", "a dog", *DRAW)  # the base is open from here on
    freed: list[str] = []
    monkeypatch.setattr(Device, "free", lambda self: freed.append("freed"))

    def full(*given: Any, **more: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("pipelines.worker.compose.generate", full)
    monkeypatch.setattr("pipelines.data.dataset.encode", full)
    for words in (
        ("generate", "a dog", *DRAW, "--out", here / "a"),
        ("train", photos(), *TRAIN, *SMALL, "--steps", 1, "--out", here / "b"),
    ):
        freed.clear()
        code, error, _ = say(*words)
        assert (code, error["type"]) == (1, "OutOfMemory")
        assert freed
        assert "smaller" in error["remedy"]


def _fork(words: list[str], log: Path, pause: float) -> int:
    """The command in a process of its own, ready at once; from its fourth step on each waits. → its id"""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        handle = os.open(log, os.O_CREAT | os.O_WRONLY)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        trainer.EVERY_STEPS, trainer.SHARE_OF_TIME = 2, 1e9
        honest = trainer._Run._step

        def slow(self: Any, step: int) -> float:
            time.sleep(pause if step >= 3 else 0)
            return honest(self, step)

        trainer._Run._step = slow
        code = cli.main(words)
    finally:
        os._exit(code)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """OpenMP's threads do not survive a fork, and their number is part of a training's arithmetic."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has torch open")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.usefixtures("one_thread")
def test_a_training_that_is_killed_or_stopped_goes_on_to_the_same_weights(
    say: Any, here: Path, base: str, how: signal.Signals
) -> None:
    assert learn(say, here / "whole", 6)[0] == 0
    interrupted = how == signal.SIGINT
    words = ["train", photos(), *TRAIN, *SMALL, "--steps", 6, "--out", here / "cut", "--base", base, "--json"]
    process = _fork(list(map(str, words)), here / "log", pause=0.3 if interrupted else 60)
    try:
        until = time.monotonic() + 60
        while not (here / "cut" / "checkpoints" / "step-000002" / "complete").exists():
            assert time.monotonic() < until, (here / "log").read_text()
            time.sleep(0.02)
    finally:
        os.kill(process, how)
        _, ended = os.waitpid(process, 0)
    heard = (here / "log").read_text()
    assert "Traceback" not in heard
    assert not (here / "cut" / "adapter.safetensors").exists()
    if interrupted:
        assert os.waitstatus_to_exitcode(ended) == 130
        error = json.loads(next(line for line in heard.splitlines() if line.startswith("{")))["error"]
        assert error["type"] == "Cancelled"
        assert "checkpoints/step-" in error["remedy"]
        assert "--resume" in error["remedy"]
        assert workspace.read_run(here / "cut")["status"] == "cancelled"
    else:
        assert os.waitstatus_to_exitcode(ended) == -signal.SIGKILL
    code, result, _ = learn(say, here / "cut", 6, "--resume")
    assert (code, result["steps"]) == (0, 6)
    cut, whole = (load_file(here / name / "adapter.safetensors") for name in ("cut", "whole"))
    assert cut.keys() == whole.keys()
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
