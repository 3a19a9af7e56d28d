"""The history and what is made of it: pages of it, what is chosen, exports, the bin, and a grid's page."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.errors import BadInput
from pipelines.jobs import presets
from pipelines.jobs.spec import Compare, from_table
from studio import compare_export, compare_grid, compare_runs, history
from studio.desk import Desk
from studio.settings import Settings

HOSTILE = '=HYPERLINK("x") <script>alert(1)</script> {{x}} ${y}'


class Still:
    """A runner that is never asked: the queue of these desks is not started."""

    def run(self, spec, job, folder=None) -> dict[str, Any]:
        raise AssertionError(spec.kind)


@pytest.fixture
def desk(tmp_path):
    runner = Still()
    desk = Desk(tmp_path / "workspace", Settings(workspace=tmp_path / "workspace"), {"cpu": runner}, runner)
    yield desk
    desk.store.close()


def finish(desk: Desk, kind: str, name: str, form: dict[str, Any], **more: Any) -> int:
    """A finished run with two pictures."""
    out = desk.folder / "runs" / name
    out.mkdir(parents=True)
    pictures = []
    for index, (likeness, obedience) in enumerate(more.pop("read", ((0.5, 0.2), (0.7, 0.3)))):
        path = out / f"{index + 1:04d}.png"
        Image.new("RGB", (8, 8), (index * 40, 90, 120)).save(path)
        figures = {"dino_i": likeness, "clip_t": obedience}
        pictures.append({"path": str(path), "prompt": "p", "seed": index, "readings": figures})
    result = {"out": str(out), "pictures": pictures, "readings": {"dino_i": 0.6, "clip_t": 0.25}, **more}
    spec = presets.build(kind, form=form)
    ident = desk.store.add(spec, device="cpu")
    desk.store.claim("cpu", ident)
    desk.store.finish(ident, "done", result)
    return ident


def grid_run(desk: Desk) -> int:
    out = desk.folder / "runs" / "compare-grid"
    cells = []
    for index, scale in enumerate((1.0, 7.5)):
        folder = out / "cells" / f"{index + 1:03d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), (index * 99, 0, 0)).save(folder / "0001-seed0.png")
        cells.append({"guidance.scale": scale, "dino_i": 0.4 + index / 5, "clip_t": 0.3, "seconds": 1.5})
    Image.new("RGB", (20, 10)).save(out / "grid.png")
    spec = Compare(
        job={"kind": "compose", "prompts": [HOSTILE]},
        axes=({"path": "guidance.scale", "values": (1.0, 7.5)},),  # pyright: ignore[reportArgumentType]
    )
    ident = desk.store.add(spec, device="cpu")
    desk.store.claim("cpu", ident)
    result = {"out": str(out), "grids": [str(out / "grid.png")], "cells": cells, "notes": []}
    desk.store.finish(ident, "done", result)
    return ident


# ---- the list


def test_runs_are_found_by_kind_and_by_every_word(desk):
    first = finish(desk, "compose", "one", {"prompts": ["a red dog on the 100% beach"]})
    second = finish(desk, "edit", "two", {"prompts": ["a blue dog"], "image": "asset:photos/dog"})
    waiting = desk.store.add(presets.build("compose", form={"prompts": ["a red cat"]}), device="cpu")
    found = history.listing(desk)
    assert [each.id for each in found.entries] == [second, first]
    assert waiting not in [each.id for each in found.entries]
    assert [each.id for each in history.listing(desk, "edit").entries] == [second]
    assert [each.id for each in history.listing(desk, "", "DOG red").entries] == [first]
    assert [each.id for each in history.listing(desk, "", "100% beach").entries] == [first]
    assert history.listing(desk, "", "red blue").total == 0
    assert history.listing(desk, "", "%").total == 1, "a per cent sign is a letter here, not a wildcard"
    assert history.listing(desk, "", "two").total == 1, "the name of the run's folder counts"
    assert history.listing(desk, "no kind", "").total == 2


def test_an_entry_says_what_the_run_made_and_what_it_took(desk):
    one = history.entry(desk, desk.store.get(finish(desk, "compose", "one", {"prompts": ["a", "b"]})))
    assert one.title == "a (+1)"
    assert [shot.seed for shot in one.shots] == [0, 1]
    assert one.bytes is None
    assert one.seconds is not None
    trained = finish(
        desk, "train", "two", {"data.photos": "x", "data.class_word": "dog"}, pictures=[], best_step=50,
        bytes=1234, readings={"step": 50, "dino_i": 0.7, "note": "x", "bad": float("nan")},
    )  # fmt: skip
    samples = desk.folder / "runs" / "two" / "samples"
    samples.mkdir()
    for name in ("step-000050-0.png", "step-000050-1.png", "step-000100-0.png"):
        Image.new("RGB", (4, 4)).save(samples / name)
    two = history.entry(desk, desk.store.get(trained))
    assert (two.title, two.bytes, two.readings) == ("sks dog", 1234, {"dino_i": 0.7})
    assert [shot.path.name for shot in two.shots] == ["step-000050-0.png", "step-000050-1.png"]
    grid = history.entry(desk, desk.store.get(grid_run(desk)))
    assert grid.readings == pytest.approx({"dino_i": 0.5, "clip_t": 0.3})


def test_a_drawing_weighs_what_its_adapters_weigh(desk):
    home = desk.folder / "runs" / "train-dog"
    home.mkdir(parents=True)
    (home / "adapter.safetensors").write_bytes(b"x" * 700)
    stack = [{"adapter": "run:train-dog"}, {"adapter": "run:gone"}, {"adapter": "/etc/hostname"}]
    ident = finish(desk, "compose", "one", {"prompts": ["a"], "adapters": stack})
    assert history.entry(desk, desk.store.get(ident)).bytes == 700


def test_a_thousand_runs_answer_as_a_click_should(desk):
    finish(desk, "compose", "one", {"prompts": ["a red dog"]})
    row = desk.store.get(1)
    with desk.store.writing() as base:
        for ident in range(2, 1001):
            out = f"{desk.folder.resolve()}/runs/run-{ident}"
            result = json.dumps({**row.result, "out": out})
            base.execute(
                "INSERT INTO jobs (id, kind, spec, base, device, status, origin, priority, place, created,"
                " started, ended, result) VALUES (?, 'compose', ?, 'toybox', 'cpu', 'done', 'queue', 0, 0,"
                " 1, 2, 3, ?)",
                (ident, row.spec.model_copy(update={"seed": ident}).to_json(), result),
            )
            base.execute(
                "INSERT INTO runs VALUES (?, ?, 'compose', ?, ?)", (out, f"run-{ident}", ident, ident)
            )
            (desk.folder / "runs" / f"run-{ident}").mkdir()
    compare_runs.search(desk, "", "dog")
    compare_runs.pick(desk, "500")
    compare_runs.pick(desk, "501")
    compare_runs.turn(desk, "40")
    times, shelf, board = [], "", ""
    for _ in range(3):
        begun = time.process_time()
        shelf, board = compare_runs.shelf(desk), compare_runs.board(desk)
        times.append(time.process_time() - begun)
    assert "1,000 runs" in shelf
    assert "page 41 of 84" in shelf
    assert "#500" in board
    assert min(times) < 0.2


# ---- choosing


def test_what_is_chosen_is_kept_and_drawn(desk):
    ids = [finish(desk, "compose", f"r{n}", {"prompts": [HOSTILE], "seed": n}) for n in range(2)]
    before = compare_runs.key(desk)
    for each in ids:
        compare_runs.pick(desk, str(each))
    assert compare_runs.key(desk) != before
    assert compare_runs.state(desk).chosen == tuple(ids)
    board, shelf = compare_runs.board(desk), compare_runs.shelf(desk)
    assert "<script" not in board + shelf
    assert "{{" not in board + shelf
    assert "${" not in board + shelf
    assert "seed" in board.partition("What differs")[2]
    assert board.count('class="side-run"') == 2
    assert 'aria-pressed="true"' in shelf
    compare_runs.pick(desk, str(ids[0]))
    assert compare_runs.state(desk).chosen == (ids[1],)
    compare_runs.clear(desk, "")
    assert "Choose two runs" in compare_runs.board(desk)


def test_no_more_than_fit_can_be_chosen(desk):
    ids = [finish(desk, "compose", f"r{n}", {"prompts": ["a"]}) for n in range(history.MOST_CHOSEN + 1)]
    for each in ids[:-1]:
        compare_runs.pick(desk, str(each))
    with pytest.raises(BadInput):
        compare_runs.pick(desk, str(ids[-1]))


def test_a_draft_of_anything_is_no_harm(desk):
    desk.keep("history", {"kind": 3, "text": None, "page": "x", "chosen": ["a", 10**12], "gone": 5 * ["x"]})
    assert compare_runs.state(desk).chosen == (10**12,)
    assert "Your runs appear here" in compare_runs.shelf(desk)
    assert "Choose two runs" in compare_runs.board(desk)


def test_what_differs_takes_open_settings_at_their_default(desk):
    forms = ({"prompts": ["a"]}, {"prompts": ["a"], "guidance.scale": 9.0})
    ids = [finish(desk, "compose", f"r{n}", form) for n, form in enumerate(forms)]
    differing = history.differences(history.entries(desk, ids))
    assert list(differing) == ["guidance.scale"]
    assert isinstance(differing["guidance.scale"][0], float)
    assert differing["guidance.scale"][1] == 9.0


def test_settings_go_to_the_tab_that_made_the_run(desk):
    drawn = finish(desk, "compose", "one", {"prompts": ["a"], "seed": 5})
    sent = compare_runs.reuse(desk, str(drawn))
    assert (sent["to"], sent["table"]["seed"]) == ("compose", 5)
    assert "out" not in sent["table"]
    sent = compare_runs.reuse(desk, str(grid_run(desk)))
    assert sent["to"] == "compare"
    assert sent["table"]["axes"][0]["path"] == "guidance.scale"
    sent = compare_runs.vary(desk, str(drawn))
    assert sent["table"]["job"]["seed"] == 5


# ---- the bin


def test_a_deleted_run_is_gone_from_the_list_and_can_come_back(desk):
    ident = finish(desk, "compose", "one", {"prompts": ["a"]})
    compare_runs.pick(desk, str(ident))
    compare_runs.discard(desk, str(ident))
    assert not (desk.folder / "runs" / "one").exists()
    assert (desk.folder / "bin" / "one" / "0001.png").is_file()
    assert history.listing(desk).total == 0
    assert compare_runs.state(desk).chosen == ()
    assert "Undo" in compare_runs.shelf(desk)
    compare_runs.restore(desk, "")
    assert history.listing(desk).total == 1
    assert "Undo" not in compare_runs.shelf(desk)


def test_what_is_not_ours_or_still_needed_is_not_deleted(desk, tmp_path):
    ident = finish(desk, "compose", "one", {"prompts": ["a"]})
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    spec = presets.build("compose", form={"prompts": ["a"]})
    foreign = desk.store.add(spec, device="cpu")
    desk.store.claim("cpu", foreign)
    desk.store.finish(foreign, "done", {"out": str(outside), "pictures": []})
    with pytest.raises(BadInput):
        history.discard(desk, foreign)
    assert outside.is_dir()
    needs = presets.build("compose", form={"prompts": ["b"], "start": "run:one/0001.png"})
    waiting = desk.store.add(needs, device="cpu")
    with pytest.raises(BadInput):
        history.discard(desk, ident)
    with pytest.raises(BadInput):
        history.discard(desk, waiting)
    desk.keep("history", {"gone": ["../../elsewhere", "stolen"]})
    with pytest.raises(BadInput):
        compare_runs.restore(desk, "")
    assert outside.is_dir()


# ---- exports


@pytest.mark.parametrize(
    ("value", "safe"),
    [("=1+1", "'=1+1"), ("@x", "'@x"), ("+1", "'+1"), ("-1", "'-1"), ("\t=1", "'\t=1"), (" =1", "' =1"),
     (-1.5, -1.5), ("a=b", "a=b"), (None, ""), (True, True), (["=x"], '["=x"]')],
)  # fmt: skip
def test_no_cell_is_a_formula(value, safe):
    assert compare_export.safe(value) == safe


def test_the_exports_of_chosen_runs(desk):
    ids = [finish(desk, "compose", f"r{n}", {"prompts": [HOSTILE], "seed": n}) for n in range(2)]
    name = f"runs-{ids[0]}-{ids[1]}"
    rows = list(
        csv.DictReader(io.StringIO((compare_export.export(desk, f"{name}.csv") or b"").decode("utf-8-sig")))
    )
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert all(row["title"].startswith("'=HYPERLINK") for row in rows)
    assert float(rows[0]["dino_i"]) == pytest.approx(0.6)
    table = json.loads(compare_export.export(desk, f"{name}.json") or b"")
    assert table["runs"][0]["job"]["prompts"] == [HOSTILE]
    assert table["runs"][1]["command"].startswith("likeness generate")
    assert str(desk.folder) not in json.dumps(table), "no path of this machine leaves it"
    page = (compare_export.export(desk, f"{name}.html") or b"").decode()
    assert page.count("src=") == page.count('src="data:image/png;base64,') == 4
    assert "href=" not in page
    assert "<script" not in page
    assert "<svg" in page


def test_the_exports_of_a_grid(desk):
    ident = grid_run(desk)
    rows = list(
        csv.DictReader(
            io.StringIO((compare_export.export(desk, f"grid-{ident}.csv") or b"").decode("utf-8-sig"))
        )
    )
    assert [row["guidance.scale"] for row in rows] == ["1.0", "7.5"]
    again = presets.read_file(written(desk, compare_export.export(desk, f"grid-{ident}.toml")))
    assert again.pop("title")
    assert from_table(again).model_dump()["axes"][0]["path"] == "guidance.scale"
    page = (compare_export.export(desk, f"grid-{ident}.html") or b"").decode()
    assert "<script" not in page
    assert page.count('src="data:image/png') == 1


def written(desk: Desk, data: bytes | None) -> Path:
    path = desk.folder / "grid.toml"
    path.write_bytes(data or b"")
    return path


@pytest.mark.parametrize(
    "name",
    [
        "runs-1.exe",
        "grid-1.csv",
        "runs-.csv",
        "../runs-1.csv",
        "runs-99.csv",
        "grid-99.toml",
        "runs-1.toml",
        "",
    ],
)
def test_nothing_else_can_be_exported(desk, name):
    finish(desk, "compose", "one", {"prompts": ["a"]})
    assert compare_export.export(desk, name) is None


# ---- a grid's page


def test_the_page_of_a_grid(desk):
    assert "Your grid appears here" in compare_grid.result(desk)
    ident = grid_run(desk)
    drawn = compare_grid.result(desk)
    assert drawn.count('class="thumb"') == 2
    assert f"/studio/export/grid-{ident}.csv" in drawn
    assert "Highest likeness: 0.60 at guidance.scale 7.5." in drawn
    assert drawn.count("<circle") == 2
    assert 'data-act="use" data-value="run:compare-grid/cells/001/0001-seed0.png"' in drawn
    later = desk.store.add(desk.store.get(ident).spec, device="cpu")
    assert 'class="thumb"' in compare_grid.result(desk), "while the next one waits the last is still shown"
    assert "Waiting" in compare_grid.progress(desk)
    desk.store.cancel(later)
    (desk.folder / "runs" / "compare-grid" / "cells" / "001" / "0001-seed0.png").unlink()
    assert compare_grid.result(desk).count('class="thumb"') == 1, "a picture that was deleted is left out"


def test_the_drawing_that_varies_is_the_one_sent_or_the_newest(desk):
    assert "no drawing to vary" in compare_grid.summary(desk, {})
    finish(desk, "compose", "one", {"prompts": ["first"]})
    finish(desk, "edit", "two", {"prompts": [HOSTILE], "image": "asset:photos/dog"})
    assert compare_grid.newest(desk)["kind"] == "edit"
    shown = compare_grid.summary(desk, {})
    assert "your newest pictures" in shown
    assert "<script" not in shown
    assert "sent here" in compare_grid.summary(desk, {"prompts": ["x"]})
    assert "note-bad" in compare_grid.summary(desk, {"nonsense": 1})


def test_the_forecast_counts_and_reckons_from_earlier_pictures(desk):
    job = {"prompts": ["x"], "sampler": {"name": "ddim", "steps": 20}}
    axes = [{"path": "seed", "text": "10 seeds"}, {"path": "guidance.scale", "text": "1, 2"}]
    told = compare_grid.forecast(desk, job, axes, 1)
    assert "20 cells (10 × 2)" in told
    assert "after your first pictures" in told
    finish(desk, "compose", "one", {"prompts": ["x"], "count": 2}, seconds={"draw": 3.0, "measure": 1.0})
    assert "About 40 s" in compare_grid.forecast(desk, job, axes, 1)
    assert "About 2 min 0 s" in compare_grid.forecast(desk, job, axes, 3)
    assert "note-warning" in compare_grid.forecast(desk, job, [{"path": "seed", "text": "x"}], 1)
    assert compare_grid.forecast(desk, job, [], 1) == ""


def test_shipped_grids_have_titles_and_can_be_drawn(desk):
    found = compare_grid.shipped(desk)
    assert len(found) >= 4
    for name in found:
        table = presets.load("grids", name, desk.folder)
        assert compare_grid.grid(table["job"], table["axes"]).axes


# ---- what a grid may name


@pytest.mark.parametrize(
    ("job", "path", "values"),
    [
        ({"start": "/etc/hostname"}, "seed", [1]),
        ({}, "start", ["", "/etc/hostname"]),
        ({}, "references", ["file:/etc"]),
        ({"adapters": [{"adapter": "run:none"}]}, "seed", [1]),
        ({}, "base", ["toybox", "/etc"]),
        ({}, "adapters.0", [{"adapter": "/etc/hostname"}]),
        ({}, "seed", list(range(500))),
    ],
)
def test_an_axis_names_no_file_that_a_job_may_not_name(desk, job, path, values):
    table = {"kind": "compare", "job": {"kind": "compose", "prompts": ["x"], **job}}
    spec = from_table({**table, "axes": [{"path": path, "values": values}]})
    with pytest.raises(BadInput):
        desk.allowed(spec)
    assert desk.store.jobs() == []


def test_an_honest_grid_may_be_drawn(desk):
    finish(desk, "compose", "one", {"prompts": ["a"]})
    table = {"kind": "compare", "job": {"prompts": ["x"], "references": "run:one"}}
    axes = [{"path": "seed", "values": [1, 2]}, {"path": "start", "values": ["", "run:one/0001.png"]}]
    assert desk.allowed(from_table({**table, "axes": axes}))
