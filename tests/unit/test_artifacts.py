import errno
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipelines import artifacts
from pipelines.errors import BadInput, BrokenWeights, DiskFull, MissingAsset


def tensors_file(path: Path, header: object = None, body: bytes = b"\0" * 12) -> Path:
    """A safetensors file written by hand: two fp16 vectors of 2 and 4 numbers."""
    if header is None:
        header = {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
            "b": {"dtype": "F16", "shape": [2, 2], "data_offsets": [4, 12]},
        }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def leftovers(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if ".tmp" in each.name or ".aside" in each.name]


def test_assets_is_the_checkout_folder_and_a_missing_one_is_named(tmp_path, monkeypatch):
    package = tmp_path / "pipelines"
    package.mkdir()
    monkeypatch.setattr(artifacts, "__file__", str(package / "artifacts.py"))
    with pytest.raises(MissingAsset, match="assets"):
        artifacts.assets()
    (package / "_assets").mkdir()
    assert artifacts.assets() == package / "_assets"
    (tmp_path / "assets").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    assert artifacts.assets() == tmp_path / "assets"


def test_the_cache_is_outside_the_checkout():
    assert Path(artifacts.__file__).parents[1] not in artifacts.cache_dir().parents


def test_atomic_write_replaces_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "deep" / "a.bin"
    artifacts.atomic_write(path, b"one")
    artifacts.atomic_write(path, lambda temporary: temporary.write_bytes(b"two"))
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["a.bin"]


def test_a_failing_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def broken(temporary: Path) -> None:
        temporary.write_bytes(b"ha")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        artifacts.atomic_write(path, broken)
    assert path.read_bytes() == b"old"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        ValueError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path, failure):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(temporary: Path) -> None:
        temporary.write_bytes(b"ne")
        raise failure

    with pytest.raises(DiskFull, match=r"a\.bin"):
        artifacts.atomic_write(path, full)
    assert path.read_bytes() == b"old"
    assert not leftovers(tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
def test_a_kill_during_the_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    script = """
import os, signal, sys
from pipelines.artifacts import atomic_write
def die(temporary):
    temporary.write_bytes(b"new, but not all of it")
    os.kill(os.getpid(), signal.SIGKILL)
atomic_write(sys.argv[1], die)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (stale,) = leftovers(tmp_path)
    artifacts.atomic_write(path, b"newer")
    assert leftovers(tmp_path) == [stale], "a young temporary may belong to a living writer"
    os.utime(tmp_path / stale, (0, 0))
    artifacts.atomic_write(path, b"newest")
    assert leftovers(tmp_path) == []


def test_atomic_dir_appears_whole_and_marked(tmp_path):
    path = tmp_path / "step-000050"
    with artifacts.atomic_dir(path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.bin").write_bytes(b"1")
        assert not path.exists()
    assert artifacts.is_complete(path)
    assert (path / "deep" / "a.bin").read_bytes() == b"1"
    with artifacts.atomic_dir(path) as folder:
        (folder / "b.bin").write_bytes(b"2")
    assert sorted(each.name for each in path.iterdir()) == ["b.bin", "complete"]
    assert not leftovers(tmp_path)


def test_atomic_dir_keeps_the_old_folder_when_the_new_one_fails(tmp_path):
    path = tmp_path / "weights"
    with artifacts.atomic_dir(path) as folder:
        (folder / "a.bin").write_bytes(b"old")
    with pytest.raises(DiskFull), artifacts.atomic_dir(path) as folder:
        (folder / "a.bin").write_bytes(b"new")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (path / "a.bin").read_bytes() == b"old"
    assert not leftovers(tmp_path)


def test_atomic_dir_recovers_a_replacement_cut_between_its_renames(tmp_path):
    path = tmp_path / "weights"
    with artifacts.atomic_dir(path) as folder:
        (folder / "a.bin").write_bytes(b"old")
    path.rename(tmp_path / ".weights.aside")  # where a kill between the two renames leaves it
    with pytest.raises(RuntimeError), artifacts.atomic_dir(path):
        assert (path / "a.bin").read_bytes() == b"old"
        raise RuntimeError


def test_a_sound_header_is_read(tmp_path):
    header = artifacts.read_safetensors_header(tensors_file(tmp_path / "a.safetensors"))
    assert header.metadata == {"format": "pt"}
    assert header.tensors["b"] == artifacts.TensorInfo("F16", (2, 2), 4, 12)
    assert header.parameters == 6


@pytest.mark.parametrize("keep", [0, 3, 8, 40, -1])
def test_truncated_weights_are_refused_by_name(tmp_path, keep):
    path = tensors_file(tmp_path / "unet.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BrokenWeights, match=r"unet\.safetensors") as caught:
        artifacts.read_safetensors_header(path)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (b"PK\x03\x04" + b"\0" * 60, "pickled"),
        (b"\x80\x02}q\x00." + b"\0" * 60, "pickled"),
        (b"<!DOCTYPE html><html>404", "start like"),
        (struct.pack("<Q", 4) + b"[1,2]", "header"),
        (struct.pack("<Q", 4) + b"{{{{", "JSON"),
    ],
)
def test_foreign_files_are_told_apart(tmp_path, content, reason):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(BrokenWeights, match=reason):
        artifacts.read_safetensors_header(path)


@pytest.mark.parametrize("first", [b"\x80", b"PK"])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path, first):
    """Header lengths are arbitrary numbers: 0x1a80 bytes is one, and no pickle."""
    length = int.from_bytes(first.ljust(2, b"\x1a"), "little")
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}".ljust(length))
    assert artifacts.read_safetensors_header(path).parameters == 0


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F16", "shape": [3], "data_offsets": [0, 12]},
        {"dtype": "F16", "shape": [6], "data_offsets": [0]},
        {"dtype": "F16", "shape": "six", "data_offsets": [0, 12]},
        {"dtype": "F16", "shape": [6]},
        {"dtype": "F16", "shape": [5], "data_offsets": [2, 12]},
        {"dtype": "F16", "shape": [5], "data_offsets": [0, 10]},
        "nothing",
    ],
)
def test_headers_that_contradict_their_file_are_refused(tmp_path, entry):
    path = tensors_file(tmp_path / "a.safetensors", {"a": entry})
    with pytest.raises(BrokenWeights, match=r"a\.safetensors"):
        artifacts.read_safetensors_header(path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(MissingAsset, match=r"no\.safetensors"):
        artifacts.read_safetensors_header(tmp_path / "no.safetensors")


def test_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert artifacts.sha256(path).startswith("ba7816bf8f01cfea")


def test_a_picture_carries_its_job(tmp_path):
    image, path = Image.new("RGB", (4, 4), "red"), tmp_path / "a.png"
    spec = {"kind": "toybox_show", "prompt": "a dög ✓"}
    artifacts.write_png(path, image, spec)
    assert artifacts.read_png_spec(path) == spec
    assert Image.open(path).getpixel((0, 0)) == (255, 0, 0)
    artifacts.write_png(path, image)
    assert artifacts.read_png_spec(path) is None


def test_settings_too_large_for_a_picture_are_refused_both_ways(tmp_path):
    image, path = Image.new("RGB", (4, 4)), tmp_path / "a.png"
    with pytest.raises(BadInput, match="too large"):
        artifacts.write_png(path, image, {"prompt": "x" * artifacts.PNG_LIMIT})
    info = PngInfo()
    info.add_text(artifacts.PNG_KEY, json.dumps({"prompt": "x" * artifacts.PNG_LIMIT}))
    image.save(path, pnginfo=info)
    with pytest.raises(BadInput, match="too large"):
        artifacts.read_png_spec(path)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_damaged_settings_in_a_picture_are_refused(tmp_path, text):
    path, info = tmp_path / "a.png", PngInfo()
    info.add_text(artifacts.PNG_KEY, text)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    with pytest.raises(BadInput, match="damaged"):
        artifacts.read_png_spec(path)


def test_what_is_no_png_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"GIF89a")
    with pytest.raises(BadInput, match=r"a\.png"):
        artifacts.read_png_spec(path)
    with pytest.raises(MissingAsset):
        artifacts.read_png_spec(tmp_path / "none.png")


def test_tensors_round_trip_through_a_checked_file(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.safetensors"
    tensors = {"w": torch.arange(6, dtype=torch.float16).reshape(2, 3).t()}
    artifacts.save_safetensors(path, tensors, {"recipe": "test"})
    assert artifacts.read_safetensors_header(path).metadata["recipe"] == "test"
    assert torch.equal(artifacts.load_safetensors(path)["w"], tensors["w"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BrokenWeights, match="truncated"):
        artifacts.load_safetensors(path)
