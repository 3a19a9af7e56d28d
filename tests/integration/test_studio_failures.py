"""When things go wrong in the studio: the page lives, and says what happened and the way out."""

import json
import os
import signal
import struct
import sys
import threading
import time
import zlib
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from PIL import Image, PngImagePlugin

from pipelines.artifacts import assets
from pipelines.errors import BadInput, LikenessError, NotAvailable, UnknownName
from pipelines.jobs import pictures, presets
from pipelines.jobs.runner import SubprocessRunner
from pipelines.jobs.spec import Check, Compose, Fetch, Info, Train
from pipelines.jobs.workspace import ENV
from studio import gallery, post
from studio.api_words import seen
from studio.desk import Desk
from studio.settings import Settings
from tests.browser.conftest import serve
from tests.browser.replay import Replay

WORKER = """
import os, signal, time
from pathlib import Path
from pipelines.errors import DiskFull
from pipelines.jobs import workspace

def work(spec, job):
    if spec.kind != "train":
        return {"out": str(workspace.root()), "pid": os.getpid()}
    folder = spec.out / "checkpoints" / "step-000005"
    if not spec.resume:
        folder.mkdir(parents=True)
        (folder / "complete").touch()
        job.report(5, 10, loss=0.5)
        if spec.data.token == "full":
            raise DiskFull(spec.out)
        os.kill(os.getpid(), signal.SIGKILL)
    job.report(10, 10)
    return {"out": str(spec.out), "resumed": spec.resume}
"""
XSS = '<img src=x onerror="window.__xss=1"><script>window.__xss=1</script>{{7*7}}${7*7}'
DOG = {"photos": "asset:photos/dog", "class_word": "dog"}


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """A studio with a replaying runner: its address and its hall."""
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV, str(folder))
        yield from serve(Settings(workspace=folder, port=0, browser=False), {"cpu": Replay()})


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """A real worker process; what is not of torch is done by the real code."""
    with SubprocessRunner() as made:
        yield made


@pytest.fixture
def desk(tmp_path, worker):
    made = Desk(tmp_path / "workspace", Settings(workspace=tmp_path), {"cpu": worker}, worker)
    yield made
    made.close()


@pytest.fixture
def breaking(tmp_path, monkeypatch):
    """A desk whose worker is killed, or finds the disk full, in the middle of a training."""
    (tmp_path / "breaking_work.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with SubprocessRunner("breaking_work:work") as runner:
        made = Desk(tmp_path / "workspace", Settings(workspace=tmp_path), {"cpu": runner}, runner)
        made.start()
        yield made
        made.close()


def ended(desk, ident):
    deadline = time.monotonic() + 60
    while (row := desk.store.get(ident)).status in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return row


def lives(url):
    assert httpx.get(url, timeout=30).status_code == 200
    return True


# ---- two at once, and a worker that dies


def test_two_pages_press_train_at_once(studio):
    url, hall = studio
    answers = {}
    clients = [Client(url, verbose=False) for _ in range(2)]
    runner = hall.runners["cpu"]
    runner.pause, pause = 0.1, runner.pause

    def press(number):
        job = {"data": {**DOG, "token": f"t{number}"}, "concept": {"steps": 40}}
        answers[number] = list(clients[number].submit(job, api_name="/train"))

    pages = [threading.Thread(target=press, args=(number,)) for number in range(2)]
    for each in pages:
        each.start()
    for each in pages:
        each.join(300)
    runner.pause = pause
    assert [answers[number][-1]["state"] for number in range(2)] == ["done", "done"]
    assert any(answers[number][0]["state"] == "queued" for number in range(2))
    assert len({answers[number][-1]["result"]["out"] for number in range(2)}) == 2


def test_a_worker_that_is_killed_takes_nothing_with_it(breaking):
    ident = breaking.submit(Train.model_validate({"data": DOG}))
    row = ended(breaking, ident)
    assert row.status == "failed"
    assert "killed" in row.error["message"]
    shown = gallery.progress(breaking, row)
    assert "memory" in shown
    assert "Go on" in shown
    assert seen(breaking, row)["error"]["type"] == "WorkerDied"
    assert ended(breaking, breaking.submit(Compose(prompts=("a",)))).status == "done"
    post.again(breaking, str(ident))
    after = ended(breaking, ident)
    assert after.status == "done"
    assert after.result["resumed"]


def test_a_disk_that_fills_while_training_leaves_the_checkpoint(breaking):
    ident = breaking.submit(Train.model_validate({"data": {**DOG, "token": "full"}}))
    row = ended(breaking, ident)
    assert row.error["type"] == "DiskFull"
    assert "Free some space" in gallery.progress(breaking, row)
    assert "\\" not in seen(breaking, row)["error"]["message"]
    assert str(breaking.folder) not in json.dumps(seen(breaking, row))
    post.again(breaking, str(ident))
    assert ended(breaking, ident).result["resumed"]


def test_memory_that_runs_out_says_what_to_try(studio):
    url, hall = studio
    hall.runners["cpu"].fails = LikenessError(
        "The cpu ran out of memory.", "Choose fewer or smaller pictures."
    )
    answer = Client(url, verbose=False).predict({"prompts": ["a dog"]}, api_name="/compose")
    assert answer["error"]["remedy"] == "Choose fewer or smaller pictures."
    shown = gallery.progress(hall.desk(None), hall.desk(None).latest("compose"))
    assert "smaller pictures" in shown
    assert "Try again" in shown
    assert lives(url)


# ---- a full disk


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and resource limits")
def test_a_full_disk_while_uploading_leaves_nothing_half(tmp_path):
    import resource

    big = tmp_path / "big.png"
    big.write_bytes((assets() / "toybox" / "sheet.png").read_bytes() + bytes(3 * 2**20))
    small = assets() / "toybox" / "sheet.png"
    home = tmp_path / "workspace"
    Desk(home, Settings(workspace=tmp_path), {}, Replay()).store.close()
    pid = os.fork()
    if not pid:  # a child whose files may not grow beyond 2 MiB
        code = 9
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 2**20, 2 * 2**20))
            child = Desk(home, Settings(workspace=tmp_path), {}, Replay())
            try:
                child.upload([small, big], "dog")
                code = 1
            except (LikenessError, OSError):
                code = 2 if list((home / "uploads").iterdir()) else 0
            if code == 0 and child.upload([small], "dog") != "upload:dog":
                code = 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [each.name for each in (home / "uploads").iterdir()] == ["dog"]


# ---- no network


def test_without_a_network_a_base_that_is_missing_is_told(desk, monkeypatch, tmp_path):
    with SubprocessRunner(
        environment={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
    ) as offline:
        from pipelines.progress import Job

        with pytest.raises((NotAvailable, BadInput)) as caught:
            offline.run(Fetch(base="sd15"), Job(), desk.folder)
    assert caught.value.remedy


# ---- strangers


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"host": "evil.example"}, 400, "ForeignHost"),
        ({"origin": "https://evil.example"}, 403, "ForeignOrigin"),
        ({"origin": "null"}, 403, "ForeignOrigin"),
    ],
)
def test_strangers_are_refused_with_a_typed_error(studio, headers, status, kind):
    url, hall = studio
    before = hall.desk(None).store.count()
    for path in ("/gradio_api/call/compose", "/gradio_api/call/v2/compose", "/gradio_api/upload"):
        answer = httpx.post(url + path, json={"data": [{"prompts": ["a"]}]}, headers=headers)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == kind
        assert answer.json()["error"]["remedy"]
    assert hall.desk(None).store.count() == before


def test_json_that_is_deep_or_huge_is_refused_and_the_page_lives(studio):
    url, _ = studio
    client = Client(url, verbose=False)
    deep = {"prompts": ["a"]}
    for _ in range(60):
        deep = {"guidance": deep}
    for job in (deep, {"prompts": ["a" * 300_000]}, {"prompts": ["a"] * 6000}):
        error = client.predict(job, api_name="/compose")["error"]
        assert error["type"] == "BadInput"
        assert "job" in error["message"]
    text = '{"data":[' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "]}"
    answer = httpx.post(
        f"{url}/gradio_api/call/compose", content=text, headers={"content-type": "application/json"}
    )
    assert answer.status_code < 500
    assert lives(url)


# ---- words and names that are meant to run


def test_html_is_text_wherever_it_stands(studio):
    url, hall = studio
    client, desk = Client(url, verbose=False), hall.desk(None)
    made = client.predict({"prompts": [XSS], "negative": XSS}, api_name="/compose")
    assert made["ok"]
    row = desk.store.get(made["job"])
    trained = client.predict(
        {"data": {**DOG, "token": "<b>x", "class_word": XSS}, "concept": {"steps": 2}}, api_name="/train"
    )
    shown = [
        gallery.pictures(desk, row, [("use", "Use")]),
        gallery.progress(desk, row),
        gallery.progress(desk, desk.latest("train")),
    ]
    desk.keep("x", {"prompts": XSS})
    hall.runners["cpu"].fails = LikenessError(XSS, XSS)
    client.predict({"prompts": ["a"]}, api_name="/compose")
    shown.append(gallery.progress(desk, desk.latest("compose")))
    for each in shown:
        for bad in ("<img src=x", "<script", "{{7", "${7"):
            assert bad not in each
    assert XSS.split("<")[0] in shown[0]
    assert trained["state"] == "done"
    assert (
        Path(desk.path(trained["result"]["out"])).name == desk.path(trained["result"]["out"]).resolve().name
    )


# ---- pictures that are meant to hurt


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width, height):
    """A whole PNG of so many white pixels in a few hundred kilobytes."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_two_hundred_megapixels_cost_nobody_anything(desk, tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(huge_png(20_000, 10_000))
    assert path.stat().st_size < 2**20
    reference = desk.upload([path], "huge")
    begun = time.monotonic()
    try:
        found = desk.ask(Check(photos=reference))
        assert found["photos"][0]["verdict"] != "good"
        assert found["photos"][0]["reasons"]
    except LikenessError as error:
        assert error.remedy
    assert time.monotonic() - begun < 60
    assert desk.ask(Check(photos="asset:photos/dog"))["photos"]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 600_000,
        "{" * 50_000,
        json.dumps({"kind": "compose", "prompts": [XSS], "out": "/etc", "base": "/etc"}),
        json.dumps({"kind": "no such", "prompts": 5}),
        "a dog\nNegative prompt: cat\nSteps: 20, Sampler: DDIM, Seed: 99999999999999999999, CFG scale: nan, "
        "Size: 9x",
        "\0\x01\x02",
    ],
)
@pytest.mark.parametrize("key", ["likeness", "parameters", "prompt", "workflow", "studio"])
def test_hostile_metadata_is_refused_in_words_or_harmless(desk, text, key):
    info = PngImagePlugin.PngInfo()
    info.add_text(key, text)
    path = desk.folder / "uploads" / "x" / "a.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32)).save(path, pnginfo=info)
    begun = time.monotonic()
    try:
        sent = post.use(desk, "upload:x/a.png")
    except LikenessError as error:
        assert error.remedy
    else:
        assert set(sent["table"]) <= {*Compose.model_fields, "_lines"}
        assert not {"out", "device", "kind"} & set(sent["table"])
    assert time.monotonic() - begun < 5


def test_the_studios_own_settings_in_a_picture_name_no_path(desk, tmp_path):
    path = tmp_path / "a.png"
    job = Compose(prompts=("a dog",), references=str(assets() / "photos" / "dog"), out=tmp_path)
    pictures.save(path, Image.new("RGB", (32, 32)), job.shareable())
    assert str(tmp_path).encode() not in path.read_bytes()
    assert str(assets()).encode() not in path.read_bytes()


def test_a_preset_with_unknown_keys_says_which(tmp_path):
    for text, kind in (
        ('title = "x"\nno_such = 1\n', UnknownName),
        ('title = "x"\n[guidance]\nmethod = "cfg"\nscael = 3\n', UnknownName),
        ("title = [", BadInput),
        ("a = " + "[" * 3000 + "]" * 3000, BadInput),
        ("x = 1\n" * 60_000, BadInput),
    ):
        path = tmp_path / "preset.toml"
        path.write_text(text)
        with pytest.raises(kind) as caught:
            presets.build("compose", preset=presets.read_file(path))
        assert caught.value.remedy


def test_files_that_hold_no_picture_are_told_one_by_one(desk, tmp_path):
    good = assets() / "photos" / "dog" / "00.jpg"
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(good.read_bytes()[:2000])
    reference = desk.upload([good, cut], "mixed")
    rows = {each["name"]: each for each in desk.ask(Check(photos=reference))["photos"]}
    assert rows["cut.jpg"]["verdict"] not in ("good", "usable")
    assert rows["cut.jpg"]["reasons"]
    with pytest.raises(LikenessError):
        desk.ask(Info(file=f"{reference}/cut.jpg"))
