"""What every guidance method must keep, on a UNet of ε, one of v, and a flow transformer.

The methods come from the catalog: a new file inherits the suite.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
import tomli_w
import torch
from torch import Tensor

from pipelines.base.backbone import Backbone, Condition
from pipelines.base.noise import Guided, Guides
from pipelines.errors import BadInput, Cancelled, LikenessError, NotAvailable, UnknownName
from pipelines.guidance._base import STAGES, Guidance
from pipelines.guidance._compose import Composed, read_guidance, write_guidance
from pipelines.progress import Event, Job
from pipelines.sampling import schedulers
from pipelines.sampling.denoise import Denoiser
from pipelines.sampling.loop import sample, step_at
from pipelines.spec import catalog, limits, read
from tests import bases

METHODS = cast("dict[str, type[Guidance]]", catalog("guidance"))
STACKED = [{"method": "cfg", "scale": 4, "with": {name: {}}} for name in METHODS
           if METHODS[name].stage != "combine"]  # fmt: skip
TABLES: list[dict[str, Any]] = [{"method": name} for name in METHODS] + STACKED
STEPS = 4

every_method = pytest.mark.parametrize("name", METHODS)
every_table = pytest.mark.parametrize(
    "table", TABLES, ids=["+".join([each["method"], *each.get("with", {})]) for each in TABLES]
)


class Plain:
    """No guidance."""

    def branches(self) -> tuple[str, ...]:
        return ("cond",)

    def start(self, base: Backbone) -> Any:
        return lambda denoise, step: denoise("cond")


def conditions(base: Backbone, rows: Sequence[int] = (0, 1)) -> dict[str, Condition]:
    """Other words for every row; the empty and the negative text are one row for all."""
    cond = bases.words(base, 4, seed=11)[list(rows)]
    return {"cond": cond, "uncond": bases.words(base, 1, seed=5), "negative": bases.words(base, 1, seed=6)}


def draw(
    base: Backbone,
    guidance: Guides,
    rows: Sequence[int] = (0, 1),
    sampler: str = "euler",
    job: Job | None = None,
    denoiser: Denoiser | None = None,
) -> Tensor:
    """Latents after STEPS steps, one for each of `rows`."""
    steps = schedulers.make(base, sampler, STEPS)
    x = schedulers.initial(steps, bases.noise(4)[list(rows)])
    return sample(
        base, conditions(base, rows), guidance.start(base), steps, x, job or Job(),
        branches=guidance.branches(), denoiser=denoiser,
    )  # fmt: skip


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((one - other).abs().max() <= tolerance * other.abs().max().clamp_min(1))


# ---- every method on every base


@every_table
def test_it_does_something(base: Backbone, table: Mapping[str, Any]) -> None:
    assert not close(draw(base, read_guidance(table)), draw(base, Plain()), 1e-3)


@every_method
def test_neutral_settings_are_the_conditional_prediction(base: Backbone, name: str) -> None:
    guidance = read_guidance({"method": name, **METHODS[name].neutral})
    assert torch.equal(draw(base, guidance), draw(base, Plain()))
    assert guidance.rows() == 1


@pytest.mark.parametrize("table", STACKED)
def test_neutral_settings_leave_the_inner_guide_alone(base: Backbone, table: Mapping[str, Any]) -> None:
    quiet = {name: METHODS[name].neutral for name in table["with"]}
    guidance = read_guidance({**table, "with": quiet})
    alone = read_guidance({"method": "cfg", "scale": 4})
    assert torch.equal(draw(base, guidance), draw(base, alone))
    assert guidance.rows() == alone.rows()


@every_table
def test_a_row_of_a_batch_is_the_same_alone(base: Backbone, table: Mapping[str, Any]) -> None:
    guidance = read_guidance(table)
    together = draw(base, guidance, (0, 1, 2))
    for row in range(3):
        # several threads share out a batch otherwise than one row, and a random net enlarges the roundings
        assert close(draw(base, guidance, (row,)), together[row : row + 1], 1e-4)


@every_table
def test_two_runs_are_identical(base: Backbone, table: Mapping[str, Any]) -> None:
    guidance = read_guidance(table)
    assert torch.equal(draw(base, guidance), draw(base, guidance))


@every_table
def test_a_cancelled_run_leaves_nothing_to_the_next(base: Backbone, table: Mapping[str, Any]) -> None:
    guidance = read_guidance(table)
    first = draw(base, guidance)
    job = Job()

    def stop(event: Event) -> None:
        if event.kind == "report" and event.step == 2:
            job.cancel()

    job.subscribe(stop)
    with pytest.raises(Cancelled):
        draw(base, guidance, job=job)
    assert bases.residue(base) == []
    assert torch.equal(draw(base, guidance), first)


@every_table
def test_nothing_is_left_when_the_network_fails(
    base: Backbone, table: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    guidance = read_guidance(table)
    last: Any = base.net.get_submodule(base.sites[-1].name).get_submodule("to_out.0")
    kept, left = type(last).forward, 0

    def fail(self: Any, x: Tensor) -> Tensor:
        nonlocal left
        left -= self is last
        if self is last and left == 0:
            raise RuntimeError("out of memory")
        return kept(self, x)

    monkeypatch.setattr(type(last), "forward", fail)
    for forward in (1, 2):  # in the shared batch, and in one of its own where there is one
        left = forward
        with pytest.raises(RuntimeError):
            draw(base, guidance)
        assert bases.residue(base) == []


@every_table
def test_rows_used_are_rows_declared(base: Backbone, table: Mapping[str, Any]) -> None:
    guidance = read_guidance(table)
    denoiser = Denoiser(base, conditions(base), guidance.branches())
    draw(base, guidance, denoiser=denoiser)
    assert denoiser.rows == STEPS * 2 * guidance.rows()
    assert denoiser.calls == STEPS * (1 + guidance.extra_rows())


@every_table
def test_only_declared_guides_edit_the_next_latents(base: Backbone, table: Mapping[str, Any]) -> None:
    guidance = read_guidance(table)
    guide = guidance.start(base)
    steps = schedulers.make(base, "euler", STEPS)
    step = step_at(base, steps, 1, bases.noise())
    denoiser = Denoiser(base, conditions(base), guidance.branches())
    denoiser.begin(step)
    with torch.no_grad():
        out = guide(denoiser, step)
    edits = isinstance(out, Guided) and out.after is not None
    declared = any(METHODS[name].after for name in [table["method"], *table.get("with", {})])
    assert not edits or declared


@every_table
def test_branches_that_agree_give_no_nan(base: Backbone, table: Mapping[str, Any]) -> None:
    guidance = read_guidance(table)
    steps = schedulers.make(base, "euler", STEPS)
    step = step_at(base, steps, 1, bases.noise())
    same = bases.words(base, 2, seed=11)
    denoiser = Denoiser(base, {"cond": same, "uncond": same, "negative": same}, guidance.branches())
    denoiser.begin(step)
    with torch.no_grad():
        out = guidance.start(base)(denoiser, step)
    pred = out.pred if isinstance(out, Guided) else out
    assert bool(pred.isfinite().all())


# ---- every config


@every_method
def test_it_says_what_it_is(name: str) -> None:
    method = METHODS[name]
    assert method.title
    assert method.source.startswith(("arXiv:", "https://"))
    assert method.stage in STAGES
    assert method.neutral.keys() <= method.model_fields.keys()
    for field in method.model_fields.values():
        assert field.description
        assert field.description[-1] == "."


@every_method
def test_defaults_lie_within_their_range(name: str) -> None:
    for field in METHODS[name].model_fields.values():
        low, high = limits(field.metadata)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert low is not None
            assert high is not None
            assert low <= field.default <= high


@every_table
def test_tables_survive_json_and_toml(table: Mapping[str, Any]) -> None:
    guidance = read_guidance(table)
    written = write_guidance(guidance)
    assert read_guidance(json.loads(json.dumps(written))) == guidance
    assert read_guidance(tomllib.loads(tomli_w.dumps(written))) == guidance


@every_method
def test_a_typing_error_finds_the_nearest_setting(name: str) -> None:
    with pytest.raises(UnknownName) as error:
        read("guidance", {"method": name, "scael": 3})
    assert error.value.suggestion == "scale"


@every_method
def test_a_base_without_what_it_needs_is_refused_before_the_first_forward(name: str) -> None:
    base = bases.make("unet-eps")
    cast("Any", base).offers = frozenset()
    cast("Any", base).sites = ()
    guidance = read_guidance({"method": name})
    with pytest.raises(NotAvailable) as error:
        guidance.start(base)
    assert base.name in error.value.message
    assert error.value.remedy
    neutral = read_guidance({"method": name, **METHODS[name].neutral})
    if not neutral.needed():
        neutral.start(base)  # what asks for nothing runs on any base


# ---- composition


def test_additions_are_added_whatever_the_order(base: Backbone) -> None:
    """CFG + PAG at one step is the sum of the parts, and rescaling comes after both."""
    steps = schedulers.make(base, "euler", STEPS)
    step = step_at(base, steps, 1, bases.noise())

    def once(table: Mapping[str, Any]) -> Tensor:
        guidance = read_guidance(table)
        denoiser = Denoiser(base, conditions(base), guidance.branches())
        denoiser.begin(step)
        with torch.no_grad():
            return cast("Tensor", guidance.start(base)(denoiser, step))

    cond = once({"method": "cfg", "scale": 1})
    cfg = once({"method": "cfg", "scale": 4})
    pag = once({"method": "pag", "scale": 2})
    both = once({"method": "cfg", "scale": 4, "with": {"pag": {"scale": 2}}})
    assert close(both, cfg + pag - cond)
    rescaled = once({"method": "cfg", "scale": 4, "rescale": 1, "with": {"pag": {"scale": 2}}})
    spread = step.velocity(rescaled).std((1, 2, 3))
    assert torch.allclose(spread, step.velocity(cond).std((1, 2, 3)), rtol=1e-4)


def test_a_composition_shares_one_batch(base: Backbone) -> None:
    guidance = read_guidance({"method": "cfg", "scale": 4, "with": {"pag": {"scale": 2}}})
    assert isinstance(guidance, Composed)
    assert guidance.branches() == ("cond", "uncond")
    assert guidance.rows() == 3
    denoiser = Denoiser(base, conditions(base), guidance.branches())
    draw(base, guidance, denoiser=denoiser)
    assert denoiser.calls == 2 * STEPS


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ({"method": "cgf"}, UnknownName),
        ({"method": "cfg", "with": {"pga": {}}}, UnknownName),
        ({"method": "cfg", "with": {"pag": {"scael": 2}}}, UnknownName),
        ({"method": "cfg", "with": {"pag": {"method": "cfg"}}}, UnknownName),
        ({"method": "cfg", "with": {"apg": {}}}, BadInput),
        ({"method": "cfg", "with": {"pag": 2}}, BadInput),
        ({"method": "cfg", "with": "pag"}, BadInput),
        ({"method": "pag", "with": {"pag": {}}}, BadInput),
        ({"method": "cfg", "with": {"pag": {"scale": 1000}}}, BadInput),
        ({}, BadInput),
    ],
)
def test_tables_that_do_not_fit_are_refused(table: Mapping[str, Any], error: type[LikenessError]) -> None:
    with pytest.raises(error) as caught:
        read_guidance(table)
    assert caught.value.remedy
