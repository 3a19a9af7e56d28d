"""Samplers by name: diffusers' schedulers with the base's own noise schedule, and their (a, b) pairs.

x_t = a·x0 + b·ε at every step. Euler keeps a = 1, b = σ; a flow a = 1 − σ, b = σ; the others a = √ᾱ,
b = √(1 − ᾱ).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

from pipelines.base.backbone import Backbone
from pipelines.errors import BadInput, UnknownName

VP = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}
FLOW = {
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_flow_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {"use_flow_sigmas": True}),
}
_CLIPS = ("clip_sample", "thresholding")


@dataclass
class Sampler:
    """A scheduler with its steps set: what the loop walks along."""

    scheduler: Any
    timesteps: Tensor
    shares: list[tuple[float, float]]
    """(a, b) before every step, and the last one after the end: len(timesteps) + 1 pairs."""
    eta: float = 0.0
    """Share of fresh noise in DDIM's steps (arXiv:2010.02502): 0 none, 1 as much as DDPM."""

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def draws(self) -> bool:
        """Whether its steps add noise, for which they need one generator an image."""
        return self.eta > 0 or type(self.scheduler).__name__ == "LCMScheduler"


def names(flow: bool) -> list[str]:
    """The samplers that a base of this kind can use."""
    return list(FLOW if flow else VP)


def make(
    base: Backbone, name: str, steps: int, overrides: Mapping[str, Any] | None = None, *, eta: float = 0.0
) -> Sampler:
    """The sampler `name` with `steps` steps for this base; only "ddim" takes an `eta` (0–1).

    Raises UnknownName, BadInput.
    """
    flow = base.predicts == "flow"
    table = FLOW if flow else VP
    if name not in table:
        raise UnknownName(f"sampler for {base.name}", name, table)
    if not 0 <= eta <= 1 or (eta and name != "ddim"):
        raise BadInput(f"An eta of {eta} does not fit {name}.", "Use ddim, with an eta from 0 to 1.")
    kind, settings = table[name]
    config = {key: value for key, value in base.scheduler_config.items() if not key.startswith("_")}
    native = base.scheduler_config.get("_class_name") == kind
    if not native:
        # what only the base's own scheduler understands, or means differently in another
        config = {key: value for key, value in config.items() if key not in _CLIPS}
    if flow and settings.get("use_flow_sigmas"):
        settings = settings | {
            "prediction_type": "flow_prediction",
            "flow_shift": float(config.get("shift", 1.0)),
        }
    scheduler = getattr(diffusers, kind).from_config({**config, **settings, **(overrides or {})})
    most = int(scheduler.config.num_train_timesteps)
    if not 1 <= steps <= most:
        raise BadInput(f"{steps} steps are too many or too few for {name}.", f"Use 1 to {most} steps.")
    # LCM counts in the steps it was distilled with, and refuses more of them than there are
    extra: dict[str, Any] = {}
    if kind == "LCMScheduler":
        extra["original_inference_steps"] = max(steps, int(scheduler.config.original_inference_steps))
    if kind == "FlowMatchEulerDiscreteScheduler" and scheduler.config.use_dynamic_shifting:
        extra["mu"] = _shift_of(scheduler, base)
    scheduler.set_timesteps(steps, device=base.device, **extra)
    return Sampler(scheduler, scheduler.timesteps, _shares(scheduler, flow), eta)


def _shift_of(scheduler: Any, base: Backbone) -> float:
    """Flux's resolution-dependent shift (black-forest-labs/flux, sampling.py) at the base's native size."""
    config = scheduler.config
    tokens = (base.latent.size // base.latent.factor // 2) ** 2
    low, high = config.base_image_seq_len, config.max_image_seq_len
    return config.base_shift + (config.max_shift - config.base_shift) * (tokens - low) / (high - low)


def _shares(scheduler: Any, flow: bool) -> list[tuple[float, float]]:
    sigmas = getattr(scheduler, "sigmas", None)
    if flow:
        assert sigmas is not None  # noqa: S101 (every flow scheduler has them)
        return [(1 - float(each), float(each)) for each in sigmas]
    if sigmas is not None:
        if type(scheduler).__name__.startswith("Euler"):
            return [(1.0, float(each)) for each in sigmas]
        # the schedulers of the DPM family keep the ratio b/a
        return [(float((1 + s**2) ** -0.5), float(s / (1 + s**2) ** 0.5)) for s in sigmas.double()]
    products = scheduler.alphas_cumprod.double().cpu()
    shares = [products[int(t)].item() for t in scheduler.timesteps]
    last = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return [(each**0.5, (1 - each) ** 0.5) for each in (*shares, last)]


def start_index(sampler: Sampler, strength: float) -> int:
    """Where to enter the schedule so that `strength` (0–1) of it is walked: 1 starts at pure noise."""
    if not 0 <= strength <= 1:
        raise BadInput(f"A strength of {strength} is outside 0 to 1.", "Use 0.3 for a little, 0.8 for much.")
    count = len(sampler)
    return count - min(count, round(count * strength))


def noised(sampler: Sampler, index: int, z: Tensor, noise: Tensor) -> Tensor:
    """Clean latents as they stand before step `index`: a·z + b·ε. At the very end: z itself."""
    a, b = sampler.shares[index]
    return z if index >= len(sampler) else a * z + b * noise


def initial(sampler: Sampler, noise: Tensor) -> Tensor:
    """Pure noise in the scale that the scheduler starts from."""
    return (
        noise * float(sampler.scheduler.init_noise_sigma)
        if hasattr(sampler.scheduler, "init_noise_sigma")
        else noise
    )


def begin(sampler: Sampler, index: int) -> None:
    """Tell the scheduler that its first step will be `index`, and that its past is none."""
    scheduler = sampler.scheduler
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)
    if hasattr(scheduler, "_step_index"):
        scheduler._step_index = None
    if hasattr(scheduler, "model_outputs"):  # what the solvers of higher order remember
        scheduler.model_outputs = [None] * scheduler.config.solver_order
        scheduler.lower_order_nums = 0
    if hasattr(scheduler, "timestep_list"):
        scheduler.timestep_list = [None] * scheduler.config.solver_order
        scheduler.last_sample = None
    if hasattr(scheduler, "is_scale_input_called"):
        scheduler.is_scale_input_called = True  # the loop scales inputs itself, by (a, b)


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU: the same seed gives the same noise on every device."""
    return torch.Generator("cpu").manual_seed(seed)


def advice(base: Backbone, name: str) -> str:
    """A sentence for somebody who is about to use a sampler that may not fit; mostly empty."""
    if name != "lcm" or "uncond" not in base.offers:
        return ""
    return (
        f"The sampler lcm is for bases or adapters distilled for it; where {base.name} is neither, pictures "
        "come out soft. Use dpmpp_2m with 15 steps or more then."
    )
