"""Perturbed-attention guidance (arXiv:2403.17377): away from what the base draws without structure.

    ε̂ = inner + s·(c − c̃)

c̃ is the prediction for the same prompt, with every image token of a few sites looking at itself alone. In a
joint site image tokens keep their view of the words, and the words see everything, as in the authors' version
for Stable Diffusion 3. s = 0 is off; the paper's code for ADM counts s + 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pipelines.guidance._base import Guidance, edit
from pipelines.spec import knob

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.base.attention import Edit
    from pipelines.base.backbone import Backbone, Rows, Site
    from pipelines.base.noise import Denoise, Guide, Guided, Step


class PAG(Guidance):
    """Rows: 1 more than the method inside; no more at scale 0."""

    title = "Perturbed-attention guidance"
    source = "arXiv:2403.17377"
    needs = frozenset({"self_attention|joint_attention"})
    stage = "contrast"
    neutral: ClassVar = {"scale": 0}

    scale: float = knob(
        3.0,
        0,
        20,
        "How much structure is sharpened; about 3 beside CFG, 5 alone; 0 is off. Above 6 it smooths.",
    )
    layers: tuple[str, ...] = knob(
        ("mid",), help='Which attention is disturbed: "mid", "all", or parts of layer names.', expert=True
    )

    def branches(self) -> tuple[str, ...]:
        """The prompt alone."""
        return ("cond",)

    def extra_rows(self) -> int:
        """The disturbed forward."""
        return 1 if self.scale else 0

    def around(self, base: Backbone, inner: Guide) -> Guide:
        """`inner`, plus the contrast."""
        if not self.scale:
            return inner
        from pipelines.base.attention import attention_control, pick

        sites = pick(base, self.layers)

        def guide(denoise: Denoise, step: Step) -> Tensor | Guided:
            guided = inner(denoise, step)
            bad = denoise("cond", within=attention_control(base, look_inward, sites))
            return edit(guided, lambda out: out + self.scale * (denoise("cond") - bad))

        return guide


def look_inward(site: Site, q: Tensor, k: Tensor, v: Tensor, rows: Rows) -> Edit:
    """Each image token sees itself; calls of another length (added image prompts) pass."""
    import torch

    if site.stream or q.shape[2] != k.shape[2]:
        return q, k, v
    if site.kind == "self" and q.shape == v.shape:
        return v
    allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
    image = allowed[site.image, site.image]
    image.copy_(torch.eye(len(image), dtype=torch.bool, device=q.device))
    return q, k, v, allowed
