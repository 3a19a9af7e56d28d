"""Checkpoints: whole or absent, the newest one wins, damage is named; averages and seeded order."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.concepts import checkpoint
from pipelines.concepts.checkpoint import Bundle, Ema, rows_at, seeded_order
from pipelines.errors import BrokenWeights, DiskFull, StateBusy


def bundle(step: int) -> Bundle:
    generator = torch.Generator().manual_seed(step)
    weights = {"a": torch.randn(4, 3, generator=generator), "b": torch.randn(2, generator=generator)}
    return Bundle(
        step, {"weights": weights, "ema": {"a": weights["a"] + 1}}, {"plan": {"lr": 0.1}, "note": "ü"}
    )


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    saved = bundle(50)
    assert checkpoint.save(tmp_path, saved) == tmp_path / "step-000050"
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    assert found.step == 50
    assert found.facts["plan"] == {"lr": 0.1}
    assert found.facts["note"] == "ü"
    assert all(same(found.groups[name], saved.groups[name]) for name in saved.groups)


def test_layout_of_memory_survives_a_fill(tmp_path: Path) -> None:
    weight = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    checkpoint.save(tmp_path, Bundle(1, {"weights": {"w": weight}}, {}))
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    target = torch.zeros(8, 4, 3, 3).to(memory_format=torch.channels_last)
    checkpoint.fill({"w": target}, found.groups["weights"], tmp_path)
    assert torch.equal(target, weight)
    assert target.is_contiguous(memory_format=torch.channels_last)


def test_the_last_two_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    for step in (9, 99, 1_000_000, 1_000_001):
        checkpoint.save(tmp_path, bundle(step))
    assert [step for step, _ in checkpoint.checkpoints(tmp_path)] == [1_000_000, 1_000_001]
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    assert found.step == 1_000_001


def test_an_unfinished_one_is_passed_over(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, bundle(1))
    checkpoint.save(tmp_path, bundle(2))
    (tmp_path / "step-000002" / "complete").unlink()
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert checkpoint.load_latest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", ["weights.safetensors", "ema.safetensors"])
def test_a_truncated_file_is_named_with_the_way_out(tmp_path: Path, name: str) -> None:
    path = checkpoint.save(tmp_path, bundle(3)) / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BrokenWeights) as caught:
        checkpoint.load_latest(tmp_path)
    assert str(path) in caught.value.message
    assert "truncated" in caught.value.message
    assert f"Delete the folder {tmp_path / 'step-000003'}" in caught.value.remedy


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99, "step": 3, "groups": []}'])
def test_a_foreign_description_is_refused(tmp_path: Path, content: str) -> None:
    path = checkpoint.save(tmp_path, bundle(3)) / "checkpoint.json"
    path.write_text(content)
    with pytest.raises(BrokenWeights, match=r"checkpoint\.json"):
        checkpoint.load_latest(tmp_path)


def test_a_missing_and_a_pickled_group_are_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, bundle(3)) / "ema.safetensors"
    path.write_bytes(b"PK\x03\x04 something")
    with pytest.raises(BrokenWeights, match="pickled"):
        checkpoint.load_latest(tmp_path)
    path.unlink()
    with pytest.raises(BrokenWeights, match=r"ema\.safetensors.*missing"):
        checkpoint.load_latest(tmp_path)


def test_a_full_disk_leaves_the_one_before_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bundle(1)
    checkpoint.save(tmp_path, first)

    def full(*args: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file", full)
        with pytest.raises(DiskFull):
            checkpoint.save(tmp_path, bundle(2))
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert same(found.groups["weights"], first.groups["weights"])
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_fill_refuses_what_does_not_fit_and_then_copies_nothing() -> None:
    target = {"a": torch.zeros(2), "b": torch.zeros(3)}
    for source, said in (
        ({"a": torch.ones(2)}, "lacks b"),
        ({"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}, "holds c"),
        ({"a": torch.ones(2), "b": torch.ones(4)}, r"b has the shape \[4\], not \[3\]"),
    ):
        with pytest.raises(BrokenWeights, match=said):
            checkpoint.fill(target, source, Path("some.safetensors"))
        assert not target["a"].any()


def test_a_held_folder_is_busy_and_says_who_holds_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time\n"
        "from pipelines.concepts.checkpoint import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StateBusy, match=f"process {other.pid}"), checkpoint.locked(tmp_path):
            pass
    finally:
        other.kill()
        other.wait()
    with checkpoint.locked(tmp_path):  # a killed holder holds nothing
        pass


def test_the_average_is_the_closed_form_and_swapping_leaves_no_trace() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    ema = Ema({"p": parameter}, 0.5)
    expected = torch.zeros(3)
    for step in range(12):
        with torch.no_grad():
            parameter.fill_(step)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(ema.averages["p"], expected)
    with torch.no_grad():
        parameter.copy_(torch.tensor([0.1, 1e-30, torch.pi]))
    before = parameter.detach().clone()
    with pytest.raises(RuntimeError), ema.swapped():
        torch.testing.assert_close(parameter.detach(), expected)
        raise RuntimeError
    assert torch.equal(parameter.detach(), before)


def test_every_epoch_visits_everything_once_in_another_order() -> None:
    first, second = seeded_order(7, 0, 100), seeded_order(7, 1, 100)
    assert sorted(first) == sorted(second) == list(range(100))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, seeded_order(8, 0, 100))
    assert np.array_equal(first, seeded_order(7, 0, 100))


@pytest.mark.parametrize(("batch", "n"), [(8, 100), (7, 5), (64, 30)])
def test_steps_walk_through_the_epochs_without_a_gap(batch: int, n: int) -> None:
    steps = 3 * n
    walked = np.concatenate([rows_at(1, step, batch, n) for step in range(steps)])
    epochs = [seeded_order(1, epoch, n) for epoch in range(-(-steps * batch // n))]
    assert np.array_equal(walked, np.concatenate(epochs)[: steps * batch])


def test_facts_are_plain_json(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, bundle(5))
    table = json.loads((path / "checkpoint.json").read_text())
    assert table["step"] == 5
    assert table["groups"] == ["ema", "weights"]
