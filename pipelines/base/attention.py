"""Door 2: read and change what attention sites look at.

A site is opened by wrapping its `forward`; while that runs, a TorchFunctionMode hands every call of
`scaled_dot_product_attention` to the open controls. Not hooks: attached after `torch.compile` they never
fire. Not one mode around the whole network: what gradient checkpointing computes again in the backward pass
would then miss the control, and the gradients would be wrong without a word.

Shapes: B batch, N query tokens, L key tokens, d width of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from pipelines.base.backbone import Backbone, Rows, Site
from pipelines.errors import NotAvailable, UnknownName


@dataclass(frozen=True)
class Attend:
    """Asks for the probabilities [B, heads, N, L] of a site: `change` returns new ones, or None to read.

    `query`, `key`, `value` replace the site's own where they are given. Only here are they materialised.
    """

    change: Callable[[Tensor], Tensor | None]
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None


attend = Attend

Edit = tuple[Tensor, Tensor, Tensor] | tuple[Tensor, Tensor, Tensor, Tensor] | Tensor | Attend
"""What a control returns: q, k, v; the same with a bool mask of what may be looked at (broadcast to
[B, heads, N, L], joined to the site's own); the output [B, heads, N, d] itself; or `attend(…)`."""

Control = Callable[[Site, Tensor, Tensor, Tensor, Rows], Edit]
"""(site, q, k, v [B, heads, N or L, d], rows) → Edit. `rows` tells which rows belong to which branch."""


@contextmanager
def attention_control(
    base: Backbone, control: Control, sites: Iterable[Site] | None = None
) -> Iterator[None]:
    """Let `control` see and change every attention call at `sites` (None: all) while open.

    Keep it open until the backward pass is over where there is one. Several may be open at once; they act
    in the order in which they were opened. Raises NotAvailable where a site computes its attention by
    other means, or where some sites ran and others never did.
    """
    chosen = tuple(base.sites if sites is None else sites)
    opened = _Open(base, control)
    taps: list[_Tap] = []
    try:
        for site in chosen:
            taps.append(_Tap.at(base.net.get_submodule(site.name), site))
            taps[-1].controls.append(opened)
        yield
    finally:
        for tap in reversed(taps):
            tap.controls.remove(opened)
            tap.close_if_idle()
    silent = [site.name for site in chosen if site.name not in opened.fired]
    if opened.fired and silent:
        raise _bypassed(silent[0], "it never ran while others did")


def pick(base: Backbone, names: Sequence[str], kinds: Sequence[str] = ("self", "joint")) -> tuple[Site, ...]:
    """The sites of these kinds that any of `names` means: "mid", "all", or a part of a site's name.

    "mid" is a UNet's middle block and a transformer's middle layer. Raises UnknownName for a name that
    means no site, NotAvailable where the base has no such sites.
    """
    known = [site for site in base.sites if site.kind in kinds]
    if not known:
        raise NotAvailable(
            f"Attention of kind {' or '.join(kinds)}", f"{base.name} has no such sites",
            "Choose a method that does without, or another base.",
        )  # fmt: skip
    inner = [site for site in known if site.name.startswith("mid_block")] or [known[len(known) // 2]]
    chosen: set[str] = set()
    for name in names:
        found = known if name == "all" else inner if name == "mid" else [s for s in known if name in s.name]
        if not found:
            raise UnknownName("attention site", name, ["mid", "all", *(site.name for site in known)])
        chosen |= {site.name for site in found}
    return tuple(site for site in known if site.name in chosen)


@contextmanager
def recorder(base: Backbone, sites: Iterable[Site] | None = None) -> Iterator[dict[str, list[Tensor]]]:
    """Collect probabilities [B, heads, N, L] by site name, one tensor a forward, in order.

    They carry a graph where gradients are enabled. The outputs are computed from them, so they differ from
    undisturbed ones by rounding. Clear the lists between steps: maps of every step are large.
    """
    maps: dict[str, list[Tensor]] = {}

    def record(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Rows) -> Edit:
        if site.stream:
            return q, k, v

        def keep(probs: Tensor) -> None:
            if not _again():
                maps.setdefault(site.name, []).append(probs)

        return attend(keep)

    with attention_control(base, record, sites):
        yield maps


@dataclass(eq=False)
class _Open:
    """One opened control: where it acts, and which sites have reached it."""

    base: Backbone
    control: Control
    rows: Rows = field(default_factory=dict[str, slice])
    fired: set[str] = field(default_factory=set[str])

    def __call__(self, site: Site, q: Tensor, k: Tensor, v: Tensor) -> Edit:
        self.fired.add(site.name)
        if not _again():  # a recomputed forward comes when the loop has already taken its rows down
            self.rows = self.base.rows
        return self.control(site, q, k, v, self.rows)


def _again() -> bool:
    """Whether this is a forward that gradient checkpointing computes again, inside the backward pass."""
    return torch._C._current_graph_task_id() != -1  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]


class _Tap:
    """Stands in for a site module's `forward` while any control is open there."""

    def __init__(self, module: nn.Module, site: Site) -> None:
        self.module, self.site = module, site
        self.controls: list[_Open] = []
        self.forward: Callable[..., Any] = module.forward
        self.own = module.__dict__.get("forward")  # accelerate may have set one
        itself: Any = self
        functools.update_wrapper(itself, self.forward)  # diffusers reads signatures

    @staticmethod
    def at(module: nn.Module, site: Site) -> _Tap:
        """The tap of a module, made where there is none."""
        present = module.__dict__.get("forward")
        if isinstance(present, _Tap):
            return present
        tap = _Tap(module, site)
        module.__dict__["forward"] = tap
        return tap

    def close_if_idle(self) -> None:
        """Put back what was there, once no control is left."""
        if self.controls or self.module.__dict__.get("forward") is not self:
            return
        if self.own is None:
            del self.module.__dict__["forward"]
        else:
            self.module.__dict__["forward"] = self.own

    @torch.compiler.disable
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mode = _Intercept(self)
        with _native(self.module), mode:
            out = self.forward(*args, **kwargs)
        if not mode.calls:
            raise _bypassed(self.site.name, "its attention does not go through scaled_dot_product_attention")
        return out


class _Intercept(TorchFunctionMode):
    """Hands attention calls to the controls of a tap, counting them."""

    def __init__(self, tap: _Tap) -> None:
        super().__init__()
        self.tap, self.calls = tap, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        site = self.tap.site
        site = replace(site, stream=self.calls) if self.calls else site
        self.calls += 1
        return _steer(self.tap.controls, site, _Call.of(*args, **(kwargs or {})))


@dataclass
class _Call:
    """The arguments of one attention call."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    options: dict[str, Any]

    @staticmethod
    def of(  # noqa: PLR0913 (the signature of the function that is intercepted)
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> _Call:
        usual = query.shape[-1] ** -0.5
        if scale is not None and scale != usual:
            # so that a control may compute with q and k and need not know of it
            query, scale = query * (scale / usual), None
        options = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        return _Call(query, key, value, attn_mask, {name: each for name, each in options.items() if each})

    def allow(self, allowed: Tensor) -> None:
        """Join a bool mask to the call's own."""
        own = self.mask
        if own is None:
            self.mask = allowed
        elif own.dtype == torch.bool:
            self.mask = own & allowed
        else:
            self.mask = own.masked_fill(~allowed, float("-inf"))

    def output(self) -> Tensor:
        """The attention itself, untouched."""
        return scaled_dot_product_attention(self.q, self.k, self.v, attn_mask=self.mask, **self.options)

    def probs(self) -> Tensor:
        """softmax(q·kᵀ/√d + mask), [B, heads, N, L], in float32 at least."""
        k = self._grouped(self.k)
        scores = (self.q @ k.mT).float() * (self.options.get("scale") or self.q.shape[-1] ** -0.5)
        if self.options.get("is_causal"):
            ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
            scores = scores.masked_fill(~ones.tril(), float("-inf"))
        if self.mask is not None:
            bias = self.mask
            scores = scores.masked_fill(~bias, float("-inf")) if bias.dtype == torch.bool else scores + bias
        return scores.softmax(-1)

    def mix(self, probs: Tensor) -> Tensor:
        """probs·v, [B, heads, N, d]."""
        dropped = torch.dropout(probs, self.options.get("dropout_p", 0.0), True)
        return dropped.to(self.v.dtype) @ self._grouped(self.v)

    def _grouped(self, each: Tensor) -> Tensor:
        """Keys or values with a head for every head of the queries."""
        count = self.q.shape[1] // each.shape[1] if self.options.get("enable_gqa") else 1
        return each.repeat_interleave(count, 1) if count > 1 else each


def _steer(controls: Sequence[_Open], site: Site, call: _Call) -> Tensor:
    """The attention of a call as the controls want it."""
    changes: list[Callable[[Tensor], Tensor | None]] = []
    for control in list(controls):
        edit = control(site, call.q, call.k, call.v)
        if isinstance(edit, Tensor):
            return edit
        if isinstance(edit, Attend):
            changes.append(edit.change)
            call.q = call.q if edit.query is None else edit.query
            call.k = call.k if edit.key is None else edit.key
            call.v = call.v if edit.value is None else edit.value
            continue
        call.q, call.k, call.v = edit[:3]
        if len(edit) == 4:
            call.allow(edit[3])
    if not changes:
        return call.output()
    probs = call.probs()
    for change in changes:
        changed = change(probs)
        probs = probs if changed is None else changed
    return call.mix(probs)


@contextmanager
def _native(module: nn.Module) -> Iterator[None]:
    """PyTorch's own attention at this module: flash and other kernels would pass the door by."""
    processor: Any = getattr(module, "processor", None)
    chosen = getattr(processor, "_attention_backend", None)
    with attention_backend(AttentionBackendName.NATIVE):
        try:
            if chosen is not None:
                processor._attention_backend = None
            yield
        finally:
            if chosen is not None:
                processor._attention_backend = chosen


def _bypassed(name: str, reason: str) -> NotAvailable:
    return NotAvailable(
        "Attention control",
        f"{name} cannot be watched: {reason}",
        "Use the network's standard attention (no xFormers, sliced or fused processors), or fewer sites.",
    )
