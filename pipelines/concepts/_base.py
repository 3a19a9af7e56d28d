"""What a training method is: a config whose `recipe` says what is trained, on what, and what is minimised.

The trainer knows carriers (what is trained) and loss terms (what is minimised), and no method. Shapes: B
batch, C latent channels, h w latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pipelines.errors import LikenessError
from pipelines.spec import Config, knob

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.adapters.adapter import Adapter
    from pipelines.base.backbone import Backbone, Conditioning
    from pipelines.jobs.kinds import PhotoSet

INSTANCE, PRIOR = 0, 1
"""Kinds of rows in a batch: the subject's photos, and pictures of its class."""


class Diverged(LikenessError):
    """A loss, a gradient or a weight is no longer finite: nothing that was trained after that is kept."""


@dataclass(frozen=True)
class ParamGroup:
    """Trainable tensors by name, in float32, and their learning rate."""

    name: str
    tensors: Mapping[str, Tensor]
    rate: float


class Carrier(Protocol):
    """What is trained, apart from how.

    `touches` decides what may be computed once: without "tokens" and "text", the text states.
    """

    touches: frozenset[str]

    def start(self, seed: int) -> None:
        """Draw the initial values, at which the base does what it did before."""
        ...

    def attached(self, base: Backbone) -> AbstractContextManager[None]:
        """Let it act on the base; on exit the base is bitwise what it was."""
        ...

    def groups(self) -> list[ParamGroup]:
        """The tensors to optimise."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that makes it what it is, by name."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back a `state`. Raises BrokenWeights where names or shapes differ."""
        ...

    def adapter(self, name: str, metadata: Mapping[str, str]) -> Adapter | None:
        """What was learned as an adapter for a base; None where only the whole network holds it."""
        ...


@dataclass(frozen=True)
class LossInput:
    """One forward: clean latents `x0`, noise `eps`, noisy `x`, prediction `out`, its `target` [B, C, h, w].

    `t` [B] timesteps, `a` `b` [B, 1, 1, 1] the shares of picture and noise, `kind` [B] INSTANCE or PRIOR,
    `weight` [B] what each row counts: rows of one kind sum to 1 over a step. `mask` [B, 1, h, w] or None.
    `predict` runs a second forward at the same x and t unless told otherwise.
    """

    x0: Tensor
    eps: Tensor
    x: Tensor
    out: Tensor
    target: Tensor
    t: Tensor
    a: Tensor
    b: Tensor
    kind: Tensor
    weight: Tensor
    cond: Conditioning
    predict: Callable[..., Tensor]
    mask: Tensor | None = None


LossTerm = Callable[[LossInput], "Tensor"]
"""→ [B], unreduced: weights and kinds then multiply without anybody splitting a batch."""
Objective = Callable[[LossInput], "Tensor"]
"""→ a scalar; the default is Σ weight·Σ w·term."""


@dataclass(frozen=True)
class DataPlan:
    """What a step sees, `accumulation` times: `batch` photos, and with `prior` as many class pictures."""

    batch: int = 1
    accumulation: int = 1
    caption_dropout: float = 0.0
    noise_offset: float = 0.0
    prior: bool = False


@dataclass(frozen=True)
class Stage:
    """Some steps under one schedule; `groups` names the parameter groups that move (None: all)."""

    steps: int
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    groups: frozenset[str] | None = None


@dataclass(frozen=True)
class Recipe:
    """A training, whole: the trainer needs nothing else but latents and a seed."""

    method: str
    carrier: Carrier
    terms: tuple[tuple[float, LossTerm], ...]
    stages: tuple[Stage, ...]
    data: DataPlan
    token: str
    class_word: str
    trigger: str
    """The words that call the concept in a prompt."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    objective: Objective | None = None
    weight_decay: float = 1e-2
    checkpointing: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @property
    def steps(self) -> int:
        """Optimiser steps over all stages."""
        return sum(each.steps for each in self.stages)


class Concept(Config):
    """The knobs that every training has. A method redefines those whose field default differs."""

    steps: int = knob(400, 1, 100_000, "Optimiser steps. More learns closer and forgets more.", "steps")
    batch: int = knob(1, 1, 256, "Photos a step.")
    learning_rate: float = knob(
        1e-4, 1e-8, 1, "Size of a step: the rate itself, not multiplied by batch or accumulation."
    )
    accumulation: int = knob(1, 1, 256, "Batches whose gradients make one step.", expert=True)
    schedule: Literal["constant", "cosine"] = knob(
        "constant", help="Whether the rate stays, or falls to nothing along half a cosine.", expert=True
    )
    warmup: int = knob(0, 0, 10_000, "First steps, over which the rate rises from nothing.", "steps", True)
    weight_decay: float = knob(1e-2, 0, 1, "AdamW's pull of every trained weight towards 0.", expert=True)
    prior_weight: float = knob(
        0.0,
        0,
        10,
        "λ of prior preservation: keeps other members of the class as they are. 0 switches it off.",
    )
    prior_images: int = knob(100, 1, 10_000, "Class pictures for prior preservation, drawn once by the base.")
    prior_folder: str = knob(
        "", help="A folder of class pictures to use instead of drawn ones.", expert=True, file=True
    )
    resolution: int | None = knob(
        None, 16, 4096, "Training size; default: the base's own.", "px", expert=True
    )
    min_snr: float = knob(
        0.0, 0, 100, "γ of min-SNR weights (arXiv:2303.09556), usually 5; 0 weighs all noise levels alike.",
        expert=True,
    )  # fmt: skip
    noise_offset: float = knob(
        0.0, 0, 1, "Noise shared by a whole channel, usually 0.05: allows darker and brighter pictures.",
        expert=True,
    )  # fmt: skip
    caption_dropout: float = knob(
        0.0, 0, 1, "Share of photos shown without words, so that guidance keeps its baseline.", expert=True
    )
    checkpointing: bool = knob(
        False, help="Compute activations twice instead of keeping them: less memory, a third slower.",
        expert=True,
    )  # fmt: skip
    precision: Literal["auto", "float32", "bfloat16"] = knob(
        "auto", help="Numbers of the forward pass; trained weights are float32 always.", expert=True
    )

    def recipe(self, base: Backbone, data: PhotoSet) -> Recipe:
        """The training on this base. Raises LikenessError where the base lacks what the method needs."""
        raise NotImplementedError

    def templates(self, data: PhotoSet) -> tuple[str, ...]:
        """Captions of photos that bring none, with {token} and {class_word}; drawn from at every step."""
        return (data.template,)

    def trigger(self, data: PhotoSet) -> str:
        """The words that call the concept in a prompt."""
        return f"{data.token} {data.class_word}".strip()

    def standard(self, base: Backbone, data: PhotoSet, carrier: Carrier) -> Recipe:
        """The recipe of one stage that minimises the noise loss, with its prior half where λ > 0.

        Raises BadInput for min-SNR on a base that predicts a flow.
        """
        from pipelines.concepts.losses.noise import noise, only

        term = noise(base, self.min_snr)
        terms = [(1.0, only(INSTANCE, term))]
        if self.prior_weight:
            terms.append((self.prior_weight, only(PRIOR, term)))
        return Recipe(
            type(self).__module__.rpartition(".")[2],
            carrier,
            tuple(terms),
            (Stage(self.steps, self.schedule, self.warmup),),
            DataPlan(
                self.batch,
                self.accumulation,
                self.caption_dropout,
                self.noise_offset,
                self.prior_weight > 0,
            ),
            data.token,
            data.class_word,
            self.trigger(data),
            self.model_dump(mode="json"),
            weight_decay=self.weight_decay,
            checkpointing=self.checkpointing,
            precision=self.precision,
        )
