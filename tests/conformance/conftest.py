"""Shared bases: built once, and every test must leave them as they were."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pipelines.base.backbone import Backbone
from tests import bases

_BUILT: dict[str, Backbone] = {}


@pytest.fixture(params=bases.KINDS)
def base(request: pytest.FixtureRequest) -> Iterator[Backbone]:
    """A tiny base of each kind; afterwards it answers as before, bit by bit, with nothing on it."""
    if request.param not in _BUILT:
        _BUILT[request.param] = bases.make(request.param)
    base = _BUILT[request.param]
    x, t, cond = bases.noise(1), torch.full((1,), 500), bases.words(base)
    with torch.no_grad():
        before = base.predict(x, t, cond)
        yield base
        after = base.predict(x, t, cond)
    assert bases.residue(base) == []
    assert torch.equal(before, after)
