"""The hall: whose desk, whose files, and when they go."""

import os

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from pipelines.errors import BadInput
from pipelines.jobs.spec import Compose
from studio import guards
from studio.hall import Hall
from studio.settings import SPACE, Settings

OWN, OTHER = "A" * 43, "B" * 43


class Runner:
    def __init__(self):
        self.closed = False

    def run(self, spec, job, folder=None):
        job.preview(b"jpeg")
        return {}

    def close(self):
        self.closed = True


@pytest.fixture
def local(tmp_path):
    hall = Hall(Settings(workspace=tmp_path), {"cpu": Runner()})
    yield hall
    hall.close()


@pytest.fixture
def shared(tmp_path):
    hall = Hall(Settings(workspace=tmp_path, hosting=SPACE), {"cpu": Runner()})
    yield hall
    hall.close()


def client(hall, visitor=""):
    app = Starlette(routes=hall.routes)
    if hall.settings.hosting.kind != "local":
        app = guards.Visitors(app)
    headers = {guards.HEADER: visitor} if visitor else {}
    return TestClient(app, base_url="http://127.0.0.1", headers=headers, raise_server_exceptions=True)


def put(folder, name, data=b"x"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


class Request:
    def __init__(self, visitor):
        self.headers, self.cookies = {guards.HEADER: visitor}, {}


def test_on_ones_own_machine_there_is_one_desk(local):
    assert local.desk(None) is local.desk(Request(OWN))


def test_on_a_shared_one_everybody_has_their_own(shared):
    mine, other = shared.desk(Request(OWN)), shared.desk(Request(OTHER))
    assert mine is shared.desk(Request(OWN))
    assert mine.folder != other.folder
    assert OWN not in str(mine.folder)  # a folder's name tells no secret
    with pytest.raises(BadInput):
        shared.desk(Request(""))


def test_pictures_are_shown_and_everything_else_is_downloaded(local):
    home = local.desk(None).folder
    put(home, "runs/a/1.png")
    put(home, "runs/a/page.html", b"<script>")
    put(home, "runs/a/x.svg", b"<svg onload=alert(1)>")
    shown = client(local).get("/studio/work/runs/a/1.png")
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
    assert "content-disposition" not in shown.headers
    for name in ("page.html", "x.svg"):
        answer = client(local).get(f"/studio/work/runs/a/{name}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "address",
    [
        "work/jobs.db", "work/drafts.json", "work/locks/cpu.lock", "work/presets/x.toml", "work/runs",
        "work/runs/a/.hidden.png", "work/runs/.b/1.png", "work/runs/a/part.lock", "work/runs/../jobs.db",
        "work/runs/%2e%2e/jobs.db", "work/..%2f..%2fetc/passwd", "work//etc/passwd", "work/%2fetc/passwd",
        "work/runs/linked/secret.png", "work/runs/a/x%00.png", "work/runs/" + "a" * 5000, "work/runs/a/b.db",
        "asset/../pyproject.toml", "asset/demo.png", "asset/%2e%2e/README.md", "preview/1",
        "preview/99999999", "export/../../etc", "export/x%0d%0aset-cookie:a", "work/visitors/x/runs/1.png",
    ],
)  # fmt: skip
def test_nothing_else_is_served(local, tmp_path, address):
    home = local.desk(None).folder
    for name in (
        "drafts.json", "locks/cpu.lock", "presets/x.toml", "runs/a/.hidden.png", "runs/.b/1.png",
        "runs/a/b.db", "runs/a/part.lock", "visitors/x/runs/1.png",
    ):  # fmt: skip
        put(home, name)
    secret = put(tmp_path.parent, "outside/secret.png")
    if not (home / "runs" / "linked").exists():
        (home / "runs" / "linked").symlink_to(secret.parent)
    assert client(local).get(f"/studio/{address}").status_code == 404


def test_files_are_only_for_whom_they_belong_to(shared):
    mine = shared.desk(Request(OWN))
    put(mine.folder, "runs/a/1.png")
    assert client(shared, OWN).get("/studio/work/runs/a/1.png").status_code == 200
    shared.desk(Request(OTHER))
    for visitor in (OTHER, "", "C" * 43):
        other = client(shared, visitor)
        assert other.get("/studio/work/runs/a/1.png").status_code == 404
        assert other.get(f"/studio/work/../../{mine.folder.name}/runs/a/1.png").status_code == 404
        assert other.get("/studio/preview/1").status_code == 404


def test_asking_for_files_opens_no_workspace(shared, tmp_path):
    for number in range(5):
        client(shared, f"{number}" * 43).get("/studio/work/runs/a/1.png")
        client(shared).get("/studio/preview/1")
    assert not (tmp_path / "visitors").exists()


def test_visitors_who_left_are_cleared_and_those_who_work_are_not(shared, tmp_path):
    left, stays = shared.desk(Request(OWN)), shared.desk(Request(OTHER))
    hours = shared.settings.hosting.keep_hours * 3600
    now = left.used + hours + 7200
    stays.used = now
    folder = left.folder
    for each in (folder, *folder.iterdir()):
        os.utime(each, (now - hours - 3600,) * 2)
    assert shared.sweep(now) == [folder.name]
    assert not folder.exists()
    assert stays.folder.exists()
    assert shared.desk(Request(OTHER)) is stays
    assert shared.desk(Request(OWN)).submit(Compose(prompts=("a",))) == 1  # a fresh one


def test_the_end_closes_the_workers(tmp_path):
    runner = Runner()
    hall = Hall(Settings(workspace=tmp_path), {"cpu": runner})
    hall.start()
    hall.close()
    assert runner.closed
