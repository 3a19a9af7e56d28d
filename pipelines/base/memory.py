"""The one owner of placement: which device, which type, what moves off when, and what a training will take.

Policies, each slower and smaller than the one before: "resident" keeps everything on the device, "model"
swaps whole components in as they are used, "tiled" also decodes pictures in tiles.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import psutil
import torch
from torch import Tensor, nn

from pipelines.errors import LikenessError, NotAvailable, UnknownName

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone

Policy = Literal["resident", "model", "tiled"]
Part = Literal["net", "vae", "text"]
POLICIES: tuple[Policy, ...] = ("resident", "model", "tiled")
PARTS: tuple[Part, ...] = ("text", "net", "vae")
_DEVICES = ("auto", "cpu", "cuda", "mps")
_WORDS = {
    "model": "Only one component at a time then stays on the device.",
    "tiled": "Pictures are then also decoded in tiles.",
}


class Parts(Protocol):
    """What placement sees of a base."""

    @property
    def net(self) -> nn.Module:
        """The denoising network."""
        ...

    @property
    def vae(self) -> nn.Module:
        """The autoencoder."""
        ...

    @property
    def texts(self) -> Mapping[str, nn.Module]:
        """The text encoders."""
        ...


class OutOfMemory(LikenessError):
    """The device is full; `next_policy` is the next thing to try, None where only less work is left."""

    def __init__(self, what: str, device: str, next_policy: Policy | None) -> None:
        remedy = "Use a smaller picture, a smaller batch, or gradient checkpointing."
        if next_policy is not None:
            remedy = f"Use --memory {next_policy}. {_WORDS[next_policy]}"
        super().__init__(f"The memory of {device} is full ({what}); what was being made was dropped.", remedy)
        self.next_policy: Policy | None = next_policy


class Device:
    """A device and who is on it. `where` None leaves everything as it is found."""

    def __init__(
        self,
        where: torch.device | None,
        policy: Policy = "resident",
        move: Callable[[nn.Module, torch.device], object] | None = None,
    ) -> None:
        self.where, self.policy = where, policy
        self._move = move or (lambda module, device: module.to(device))
        self._inside: list[Part] = []
        self._on: tuple[int, set[Part]] = (0, set())  # of which base, and which parts of it are here
        self._kept: tuple[Hashable, Any] | None = None

    def dtype(self) -> torch.dtype:
        """The type of weights here: bfloat16 where the device computes with it, float16 on other GPUs."""
        kind = self.where.type if self.where is not None else "cpu"
        if kind == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.float16 if kind == "mps" else torch.float32

    def place(self, base: Parts, policy: Policy | None = None) -> None:
        """Put a base where the policy wants it: all of it here, or waiting in ordinary memory."""
        self.policy = policy or self.policy
        tile(base, self.policy == "tiled")
        if self.where is None:
            return
        target = self.where if self.policy == "resident" else torch.device("cpu")
        for part in PARTS:
            self._send(base, part, target)
        self._on = (id(base), set(PARTS) if self.policy == "resident" else set())
        self.free()

    @contextmanager
    def use(self, base: Parts, part: Part) -> Iterator[None]:
        """Say that a part is about to compute; under an offloading policy it comes, and idle ones leave."""
        if self.where is None or self.policy == "resident":
            yield
            return
        if self._on[0] != id(base):
            self._on = (id(base), set())
        here = self._on[1]
        if part not in here:
            for other in sorted(here - set(self._inside)):
                self._send(base, other, torch.device("cpu"))
                here.discard(other)
            self._send(base, part, self.where)
            here.add(part)
        self._inside.append(part)
        try:
            yield
        finally:
            self._inside.pop()

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The base last opened here if it is this one; else the old one leaves before the new one comes."""
        if self._kept is None or self._kept[0] != key:
            self.drop()
            self._kept = (key, make())
        return self._kept[1]

    def drop(self) -> None:
        """Forget the base that is kept here."""
        self._kept = None
        self._on = (0, set())
        self.free()

    def free(self) -> None:
        """Give unused memory back to the system."""
        gc.collect()
        if self.where is not None and self.where.type == "cuda":
            torch.cuda.empty_cache()

    def available(self) -> int:
        """Bytes free on the device now."""
        if self.where is not None and self.where.type == "cuda":
            return int(torch.cuda.mem_get_info(self.where)[0])
        return int(psutil.virtual_memory().available)

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Turn running out of memory into OutOfMemory, with everything that the failed work held let go."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # their local tensors would outlive the failure
            later = POLICIES[POLICIES.index(self.policy) + 1 :]
            useful = self.where is not None and self.where.type != "cpu"
            follow = later[0] if later and useful else None
            failure = OutOfMemory(what, str(self.where or "this machine"), follow)
        else:
            return
        self.free()
        raise failure

    def _send(self, base: Parts, part: Part, device: torch.device) -> None:
        for module in parts_of(base, part):
            self._move(module, device)


UNMANAGED = Device(None)
_devices: dict[str, Device] = {}


def pick(name: str = "auto") -> Device:
    """The device of that name, one object a process: "auto" takes a GPU if there is one.

    Raises UnknownName, and NotAvailable for hardware that is not there.
    """
    if name not in _DEVICES:
        raise UnknownName("device", name, _DEVICES)
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(each for each in ("cuda", "mps", "cpu") if there[each])
    if not there[name]:
        raise NotAvailable(
            name, "this machine has no such device, or torch cannot see it", "Use device=auto."
        )
    if name not in _devices:
        _devices[name] = Device(torch.device(name))
    return _devices[name]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in ordinary memory."""
    words = str(error).lower()
    full = ("out of memory" in words) or ("can't allocate memory" in words) or ("not enough memory" in words)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or full


def parts_of(base: Parts, part: Part) -> list[nn.Module]:
    """The modules of a part of a base."""
    if part == "text":
        return list(base.texts.values())
    return [base.net if part == "net" else base.vae]


def tile(base: Parts, on: bool = True) -> bool:
    """Let the autoencoder work in tiles; returns whether it can."""
    vae: Any = base.vae
    if not hasattr(vae, "enable_tiling"):
        return False
    vae.enable_tiling() if on else vae.disable_tiling()
    return True


@dataclass(frozen=True)
class Training:
    """What a forecast has to know of a training; `trainable` counts numbers that are learned."""

    trainable: int
    batch: int = 1
    width: int | None = None
    height: int | None = None
    checkpointing: bool = False
    text: bool = False
    """Whether the text encoders stay on the device, because tokens or encoders are trained."""
    state_bytes: int = 8
    """Bytes of optimiser state a trained number: 8 for AdamW's two float32 moments."""


@dataclass(frozen=True)
class Forecast:
    """Bytes that a training will hold at its peak, by what holds them."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def sentence(self, available: int) -> str:
        """The forecast for a person, against the bytes that are free."""
        gib = [each / 2**30 for each in (self.total, self.activations, available)]
        verdict = "fits" if self.total <= available else "does not fit"
        return (
            f"About {gib[0]:.1f} GiB ({gib[1]:.1f} of them activations); {gib[2]:.1f} are free: it {verdict}."
        )


def forecast(base: Backbone, training: Training) -> Forecast:
    """What a training of this base will take, roughly: activations count the outputs of all layers.

    They are measured by a forward on the meta device, which computes nothing. Attention is taken as fused
    (it keeps no maps), and what functions between layers keep is not counted: expect up to half more.
    """
    weights = _bytes(base.net) + (sum(map(_bytes, base.texts.values())) if training.text else 0)
    weights += 4 * training.trainable  # trained numbers are float32
    return Forecast(
        weights,
        4 * training.trainable,
        training.state_bytes * training.trainable,
        training.batch * _activations(base, training),
    )


def _bytes(module: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in module.parameters())


def _activations(base: Any, training: Training) -> int:
    """Bytes of one sample's layer outputs; with checkpointing those of blocks, and one block's inside."""
    shape = (training.height or base.latent.size, training.width or base.latent.size)
    x = torch.zeros(
        1, base.latent.channels, *(each // base.latent.factor for each in shape), device=base.device
    )
    with torch.no_grad():
        fed = base.feed(x, torch.ones(1, device=base.device), base.encode([""]))
    with torch.device("meta"):
        net: Any = type(base.net).from_config(base.net.config)
    inside: dict[str, int] = {}
    edges = 0

    def count(name: str, out: object) -> None:
        inside[name] = inside.get(name, 0) + _elements(out)

    for name, each in net.named_modules():
        if not list(each.children()) and not isinstance(each, nn.Dropout | nn.Identity):
            block = ".".join(name.split(".")[:2])
            each.register_forward_hook(lambda _m, _i, out, block=block: count(block, out))
    blocks = [name for name, _ in net.named_modules() if name.count(".") == 1 and "blocks." in name]
    kept: list[int] = []
    for name in blocks:
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out: kept.append(_elements(out)))
    with torch.no_grad():
        net(**{key: _meta(each) for key, each in fed.items()})
    edges = sum(kept)
    elements = edges + max(inside.values()) if training.checkpointing else sum(inside.values())
    return elements * next(base.net.parameters()).element_size()


def _elements(out: object) -> int:
    if isinstance(out, Tensor):
        return out.numel()
    return sum(_elements(each) for each in out) if isinstance(out, tuple | list) else 0


def _meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return {key: _meta(each) for key, each in value.items()} if isinstance(value, dict) else value
