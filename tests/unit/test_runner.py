"""The worker process: what happens there reaches the caller, and nothing that happens there harms him."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from pipelines.errors import BadInput, BrokenWeights, Cancelled, LikenessError, UnknownName, WorkerDied
from pipelines.jobs import wire, workspace
from pipelines.jobs.runner import InlineRunner, SubprocessRunner
from pipelines.jobs.spec import Jobs, ToyboxShow, Train
from pipelines.progress import Event, Job

FAKE = """
import ctypes, os, sys, time
from pathlib import Path
from PIL import Image
from pipelines.errors import BrokenWeights, LikenessError, UnknownName

class OutOfMemory(LikenessError):
    pass

warmed = []

def warm():
    warmed.append(os.getpid())

def work(spec, job):
    what = spec.out.name
    if what == "talk":
        print("garbage on stdout")
        os.write(1, b'{"id": 1, "result": {"forged": true}}\\n')
        sys.stdout.write("{broken json\\n"); sys.stdout.flush()
        os.system("echo from a child")
        job.report(1, 2, loss=0.5)
        job.preview(Image.new("RGB", (600, 300), "red"))
        job.preview([1, 2, 3])
        job.note("done soon")
        job.checkpoint = Path("state/step-000050")
        job.report(2, 2)
        return {"n": spec.n, "seed": spec.seed, "out": Path("x"), "stdin": sys.stdin.read()}
    if what == "hang":
        job.report(0)
        time.sleep(60)
    if what == "step":
        for step in range(6000):
            job.report(step)
            job.check()
            time.sleep(0.01)
    if what == "asked":
        job.report(0)
        found = []
        while len(found) < 2:
            job.check()
            found += [each for each in ("sample", "save") if job.take(each)]
            time.sleep(0.01)
        job.note(" ".join(found))
    if what == "where":
        from pipelines.jobs import workspace
        return {"root": str(workspace.root()), "previews": job.previews}
    if what == "weights":
        raise BrokenWeights("a.safetensors", "it is truncated", "Fetch it.")
    if what == "unknown":
        raise UnknownName("base", "sd51", ["sd15"])
    if what == "memory":
        raise OutOfMemory("No memory is left.", "Use offload=model.")
    if what == "fault":
        raise KeyError("a bug")
    if what == "exit":
        sys.stderr.write("fatal: the driver is gone\\n"); sys.stderr.flush()
        os._exit(7)
    return {"pid": os.getpid(), "warmed": warmed}
"""


@pytest.fixture
def runner(tmp_path, monkeypatch):
    (tmp_path / "fake_work.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with SubprocessRunner("fake_work:work", grace=3) as made:
        yield made


def ask(what, **more):
    return ToyboxShow.model_validate({"out": what, **more})


def test_the_worker_needs_no_torch():
    script = "import sys, pipelines.worker.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_events_and_the_result_arrive_whatever_is_printed(runner):
    events = []
    job = Job(events.append)
    result = runner.run(ask("talk", n=5, seed=3), job)
    assert result == {"n": 5, "seed": 3, "out": "x", "stdin": ""}
    kinds = [each.kind for each in events]
    assert kinds == ["report", "preview", "note", "report"]
    assert (events[0].step, events[0].total, events[0].values) == (1, 2, {"loss": 0.5})
    assert Image.open(io.BytesIO(events[1].image)).size == (512, 256)
    assert job.checkpoint == Path("state/step-000050")


def test_one_worker_serves_one_job_after_another(runner):
    first = runner.run(ask("pid"), Job())["pid"]
    assert runner.run(ask("pid"), Job())["pid"] == first == runner.pid != os.getpid()


def test_a_worker_may_load_before_its_first_job(runner):
    assert runner.run(ask("pid"), Job())["warmed"] == []
    runner.warm()
    told = runner.run(ask("pid"), Job())
    assert told["warmed"] == [told["pid"]]


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("weights", BrokenWeights, "a.safetensors cannot be used: it is truncated."),
        ("unknown", UnknownName, 'Unknown base "sd51".'),
        ("memory", LikenessError, "No memory is left."),
    ],
)
def test_errors_are_the_same_on_this_side(runner, what, kind, message):
    with pytest.raises(kind) as caught:
        runner.run(ask(what), Job())
    assert caught.value.message == message
    assert caught.value.remedy
    if what == "unknown":
        assert caught.value.suggestion == "sd15"
    if what == "memory":
        assert caught.value.as_dict()["type"] == "OutOfMemory"
    assert runner.run(ask("pid"), Job())["pid"] == runner.pid


def test_a_fault_of_ours_is_told_with_its_traceback_and_ends_only_its_job(runner):
    with pytest.raises(RuntimeError, match="a bug"):
        runner.run(ask("fault"), Job())
    assert runner.run(ask("pid"), Job())["pid"] == runner.pid


def run_in_thread(runner, what, job):
    """The job in a thread; → a function that waits for what it raised or returned."""
    outcome = []

    def body():
        try:
            outcome.append(runner.run(ask(what), job))
        except Exception as error:  # noqa: BLE001
            outcome.append(error)

    thread = threading.Thread(target=body)
    thread.start()

    def wait():
        thread.join(timeout=20)
        assert not thread.is_alive()
        return outcome[0]

    return wait


def begun(what, runner):
    """Start a job and wait for its first event; → (its job, a function that waits for the outcome)."""
    seen = threading.Event()
    job = Job(lambda event: seen.set())
    wait = run_in_thread(runner, what, job)
    assert seen.wait(timeout=20)
    return job, wait


@pytest.mark.parametrize("what", ["hang", "step"])
def test_a_killed_worker_is_an_error_here_and_the_next_job_gets_a_new_one(runner, what):
    _, wait = begun(what, runner)
    os.kill(runner.pid, signal.SIGKILL)
    outcome = wait()
    assert isinstance(outcome, WorkerDied)
    assert "memory" in outcome.message
    assert "--resume" in outcome.remedy
    assert runner.pid is None
    assert runner.run(ask("pid"), Job())["pid"] == runner.pid


def test_a_crash_is_told_with_its_last_words(runner):
    with pytest.raises(WorkerDied, match=r"exit code 7.*the driver is gone"):
        runner.run(ask("exit"), Job())


def test_a_worker_that_cannot_start_says_why():
    with SubprocessRunner("no_such_module:work") as broken, pytest.raises(WorkerDied, match="no_such_module"):
        broken.run(ask("pid"), Job())


def test_cancel_takes_less_than_a_second_and_keeps_the_worker(runner):
    job, wait = begun("step", runner)
    pid, started = runner.pid, time.monotonic()
    job.cancel()
    assert isinstance(wait(), Cancelled)
    assert time.monotonic() - started < 1
    assert runner.run(ask("pid"), Job())["pid"] == pid


def test_a_job_that_waits_for_another_one_can_be_stopped_at_once(runner):
    first, ended = begun("step", runner)
    waiting = Job()
    wait = run_in_thread(runner, "pid", waiting)
    started = time.monotonic()
    waiting.cancel()
    assert isinstance(wait(), Cancelled)
    assert time.monotonic() - started < 1
    first.cancel()
    assert isinstance(ended(), Cancelled)
    assert runner.run(ask("pid"), Job())["pid"] == runner.pid


def test_work_that_does_not_listen_is_killed_after_its_grace(runner):
    job, wait = begun("hang", runner)
    started = time.monotonic()
    job.cancel()
    assert isinstance(wait(), Cancelled)
    assert 2.5 < time.monotonic() - started < 10
    assert runner.run(ask("pid"), Job())["pid"] == runner.pid


def test_a_job_cancelled_before_it_began_never_starts(runner):
    job = Job()
    job.cancel()
    with pytest.raises(Cancelled):
        runner.run(ask("pid"), job)
    assert runner.pid is None


def test_a_running_job_is_told_what_is_asked_for(runner):
    said = []
    seen = threading.Event()

    def hear(event):
        said.append(event.text)
        seen.set()

    job = Job(hear)
    job.ask("save")  # before it even runs
    wait = run_in_thread(runner, "asked", job)
    assert seen.wait(timeout=20)
    job.ask("sample")
    assert set(wait()) == {"pid", "warmed"}
    assert sorted(said[-1].split()) == ["sample", "save"]


def test_every_job_runs_in_the_workspace_it_was_given(runner, tmp_path, monkeypatch):
    monkeypatch.setenv(workspace.ENV, str(tmp_path / "own"))
    given = runner.run(ask("where"), Job(previews=True), tmp_path / "visitor")
    assert given == {"root": str(tmp_path / "visitor"), "previews": True}
    assert runner.run(ask("where"), Job()) == {"root": str(tmp_path / "own"), "previews": False}


def test_an_inline_job_runs_in_the_workspace_it_was_given_and_leaves_none_behind(tmp_path, monkeypatch):
    monkeypatch.setenv(workspace.ENV, str(tmp_path / "own"))
    result = InlineRunner().run(Jobs(), Job(), tmp_path / "visitor")
    assert result["workspace"] == str(tmp_path / "visitor")
    assert workspace.root() == tmp_path / "own"


def test_the_time_limit_travels(runner):
    with pytest.raises(Cancelled, match="time limit"):
        runner.run(ask("step"), Job(deadline=1.5))


def test_a_caller_that_gives_up_leaves_no_work_behind(runner):
    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(ask("step"), Job(interrupt))
    assert runner.pid is None


def test_the_worker_ends_with_its_parent(tmp_path, monkeypatch):
    (tmp_path / "fake_work.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    script = """
from pipelines.jobs.runner import SubprocessRunner
from pipelines.jobs.spec import ToyboxShow
from pipelines.progress import Job
runner = SubprocessRunner("fake_work:work")
runner.run(ToyboxShow(out="step"), Job(lambda event: print(runner.pid, flush=True)))
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and alive(pid):
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    "line", [b"", b"hello\n", b"{\n", b"[1]\n", b"{" * 5000, b'{"a":' * 3000 + b"1", b"\xff{}", b"null\n"]
)
def test_lines_that_are_no_message_are_passed_over(line):
    assert wire.load(line) is None


def test_what_json_does_not_know_travels_as_plain_values():
    import numpy as np

    event = Event("report", step=1, values={"loss": np.float32(0.5), "path": os.path})
    table = wire.load(wire.dump({"event": wire.pack_event(event)}))
    assert table is not None
    assert table["event"]["values"]["loss"] == 0.5


def test_an_error_survives_the_way_twice():
    error = UnknownName("base", "sd51", ["sd15"])
    once = wire.unpack_error(wire.pack_error(error))
    twice = wire.unpack_error(wire.pack_error(once))
    assert type(twice) is UnknownName
    assert twice.as_dict() == error.as_dict()
    assert isinstance(wire.unpack_error({"type": "BadInput", "message": "a", "remedy": "b"}), BadInput)


def test_a_spec_with_paths_and_references_travels_whole():
    spec = Train.model_validate({"data": {"photos": "/private/photos"}, "out": "/private/out"})
    assert Train.model_validate(spec.portable()) == spec
