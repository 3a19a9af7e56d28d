"""Door 2: what a control sees and changes, and that nothing of it stays."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from pipelines.base.attention import Edit, attend, attention_control, pick, recorder
from pipelines.base.backbone import Backbone, Site, rows_in_flight
from pipelines.errors import Cancelled, NotAvailable, UnknownName
from tests import bases

NETS = ("unet-eps", "dit-flow")


@pytest.fixture(scope="module", params=NETS)
def base(request: pytest.FixtureRequest) -> Backbone:
    return bases.make(request.param)


def forward(base: Backbone, x: Tensor | None = None) -> Tensor:
    x = bases.noise() if x is None else x
    return base.predict(x, torch.full((len(x),), 500), bases.words(base, len(x)))


def wrapped(base: Backbone) -> list[str]:
    """Modules with anything of ours, or any hook, on them."""
    return [
        name
        for name, each in base.net.named_modules()
        if "forward" in each.__dict__ or each._forward_hooks or each._forward_pre_hooks
    ]


def same(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Edit:
    return q, k, v


def flat(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Edit:
    return q * 0, k, v


def test_identity_is_bitwise_equal(base: Backbone) -> None:
    plain = forward(base)
    with attention_control(base, same):
        inside = forward(base)
    assert torch.equal(plain, inside)
    assert torch.equal(plain, forward(base))


def test_every_site_is_seen_once_a_forward_in_order(base: Backbone) -> None:
    seen: list[str] = []

    def note(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Edit:
        assert q.ndim == 4 and q.shape[:2] == k.shape[:2] == v.shape[:2]
        seen.append(site.name)
        return q, k, v

    with attention_control(base, note):
        forward(base)
    assert seen == [site.name for site in base.sites]


def test_only_chosen_sites_are_touched(base: Backbone) -> None:
    seen: set[str] = set()

    def note(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Edit:
        seen.add(site.name)
        return q * 0, k, v

    with attention_control(base, note, base.sites[1:2]):
        changed = forward(base)
    assert seen == {base.sites[1].name}
    assert not torch.allclose(changed, forward(base), atol=1e-3)


@pytest.mark.parametrize("error", [ValueError("x"), Cancelled("x"), KeyboardInterrupt()])
def test_nothing_is_left_after_an_exception(base: Backbone, error: BaseException) -> None:
    plain = forward(base)

    def fail(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Edit:
        if site.index == 1:
            raise error
        return q, k, v

    with pytest.raises(type(error)), attention_control(base, fail):
        forward(base)
    assert wrapped(base) == []
    assert torch.overrides._get_current_function_mode_stack() == []
    assert torch.equal(plain, forward(base))


def test_a_forward_that_somebody_else_set_comes_back(base: Backbone) -> None:
    module = base.net.get_submodule(base.sites[0].name)
    kept = module.forward
    calls: list[int] = []

    def other(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return kept(*args, **kwargs)

    module.forward = other
    try:
        with attention_control(base, same):
            forward(base)
        assert calls == [1]
        assert module.__dict__["forward"] is other
    finally:
        del module.__dict__["forward"]


def test_controls_stack_and_may_close_in_any_order(base: Backbone) -> None:
    order: list[str] = []

    def named(name: str) -> Any:
        def control(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Edit:
            order.append(name)
            return q, k, v

        return control

    one, two = attention_control(base, named("one")), attention_control(base, named("two"))
    one.__enter__()
    two.__enter__()
    forward(base)
    assert order == ["one", "two"] * len(base.sites)
    one.__exit__(None, None, None)
    order.clear()
    forward(base)
    assert order == ["two"] * len(base.sites)
    two.__exit__(None, None, None)
    assert wrapped(base) == []


def test_probabilities_are_those_of_the_formula(base: Backbone) -> None:
    hand: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}

    def by_hand(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Edit:
        scores = torch.einsum("bhnd,bhld->bhnl", q.double(), k.double()) / q.shape[-1] ** 0.5
        hand[site.name] = scores.exp() / scores.exp().sum(-1, keepdim=True)
        values[site.name] = v
        return q, k, v

    with attention_control(base, by_hand), recorder(base) as maps:
        out = forward(base)
    assert maps.keys() == {site.name for site in base.sites}
    for name, (probs,) in maps.items():
        assert torch.allclose(probs.double(), hand[name], atol=1e-6)
        assert torch.allclose(probs.sum(-1), torch.ones(probs.shape[:3]), atol=1e-5)
    assert torch.allclose(out, forward(base), atol=2e-5)


def test_probabilities_can_be_replaced(base: Backbone) -> None:
    def uniform(probs: Tensor) -> Tensor:
        return torch.full_like(probs, 1 / probs.shape[-1])

    with attention_control(base, lambda s, q, k, v, r: attend(uniform)):
        replaced = forward(base)
    with attention_control(base, flat):  # queries of zero look everywhere alike
        expected = forward(base)
    assert torch.allclose(replaced, expected, atol=2e-5)
    assert not torch.allclose(replaced, forward(base), atol=1e-2)


def test_an_output_can_be_put_in_its_place(base: Backbone) -> None:
    with attention_control(base, lambda s, q, k, v, r: v.mean(2, keepdim=True).expand_as(q)):
        replaced = forward(base)
    with attention_control(base, flat):
        expected = forward(base)
    assert torch.allclose(replaced, expected, atol=2e-5)


def test_a_mask_narrows_what_may_be_looked_at(base: Backbone) -> None:
    def first_only(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Edit:
        allowed = torch.zeros(q.shape[2], k.shape[2], dtype=torch.bool)
        allowed[:, 0] = True
        return q, k, v, allowed

    with attention_control(base, first_only):
        masked = forward(base)
    with attention_control(base, lambda s, q, k, v, r: v[:, :, :1].expand_as(q)):
        expected = forward(base)
    assert torch.allclose(masked, expected, atol=2e-5)


def test_the_sites_own_mask_stays_in_force() -> None:
    base = bases.make("unet-eps")
    cond = bases.words(base, 2)
    mask = torch.ones(2, bases.WORDS, dtype=torch.bool)
    mask[:, 3:] = False
    with recorder(base, [site for site in base.sites if site.kind == "cross"]) as maps:
        base.predict(bases.noise(), torch.full((2,), 500), replace(cond, mask=mask))
    for (probs,) in maps.values():
        assert probs[..., 3:].max() < 1e-6
        assert torch.allclose(probs[..., :3].sum(-1), torch.ones(()), atol=1e-5)


def test_controls_see_the_rows_in_flight(base: Backbone) -> None:
    seen: list[Any] = []

    def note(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Edit:
        seen.append(dict(rows))
        return q, k, v

    rows = {"cond": slice(0, 1), "uncond": slice(1, 2)}
    with attention_control(base, note, base.sites[:1]), rows_in_flight(base, rows):
        forward(base)
    assert seen == [rows]
    assert base.rows == {}


def gradients(base: Backbone, checkpointing: bool) -> tuple[Tensor, int, int]:
    """d out² + d of recorded maps / dx, with a control on row "b"; maps recorded and rows missed."""
    net = bases.network(base)
    x = bases.noise().requires_grad_()
    missed = 0

    def control(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Edit:
        nonlocal missed
        missed += "b" not in rows
        return (q * 0.3, k, v) if "b" in rows else (q, k, v)

    net.train()
    if checkpointing:
        net.enable_gradient_checkpointing()
    try:
        with attention_control(base, control), recorder(base) as maps:
            with rows_in_flight(base, {"a": slice(0, 1), "b": slice(1, 2)}):
                out = forward(base, x)
            # entropy of the maps: a loss on attention, whose graph starts inside a checkpointed block
            extra = sum((p * (p + 1e-6).log()).sum() for (p,) in maps.values())
            (out.square().sum() + extra).backward()
            count = sum(map(len, maps.values()))
    finally:
        net.disable_gradient_checkpointing()
        net.eval()
    assert x.grad is not None
    return x.grad, count, missed


def test_gradient_checkpointing_gives_the_same_gradients(base: Backbone) -> None:
    plain, recorded, missed = gradients(base, checkpointing=False)
    again, recorded_again, missed_again = gradients(base, checkpointing=True)
    assert torch.allclose(plain, again, atol=1e-5 * float(plain.abs().max()))
    assert recorded == recorded_again == len(base.sites)  # what is computed again is not recorded again
    assert missed == missed_again == 0


def test_it_acts_on_a_network_that_was_compiled_before() -> None:
    torch._dynamo.reset()
    base = bases.make("dit-flow")
    compiled = torch.compile(base.net, backend="eager")
    plain, t = forward(base), torch.full((2,), 500)
    cond = bases.words(base, 2)
    tokens: dict[str, Any] = {
        "encoder_hidden_states": cond.tokens, "pooled_projections": cond.pooled, "timestep": t,
        "return_dict": False,
    }  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(compiled(bases.noise(), **tokens)[0], plain, atol=1e-5)
        with attention_control(base, flat):
            inside = compiled(bases.noise(), **tokens)[0]
            expected = forward(base)
        assert torch.allclose(inside, expected, atol=1e-5)
        assert not torch.allclose(inside, plain, atol=1e-2)
        assert torch.allclose(compiled(bases.noise(), **tokens)[0], plain, atol=1e-5)
    torch._dynamo.reset()


def test_attention_that_goes_another_way_is_an_error() -> None:
    base = bases.make("unet-eps")
    module: Any = base.net.get_submodule(base.sites[0].name)
    module.set_processor(AttnProcessor())  # multiplies by hand
    with pytest.raises(NotAvailable, match=r"attn1"), attention_control(base, same):
        forward(base)
    assert wrapped(base) == []


def test_a_site_that_never_runs_is_an_error() -> None:
    base = bases.make("dit-flow")
    base.net.register_module("spare", copy.deepcopy(base.net.get_submodule(base.sites[0].name)))
    spare = Site("spare", 3, "joint")
    with pytest.raises(NotAvailable, match="spare"), attention_control(base, same, [*base.sites, spare]):
        forward(base)
    assert wrapped(base) == []


def test_a_second_attention_of_one_forward_has_its_own_stream() -> None:
    base = bases.make("unet-eps")
    site = base.sites[1]
    module: Any = base.net.get_submodule(site.name)
    kept = module.processor

    class Twice:
        """As with image prompts: the words first, then what was added."""

        def __call__(self, attn: Any, hidden_states: Tensor, **kwargs: Any) -> Tensor:
            one = kept(attn, hidden_states, **kwargs)
            return one + 0.5 * kept(attn, hidden_states, **kwargs)

    module.processor = Twice()
    seen: list[int] = []

    def note(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Edit:
        seen.append(site.stream)
        return q, k, v

    with attention_control(base, note, [site]), recorder(base, [site]) as maps:
        forward(base)
    assert seen == [0, 1]
    assert len(maps[site.name]) == 1


def test_sites_are_picked_by_name(base: Backbone) -> None:
    looking = [site for site in base.sites if site.kind != "cross"]
    assert pick(base, ["all"]) == tuple(looking)
    (middle,) = pick(base, ["mid"])
    assert middle.name == ("transformer_blocks.1.attn" if base.predicts == "flow" else looking[1].name)
    assert pick(base, ["mid", "blocks.0"]) == tuple(s for s in looking if "blocks.0" in s.name or s == middle)
    with pytest.raises(UnknownName):
        pick(base, ["nowhere"])
    if base.predicts == "flow":
        with pytest.raises(NotAvailable):
            pick(base, ["all"], ["cross"])
