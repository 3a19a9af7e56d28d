"""Door 4: extra inputs of the network: residuals as a ControlNet gives them, channels, context tokens.

Shapes: B rows of the batch in flight, C latent channels, h w latent size, T extra tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipelines.base.backbone import Backbone, Conditioning
from pipelines.base.features import wrapped_forward
from pipelines.errors import BadInput, NotAvailable


@dataclass(frozen=True)
class Residuals:
    """What is added inside the network.

    A UNet takes `down`, one tensor a skip, and `mid` (ControlNet), or `intra`, one a down block
    (T2I-Adapter). A joint transformer takes `blocks`, spread over its blocks.
    """

    down: tuple[Tensor, ...] = ()
    mid: Tensor | None = None
    intra: tuple[Tensor, ...] = ()
    blocks: tuple[Tensor, ...] = ()


Give = Callable[[Tensor, Tensor, Tensor], Residuals]
"""(x [B, C, h, w], t [B], text states [B, L, D]) as the network sees them → what to add. `base.rows` says
which rows belong to which branch."""


@contextmanager
def inputs(
    base: Backbone,
    *,
    residuals: Give | None = None,
    context: Tensor | Callable[[int], Tensor] | None = None,
    channels: Tensor | Callable[[int], Tensor] | None = None,
) -> Iterator[None]:
    """Feed the network more while the context is open; nested contexts add up.

    `context` [1 or B, T, D] is appended to the text states; `channels` [1 or B, C', h, w] to the latents.
    Either may be a function of the number of rows in flight. Raises NotAvailable where the network has no
    such input, and on leaving BadInput where no forward passed.
    """
    wants = {"channels": channels, "context": context, "residuals": residuals}
    _check(base, channels)
    fed: list[int] = []

    def make(before: Callable[..., Any]) -> Callable[..., Any]:
        def forward(**given: Any) -> Any:
            given = dict(given)
            if residuals is not None:
                _add(base, given, residuals(_x(given), given["timestep"], given["encoder_hidden_states"]))
            rows = len(_x(given))
            if context is not None:
                _append_context(given, _for(context, rows))
            if channels is not None:
                given["sample"] = torch.cat([given["sample"], _for(channels, rows).to(given["sample"])], 1)
            fed.append(rows)
            return before(**given)

        return forward

    with ExitStack() as stack:
        if any(each is not None for each in wants.values()):
            stack.enter_context(wrapped_forward(base.net, make))
        if context is not None:
            stack.enter_context(_shifted(base, _for(context, 1).shape[1]))
        yield
    if not fed and any(each is not None for each in wants.values()):
        raise BadInput("No forward of the network passed its extra inputs.", "Draw at least one step inside.")


def _check(base: Backbone, channels: object) -> None:
    if channels is not None and base.predicts == "flow":
        raise NotAvailable(
            f"{base.name} with extra channels",
            "its transformer takes latents alone",
            "Use a UNet made for them.",
        )


def _x(given: dict[str, Any]) -> Tensor:
    return given["sample"] if "sample" in given else given["hidden_states"]


def _for(value: Tensor | Callable[[int], Tensor], rows: int) -> Tensor:
    return value if isinstance(value, Tensor) else value(rows)


def _append_context(given: dict[str, Any], extra: Tensor) -> None:
    tokens: Tensor = given["encoder_hidden_states"]
    extra = extra.to(tokens).expand(len(tokens), -1, -1)
    given["encoder_hidden_states"] = torch.cat([tokens, extra], 1)
    mask = given.get("encoder_attention_mask")
    if mask is not None:
        given["encoder_attention_mask"] = torch.cat([mask, mask.new_ones(extra.shape[:2])], 1)


def _add(base: Backbone, given: dict[str, Any], extra: Residuals) -> None:
    """Sum residuals into what the network is called with."""
    joint = "hidden_states" in given
    if (extra.blocks and not joint) or ((extra.down or extra.intra or extra.mid is not None) and joint):
        raise NotAvailable(
            f"{base.name} with these residuals", "they were made for a network of another kind",
            f"Use a control model that was trained for {base.family}.",
        )  # fmt: skip
    if extra.blocks:
        _sum(given, "block_controlnet_hidden_states", extra.blocks, list)
    if extra.down or extra.mid is not None:
        if not extra.down or extra.mid is None:
            raise BadInput(
                "A ControlNet gives residuals for the skips and the middle; one is missing.", "Give both."
            )
        _sum(given, "down_block_additional_residuals", extra.down, tuple)
        old = given.get("mid_block_additional_residual")
        given["mid_block_additional_residual"] = extra.mid if old is None else old + extra.mid
    if extra.intra:
        _sum(given, "down_intrablock_additional_residuals", extra.intra, list)  # the UNet empties the list


def _sum(given: dict[str, Any], key: str, new: Sequence[Tensor], kind: Callable[[Any], Any]) -> None:
    old = given.get(key)
    given[key] = kind(new if old is None else [one + two for one, two in zip(old, new, strict=True)])


@contextmanager
def _shifted(base: Backbone, count: int) -> Iterator[None]:
    """Let the slices of joint sites count the extra tokens as text."""
    before = base.sites

    def longer(length: slice) -> slice:
        return slice(*(None if each is None else each - count if each < 0 else each
                       for each in (length.start, length.stop)))  # fmt: skip

    base.sites = tuple(
        replace(site, image=longer(site.image), text=longer(site.text)) if site.kind == "joint" else site
        for site in before
    )
    try:
        yield
    finally:
        base.sites = before


def appended(cond: Conditioning, extra: Tensor) -> Conditioning:
    """A condition with context tokens [B or 1, T, D] of its own: what differs from branch to branch."""
    own = extra.to(cond.tokens).expand(len(cond), -1, -1)
    mask = None if cond.mask is None else torch.cat([cond.mask, cond.mask.new_ones(own.shape[:2])], 1)
    layers = {name: torch.cat([each, own], 1) for name, each in cond.layers.items()}
    return replace(cond, tokens=torch.cat([cond.tokens, own], 1), mask=mask, layers=layers)
