"""The layers of a base that an adapter changes, and what a change does to a weight.

Shapes: r rank, in/out features of a layer, k kernel size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from pipelines.adapters.adapter import Adapter, AdapterMismatch, Change, Full
from pipelines.adapters.families import kin, title
from pipelines.base.backbone import Backbone
from pipelines.base.text import embedding_of
from pipelines.errors import BadInput

Layer = nn.Linear | nn.Conv2d


def layers_of(base: Backbone) -> dict[str, Layer]:
    """Every Linear and Conv2d of the network and the text encoders, by the names that adapters use."""
    parts = {"net": base.net, **base.texts}
    return {
        f"{part}.{name}": cast("Layer", module)
        for part, whole in parts.items()
        for name, module in whole.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def spelling(name: str, known: Iterable[str] | Mapping[str, object]) -> str | None:
    """`name` as `known` spells it, with or without the `text_model.` that CLIP encoders lost, or None."""
    if name in known:
        return name
    part, _, rest = name.partition(".")
    if not part.startswith("text_encoder"):
        return None
    bare = rest.removeprefix("text_model.")
    return next((each for each in (f"{part}.{bare}", f"{part}.text_model.{bare}") if each in known), None)


def delta(change: Change, weight: Tensor | None = None) -> Tensor:
    """ΔW at strength 1 in float32, in the shape of the layer's weight.

    DoRA is a change of the base's own `weight`: m·V/‖V‖ − W with V = W + s·up·down and the norm taken per
    output. Raises BadInput where it is DoRA and `weight` is missing.
    """
    if isinstance(change, Full):
        return change.delta.float()
    product = change.scale * (change.up.float().flatten(1) @ change.down.float().flatten(1))
    product = product.reshape(change.up.shape[0], *change.down.shape[1:])
    if change.magnitude is None:
        return product
    if weight is None:
        raise BadInput(
            "A DoRA layer says what to do with the base's own weights, so it has no meaning without them.",
            "Name the base that the adapter was made for.",
        )
    whole = weight.float()
    return decomposed(whole + product.reshape(whole.shape).to(whole.device), change.magnitude) - whole


def decomposed(direction: Tensor, magnitude: Tensor) -> Tensor:
    """m·V/‖V‖, the norm per output: `direction` [out, …], `magnitude` with `out` numbers."""
    gain = gain_of(direction, magnitude)
    return direction * gain.view(-1, *[1] * (direction.ndim - 1))


def gain_of(direction: Tensor, magnitude: Tensor) -> Tensor:
    """m/‖V‖ [out]; 0 where a row of V is zero."""
    norm = direction.flatten(1).norm(dim=1)
    own = magnitude.flatten().to(norm)
    return torch.where(norm > 0, own / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0)


def fitted(change: Change, layer: Layer) -> Change | None:
    """The change in the dimensions of `layer` (1×1 convolutions are also written as matrices), or None."""
    shape = layer.weight.shape
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        return None
    if isinstance(change, Full):
        same = change.delta.numel() == shape.numel() and change.delta.shape[0] == shape[0]
        return Full(change.delta.reshape(shape)) if same else None
    rank = change.rank
    if change.down.numel() != rank * shape[1:].numel() or change.up.numel() != rank * shape[0]:
        return None
    if change.down.ndim > 2 and change.down.shape[1:] != (*shape[1:], *[1] * (change.down.ndim - len(shape))):
        return None
    if change.magnitude is not None and change.magnitude.numel() != shape[0]:
        return None
    return replace(
        change,
        down=change.down.reshape(rank, *shape[1:]),
        up=change.up.reshape(shape[0], rank, *[1] * (len(shape) - 2)),
    )


def check_family(adapter: Adapter, base: Backbone) -> None:
    """Raises AdapterMismatch where the adapter says that it was made for another family."""
    if adapter.family and not kin(adapter.family, base.family):
        raise mismatch(adapter, base)


def mismatch(adapter: Adapter, base: Backbone, why: str = "") -> AdapterMismatch:
    """The error of an adapter on a base it does not fit."""
    made, here = title(adapter.family), title(base.family)
    if adapter.family and not kin(adapter.family, base.family):
        return AdapterMismatch(
            f"{adapter.name} was made for {made}; the loaded base is {here}.",
            f"Load {'an' if made.startswith('SD') else 'a'} {made} base, or train it again here.",
        )
    return AdapterMismatch(
        f"{adapter.name} does not fit the loaded base {base.name} ({here}): {why}.",
        "Load the base that it was made for, or train it again here.",
    )


def placed(adapter: Adapter, base: Backbone) -> dict[str, tuple[Layer, Change]]:
    """The adapter's changes beside the base's layers, by the base's names, in its shapes.

    Raises AdapterMismatch for another family, a layer that the base lacks, or a shape that does not fit.
    """
    check_family(adapter, base)
    layers = layers_of(base)
    found: dict[str, tuple[Layer, Change]] = {}
    for name, change in adapter.layers.items():
        here = spelling(name, layers)
        if here is None:
            raise mismatch(adapter, base, f"the base has no layer {name}")
        fit = fitted(change, layers[here])
        if fit is None:
            shape = list(layers[here].weight.shape)
            raise mismatch(adapter, base, f"its shape of {name} is not the base's {shape}")
        found[here] = (layers[here], fit)
    for word, rows in adapter.words.items():
        for encoder, vectors in rows.items():
            _check_word(adapter, base, word, encoder, vectors)
    return found


def _check_word(adapter: Adapter, base: Backbone, word: str, encoder: str, vectors: Tensor) -> None:
    if encoder not in base.texts:
        raise mismatch(adapter, base, f'its word "{word}" is for {encoder}, which the base lacks')
    width = embedding_width(base.texts[encoder])
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise mismatch(
            adapter,
            base,
            f'its word "{word}" has vectors {list(vectors.shape)}, {encoder} takes {width} wide',
        )


def embedding_width(encoder: nn.Module) -> int:
    """D, the width of a text encoder's token vectors."""
    return embedding_of(encoder).weight.shape[1]
