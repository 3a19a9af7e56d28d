"""Compare: values and axes of a grid, their checks and forecasts; the scatter plot; figures and verdicts."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

from pipelines.errors import BadInput, LikenessError, UnknownName
from pipelines.jobs.spec import KINDS, from_table
from studio import compare_axes, compare_form, compare_grid, compare_values, scatter
from studio.compare_axes import Setting, grid, settings_of
from studio.compare_parts import Mean, mean, told, verdict
from studio.history import Entry, Shot
from studio.markup import Markup

JOB = {
    "kind": "compose",
    "prompts": ["a sks dog, red"],
    "adapters": [{"adapter": "run:train-dog"}],
    "seed": 7,
}


# ---- values


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("0, 0.5, 1", "number", [0.0, 0.5, 1.0]),
        ("0..1 step 0.25", "number", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("0 to 0.3 by 0.1", "number", [0.0, 0.1, 0.2, 0.3]),
        ("1 to 9 in 5", "number", [1.0, 3.0, 5.0, 7.0, 9.0]),
        ("3..1", "whole", [3, 2, 1]),
        ("-0.5..0.5 step .5", "number", [-0.5, 0.0, 0.5]),
        ("10, 20..40 step 10", "whole", [10, 20, 30, 40]),
        ("4 seeds", "whole", [7, 8, 9, 10]),
        ("2 seeds from 100", "whole", [100, 101]),
        ("ddim, euler", "choice", ["ddim", "euler"]),
        ("yes, no", "yes", [True, False]),
        ("a dog, red\na cat, 1..3", "text", ["a dog, red", "a cat, 1..3"]),
        ("1, two, 2.5", "any", [1, "two", 2.5]),
        ("1, 1, 2", "whole", [1, 2]),
        ("", "number", []),
    ],
)
def test_values_as_people_type_them(text, kind, values):
    found = compare_values.parse(text, kind, start=7)
    assert found == values
    assert [type(each) for each in found] == [type(each) for each in values]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a dog", "number"),
        ("0.5", "whole"),
        ("0..1 step 0.5", "whole"),
        ("0..1 step 0", "number"),
        ("1..9 in 1", "number"),
        ("0..1000000", "whole"),
        ("0..1 step 0.0000000001", "number"),
        ("1e999999999", "whole"),
        ("nan", "number"),
        ("9" * 8000 + " seeds", "whole"),
        ("1" * 8000, "number"),
        ("99999 seeds", "whole"),
        (", ".join(map(str, range(500))), "whole"),
    ],
)
def test_values_that_make_no_sense_are_refused_at_once(text, kind):
    begun = time.perf_counter()
    with pytest.raises(BadInput) as error:
        compare_values.parse(text, kind)
    assert error.value.remedy
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.0, 0.25], "number"),
        (["a, b", "c"], "text"),
        ([True, False], "yes"),
        ([1, 2], "whole"),
        (["x"], "any"),
    ],
)
def test_values_are_shown_as_they_could_be_typed(values, kind):
    assert compare_values.parse(compare_values.shown(values, kind), kind) == values


# ---- axes


def test_every_setting_that_may_vary_can_be_set_to_what_it_is_now():
    spec = from_table(JOB)
    found = {each.path: each for each in settings_of(JOB)}
    assert {"seed", "adapters.0.weight", "prompts.0", "guidance.method", "sampler.steps"} <= found.keys()
    assert "out" not in found
    assert "device" not in found
    assert "strength" not in found, "nothing is drawn over without a picture to start from"
    for each in found.values():
        assert each.hint
        if each.now is not None:
            assert compare_axes.set_path(spec, each.path, each.now)


def test_settings_of_methods_and_of_what_stands_around_them_are_found():
    table = {**JOB, "guidance": {"method": "apg"}}
    paths = [each.path for each in settings_of(table)]
    known = KINDS["compose"]
    assert known
    assert any(path.startswith("guidance.") and path != "guidance.method" for path in paths)
    edit = settings_of({"kind": "edit", "image": "asset:photos/dog", "prompts": ["x"], "source": "y"})
    assert {"edit.method", "source"} <= {each.path for each in edit}


def test_a_grid_from_a_form_and_from_a_parcel():
    spec = grid(JOB, [{"path": "adapters.0.weight", "text": "0..1 step 0.5"}, {"path": "", "text": "1"}])
    assert spec.axes[0].path == "adapters.0.weight"
    assert spec.axes[0].values == (0.0, 0.5, 1.0)
    spec = grid(JOB, [{"path": "seed", "values": [1, 2]}, {"path": "prompt", "text": "a, b\nc"}], "Why?", 2)
    assert [each.path for each in spec.axes] == ["seed", "prompts.0"]
    assert spec.axes[1].values == ("a, b", "c")
    assert (spec.title, spec.job["count"]) == ("Why?", 2)
    assert grid(JOB, [{"path": "seed", "text": "3 seeds"}]).axes[0].values == (7, 8, 9)
    assert "out" not in grid({**JOB, "out": "/x"}, [{"path": "seed", "values": [1]}]).job


@pytest.mark.parametrize(
    "axes",
    [
        [],
        [{"path": "seed", "text": ""}],
        [{"path": "seed", "text": "1"}, {"path": "seed", "text": "2"}],
        [{"path": "guidance.scale", "text": "1, 99"}],
        [{"path": "seed", "text": "30 seeds"}, {"path": "guidance.scale", "text": "1..20"}],
        [{"path": "adapters.3.weight", "text": "1"}],
        [{"path": "nonsense", "text": "1"}],
        [{"path": "guidance.method", "text": "cfg, apg"}, {"path": "guidance.rescale.x", "text": "1"}],
    ],
)
def test_a_grid_that_could_not_be_drawn_is_refused_before_it_waits(axes):
    with pytest.raises((BadInput, UnknownName)) as error:
        grid(JOB, axes)
    assert error.value.remedy


@pytest.mark.parametrize(
    "job", [{}, {"kind": "compose", "prompts": ["  "]}, {"kind": "train"}, {"kind": "zz"}]
)
def test_only_a_drawing_with_a_prompt_can_vary(job):
    with pytest.raises(LikenessError):
        grid(job, [{"path": "seed", "text": "1"}])


def test_the_work_of_a_grid_grows_with_what_costs():
    seeds = compare_axes.work(grid(JOB, [{"path": "seed", "text": "4 seeds"}]))
    assert compare_axes.work(grid(JOB, [{"path": "seed", "text": "8 seeds"}])) == 2 * seeds
    steps = grid(JOB, [{"path": "sampler.steps", "text": "10, 30"}])
    assert compare_axes.work(steps) == 40
    assert compare_axes.work(grid(JOB, [{"path": "seed", "text": "4 seeds"}], count=3)) == 3 * seeds


def test_grids_of_one_click():
    weights = compare_grid.quick("weight", JOB)
    assert grid(JOB, weights).axes[0].values == (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    assert grid(JOB, compare_grid.quick("with", JOB)).axes[0].values == (0.0, 1.0)
    assert compare_grid.quick("weight", {**JOB, "adapters": []}) == []
    for name, label in compare_grid.QUICK:
        assert label
        assert grid(JOB, compare_grid.quick(name, JOB)).axes


def test_axes_in_the_form_and_back():
    known = {each.path: each for each in settings_of(JOB)}
    axes = [
        {"path": "adapters.0.weight", "values": [0.0, 0.5]},
        {"path": "prompts.0", "values": ["a, b", "c"]},
    ]
    pairs = compare_grid.axes_text(axes, known)
    assert pairs == [("adapters.0.weight", "0, 0.5"), ("prompts.0", "a, b\nc"), ("", "")]
    held = compare_form.collected([path for path, _ in pairs], [text for _, text in pairs])
    assert [list(each.values) for each in grid(JOB, held).axes] == [[0.0, 0.5], ["a, b", "c"]]


def test_a_typed_path_stays_among_the_choices():
    known = {"seed": Setting("seed", "seed")}
    assert compare_form.choices(known, "guidance.with.x.scale")[-1][1] == "guidance.with.x.scale"
    assert [path for _, path in compare_form.choices(known, "seed")] == ["", "seed"]
    assert compare_form.hint(known, "other") == Markup("")


# ---- the plot


@pytest.mark.parametrize(
    "values", [[0.1, 0.9], [0.5], [0.5, 0.5], [-1.0, 3e-9], [0.301, 0.302], [-3.0, 250.0]]
)
def test_ticks_are_round_and_take_in_every_value(values):
    found = scatter.ticks(values)
    assert found[0] <= min(values) + 1e-9
    assert found[-1] >= max(values) - 1e-9
    assert 2 <= len(found) <= 8
    gaps = {round(after - before, 9) for before, after in pairwise(found)}
    assert len(gaps) == 1


def test_labels_do_not_lie_over_one_another():
    placed = scatter.spread([(f"run {n}", 100.0, 100.0 + n) for n in range(5)])
    ys = sorted(y for _, _, y, _ in placed)
    assert all(after - before >= scatter.LABEL_GAP for before, after in pairwise(ys))
    assert scatter.spread([("x", scatter.WIDTH - 20.0, 50.0)])[0][3] == "end"


def test_the_plot_says_what_it_shows_and_runs_nothing():
    points = [
        scatter.Point(0.2, 0.7, "<script>alert(1)</script>"),
        scatter.Point(0.3, 0.6, "b", 1, small=True),
        scatter.Point(float("nan"), 0.1, "lost"),
    ]
    drawn = scatter.scatter(points, "Likeness", "obedience", "likeness")
    assert "<script" not in drawn
    assert 'role="img"' in drawn
    assert drawn.count("<circle") == 2
    assert "lost" not in drawn
    assert "<td>0.200</td><td>0.700</td>" in drawn
    assert "later" in scatter.scatter([], "Likeness", "x", "y", waiting="later")


# ---- figures


def entry(ident: int, values: list[float], readings: dict[str, float] | None = None) -> Entry:
    shots = tuple(Shot(Path("x.png"), "p", n, {"dino_i": value}) for n, value in enumerate(values))
    spec = from_table(JOB)
    return Entry(ident, "compose", "t", 0.0, None, None, readings or {}, shots, Path("x"), spec, {})


def test_a_mean_has_the_interval_of_students_t():
    found = mean([1.0, 2.0, 3.0])
    assert found is not None
    assert found.value == 2
    assert found.give == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert mean([0.5]) == Mean(0.5, None, 1)
    assert mean([]) is None


def test_runs_that_cannot_be_told_apart_are_said_so():
    near = verdict([entry(1, [0.5, 0.7, 0.6]), entry(2, [0.55, 0.72, 0.61])], "dino_i")
    assert "cannot be told apart" in near
    far = verdict([entry(1, [0.2, 0.21, 0.22]), entry(2, [0.8, 0.81, 0.82])], "dino_i")
    assert far.startswith("Likeness: #2 is ahead of #1 by 0.600")
    single = verdict([entry(1, [0.5]), entry(2, [0.9])], "dino_i")
    assert "single figures say little" in single
    assert verdict([entry(1, [0.5]), entry(2, [])], "dino_i") == ""


def test_settings_in_words():
    assert [told(each) for each in (None, True, 0.5, 3, "x")] == ["–", "yes", "0.5", "3", "x"]
