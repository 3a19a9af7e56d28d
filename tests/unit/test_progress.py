import io
import time

import pytest

from pipelines.errors import Cancelled
from pipelines.progress import Event, Job, Printer, line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_events_reach_every_subscriber():
    first: list[Event] = []
    second: list[Event] = []
    job = Job(first.append)
    job.subscribe(second.append)
    job.report(3, 10, loss=0.5)
    job.note("hello")
    job.preview("a picture")
    assert [event.kind for event in first] == ["report", "note", "preview"]
    assert first == second
    assert first[0].values == {"loss": 0.5}


def test_check_raises_only_after_cancel():
    job = Job()
    job.check()
    job.cancel()
    assert job.cancelled
    with pytest.raises(Cancelled, match="asked"):
        job.check()


def test_what_is_asked_for_is_taken_once():
    job = Job()
    assert not job.take("sample")
    job.ask("sample")
    job.ask("sample")
    assert not job.take("save")
    assert [job.take("sample"), job.take("sample")] == [True, False]
    job.ask("save")
    job.ask("sample")
    assert job.take_all() == ["sample", "save"]
    assert job.take_all() == []


def test_a_line_says_figures_and_leaves_tables_to_screens():
    event = Event("report", 1, 4, {"loss": 0.5, "seconds_left": 3.0, "anatomy": [{"part": "unet"}]})
    assert line(event) == "1/4 · 25% · loss 0.5 · seconds left 3"


def test_the_deadline_stops_the_job():
    job = Job(deadline=0.02)
    job.check()
    assert 0 < (job.remaining() or 0) <= 0.02
    time.sleep(0.03)
    with pytest.raises(Cancelled, match="time limit"):
        job.check()
    assert Job().remaining() is None


def test_plain_lines_are_rate_limited_but_the_last_step_is_drawn():
    stream, now = io.StringIO(), [0.0]
    printer = Printer(stream, every=10, clock=lambda: now[0])
    for step in range(1, 101):
        now[0] += 0.5
        printer(Event("report", step=step, total=100))
    shown = stream.getvalue().splitlines()
    assert [each.split("/")[0] for each in shown] == ["1", "21", "41", "61", "81", "100"]


def test_on_a_terminal_one_line_overwrites_itself_and_notes_stand_alone():
    stream = Terminal()
    printer = Printer(stream, every=0)
    printer(Event("report", step=1, total=2))
    printer(Event("report", step=2, total=2))
    printer(Event("note", text="saved"))
    assert stream.getvalue() == "\r\x1b[2K1/2 · 50%\r\x1b[2K2/2 · 100%\nsaved\n"


def test_a_step_in_words():
    assert (
        line(Event("report", step=120, total=500, values={"loss": 0.12345})) == "120/500 · 24% · loss 0.1235"
    )
    assert line(Event("report", step=7, values={"stage": "vae"})) == "7 · stage vae"
