"""The studio for programs: the endpoints, their answers, and every example that the README shows."""

import io
import json
import re
import threading
import time
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from pipelines.artifacts import assets
from pipelines.errors import LikenessError
from pipelines.jobs.workspace import ENV
from studio.settings import Settings
from tests.browser.conftest import serve
from tests.browser.replay import Replay

ENDPOINTS = {
    "/train", "/compose", "/edit", "/identity", "/compare", "/score", "/check",
    "/upload", "/status", "/cancel",
}  # fmt: skip
README = Path(__file__).parents[2] / "README.md"


class Live:
    """A running studio, its client, and the runner behind it."""

    def __init__(self, url, hall, replay):
        self.url, self.hall, self.replay = url, hall, replay
        self.client = Client(url, verbose=False)
        self.desk = hall.desk(None)

    def __call__(self, name, *values):
        return self.client.predict(*values, api_name=f"/{name}")

    def fetch(self, address):
        answer = httpx.get(self.url + address, timeout=30)
        assert answer.status_code == 200
        return answer.content


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    replay = Replay()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV, str(folder))
        for url, hall in serve(Settings(workspace=folder, port=0, browser=False), {"cpu": replay}):
            yield Live(url, hall, replay)


def examples():
    section = README.read_text(encoding="utf-8").split("\n## For programs\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_exactly_these_are_public(studio):
    told = studio.client.view_api(return_format="dict", print_info=False)
    assert set(told["named_endpoints"]) == ENDPOINTS
    assert not told["unnamed_endpoints"]


def test_every_endpoint_has_an_example_and_every_example_works(studio, tmp_path, monkeypatch, capsys):
    photos = tmp_path / "my-photos"
    photos.mkdir()
    for each in (assets() / "photos" / "dog").glob("*.jpg"):
        (photos / each.name).write_bytes(each.read_bytes())
    monkeypatch.chdir(tmp_path)
    text = "".join(examples())
    assert {f"/{name}" for name in re.findall(r'api_name="/(\w+)"', text)} == ENDPOINTS
    names = {}
    for block in examples():
        assert sum(bool(line.strip()) for line in block.splitlines()) <= 5
        exec(compile(block.replace("http://127.0.0.1:7860", studio.url), "README.md", "exec"), names)  # noqa: S102
    assert names["photos"] == "upload:my-dog"
    assert names["dog"] == "run:train-sks-dog"
    assert Image.open(tmp_path / "dog.png").size == (128, 128)
    assert names["drawn"]["ok"]
    assert len(names["grid"]["result"]["cells"]) == 6
    assert "done" in capsys.readouterr().out


def test_progress_comes_before_the_result_and_no_answer_names_a_path(studio):
    job = {"data": {"photos": "asset:photos/dog", "class_word": "dog"}, "concept": {"steps": 60}}
    studio.replay.pause, pause = 0.05, studio.replay.pause
    try:
        answers = list(studio.client.submit(job, api_name="/train"))
    finally:
        studio.replay.pause = pause
    states = [each["state"] for each in answers]
    assert "running" in states[:-1]
    assert states[-1] == "done"
    assert any(each.get("step", 0) > 0 for each in answers[:-1])
    result = answers[-1]["result"]
    assert result["adapter"] == f"{result['out']}/adapter.safetensors"
    assert studio.fetch(result["adapter_url"])
    text = json.dumps(answers)
    assert str(studio.desk.folder) not in text
    assert str(assets()) not in text


def test_results_are_references_that_the_next_job_takes(studio):
    first = studio("compose", {"prompts": ["a dog"], "count": 2})["result"]["pictures"]
    again = studio("compose", {"prompts": ["a dog"], "start": first[1]["reference"]})
    assert again["ok"]
    assert Image.open(io.BytesIO(studio.fetch(again["result"]["pictures"][0]["url"]))).width == 128


def test_the_settings_that_suit_the_base_are_the_defaults(studio):
    studio("compose", {"prompts": ["a dog"]})
    native = studio.desk.native("toybox")
    assert studio.replay.seen[-1].sampler.steps == native["sampler"]["steps"]


@pytest.mark.parametrize(
    ("name", "job", "kind", "words"),
    [
        ("compose", {"promts": ["a dog"]}, "UnknownName", '"prompts"'),
        ("compose", {"kind": "fetch", "base": "sdxl"}, "BadInput", "kind"),
        ("compose", {"prompts": "a dog"}, "BadInput", "list"),
        ("compose", {"prompts": []}, "BadInput", "nothing to draw"),
        ("compose", ["a dog"], "BadInput", "table"),
        ("compose", {"prompts": ["a dog"], "width": -3}, "BadInput", "width"),
        ("compose", {"prompts": ["a dog"], "guidance": {"method": "cgf"}}, "UnknownName", "cfg"),
        ("compose", {"prompts": ["a dog"], "base": 5}, "BadInput", "base"),
        ("identity", {"prompts": ["a dog"]}, "BadInput", "reference picture"),
        ("compare", {"job": {"kind": "train"}, "axes": []}, "BadInput", "grid"),
        ("compare", {"job": {}, "axes": [{"path": "sede", "values": [1]}]}, "UnknownName", "seed"),
        ("check", {"photos": "upload:nobody"}, "BadInput", "nobody"),
        ("status", "seven", "BadInput", "number"),
        ("status", 10**30, "BadInput", "number"),
        ("cancel", 123456, "UnknownName", "123456"),
        ("upload", [], "BadInput", "no file"),
    ],
)  # fmt: skip
def test_whatever_does_not_fit_is_a_typed_error(studio, name, job, kind, words):
    answer = studio(name, job)
    assert answer["ok"] is False
    error = answer["error"]
    assert error["type"] == kind
    assert words.lower() in f"{error['message']} {error['remedy']}".lower()
    assert error["remedy"]


def test_a_job_that_fails_says_why_and_the_next_one_runs(studio):
    studio.replay.fails = LikenessError("No memory is left.", "Choose smaller pictures.")
    answer = studio("compose", {"prompts": ["a dog"]})
    assert answer["state"] == "failed"
    assert answer["error"]["message"] == "No memory is left."
    assert answer["error"]["remedy"] == "Choose smaller pictures."
    assert studio("compose", {"prompts": ["a dog"]})["ok"]


def test_a_job_can_be_left_looked_at_and_stopped(studio):
    studio.replay.pause, pause = 0.2, studio.replay.pause
    try:
        first = studio("compose", {"prompts": ["a cat"]}, False)
        assert first["state"] in ("queued", "running")
        studio("cancel", first["job"])
        deadline = time.monotonic() + 10
        while (now := studio("status", first["job"]))["state"] != "cancelled":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        studio.replay.pause = pause
    assert now["ok"] is False
    assert now["error"]["type"] == "Cancelled"


def test_only_uploaded_files_are_taken(studio, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64)).save(secret)
    for given in ({"path": str(secret)}, {"path": "/etc/passwd"}, "x", 5, {"path": None}, {"path": "a\0b"}):
        answer = raw(studio, "upload", [[given], "mine"])
        assert answer["error"]["type"] == "BadInput", given
    assert studio("upload", [handle_file(str(secret))], "<b>mine</b>")["reference"] == "upload:b-mine-b"


def raw(studio, name, data):
    """A call as plain HTTP makes it: gradio_client would upload files itself."""
    where = f"{studio.url}/gradio_api/call/{name}"
    event = httpx.post(where, json={"data": data}).json()["event_id"]
    with httpx.stream("GET", f"{where}/{event}", timeout=30) as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("data: ")]
    return json.loads(lines[-1].removeprefix("data: "))[0]


def test_listeners_of_the_page_are_nobody_elses(studio):
    for name in ("draw", "keep", "restore", "train_1", "upload_1", "_tick", "predict"):
        with pytest.raises(ValueError, match="api_name"):
            studio.client.predict(api_name=f"/{name}")


def test_waiting_for_jobs_keeps_nobody_else_waiting(studio):
    """Whoever waits holds no thread: with many waiting, the page still answers at once."""
    studio.replay.pause, pause = 0.3, studio.replay.pause
    try:
        many = [studio.client.submit({"prompts": [f"dog {n}"]}, api_name="/compose") for n in range(45)]
        time.sleep(1)
        begun = time.monotonic()
        done = threading.Event()
        threading.Thread(target=lambda: (studio.fetch("/config"), done.set())).start()
        assert done.wait(10)
        assert time.monotonic() - begun < 5
        assert studio("status", 1)["ok"]
        for row in studio.desk.active():
            studio.desk.cancel(row.id)
        assert {each.result(timeout=60)["state"] for each in many} <= {"done", "cancelled"}
    finally:
        studio.replay.pause = pause
