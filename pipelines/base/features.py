"""Door 3: outputs of named blocks, read or replaced.

The forward of a block is wrapped, not hooked: hooks that come after torch.compile never fire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from pipelines.base.backbone import Backbone, Rows
from pipelines.errors import BadInput, UnknownName

Change = Callable[[Tensor, Rows], Tensor | None]
"""(hidden states, the rows of each branch) → what the block should answer instead; None leaves them."""


@contextmanager
def features(base: Backbone, blocks: Mapping[str, Change | None]) -> Iterator[dict[str, Tensor]]:
    """Read blocks of `base.net` by name ("mid_block", "transformer_blocks.3"), and change them where asked.

    Yields a table that holds each block's last image states: [B, D, h, w] in a UNet, [B, N, D] in a
    transformer. Raises UnknownName for a block that is not there, ValueError for a change of shape, and on
    leaving BadInput where a block was never reached.
    """
    modules = dict(base.net.named_modules())
    for name in blocks:
        if name not in modules or not name:
            raise UnknownName(f"block of {base.name}", name, [each for each in modules if each])
    seen: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, change in blocks.items():
            stack.enter_context(_wrapped(base, modules[name], name, change, seen))
        yield seen
    missed = [name for name in blocks if name not in seen]
    if missed:
        raise BadInput(
            f"The network never reached {missed[0]} while it was watched.",
            "Watch a block that takes part in every forward, and draw at least one step.",
        )


@contextmanager
def wrapped_forward(
    module: nn.Module, make: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """A module with `make(its forward)` for its forward; on exit it has again what it had."""
    had, before = "forward" in vars(module), module.forward
    module.forward = make(before)
    try:
        yield
    finally:
        if had:
            module.forward = before
        else:
            del module.forward


def _wrapped(
    base: Backbone, module: nn.Module, name: str, change: Change | None, seen: dict[str, Tensor]
) -> Any:
    def make(before: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            out = before(*args, **kwargs)
            place = _image_of(module, out)
            hidden: Tensor = out if place is None else out[place]
            changed = change(hidden, base.rows) if change is not None else None
            if changed is not None:
                if changed.shape != hidden.shape:
                    raise ValueError(f"{name}: {list(changed.shape)} instead of {list(hidden.shape)}")
                hidden = changed
                out = hidden if place is None else _replaced(out, place, hidden)
            seen[name] = hidden
            return out

        return forward

    return wrapped_forward(module, make)


def _image_of(module: nn.Module, out: Any) -> int | None:
    """Where a block's output keeps the image states; None where they are all of it."""
    if isinstance(out, Tensor):
        return None
    # a joint block answers (text, image); a UNet's down block (image, skips), the last of which is the image
    return 1 if hasattr(module, "context_pre_only") and not hasattr(module, "heads") else 0


def _replaced(out: Any, place: int, hidden: Tensor) -> Any:
    """The output with other image states; a down block hands the same ones on as its last skip."""
    old = out[place]
    changed = list(out)
    changed[place] = hidden
    for index, each in enumerate(changed):
        if isinstance(each, tuple):
            changed[index] = tuple(hidden if skip is old else skip for skip in each)
    return tuple(changed)
