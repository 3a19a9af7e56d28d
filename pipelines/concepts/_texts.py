"""Captions for the network: encoded once where nothing that reads them is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone, Conditioning
    from pipelines.concepts._base import Recipe
    from pipelines.data.dataset import Dataset

AT_ONCE = 64


class Texts:
    """Captions → Conditioning [B]: encoded once where the carrier leaves words alone, else at every step."""

    def __init__(self, base: Backbone, recipe: Recipe, data: Dataset) -> None:
        self.base = base
        self.rows: dict[str, int] = {}
        self.states: Conditioning | None = None
        import torch

        from pipelines.base.backbone import Conditioning

        if not recipe.carrier.touches & {"tokens", "text"}:
            texts = list(dict.fromkeys(["", *data.captions()]))
            self.rows = {text: index for index, text in enumerate(texts)}
            with torch.no_grad():
                chunks = [texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE)]
                self.states = Conditioning.cat([base.encode(each) for each in chunks])

    def __call__(self, captions: list[str]) -> Conditioning:
        """One row a caption."""
        if self.states is not None:
            return self.states[[self.rows[each] for each in captions]]
        different = list(dict.fromkeys(captions))
        return self.base.encode(different)[[different.index(each) for each in captions]]
