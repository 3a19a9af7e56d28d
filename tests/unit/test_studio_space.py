"""A Space: what it needs to build, the page that Gradio launches there, jobs on a GPU lent by the minute."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path

import httpx
import pytest

from pipelines.errors import BadInput, BrokenWeights, Cancelled, LikenessError
from pipelines.jobs.runner import InlineRunner
from pipelines.jobs.spec import Check, Compare, Compose, Train
from pipelines.progress import Event, Job
from studio import space
from studio.port import listen
from studio.settings import hosting_of
from studio.space import LONGEST, NoGpu, OutOfTime, ZeroRunner, seconds_for, work

ROOT = Path(__file__).resolve().parents[2]


class Inline:
    """What InlineRunner is replaced by: `does` is called with spec, job and workspace."""

    does = staticmethod(lambda spec, job, folder: {})

    def run(self, spec, job, folder=None):
        return self.does(spec, job, folder)


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(space, "InlineRunner", Inline)
    monkeypatch.setattr(space, "TICK", 0.02)

    def use(does):
        monkeypatch.setattr(Inline, "does", staticmethod(does))
        return ZeroRunner(work, Inline())

    return use


# ---- what the Space needs to build


def _front_matter() -> dict[str, str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    block = text.split("---\n", 2)[1]
    return {key: value.strip() for key, _, value in (each.partition(":") for each in block.splitlines())}


def test_the_front_matter_starts_this_app():
    table = _front_matter()
    assert table["sdk"] == "gradio"
    assert (ROOT / table["app_file"]).is_file()
    assert table["license"] == "apache-2.0"
    assert table["python_version"].strip("\"'") == "3.11"
    assert len(table["short_description"]) <= 60
    assert re.fullmatch(r"\d+\.\d+\.\d+", table["sdk_version"].strip("\"'"))


def _requirements(lines: list[str]) -> dict[str, str]:
    found = [re.match(r"([A-Za-z0-9_.-]+)\s*(.*)", each.partition("#")[0].strip()) for each in lines]
    return {each[1].lower().replace("_", "-"): each[2] for each in found if each}


def test_a_space_installs_what_the_project_needs():
    """Gradio comes with the Space; the rest has the project's own bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = _requirements(project["dependencies"])
    there = _requirements((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines())
    least = wanted.pop("gradio").removeprefix(">=")
    assert "gradio" not in there
    comes = _front_matter()["sdk_version"].strip("\"'")
    assert tuple(map(int, comes.split("."))) >= tuple(map(int, least.split(".")))
    assert there == wanted


# ---- without ZeroGPU


def test_elsewhere_nothing_of_zerogpu_is_imported():
    code = (
        "import sys, studio.space as s;"
        "print('spaces' in sys.modules, s.on_gpu is s.work, 'torch' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SPACE")}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False", "True", "False"]


def test_on_zerogpu_the_work_is_decorated_before_torch_comes(tmp_path):
    (tmp_path / "spaces.py").write_text(
        "import sys\nassert 'torch' not in sys.modules\n"
        "def GPU(duration):\n    def mark(f):\n"
        "        f.asked = duration\n        return f\n    return mark\n"
    )
    code = "import studio.space as s; print(s.on_gpu.asked({}, 30, None, ''))"
    environment = os.environ | {
        "SPACE_ID": "me/x",
        "SPACES_ZERO_GPU": "true",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert int(found.stdout) == 30 + space.ENDING


def test_where_a_space_runs():
    assert hosting_of({}).kind == "local"
    assert hosting_of({"SPACE_ID": "a/b"}).kind == "space"
    assert hosting_of({"SPACE_ID": "a/b", "SPACES_ZERO_GPU": "1"}).kind == "zero"
    assert hosting_of({"SPACES_ZERO_GPU": "1"}).kind == "local"


CHILD = """
import sys
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from studio import space
from studio.guards import visitor_of
from studio.settings import from_words

class Hall:
    routes = [Route("/studio/who", lambda request: PlainTextResponse(visitor_of(request)))]
    def __init__(self, given): pass
    def start(self): pass
    def warm(self): pass
    def close(self): sys.stdout.write("closed\\n")

def build(hall):
    import gradio as gr
    with gr.Blocks(title="Of a Space", analytics_enabled=False) as demo:
        box = gr.Textbox()
        def who(request: gr.Request) -> str:
            return visitor_of(request)
        box.submit(who, None, box, api_name="who")
    return demo

sys.exit(space.launch(from_words(sys.argv[1:]), build=build, hall=Hall, look={}))
"""


def _first_answer(child: subprocess.Popen[str], address: str) -> httpx.Response:
    ends = time.monotonic() + 40
    while time.monotonic() < ends and child.poll() is None:
        try:
            return httpx.get(address)
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail("it never answered")


def test_a_space_serves_page_routes_and_visitors(tmp_path):
    """Gradio's own launch, with our routes first and a secret for everybody: its import makes this slow."""
    with closing(listen("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["--port", str(port), "--workspace", str(tmp_path), "--host", "127.0.0.1"]
    environment = os.environ | {"SPACE_ID": "me/x", "SPACES_ZERO_GPU": ""}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *words], cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        page = _first_answer(child, address)
        assert "Of a Space" in page.text
        assert "likeness_visitor=" in page.headers["set-cookie"]
        assert "Partitioned" in page.headers["set-cookie"]
        mine = {"x-likeness-visitor": "m" * 43}
        assert httpx.get(f"{address}/studio/who", headers=mine).text == "m" * 43
        call = f"{address}/gradio_api/call/who"
        event = httpx.post(call, json={"data": []}, headers=mine).json()["event_id"]
        # the listener sees whose request it was
        assert "m" * 43 in httpx.get(f"{call}/{event}", timeout=10).text
    finally:
        child.terminate()
        out, _ = child.communicate(timeout=10)
    assert child.returncode == 0
    assert out.splitlines()[-1] == "closed"


# ---- jobs on ZeroGPU


def test_the_time_asked_for_grows_with_the_job_and_is_bounded():
    few = seconds_for(Compose(prompts=("a",)))
    more = seconds_for(Compose(prompts=("a", "b"), count=4))
    assert few < more < LONGEST
    assert seconds_for(Train(concept={"method": "x", "steps": 20_000})) == LONGEST
    grid = Compare(job={"prompts": ["a"]}, axes=({"path": "seed", "values": list(range(9))},))  # pyright: ignore[reportArgumentType]
    assert few < seconds_for(grid) <= LONGEST


def test_a_job_tells_on_the_way_and_gives_its_result(inline, tmp_path):
    def does(spec, job, folder):
        job.report(1, 2, loss=0.5)
        job.note("well")
        job.checkpoint = tmp_path / "step-2"
        job.report(2, 2)
        return {"prompts": list(spec.prompts), "folder": folder, "previews": job.previews}

    events: list[Event] = []
    job = Job(events.append)
    result = inline(does).run(Compose(prompts=("a ü",)), job, tmp_path)
    assert result == {"prompts": ["a ü"], "folder": str(tmp_path), "previews": True}
    assert [(each.kind, each.step, each.text) for each in events] == [
        ("report", 1, ""), ("note", 0, "well"), ("report", 2, ""),
    ]  # fmt: skip
    assert events[0].values == {"loss": 0.5}
    assert job.checkpoint == tmp_path / "step-2"


def test_what_needs_no_device_needs_no_gpu(tmp_path):
    class Here:
        def run(self, spec, job, folder=None):
            return {"here": spec.kind}

    assert ZeroRunner(lambda *given: pytest.fail("asked for a GPU"), Here()).run(Check(), Job()) == {
        "here": "check"
    }
    assert isinstance(ZeroRunner(work)._here, InlineRunner)


def test_errors_arrive_as_they_were_raised(inline):
    def does(spec, job, folder):
        raise BrokenWeights("a.safetensors", "it is short")

    with pytest.raises(BrokenWeights, match="it is short") as caught:
        inline(does).run(Compose(), Job())
    assert caught.value.remedy

    def fails(spec, job, folder):
        raise KeyError("ours")

    with pytest.raises(RuntimeError, match=r"KeyError[\s\S]*Traceback"):
        inline(fails).run(Compose(), Job())


def test_a_cancel_and_a_wish_reach_the_work(inline):
    heard: list[str] = []

    def does(spec, job, folder):
        while True:
            job.check()
            heard.extend(each for each in ("sample", "save") if job.take(each))
            job.report(len(heard))
            time.sleep(0.005)

    job = Job()
    job.ask("sample")
    threading.Timer(0.1, lambda: job.ask("save")).start()
    job.subscribe(lambda event: job.cancel() if event.step == 2 else None)
    with pytest.raises(Cancelled, match="as asked"):
        inline(does).run(Compose(), job)
    assert heard == ["sample", "save"]


def test_a_training_goes_on_from_slice_to_slice(inline, tmp_path, monkeypatch):
    """Each slice runs into its time limit after a checkpoint; the next one resumes in the same folder."""
    monkeypatch.setattr(space, "seconds_for", lambda spec: 0.05)
    calls: list[tuple[bool, Path]] = []

    def does(spec, job, folder):
        calls.append((spec.resume, spec.out))
        step = 10 * len(calls)
        job.report(step, 30)
        if len(calls) == 3:
            return {"steps": step}
        time.sleep(0.06)
        job.checkpoint = Path(spec.out) / f"step-{step}"
        job.check()

    events: list[Event] = []
    job = Job(events.append)
    assert inline(does).run(Train(concept={"method": "x", "steps": 30}), job, tmp_path) == {"steps": 30}
    assert [resume for resume, _ in calls] == [False, True, True]
    (folder,) = {out for _, out in calls}
    assert folder.parent == tmp_path / "runs"
    assert [each.step for each in events if each.kind == "report"] == [10, 20, 30]
    assert sum("next one" in each.text for each in events) == 2


def test_a_job_that_never_gets_further_is_refused(inline, tmp_path, monkeypatch):
    monkeypatch.setattr(space, "seconds_for", lambda spec: 0.02)

    def does(spec, job, folder):
        while True:
            job.check()
            time.sleep(0.005)

    for spec in (Train(out=tmp_path / "run"), Compose()):
        with pytest.raises(OutOfTime, match="longer than") as caught:
            inline(does).run(spec, Job(), tmp_path)
        assert "fewer steps" in caught.value.remedy


def test_a_gpu_that_is_refused_or_lost_is_said_in_words():
    class QuotaError(Exception):
        message = "You have exceeded your <b>GPU quota</b> (60s &lt; 90s)"

    def refused(*given):
        raise QuotaError
        yield b""

    with pytest.raises(NoGpu, match=r"exceeded your GPU quota \(60s < 90s\)") as caught:
        ZeroRunner(refused).run(Compose(), Job())
    assert "<b>" not in str(caught.value)
    with pytest.raises(NoGpu, match="taken away"):
        ZeroRunner(lambda *given: iter([b"{}\n"])).run(Compose(), Job())
    with pytest.raises(BadInput):

        def bad(*given):
            yield (
                json.dumps({"error": {"type": "BadInput", "message": "no", "remedy": "yes"}}).encode() + b"\n"
            )

        ZeroRunner(bad).run(Compose(), Job())


def test_jobs_run_in_the_name_of_the_visitor_who_asked(tmp_path):
    request: ContextVar[str] = ContextVar("request", default="nobody")
    runner = ZeroRunner(lambda *given: iter([json.dumps({"result": {"for": request.get()}}).encode()]))
    token = request.set("ann")
    runner.remember(tmp_path)
    request.reset(token)
    assert runner.run(Compose(), Job(), tmp_path) == {"for": "ann"}
    assert runner.run(Compose(), Job(), tmp_path / "other") == {"for": "nobody"}


def test_a_caller_who_is_gone_stops_the_work(inline, tmp_path):
    ended = threading.Event()

    def does(spec, job, folder):
        try:
            while True:
                job.check()
                time.sleep(0.005)
        finally:
            ended.set()

    inline(does)
    lines = work(Compose().portable(), 60, str(tmp_path), str(tmp_path / "no-wishes"))
    next(lines)
    lines.close()
    assert ended.wait(timeout=2)


def test_a_fault_of_a_subscriber_stops_the_work(inline):
    ended = threading.Event()

    def does(spec, job, folder):
        try:
            while True:
                job.report(1)
                job.check()
                time.sleep(0.005)
        finally:
            ended.set()

    def fails(event):
        raise LikenessError("full", "free some")

    with pytest.raises(LikenessError, match="full"):
        inline(does).run(Compose(), Job(fails))
    assert ended.wait(timeout=2)
