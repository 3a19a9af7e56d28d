"""Store and queue: order, cancelling from anywhere, and what a crash leaves behind."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.errors import BadInput, BrokenWeights, Cancelled, StateBusy, UnknownName, WorkerDied
from pipelines.jobs.locks import device_of, held, holder
from pipelines.jobs.queue import Queue, carry_out, recover
from pipelines.jobs.spec import Compose, Train, from_table
from pipelines.jobs.store import KEPT_EVENTS, Store
from pipelines.progress import Event, Job


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "likeness.db")
    yield made
    made.close()


def draw(word="a", **more):
    return Compose.model_validate({"prompts": [word], **more})


class Fake:
    """A runner that does what it is told by the prompt, and remembers the order."""

    def __init__(self):
        self.order = []
        self.folder = None
        self.begun = threading.Event()
        self.go = threading.Event()

    def run(self, spec, job, folder=None):
        self.folder = folder
        word = spec.prompts[0] if spec.kind == "compose" else spec.kind
        self.order.append(word)
        job.report(1, 2)
        self.begun.set()
        if word == "wait":
            while not self.go.wait(0.01):
                job.check()
                if job.take("sample"):
                    job.note("here is a sample")
        if word == "figures":
            for step in range(5):
                job.report(step, 9, loss=0.5)
            job.report(5, 9, readings={"score": 0.5}, samples=["samples/1.png"])
        if word == "broken":
            raise BrokenWeights("x", "it is truncated")
        if word == "died":
            raise WorkerDied("The worker was killed.", "Again.")
        if word == "bug":
            raise KeyError("bug")
        return {
            "out": f"runs/{word}",
            "readings": {"clip_t": 0.25},
            "pictures": [{"path": "r/1.png", "readings": {"clip_t": 0.3}}],
        }


class Driven(Queue):
    """A queue whose one runner can be reached."""

    runner: Fake


@pytest.fixture
def queue(store, tmp_path):
    runner = Fake()
    made = Driven(store, {"cpu": runner}, tmp_path)
    made.runner = runner
    yield made
    made.close(wait=5)


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def drain(queue):
    while queue.step("cpu"):
        pass


def test_priority_first_then_base_then_age(queue):
    for word, base, priority in [
        ("1", "sd15", 0), ("2", "toybox", 0), ("3", "sd15", 0), ("4", "sdxl", 5), ("5", "toybox", 0),
        ("6", "sd15", -1),
    ]:  # fmt: skip
        queue.submit(draw(word, base=base, device="cpu"), priority)
    drain(queue)
    assert queue.runner.order == ["4", "1", "3", "2", "5", "6"]


def test_jobs_can_be_moved_and_hurried(queue):
    ids = [queue.submit(draw(str(n), device="cpu")) for n in range(4)]
    queue.store.move(ids[3], before=ids[1])
    queue.store.move(ids[0], before=None)
    queue.store.prioritise(ids[2], 1)
    drain(queue)
    assert queue.runner.order == ["2", "3", "1", "0"]
    with pytest.raises(BadInput):
        queue.store.move(ids[0], before=ids[1])


def test_what_came_of_a_job_is_kept(queue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids = [queue.submit(draw(word, device="cpu")) for word in ("good", "broken", "died", "bug", "good2")]
    drain(queue)
    rows = [queue.store.get(each) for each in ids]
    assert [each.status for each in rows] == ["done", "failed", "failed", "failed", "done"]
    assert rows[1].error["type"] == "BrokenWeights"
    assert rows[2].error["remedy"] == "Again."
    assert rows[3].error["type"] == "KeyError"
    assert (rows[0].step, rows[0].total) == (1, 2)
    assert [each["name"] for each in queue.store.runs()] == ["good2", "good"]
    readings = queue.store.readings(tmp_path / "runs" / "good")
    assert readings == [
        {"picture": "", "name": "clip_t", "value": 0.25},
        {"picture": "1.png", "name": "clip_t", "value": 0.3},
    ]


def test_a_thread_runs_what_comes_and_says_why_the_rest_waits(queue):
    heard = []
    queue._listener = lambda ident, event: heard.append(ident)
    queue.start()
    first = queue.submit(draw("wait", device="cpu"))
    assert queue.runner.begun.wait(10)
    second, third = (queue.submit(draw(each, device="cpu")) for each in "ab")
    assert queue.why_it_waits(second) == f"Job {first} (compose, 50 %) is running on cpu."
    assert queue.why_it_waits(third).endswith("1 job is ahead.")
    assert queue.why_it_waits(first) == "It does not wait: it is running."
    assert queue.cancel(third) == "cancelled"
    queue.runner.go.set()
    until(lambda: queue.store.get(second).status == "done")
    assert queue.runner.order == ["wait", "a"]
    assert set(heard) == {first, second}


def test_jobs_are_counted_and_listed_by_status_and_kind(store):
    for index in range(6):
        ident = store.add(draw(str(index)) if index % 3 else Train(), device="cpu")
        if index % 2:
            store.finish(ident, "done")
    assert [store.count(), store.count("done"), store.count("running")] == [6, 3, 0]
    assert [store.count(kind="train"), store.count("done", "train")] == [2, 1]
    assert [each.id for each in store.jobs(kind="train")] == [4, 1]
    assert [each.id for each in store.jobs(1, "done", kind="compose")] == [6]
    for where in ("WHERE kind = 'train' ORDER BY id DESC", "WHERE status = 'done' ORDER BY id DESC"):
        plan = store._base().execute("EXPLAIN QUERY PLAN SELECT * FROM jobs " + where).fetchall()  # noqa: S608
        assert ["USING INDEX" in each["detail"] for each in plan] == [True]  # and nothing is sorted


def test_a_list_of_the_newest_jobs_is_quick_however_many_there_are(store):
    pictures = [
        {"path": f"r/{n}.png", "prompt": "a dog", "seed": n, "readings": {"a": 0.1}} for n in range(8)
    ]
    with store.writing() as base:
        spec, result = draw().to_json(), json.dumps({"out": "r", "pictures": pictures})
        base.executemany(
            "INSERT INTO jobs (kind, spec, base, device, status, origin, priority, place, created, result)"
            " VALUES ('compose', ?, 'toybox', 'cpu', 'done', 'queue', 0, ?, 0, ?)",
            [(spec, n, result) for n in range(1000)],
        )
    spent = []
    for _ in range(10):
        begun = time.thread_time()
        assert len(store.jobs(100)) == 100
        spent.append(time.thread_time() - begun)
    assert min(spent) < 0.05  # 3 ms on an idle core; a bound that a busy one keeps


def test_a_job_runs_in_the_workspace_of_its_queue(queue, tmp_path):
    queue.submit(draw("a", device="cpu"))
    drain(queue)
    assert queue.runner.folder == tmp_path


def test_a_running_job_can_be_asked_for_things(queue):
    heard = []
    queue._listener = lambda ident, event: heard.append(event.text)
    queue.start()
    ident = queue.submit(draw("wait", device="cpu"))
    assert queue.runner.begun.wait(10)
    queue.ask(ident, "sample")
    until(lambda: "here is a sample" in heard)
    queue.runner.go.set()
    until(lambda: queue.store.get(ident).status == "done")
    until(lambda: ident not in queue._running)
    with pytest.raises(UnknownName):
        queue.ask(ident, "sample")
    assert heard.count("here is a sample") == 1


def test_readings_are_kept_however_quickly_steps_follow_each_other(queue):
    ident = queue.submit(draw("figures", device="cpu"))
    drain(queue)
    kept = [event.values for _, event in queue.store.events(ident)]
    assert {"readings": {"score": 0.5}, "samples": ["samples/1.png"]} in kept
    assert len(kept) < 4


def test_a_running_job_is_cancelled_from_here_and_from_another_process(queue, store):
    queue.start()
    for stop in (queue.cancel, Store(store.path).cancel):
        queue.runner.begun.clear()
        ident = queue.submit(draw("wait", device="cpu"))
        assert queue.runner.begun.wait(10)
        stop(ident)
        until(lambda ident=ident: store.get(ident).status == "cancelled")


def test_closing_interrupts_the_running_job_and_keeps_the_queued(queue, store):
    queue.start()
    first, second = (queue.submit(draw("wait", device="cpu")) for _ in range(2))
    assert queue.runner.begun.wait(10)
    queue.close()
    assert [store.get(each).status for each in (first, second)] == ["interrupted", "queued"]


CRASH = """
import os, sys
from pathlib import Path
from pipelines.jobs.store import Store
from pipelines.jobs.spec import from_table
store = Store(Path(sys.argv[1]))
for table, origin in {jobs}:
    store.add(from_table(table), device="cpu", origin=origin)
for ident in (1, 2, 3, 4):
    store.claim("cpu", ident)
os.kill(os.getpid(), 9)
"""


def test_after_a_crash_trainings_go_on_and_the_rest_is_told(tmp_path, store):
    run = tmp_path / "runs" / "dog"
    (run / "checkpoints" / "step-000050").mkdir(parents=True)
    (run / "checkpoints" / "step-000050" / "complete").touch()
    half = tmp_path / "runs" / "cat"
    (half / "checkpoints" / "step-000050").mkdir(parents=True)
    jobs = [
        ({"kind": "train", "out": str(run)}, "queue"),
        ({"kind": "train", "out": str(half)}, "queue"),
        ({"kind": "compose"}, "queue"),
        ({"kind": "train", "out": str(run)}, "cli"),
        ({"kind": "compose"}, "queue"),
    ]
    died = subprocess.run(
        [sys.executable, "-c", CRASH.replace("{jobs}", repr(jobs)), store.path], check=False
    )
    assert died.returncode == -9
    live = store.add(draw(), device="cpu")
    store.claim("cpu", live)
    assert recover(store) == [1]
    status = [store.get(each).status for each in (1, 2, 3, 4, 5, live)]
    assert status == ["queued", "interrupted", "interrupted", "interrupted", "queued", "running"]
    spec = store.get(1).spec
    assert isinstance(spec, Train)
    assert (spec.resume, spec.out) == (True, run)


def test_a_reused_process_id_is_not_the_owner(store):
    ident = store.add(draw(), device="cpu")
    store.claim("cpu", ident)
    assert store.orphans() == []
    with store.writing() as base:
        base.execute("UPDATE jobs SET owner_since = owner_since - 100")
    assert [each.id for each in store.orphans()] == [ident]


def test_a_job_is_claimed_once_however_many_want_it(tmp_path):
    script = """
import sys
from pathlib import Path
from pipelines.jobs.store import Store
store = Store(Path(sys.argv[1]))
while (row := store.claim("cpu")) is not None:
    print(row.id)
"""
    store = Store(tmp_path / "s.db")
    ids = [store.add(draw(str(n)), device="cpu") for n in range(60)]
    workers = [
        subprocess.Popen([sys.executable, "-c", script, store.path], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    claimed = [int(line) for each in workers for line in each.communicate()[0].split()]
    assert sorted(claimed) == ids


def test_threads_share_a_store(store):
    def add():
        for n in range(20):
            store.log(store.add(draw(str(n)), device="cpu"), Event("note", text="x"))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(store.jobs(1000)) == 80


def test_events_are_read_from_where_one_stopped(store):
    ident = store.add(draw(), device="cpu")
    store.log(ident, Event("report", 1, 10, {"loss": 0.5}))
    store.log(ident, Event("preview", image=b"x"))
    store.log(ident, Event("note", text="half"))
    events = store.events(ident)
    assert [each for _, each in events] == [Event("report", 1, 10, {"loss": 0.5}), Event("note", text="half")]
    assert [each.text for _, each in store.events(ident, since=events[0][0])] == ["half"]


def test_a_long_job_does_not_fill_the_disk(store):
    ident = store.add(draw(), device="cpu")
    with store.writing() as base:
        base.executemany(
            "INSERT INTO events (job, kind, vals, text, at) VALUES (?, 'note', '{}', ?, 0)",
            [(ident, str(n)) for n in range(KEPT_EVENTS + 50)],
        )
    store.log(ident, Event("note", text="last"))
    events = store.events(ident)
    assert len(events) == KEPT_EVENTS
    assert events[-1][1].text == "last"


def test_specs_come_back_equal(store):
    spec = from_table(
        {
            "kind": "train",
            "data": {"photos": "/p"},
            "concept": {"method": "dreambooth_lora", "rank": 8},
            "out": "/o",
        }
    )
    assert store.get(store.add(spec, device="cpu")).spec == spec


def test_an_exception_undoes_the_whole_transaction(store):
    ident = store.add(draw(), device="cpu")
    with pytest.raises(ZeroDivisionError), store.writing() as base:
        base.execute("DELETE FROM jobs")
        raise ZeroDivisionError
    assert store.get(ident).status == "queued"


def test_a_newer_store_is_refused_and_left_alone(tmp_path):
    base = sqlite3.connect(tmp_path / "new.db")
    base.execute("PRAGMA user_version = 99")
    base.close()
    with pytest.raises(BadInput, match="newer version"):
        Store(tmp_path / "new.db")


def test_unknown_jobs_are_said(store):
    store.add(draw(), device="cpu")
    with pytest.raises(UnknownName, match="job"):
        store.get(7)
    with pytest.raises(UnknownName):
        store.cancel(7)


def test_a_device_nobody_serves_is_refused(queue):
    with pytest.raises(BadInput, match="cuda"):
        queue.submit(draw(device="cuda"))


HOLD = """
import sys
from pathlib import Path
from pipelines.jobs.locks import held
with held(Path(sys.argv[1]), "cpu", "likeness train"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_the_second_is_told_who_holds_the_device(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        stdin, stdout = first.stdin, first.stdout
        assert stdin is not None
        assert stdout is not None
        assert stdout.readline() == "held\n"
        with (
            pytest.raises(StateBusy, match=f"likeness train, process {first.pid}"),
            held(tmp_path, "cpu", "mine"),
        ):
            pass
        with held(tmp_path, "cuda", "another device"):
            pass
        notes: list[str] = []

        def let_go(event: Event) -> None:
            notes.append(event.text)
            stdin.write("\n")
            stdin.flush()

        with held(tmp_path, "cpu", "mine", Job(let_go)):
            assert f"process {os.getpid()}" in (holder(tmp_path, "cpu") or "")
        assert len(notes) == 1
        assert str(first.pid) in notes[0]
    assert holder(tmp_path, "cpu") is None


def test_waiting_for_a_device_can_be_stopped_and_a_kill_frees_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        first.stdout.readline()
        job = Job()
        job.subscribe(lambda event: job.cancel())
        with pytest.raises(Cancelled), held(tmp_path, "cpu", "mine", job):
            pass
        first.kill()
        first.wait()
        with held(tmp_path, "cpu", "mine"):
            pass


def test_what_the_holder_starts_shares_its_device(tmp_path):
    with held(tmp_path, "cpu", "a bench"):
        child = subprocess.run(
            [sys.executable, "-c", HOLD, tmp_path],
            input="\n",
            text=True,
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert child.stdout == "held\n"
        assert f"process {os.getpid()}" in (holder(tmp_path, "cpu") or "")


def test_auto_is_a_real_device():
    assert device_of("auto") in ("cpu", "cuda")
    assert device_of("cuda") == "cuda"


def test_a_job_of_the_command_line_is_left_to_its_own_process(store):
    ident = store.add(draw(), device="cpu", origin="cli")
    assert store.claim("cpu") is None
    row = store.claim("cpu", ident)
    assert row is not None
    ended = carry_out(store, row, Fake(), Job())
    assert isinstance(ended, dict)
    assert ended["readings"]
    assert json.loads(json.dumps(store.get(ident).result))["out"] == str(Path("runs/a"))
