"""A desk: jobs, files and drafts of one visitor, and nobody else's."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.artifacts import assets
from pipelines.errors import BadInput, DiskFull, LikenessError, MissingAsset, NotAvailable, UnknownName
from pipelines.jobs import workspace
from pipelines.jobs.spec import Check, Compose, Info, Train, from_table
from pipelines.jobs.store import FILE, Store
from studio.desk import Desk
from studio.settings import SPACE, Settings


class Runner:
    """Does what a test tells it to, after `go`."""

    def __init__(self):
        self.seen, self.go, self.raises = [], threading.Event(), None
        self.go.set()

    def run(self, spec, job, folder: Any = None):
        self.seen.append(spec)
        while not self.go.wait(0.01):
            job.check()
        if self.raises:
            raise self.raises
        job.report(1, 2, loss=0.5)
        job.preview(b"jpeg")
        return {"out": str(folder / "runs" / "x"), "n": len(self.seen)}


@pytest.fixture
def runner():
    return Runner()


@pytest.fixture
def desk(tmp_path, runner):
    made = Desk(tmp_path / "mine", Settings(workspace=tmp_path), {"cpu": runner}, runner, "/root")
    made.start()
    yield made
    runner.go.set()
    made.close()


def ended(desk, ident, status="done"):
    deadline = time.monotonic() + 10
    while (row := desk.store.get(ident)).status in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert row.status == status
    return row


def photo(folder: Path, name="a.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes((assets() / "toybox" / "sheet.png").read_bytes()[:5000])
    return path


# ---- jobs


def test_a_job_runs_and_everything_that_happens_is_a_change(desk):
    before, others = desk.stamp("compose"), desk.stamp("train")
    ident = desk.submit(Compose(prompts=("a dog",)))
    assert ended(desk, ident).result["n"] == 1
    assert desk.stamp("compose") > before
    assert desk.stamp("train") == others
    assert desk.stamp() != ()
    assert desk.latest("compose").id == ident
    assert desk.preview(ident) == (1, b"jpeg")
    assert desk.preview_url(ident) == f"/root/studio/preview/{ident}?n=1"


def test_two_trainings_at_once_wait_for_each_other_in_folders_of_their_own(desk, runner):
    runner.go.clear()
    spec = Train.model_validate({"data": {"photos": "asset:photos/dog", "class_word": "dog"}})
    first, second = desk.submit(spec), desk.submit(spec)
    deadline = time.monotonic() + 10
    while not runner.seen:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [row.status for row in desk.active()] == ["running", "queued"]
    runner.go.set()
    folders = {ended(desk, each).spec.out for each in (first, second)}
    assert len(folders) == 2
    assert all(folder.parent == desk.folder / "runs" for folder in folders)


def test_a_failed_job_can_be_repeated_and_a_stopped_one_too(desk, runner):
    runner.raises = LikenessError("No memory is left.", "Choose less.")
    ident = desk.submit(Compose(prompts=("a dog",)))
    assert ended(desk, ident, "failed").error["remedy"] == "Choose less."
    runner.raises = None
    again = desk.again(ident)
    assert again != ident
    ended(desk, again)
    runner.go.clear()
    stopped = desk.submit(Compose(prompts=("a cat",)))
    with pytest.raises(BadInput, match=r"is (queued|running)"):
        desk.again(stopped)
    desk.cancel(stopped)
    ended(desk, stopped, "cancelled")


def test_a_training_goes_on_from_its_checkpoint_under_its_number(desk, runner):
    runner.raises = LikenessError("It broke.", "Go on.")
    spec = Train.model_validate({"data": {"photos": "asset:photos/dog", "class_word": "dog"}})
    ident = desk.submit(spec)
    out = ended(desk, ident, "failed").spec.out
    (out / "checkpoints" / "step-000010").mkdir(parents=True)
    (out / "checkpoints" / "step-000010" / "complete").touch()
    runner.raises = None
    assert desk.again(ident) == ident
    ended(desk, ident)
    assert runner.seen[-1].resume
    assert runner.seen[-1].out == out


def test_light_jobs_are_answered_at_once_and_heavy_ones_are_not(desk, runner):
    assert desk.ask(Check(photos="asset:photos/dog"))["n"] == 1
    assert desk.store.count() == 0
    with pytest.raises(BadInput, match="wait its turn"):
        desk.ask(Compose(prompts=("a dog",)))


def test_no_job_begins_without_room_for_its_result(desk, monkeypatch):
    monkeypatch.setattr(Desk, "free_bytes", lambda self: 1000)
    with pytest.raises(DiskFull):
        desk.submit(Compose(prompts=("a dog",)))
    assert desk.store.count() == 0


def test_one_visitor_cannot_flood_a_shared_queue(tmp_path, runner):
    shared = Settings(workspace=tmp_path, hosting=SPACE)
    desk = Desk(tmp_path / "visitor", shared, {"cpu": runner}, runner)  # never started: everything waits
    for _ in range(8):
        desk.submit(Compose(prompts=("a dog",)))
    with pytest.raises(BadInput, match="waiting already"):
        desk.submit(Compose(prompts=("a dog",)))
    desk.store.close()


# ---- whose files


def hostile(path):
    """Jobs that name a file in every place where a job can."""
    inner = {"prompts": ["a dog"]}
    return [
        {"kind": "compose", "prompts": ["a"], "start": path},
        {"kind": "compose", "prompts": ["a"], "mask": path},
        {"kind": "compose", "prompts": ["a"], "references": path},
        {"kind": "compose", "prompts": ["a"], "adapters": [{"adapter": path}]},
        {"kind": "compose", "prompts": ["a"], "reference": {"method": "ip_adapter", "images": [path]}},
        {"kind": "compose", "prompts": ["a"], "reference": {"method": "ip_adapter", "images": path}},
        {"kind": "compose", "prompts": ["a"], "reference": {"method": "ip_adapter", "weights": path}},
        {"kind": "compose", "prompts": ["a"], "reference": {"method": "ip_adapter", "encoder": path}},
        {"kind": "edit", "prompts": ["a"], "image": path},
        {"kind": "edit", "prompts": ["a"], "image": "asset:toybox/sheet.png", "mask": path},
        {"kind": "train", "data": {"photos": path}},
        {
            "kind": "train",
            "data": {"photos": "asset:photos/dog"},
            "concept": {"method": "dreambooth_lora", "prior_folder": path},
        },
        {"kind": "check", "photos": path},
        {"kind": "caption", "photos": path},
        {"kind": "score", "images": ["asset:toybox/sheet.png", path]},
        {"kind": "score", "images": ["asset:toybox/sheet.png"], "references": path},
        {"kind": "info", "file": path},
        {"kind": "export", "adapter": path},
        {"kind": "merge", "adapters": [{"adapter": path}]},
        {"kind": "compare", "job": {**inner, "start": path}, "axes": [{"path": "seed", "values": [1]}]},
        {"kind": "compare", "job": inner, "axes": [{"path": "start", "values": ["", path]}]},
        {"kind": "compare", "job": inner, "axes": [{"path": "adapters.0", "values": [{"adapter": path}]}]},
        {
            "kind": "compare",
            "job": inner,
            "axes": [
                {"path": "seed", "values": [1]},
                {"path": "reference.method", "values": ["ip_adapter"]},
                {"path": "reference.weights", "values": [path]},
            ],
        },
        {
            "kind": "compare",
            "job": {"kind": "edit", "prompts": ["a"], "image": "asset:toybox/sheet.png"},
            "axes": [{"path": "image", "values": ["asset:toybox/sheet.png", path]}],
        },
    ]


@pytest.mark.parametrize("number", range(len(hostile(""))))
def test_no_job_reaches_a_file_that_is_not_the_visitors(desk, tmp_path, number):
    other = photo(tmp_path / "other" / "runs" / "secret")
    link = desk.folder / "uploads" / "linked"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(other.parent)
    for path in (
        str(other), f"file:{other}", "/etc/passwd", "~/secret", "upload:../jobs.db",
        "run:../../other/runs/secret",
        "upload:/etc/passwd", "upload:linked", "upload:linked/a.png", "asset:../pyproject.toml", "run:..\\x",
        "upload:a\0b",
    ):  # fmt: skip
        spec = from_table(hostile(path)[number])
        with pytest.raises((BadInput, MissingAsset)):
            desk.allowed(spec)


def test_ones_own_files_are_taken_in_all_these_places(desk):
    mine = photo(desk.folder / "uploads" / "mine")
    assert mine.is_file()
    for table in hostile("upload:mine/a.png"):
        desk.allowed(from_table(table))


@pytest.mark.parametrize("base", ["/etc", "../other", "file:/etc", "owner/name", "/etc/passwd.safetensors"])
def test_a_base_is_one_of_the_list(desk, base):
    compare = {"kind": "compare", "job": {"prompts": ["a"]}, "axes": [{"path": "base", "values": [base]}]}
    for table in ({"kind": "compose", "base": base}, {"kind": "train", "base": base}, compare):
        with pytest.raises(BadInput, match="not among the bases"):
            desk.allowed(from_table(table))


def test_results_go_nowhere_else(desk, tmp_path):
    for out in (
        tmp_path / "elsewhere",
        Path("/var/x"),
        desk.folder / "runs" / ".." / ".." / "x",
        desk.folder,
    ):
        with pytest.raises(BadInput, match="not yours to choose"):
            desk.allowed(Compose(prompts=("a",), out=out))
    inside = desk.folder / "runs" / "x"
    assert desk.allowed(Compose(prompts=("a",), out=inside)).kind == "compose"


def test_files_of_this_machine_are_only_for_its_own_user(desk, tmp_path, runner):
    path = photo(tmp_path / "anywhere")
    assert desk.ask_here(Info(file=str(path)))["n"] == 1
    shared = Desk(tmp_path / "visitor", Settings(workspace=tmp_path, hosting=SPACE), {"cpu": runner}, runner)
    with pytest.raises(NotAvailable):
        shared.ask_here(Info(file=str(path)))
    shared.store.close()


# ---- names and addresses


def test_files_have_addresses_and_references_only_inside_the_workspace(desk, tmp_path):
    run = photo(desk.folder / "runs" / "a dog", "ä#1.png")
    assert desk.reference(run) == "run:a dog/ä#1.png"
    assert desk.url(run) == "/root/studio/work/runs/a%20dog/%C3%A4%231.png"
    assert desk.url("run:a dog/ä#1.png") == desk.url(run)
    assert desk.path("run:a dog/ä#1.png") == run
    assert desk.url(assets() / "toybox" / "sheet.png") == "/root/studio/asset/toybox/sheet.png"
    outside = photo(tmp_path / "outside")
    assert desk.url(outside) == ""
    assert not desk.owns(outside)
    for each in (outside, Path("runs/x.png"), desk.folder / "jobs.db"):
        with pytest.raises(BadInput):
            desk.reference(each)


def test_own_pictures_are_borrowed_as_copies(desk):
    reference = desk.borrow("asset:photos/dog", "Dog")
    assert reference == "upload:dog"
    home = workspace.resolve(reference, folder=desk.folder)
    assert len(list(home.glob("*.jpg"))) == len(list((assets() / "photos" / "dog").glob("*.jpg")))
    assert desk.borrow("asset:photos/dog", "Dog") == "upload:dog-2"
    with pytest.raises(BadInput):
        desk.borrow("/etc", "etc")


# ---- drafts


def test_drafts_survive_a_restart_and_damage(desk, tmp_path, runner):
    desk.keep("compose", {"seed": 3, "prompts": ["ä"]})
    again = Desk(desk.folder, desk.settings, {"cpu": runner}, runner)
    assert again.draft("compose") == {"seed": 3, "prompts": ["ä"]}
    assert again.draft("other") == {}
    again.store.close()
    for damage in (b"", b"{", b"[1]", b"\xff", b'{"a":' * 5000):
        (desk.folder / "drafts.json").write_bytes(damage)
        fresh = Desk(desk.folder, desk.settings, {"cpu": runner}, runner)
        assert fresh.draft("compose") == {}
        fresh.store.close()


def test_what_a_page_keeps_is_written_once(desk):
    desk.keep("a", {"n": 1})
    stamp = (desk.folder / "drafts.json").stat().st_mtime_ns
    desk.keep("a", {"n": 1})
    assert (desk.folder / "drafts.json").stat().st_mtime_ns == stamp
    assert json.loads((desk.folder / "drafts.json").read_text())["a"] == {"n": 1}


def test_unknown_jobs_are_told(desk):
    for act in (desk.cancel, desk.again):
        with pytest.raises(UnknownName):
            act(99)


def test_a_job_of_another_process_shows_in_an_open_page(desk):
    first, stamp = desk.pulse(), desk.stamp("compose")
    assert desk.pulse() == first
    other = Store(desk.folder / FILE)
    ident = other.add(Compose(prompts=("a dog",)), device="elsewhere")
    other.claim("elsewhere", ident)
    assert desk.stamp("compose") == stamp
    other.finish(ident, "done", {"out": "runs/x"})
    other.close()
    second = desk.pulse()
    assert second != first
    assert desk.stamp("compose") != stamp
    assert desk.pulse() == second
