"""Effects that were measured once: they still stand, or this says how to measure them anew."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipelines.errors import BadInput, MissingAsset, UnknownName
from pipelines.jobs.spec import from_table
from pipelines.progress import Job
from pipelines.study import effects
from pipelines.study.effects import RENEW, Effect, Measured, bare, imports, stale
from pipelines.worker import run

EFFECTS = effects.effects()
each_effect = pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)


@each_effect
def test_a_measured_effect_still_stands(effect):
    """Weights, code and settings are those it was measured with, and the method moved the readout."""
    reasons = stale(effect)
    assert not reasons, f"{' '.join(reasons)} Measure it anew: {RENEW.format(effect.name)}"
    table = effects.kept(effect)
    assert effect.holds(table["on"], table["off"]), table


@each_effect
def test_a_claim_says_what_it_rests_on(effect):
    assert EFFECTS[effect.name] is effect
    assert effect.margin > 0
    code = effects.code_of(effect)
    for part in ("dreambooth_lora", "trainer", "losses/noise", "carriers/low_rank"):
        assert f"pipelines/concepts/{part}.py" in code
    assert f"pipelines/study/claims/{effect.name}.py" in code
    assert {name.partition("/")[0] for name in effects.weights_of(effect)} == set(effect.weights)
    assert effect.settings()["rank"] == 16


@pytest.mark.slow  # trainings of a minute or more, on two quiet cores
@each_effect
def test_an_effect_measured_anew_holds(effect, tmp_path, monkeypatch):
    monkeypatch.setattr(effects, "place", lambda name: tmp_path / f"{name}.json")
    (row,) = [
        each
        for each in run(from_table({"kind": "study_effects", "run": [effect.name]}), Job())["rows"]
        if each["effect"] == effect.name
    ]
    assert row["state"] == "holds", row


# ---- how results are kept and go stale


def made(on: float = 0.9, off: float = 0.5, **changes: Any) -> Effect:
    """An effect that takes no time."""
    effect = Effect(
        name="quick",
        claim="It works.",
        readout="likeness",
        better="higher",
        margin=0.1,
        measure=lambda run, folder, job: Measured(on, off, {"beside": 1.0}),
        settings=lambda: {"steps": 3},
        modules=("pipelines.concepts.losses.noise",),
        weights=("dino",),
    )
    return replace(effect, **changes)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(effects, "place", lambda name: tmp_path / f"{name}.json")
    return tmp_path


def test_a_result_is_kept_with_what_it_rests_on_and_read_again(folder):
    effect = made()
    with pytest.raises(MissingAsset, match="quick"):
        effects.kept(effect)
    assert "does not exist" in stale(effect)[0]
    table = effects.measure(effect, run, Job())
    assert effects.kept(effect) == table
    assert (table["on"], table["off"], table["beside"]) == (0.9, 0.5, {"beside": 1.0})
    assert table["threads"] >= 1
    assert stale(effect) == []


@pytest.mark.parametrize(
    ("part", "said"), [("weights", "weights"), ("code", "code"), ("settings", "settings")]
)
def test_whatever_changes_makes_a_result_stale_and_is_named(folder, part, said):
    effect = made()
    table = effects.measure(effect, run, Job())
    for changed in (
        {**table[part], next(iter(table[part])): "other"},
        {**table[part], "gone": "x"},
        {},
        None,
    ):
        (folder / "quick.json").write_text(json.dumps({**table, part: changed}), encoding="utf-8")
        (reason,) = stale(effect)
        assert f"The {said} changed" in reason
    (folder / "quick.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match="cannot be read"):
        effects.kept(effect)
    assert stale(effect)


def test_a_claim_holds_only_the_right_way_and_by_its_margin():
    higher, lower = made(), made(better="lower")
    for on, off, up, down in [(0.9, 0.5, True, False), (0.5, 0.9, False, True), (0.55, 0.5, False, False)]:
        assert higher.holds(on, off) is up
        assert lower.holds(on, off) is down


def test_comments_and_docstrings_are_no_code_and_everything_else_is():
    source = 'def f(x):\n    """Say."""\n    # why\n    y = "# no comment"  # because\n\n    return x\n'
    same = 'def f(x):\n    """Say it\n    in other words."""\n    y = "# no comment"\n    return x\n'
    assert bare(source) == bare(same) == 'def f(x):\n    y = "# no comment"\n    return x'
    assert bare(source.replace("return x", "return -x")) != bare(same)
    assert bare(source.replace("# no", "# a")) != bare(same)


def test_imports_are_found_in_functions_too_but_not_those_for_types():
    source = (
        "import a.b\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from types_only import T\n"
        "def f():\n    from c import d\n"
    )
    assert imports(source) >= {"a.b", "c", "c.d"}
    assert not {"types_only", "types_only.T"} & imports(source)


def test_the_command_lists_measures_and_fails_where_a_result_does_not_stand(folder, monkeypatch):
    made_now = {"quick": made(), "weak": made(on=0.55, name="weak")}
    monkeypatch.setattr("pipelines.worker.study.effects", lambda: made_now)
    monkeypatch.setattr("pipelines.worker.study.place", effects.place)

    def ask(**settings: Any) -> Any:
        return run(from_table({"kind": "study_effects", **settings}), Job())

    listed = ask()
    assert [each["state"] for each in listed["rows"]] == ["stale", "stale"]
    assert "ok" not in listed
    assert listed["renew"] == RENEW.format("stale")
    assert ask(check=True)["ok"] is False
    measured = ask(run=["stale"])
    assert [each["state"] for each in measured["rows"]] == ["holds", "does not hold"]
    assert measured["ok"] is False
    made_now.pop("weak")
    before = (folder / "quick.json").stat().st_mtime_ns
    assert ask(run=["stale"], check=True)["ok"] is True
    assert (folder / "quick.json").stat().st_mtime_ns == before, "what stands is not measured again"
    ask(run=["all"])
    assert (folder / "quick.json").stat().st_mtime_ns > before
    with pytest.raises(UnknownName) as caught:
        ask(run=["quikc"])
    assert caught.value.suggestion == "quick"
