"""Decoupled cross-attention (arXiv:2308.06721, section 3.2): image tokens beside words, by one query.

    out = attention(q, k, v) + s · attention(q, k', v'),   k' = W'k·c, v' = W'v·c

A site's `to_q` is listened to and the input of its `to_out` added to, each by wrapping `forward`: whatever
processor, control or adapter computes what lies between keeps working. The added attention is the site's
second of one forward, which is what the attention door calls stream 1.

Shapes: B rows in flight, M query tokens, N image tokens, C their width, d·heads the width of a site.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from pipelines.base.backbone import Backbone, Rows
from pipelines.errors import BadInput, NotAvailable
from pipelines.reference._base import UNGUIDED


@dataclass
class Tokens:
    """Image tokens: `image` [P, N, C] for P pictures being drawn (1: the same for all), and `none` [1, N, C],
    what unguided branches get in their place: no token at all would be a stranger guidance.
    """

    image: Tensor
    none: Tensor

    def table(self) -> Tensor:
        """[1 + P, N, C]: row 0 stands for no reference."""
        return torch.cat([self.none, self.image])

    def index(self, rows: Rows, batch: int) -> list[int]:
        """Which row of the table each row in flight reads. Raises BadInput where P fits no branch."""
        slots = rows or {"cond": slice(0, batch)}
        index = [0] * batch
        for name, slot in slots.items():
            places = range(batch)[slot]
            if name in UNGUIDED:
                continue
            if len(self.image) not in (1, len(places)):
                raise BadInput(
                    f"There are {len(self.image)} references for {len(places)} pictures.",
                    "Draw as many pictures at once as there are references, or set spread to together.",
                )
            for offset, place in enumerate(places):
                index[place] = 1 + (offset if len(self.image) > 1 else 0)
        return index


@dataclass
class _Site:
    """One site while the door is open: what it adds, and its query of the forward in flight."""

    base: Backbone
    tokens: Tokens
    heads: int
    scale: float
    key: Tensor
    value: Tensor
    query: Tensor | None = None
    fired: bool = False
    _index: dict[tuple[Any, ...], Tensor] = field(default_factory=dict[tuple[Any, ...], Tensor])

    def listen(self, forward: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """`to_q`: keep what it says."""
        self.query = forward(*args, **kwargs)
        return self.query

    def add(self, forward: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`to_out`: its input x [B, M, d·heads] with the image attention added."""
        query, self.query = self.query, None
        if query is None:
            raise NotAvailable(
                "A reference", "this attention computes its queries elsewhere", "Do not fuse its projections."
            )
        self.fired = True
        index = self._rows(len(query), query.device)
        q, k, v = (self._split(each) for each in (query, self.key[index], self.value[index]))
        seen = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return forward(x + self.scale * seen.to(x.dtype), *args, **kwargs)

    def _rows(self, batch: int, device: torch.device) -> Tensor:
        rows = self.base.rows
        known = (batch, *((name, slot.start, slot.stop) for name, slot in rows.items()))
        if known not in self._index:
            self._index[known] = torch.tensor(self.tokens.index(rows, batch), device=device)
        return self._index[known]

    def _split(self, x: Tensor) -> Tensor:
        """[B, L, d·heads] → [B, heads, L, d]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


@contextmanager
def decoupled(
    base: Backbone, layers: Mapping[str, tuple[Tensor, Tensor]], tokens: Tokens, scale: float
) -> Iterator[None]:
    """Add image attention at sites: `layers` is site name → (W'k, W'v), each [d·heads, C].

    Keys and values are computed here, once a drawing and not once a step. At scale 0 nothing is touched.
    Several may be open at once; their additions sum. Raises NotAvailable where some sites ran and others
    never did.
    """
    if scale == 0 or not layers:
        yield
        return
    sites: dict[str, _Site] = {}
    with ExitStack() as doors:
        with torch.no_grad():
            table = tokens.table().to(base.device, base.dtype)
            for name, (key, value) in layers.items():
                attention: Any = base.net.get_submodule(name)
                keys, values = (linear(table, each.to(table)) for each in (key, value))
                site = sites[name] = _Site(base, tokens, attention.heads, scale, keys, values)
                doors.enter_context(_wrapped(attention.to_q, site.listen))
                doors.enter_context(_wrapped(attention.to_out[0], site.add))
        yield
    silent = [name for name, site in sites.items() if not site.fired]
    if silent and len(silent) < len(sites):
        raise NotAvailable(
            "A reference", f"{silent[0]} never ran while other sites did", "Use the network uncompiled."
        )


@contextmanager
def _wrapped(module: nn.Module, around: Callable[..., Tensor]) -> Iterator[None]:
    """Let `around(forward, …)` stand in for a module's `forward`; put back what was there."""
    own, forward = module.__dict__.get("forward"), module.forward
    module.__dict__["forward"] = torch.compiler.disable(
        functools.wraps(forward)(functools.partial(around, forward))
    )
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own
