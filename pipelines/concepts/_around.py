"""What stands around the steps of a training, and is undone after them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.base.backbone import Backbone


def autocast(base: Backbone, precision: str) -> AbstractContextManager[object]:
    """bfloat16 where asked for, and on a GPU unless float32 is asked for."""
    import torch

    kind = base.device.type
    if precision == "bfloat16" or (precision == "auto" and kind == "cuda"):
        return torch.autocast(kind, torch.bfloat16)
    return nullcontext()


@contextmanager
def held(base: Backbone) -> Iterator[None]:
    """The network stays on its device, whatever the policy; running out of memory is told in plain words."""
    from pipelines.base.memory import UNMANAGED, Device

    memory: Device = getattr(base, "memory", UNMANAGED)
    with memory.guard("training"), memory.use(base, "net"):
        yield


@contextmanager
def frozen(base: Backbone) -> Iterator[None]:
    """No parameter of the base asks for a gradient; flags come back as they were."""
    modules = [base.net, base.vae, *base.texts.values()]
    flags = [(each, each.requires_grad) for module in modules for each in module.parameters()]
    try:
        for each, _ in flags:
            each.requires_grad_(False)
        yield
    finally:
        for each, flag in flags:
            each.requires_grad_(flag)


@contextmanager
def threads() -> Iterator[None]:
    """Put the number of threads back, which resuming may change."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def checkpointing(net: Any) -> Iterator[None]:
    """Gradient checkpointing of a network, undone afterwards."""
    before = [(each, dict(vars(each))) for each in net.modules() if hasattr(each, "gradient_checkpointing")]
    keys = ("gradient_checkpointing", "_gradient_checkpointing_func")
    try:
        net.enable_gradient_checkpointing()
        yield
    finally:
        for module, own in before:
            for key in keys:
                if key in own:
                    setattr(module, key, own[key])
                else:
                    vars(module).pop(key, None)
