"""Fetching bases, packing adapters, and looking at what a base is."""

import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipelines.artifacts import assets
from pipelines.base import known
from pipelines.errors import BadInput, BrokenWeights, Cancelled, MissingAsset, NotAvailable, UnknownName
from pipelines.jobs.library import Export, Fetch
from pipelines.jobs.queries import Info
from pipelines.progress import Event, Job
from pipelines.worker import run
from pipelines.worker.library import base_at

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKENESS_WORKSPACE", str(tmp_path))
    folder = tmp_path / "runs" / "train-dog"
    folder.mkdir(parents=True)
    tensors = {f"{LAYER}.lora_A.weight": torch.ones(4, 320), f"{LAYER}.lora_B.weight": torch.ones(320, 4)}
    save_file(
        tensors, folder / "adapter.safetensors", {"likeness.trigger": "sks dog", "likeness.family": "sd1"}
    )
    return tmp_path


def packed(result) -> zipfile.ZipFile:
    return zipfile.ZipFile(result["file"])


def test_an_adapter_travels_with_its_card_and_the_samples_that_it_shows(workspace):
    folder = workspace / "runs" / "train-dog"
    (folder / "samples").mkdir()
    (folder / "samples" / "one.png").write_bytes(b"picture")
    (folder / "samples" / "two.png").write_bytes(b"another")
    (workspace / "secret.png").write_bytes(b"not ours")
    text = "# sks dog\n\n![sample 1](samples/one.png)\n![x](../../secret.png)\n![x](samples/gone.png)\n"
    (folder / "card.md").write_text(text)
    result = run(Export(adapter="run:train-dog"), Job())
    with packed(result) as archive:
        assert archive.namelist() == ["adapter.safetensors", "README.md", "samples/one.png"]
        assert archive.read("adapter.safetensors") == (folder / "adapter.safetensors").read_bytes()
        assert archive.read("README.md").decode() == text
    assert result["contents"] == ["adapter.safetensors", "README.md", "samples/one.png"]
    assert Path(result["file"]).parent == folder / "exports"


def test_a_file_without_a_card_gets_one_that_admits_what_is_not_known(workspace):
    with packed(run(Export(adapter="run:train-dog"), Job())) as archive:
        card = archive.read("README.md").decode()
    assert "sks dog" in card
    assert "SD 1.5" in card
    assert "licence" in card


def test_an_adapter_is_written_in_the_words_of_another_program(workspace):
    result = run(Export(adapter="run:train-dog", layout="kohya"), Job())
    with packed(result) as archive:
        weights = workspace / "back.safetensors"
        weights.write_bytes(archive.read("adapter.safetensors"))
    about = run(Info(file=str(weights)), Job())
    assert about["layout"] == "kohya"
    assert about["rank"] == 4
    assert result["file"].endswith("train-dog-kohya.zip")


def test_what_is_no_adapter_is_not_packed(workspace):
    (workspace / "runs" / "train-dog" / "adapter.safetensors").write_bytes(b"\x80\x02pickle")
    with pytest.raises(BrokenWeights, match="pickled"):
        run(Export(adapter="run:train-dog"), Job())
    assert not (workspace / "runs" / "train-dog" / "exports").exists()


@pytest.mark.parametrize(("base", "error"), [("sd16", UnknownName), ("toybox", BadInput), ("", UnknownName)])
def test_only_bases_of_the_hub_are_fetched(base, error):
    with pytest.raises(error):
        run(Fetch(base=base), Job())


def test_a_base_that_does_not_fit_on_the_disk_is_not_begun(monkeypatch):
    monkeypatch.setattr(known, "cached", lambda hub, variant="": None)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": 10**9})())
    with pytest.raises(NotAvailable, match=r"2\.1 GB, and 1\.0 GB are free"):
        run(Fetch(base="sd15"), Job())


class _Listed:
    def __init__(self) -> None:
        self.siblings = [
            type("S", (), {"rfilename": name, "size": size})()
            for name, size in {"model_index.json": 10, "unet/a.safetensors": 90}.items()
        ]

    def model_info(self, hub, files_metadata):
        return self


def test_a_fetch_tells_of_bytes_as_they_come_and_stops_within_a_file(tmp_path, monkeypatch):
    job, seen = Job(), []

    def hear(event: Event) -> None:
        seen.append((event.step, event.total))
        if event.step == 40:
            job.cancel()

    job.subscribe(lambda event: hear(event) if event.kind == "report" else None)

    def download(hub, name, tqdm_class, **named):
        with tqdm_class(total=90, initial=0) as bar:
            for size in (10,) if name == "model_index.json" else (30, 30, 30):
                bar.update(size)
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.HfApi", _Listed)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr(
        known, "wanted", lambda names, variant, only=False: ["model_index.json", "unet/a.safetensors"]
    )
    with pytest.raises(Cancelled):
        known.fetch("somebody/tiny", job)
    assert [step for step, _ in seen] == [10, 10, 40]


def test_a_base_folder_says_what_it_is():
    about = run(Info(file=str(assets() / "toybox")), Job())
    assert about["family"] == "toybox"
    assert about["title"] == "Toybox"
    assert about["bytes"] > 10**6


def test_what_is_no_base_is_refused(tmp_path, workspace):
    with pytest.raises(MissingAsset):
        base_at(tmp_path)
    with pytest.raises(BrokenWeights, match="an adapter, not a base"):
        run(Info(file="run:train-dog/adapter.safetensors", as_base=True), Job())
    (tmp_path / "x.ckpt").write_bytes(b"PK")
    with pytest.raises(BrokenWeights, match="pickled"):
        run(Info(file=str(tmp_path / "x.ckpt"), as_base=True), Job())
