"""The side panel: library, queue, bases, disk, and what their buttons do."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipelines.errors import BadInput, BrokenWeights, MissingAsset, NotAvailable, StateBusy, UnknownName
from pipelines.jobs import workspace
from pipelines.jobs.spec import Compose, Train, from_table
from studio import (
    base_manager,
    disk,
    library,
    panel,
    panel_bases,
    panel_disk,
    panel_library,
    panel_queue,
    panel_settings,
)
from studio.base_manager import Base
from studio.desk import Desk
from studio.panel_parts import asked
from studio.settings import SPACE_GPU, Settings

BASES = [
    {"base": "toybox", "title": "Toybox", "family": "toybox", "gigabytes": 0.02, "installed": True},
    {"base": "sdxl", "title": "Stable Diffusion XL", "family": "sdxl", "gigabytes": 6.94, "installed": False},
    {
        "base": "sd3",
        "title": "SD 3",
        "gated": True,
        "hub": "owner/sd3",
        "gigabytes": 15.5,
        "installed": False,
    },
]


class Fake:
    """A worker that answers by kind of job and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers = {"bases": {"rows": BASES}, "info": {"layout": "kohya", "family": "sd1", "words": {}}}
        self.asked = []

    def run(self, spec, job, folder=None):
        self.asked.append(spec)
        answer = self.answers.get(spec.kind, {})
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def worker():
    return Fake()


@pytest.fixture
def desk(tmp_path, worker):
    made = Desk(tmp_path / "ws", Settings(workspace=tmp_path / "ws"), {"cpu": worker}, worker)
    yield made  # never started: what is queued stays queued
    made.close()


def adapter(desk: Desk, name: str = "train-sks-dog-2", family: str = "toybox", **metadata: str) -> Path:
    folder = desk.folder / "runs" / name
    folder.mkdir(parents=True)
    about = {"likeness.family": family, "likeness.trigger": "sks dog", **metadata}
    save_file({"x.lora_A.weight": np.ones((2, 4), np.float32)}, folder / "adapter.safetensors", about)
    return folder


def finished(desk: Desk, name: str, kind: str = "compose", status: str = "done") -> Path:
    folder = desk.folder / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    workspace.write_run(folder, from_table({"kind": kind}), status)
    return folder


# ---- library


def test_a_trained_concept_is_shown_with_its_words_figures_and_best_sample(desk):
    folder = adapter(desk)
    (folder / "samples").mkdir()
    for name in ("step-000050-0.png", "step-000100-0.png", "step-000150-0.png"):
        (folder / "samples" / name).write_bytes(b"x")
    result = {"best_step": 100, "readings": {"step": 100, "dino_i": 0.7, "score": 1.0}}
    workspace.write_run(folder, Train(), "done", result)
    (entry,) = library.adapters(desk)
    assert (entry.reference, entry.title, entry.trigger) == ("run:train-sks-dog-2", "sks dog 2", "sks dog")
    assert (entry.base, entry.origin) == ("Toybox", "trained")
    assert entry.readings == {"dino_i": 0.7}
    assert entry.thumbnail.endswith("/runs/train-sks-dog-2/samples/step-000100-0.png")
    assert library.entry(desk, entry.reference) == entry


def test_damaged_files_and_foreign_references_are_no_concepts(desk, tmp_path):
    (adapter(desk) / "adapter.safetensors").write_bytes(b"junk")
    assert library.adapters(desk) == []
    with pytest.raises(MissingAsset):
        library.entry(desk, "run:train-sks-dog-2")
    with pytest.raises(BadInput):
        library.entry(desk, f"file:{tmp_path}")
    with pytest.raises(BadInput):
        library.entry(desk, "run:../../secret")


def test_a_name_is_kept_beside_the_run_and_shown_as_text(desk):
    adapter(desk)
    library.rename(desk, "run:train-sks-dog-2", "  <script>x</script>  ${y} ")
    (entry,) = library.adapters(desk)
    assert entry.title == "<script>x</script> ${y}"
    html = panel_library.section([entry])
    assert "<script>" not in html
    assert "${" not in html
    assert library.rename(desk, entry.reference, "").title == "sks dog 2"
    with pytest.raises(BadInput):
        library.rename(desk, entry.reference, "x" * 81)


def test_an_import_is_named_described_and_usable_as_a_run(desk, tmp_path):
    file = tmp_path / "my style.safetensors"
    save_file({"lora_unet_x.lora_down.weight": np.ones((2, 4), np.float32)}, file)
    entry = library.bring_in(desk, file)
    assert (entry.origin, entry.title, entry.base) == ("imported", "my style", "SD 1.5")
    assert entry.path.read_bytes() == file.read_bytes()
    assert entry.reference == "run:import-my-style"


@pytest.mark.parametrize(
    ("content", "error"), [(b"\x80\x02pickle..", BrokenWeights), (b"PK\x03\x04rest..", BrokenWeights)]
)
def test_pickles_are_refused_before_anything_is_copied(desk, tmp_path, content, error):
    file = tmp_path / "evil.safetensors"
    file.write_bytes(content)
    with pytest.raises(error, match="pickled"):
        library.bring_in(desk, file)
    assert list((desk.folder / "runs").iterdir()) == []


def test_an_import_that_is_no_adapter_leaves_nothing_behind(desk, worker, tmp_path):
    file = tmp_path / "base.safetensors"
    save_file({"x": np.ones(4, np.float32)}, file)
    worker.answers["info"] = {"layout": None, "family": None}
    with pytest.raises(BadInput, match="no adapter"):
        library.bring_in(desk, file)
    assert list((desk.folder / "runs").iterdir()) == []


def test_use_sends_the_concept_with_its_words(desk):
    adapter(desk)
    sent = panel_library.use(desk, "run:train-sks-dog-2")
    assert sent["to"] == "compose"
    assert sent["table"] == {
        "adapters": [{"adapter": "run:train-sks-dog-2", "weight": 1.0}],
        "prompts": ["a sks dog"],
    }


def test_export_asks_the_worker_and_links_to_what_it_packed(desk, worker):
    folder = adapter(desk)
    worker.answers["export"] = {"file": str(folder / "exports" / "dog.zip"), "bytes": 1234}
    html = panel_library.packing(desk, "run:train-sks-dog-2\nkohya")
    assert worker.asked[-1].layout == "kohya"
    assert worker.asked[-1].base == "toybox"
    assert "/studio/work/runs/train-sks-dog-2/exports/dog.zip" in html
    with pytest.raises(BadInput):
        panel_library.packing(desk, "run:train-sks-dog-2\npickle")


def test_two_concepts_of_one_base_are_merged_by_shares(desk):
    adapter(desk, "train-a")
    adapter(desk, "train-b")
    adapter(desk, "train-c", family="sdxl")
    ident = panel_library.merge(desk, "run:train-a", "run:train-b", 0.7)
    spec = desk.store.get(ident).spec
    assert [(each.adapter, each.weight) for each in spec.adapters] == [
        ("run:train-a", 0.7),
        ("run:train-b", 0.3),
    ]
    with pytest.raises(BadInput, match="SDXL"):
        panel_library.merge(desk, "run:train-a", "run:train-c", 0.5)
    with pytest.raises(BadInput, match="two different"):
        panel_library.merge(desk, "run:train-a", "run:train-a", 0.5)


# ---- queue


def line(desk: Desk, *prompts: str) -> list[int]:
    return [desk.submit(Compose(prompts=(each,), device="cpu")) for each in prompts]


def order(desk: Desk) -> list[int]:
    return [each.id for each in desk.store.waiting("cpu")]


def test_waiting_jobs_are_moved(desk):
    a, b, c = line(desk, "a", "b", "c")
    panel_queue.shift(desk, c, "up")
    assert order(desk) == [a, c, b]
    panel_queue.shift(desk, a, "down")
    assert order(desk) == [c, a, b]
    panel_queue.shift(desk, b, "first")
    assert order(desk) == [b, c, a]
    panel_queue.shift(desk, b, "up")
    panel_queue.shift(desk, a, "down")
    assert order(desk) == [b, c, a]


def test_a_job_moves_past_those_of_a_higher_priority(desk):
    (low,) = line(desk, "low")
    high = desk.submit(Compose(prompts=("high",), device="cpu"), priority=5)
    panel_queue.shift(desk, low, "first")
    assert order(desk) == [low, high]
    desk.cancel(low)
    with pytest.raises(BadInput, match="does not wait"):
        panel_queue.shift(desk, low, "first")


def test_all_that_waits_is_stopped_and_what_runs_goes_on(desk):
    a, b, c = line(desk, "a", "b", "c")
    desk.store.claim("cpu", a)
    panel_queue.stop_waiting(desk)
    assert [desk.store.get(each).status for each in (a, b, c)] == ["running", "cancelled", "cancelled"]


def test_the_queue_says_what_runs_waits_and_failed_and_why(desk):
    a, b, c = line(desk, "<i>one</i>", "two", "three")
    desk.store.claim("cpu", a)
    html = panel_queue.section(desk)
    assert "<i>one" not in html
    assert f"Job {a} (compose) is running on cpu" in html
    assert "1 waiting job before it." in html
    desk.store.finish(a, "failed", error={"type": "BadInput", "message": "It broke.", "remedy": "Mend it."})
    for each in (b, c):
        desk.cancel(each)
    html = panel_queue.section(desk)
    assert "It broke. Mend it." in html
    assert html.count('data-act="again"') == 3


def test_the_time_left_comes_from_what_is_done(desk):
    (ident,) = line(desk, "a")
    desk.store.claim("cpu", ident)
    from pipelines.progress import Event

    desk.store.log(ident, Event("report", 25, 100))
    row = desk.store.get(ident)
    assert panel_queue.left(row, row.started + 50) == "about 2 min 30 s left"
    assert panel_queue.left(desk.store.get(ident), row.started) == ""


def test_only_long_jobs_are_told_of(desk, monkeypatch):
    short, long = line(desk, "short", 'long "quoted"')
    clock = [1000.0]
    monkeypatch.setattr("pipelines.jobs.store.time.time", lambda: clock[0])
    for ident, took in ((short, 5), (long, 65)):
        desk.store.claim("cpu", ident)
        clock[0] += took
        desk.store.finish(ident, "done", {})
    html = panel.ended(desk)
    assert "1 min 5 s" in html
    assert "short" not in html
    assert '"quoted"' not in html


# ---- bases


def test_the_chosen_base_is_kept_and_falls_back_where_it_is_gone(desk):
    assert base_manager.chosen(desk) == "toybox"
    base_manager.choose(desk, "sdxl")
    assert base_manager.chosen(desk) == "sdxl"
    with pytest.raises(UnknownName):
        base_manager.choose(desk, "sdxxl")
    desk.keep("base", {"name": "/gone/model"})
    assert base_manager.chosen(desk) == "toybox"


def test_bases_are_told_by_the_worker_and_say_whether_they_fit(desk, worker):
    worker.answers["doctor"] = {"gpus": [{"gpu": "RTX", "free": 7e9, "total": 8e9}]}
    told = base_manager.look(desk, gpus=True)
    assert {each.name for each in base_manager.listing(desk)} >= {"toybox", "sdxl", "sd3", "sd15"}
    html = panel_bases.section(desk)
    assert "will not hold a real dog&#x27;s face" in html
    assert "Download 6.9 GB" in html
    assert "taking turns" in html
    assert "Too large for this GPU" in html
    assert "accept its licence" in html
    assert told.gpus
    assert "7.0 GB of 8.0 GB free" in panel_bases.device_now(desk)


@pytest.mark.parametrize(
    ("gigabytes", "free", "gpu", "kind"),
    [
        (7, 24, True, "good"),
        (7, 10, True, "good"),
        (7, 7, True, "warning"),
        (7, 4, True, "bad"),
        (7, 16, False, "warning"),
        (7, 8, False, "bad"),
    ],
)
def test_a_base_fits_or_not(gigabytes, free, gpu, kind):
    base = Base("sdxl", "SDXL", bytes=int(gigabytes * 1e9))
    assert base_manager.fits(base, free * 1e9, gpu)[0] == kind
    assert base_manager.fits(Base("toybox", "Toybox"), 0, False)[0] == "good"


def test_a_download_is_queued_once(desk):
    one = base_manager.download(desk, "sdxl")
    assert base_manager.download(desk, "sdxl") == one
    assert desk.store.get(one).spec.kind == "fetch"
    assert "being fetched" in panel_bases.section(desk)


def test_a_fetched_base_counts_as_here_without_asking_again(desk, worker):
    base_manager.look(desk)
    ident = base_manager.download(desk, "sdxl")
    desk.store.claim("cpu", ident)
    desk.store.finish(ident, "done", {})
    assert next(each for each in base_manager.listing(desk) if each.name == "sdxl").installed


def test_a_folder_is_added_once_the_worker_found_it_whole(desk, worker, tmp_path):
    worker.answers["info"] = {"bytes": 5 * 10**9, "family": "sdxl", "title": "SDXL"}
    made = base_manager.add(desk, f' "{tmp_path}" ')
    assert (made.name, made.local, made.bytes) == (str(tmp_path), True, 5 * 10**9)
    assert worker.asked[-1].as_base
    assert str(tmp_path) in desk.base_names()
    base_manager.choose(desk, str(tmp_path))
    base_manager.remove(desk, str(tmp_path))
    assert base_manager.chosen(desk) == "toybox"
    worker.answers["info"] = BrokenWeights(tmp_path, "it is empty")
    with pytest.raises(BrokenWeights):
        base_manager.add(desk, str(tmp_path))
    assert str(tmp_path) not in desk.base_names()
    with pytest.raises(BadInput, match="full path"):
        base_manager.add(desk, "models/x")


@pytest.mark.parametrize("how", [{"share": True}, {"host": "192.168.1.20"}, {"hosting": SPACE_GPU}])
def test_others_name_no_files_and_no_tokens(tmp_path, worker, how):
    desk = Desk(tmp_path / "ws", Settings(workspace=tmp_path / "ws", **how), {"cpu": worker}, worker)
    with pytest.raises(NotAvailable):
        base_manager.add(desk, str(tmp_path))
    with pytest.raises(NotAvailable):
        base_manager.sign_in(desk, "hf_" + "a" * 30)
    with pytest.raises(NotAvailable):
        base_manager.sign_out(desk)
    with pytest.raises(NotAvailable):
        panel_settings.examined(desk)
    assert worker.asked == []
    assert str(tmp_path) not in panel_settings.facts(desk)
    desk.close()


def test_a_token_is_kept_by_the_hub_alone(desk, monkeypatch):
    secret, kept = "hf_" + "S3cret" * 5, []
    monkeypatch.setattr("huggingface_hub.login", lambda token, **named: kept.append(token))
    base_manager.sign_in(desk, f" {secret} ")
    assert kept == [secret]
    assert not [
        each for each in desk.folder.rglob("*") if each.is_file() and secret.encode() in each.read_bytes()
    ]

    def refuse(token, **named):
        raise ConnectionError(f"cannot send {token}")

    monkeypatch.setattr("huggingface_hub.login", refuse)
    with pytest.raises(NotAvailable) as caught:
        base_manager.sign_in(desk, secret)
    assert secret not in f"{caught.value} {caught.value.remedy}"
    with pytest.raises(BadInput, match="no token"):
        base_manager.sign_in(desk, "password")


# ---- disk


def test_runs_are_measured_the_largest_first(desk):
    (finished(desk, "small") / "a.png").write_bytes(b"x" * 10)
    (finished(desk, "large", "train") / "b.png").write_bytes(b"x" * 5000)
    first, second = disk.uses(desk)
    assert (first.name, first.kind, second.name) == ("large", "train", "small")
    assert first.bytes > 5000


def test_the_bin_gives_back_what_it_took(desk):
    folder = adapter(desk)
    library.rename(desk, "run:train-sks-dog-2", "Rex")
    before = sorted(each.name for each in folder.iterdir())
    item = disk.throw_away(desk, folder.name)
    assert item.title == "Rex"
    assert library.adapters(desk) == []
    assert disk.restore(desk, item.key) == folder.name
    assert sorted(each.name for each in folder.iterdir()) == before
    assert disk.binned(desk) == []
    for name in ("../ws", "", "nothing"):
        with pytest.raises(MissingAsset):
            disk.throw_away(desk, name)


def test_a_place_that_was_taken_meanwhile_is_not_overwritten(desk):
    adapter(desk)
    item = disk.throw_away(desk, "train-sks-dog-2")
    adapter(desk)
    with pytest.raises(BadInput, match="another run"):
        disk.restore(desk, item.key)


def test_what_a_waiting_job_needs_stays(desk):
    adapter(desk)
    finished(desk, "train-sks-dog-2", "train")
    (desk.folder / "runs" / "train-sks-dog-2" / "checkpoints").mkdir()
    spec = {"kind": "compose", "prompts": ["a"], "adapters": [{"adapter": "run:train-sks-dog-2"}]}
    ident = desk.submit(from_table(spec))
    with pytest.raises(StateBusy):
        disk.throw_away(desk, "train-sks-dog-2")
    assert disk.freed(desk, "checkpoints") == []
    assert "in use" in panel_disk.section(desk)
    desk.cancel(ident)
    assert [each.name for each in disk.freed(desk, "checkpoints")] == ["checkpoints"]


def test_clean_ups_take_what_they_name_and_nothing_else(desk):
    now = time.time()
    for name, kind, status, days in (
        ("old", "compose", "done", 40), ("new", "compose", "done", 1), ("concept", "train", "done", 400),
        ("half", "train", "cancelled", 1),
    ):  # fmt: skip
        folder = finished(desk, name, kind, status)
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "x").write_bytes(b"x" * 1000)
        os.utime(folder, (now - days * 86_400, now - days * 86_400))
    assert panel_disk.done(desk, "clean", "checkpoints", 30) == "1.0 KB are free again."
    left = {each.name for each in (desk.folder / "runs").iterdir() if (each / "checkpoints").exists()}
    assert left == {"old", "new", "half"}
    disk.clean(desk, "pictures", 30)
    assert {each.name for each in (desk.folder / "runs").iterdir()} == {"new", "concept", "half"}
    disk.throw_away(desk, "new")
    assert disk.clean(desk, "bin") > 1000
    assert disk.binned(desk) == []
    with pytest.raises(BadInput):
        panel_disk.done(desk, "clean", "runs", 30)


def test_everything_of_a_visitor_goes(desk):
    adapter(desk)
    desk.keep("compose", {"prompts": ["mine"]})
    ident = desk.submit(Compose(prompts=("a",)))
    assert disk.delete_all(desk) > 0
    assert desk.store.jobs() == []
    assert list((desk.folder / "runs").iterdir()) == []
    assert "mine" not in (desk.folder / "drafts.json").read_text()
    with pytest.raises(UnknownName):
        desk.store.get(ident)


# ---- settings


def test_the_doctor_is_a_list_with_signs_and_fixes():
    rows = [
        {"check": "disk", "found": "<b>1 GB</b>", "ok": False, "fix": "Free some."},
        {"check": "python", "found": "3.11", "ok": True, "fix": ""},
    ]
    html = panel_settings.table({"ok": False, "rows": rows})
    assert "Free some." in html
    assert "<b>1 GB" not in html
    assert html.count("<li") == 2
    assert "needs a hand" in html


def test_a_field_comes_after_the_value_of_its_button():
    assert asked("run:a\nMy\ndog") == ("run:a", "My\ndog")
    assert asked("run:a") == ("run:a", "")


def test_notices_travel_as_json(desk):
    told = panel.ended(desk)
    assert json.loads(told.split('data-jobs="')[1].split('"')[0]) == []
