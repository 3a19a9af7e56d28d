"""Placement by policy, running out of memory, forecasts."""

import gc
import weakref

import pytest
import torch

from pipelines.base import memory
from pipelines.base.loading import open_base
from pipelines.base.memory import Device, OutOfMemory, Training, forecast, parts_of, pick
from pipelines.errors import NotAvailable, UnknownName
from tests import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return open_base(str(tiny.sd1(tmp_path_factory.mktemp("memory") / "base")), "cpu")


class Moves:
    """A mover that writes down what it was asked, and moves nothing."""

    def __init__(self, base):
        self.names = {id(each): part for part in memory.PARTS for each in parts_of(base, part)}
        self.log = []

    def __call__(self, module, device):
        self.log.append((self.names[id(module)], device.type))


def test_whole_components_swap_as_they_are_used(base):
    moves = Moves(base)
    device = Device(torch.device("meta"), "model", moves)
    device.place(base)
    assert moves.log == [("text", "cpu"), ("net", "cpu"), ("vae", "cpu")]
    moves.log.clear()
    with device.use(base, "text"):
        pass
    for _ in range(3):
        with device.use(base, "net"):
            pass
    with device.use(base, "vae"):
        pass
    meta = "meta"
    assert moves.log == [("text", meta), ("text", "cpu"), ("net", meta), ("net", "cpu"), ("vae", meta)]


def test_a_part_in_use_is_not_sent_away(base):
    moves = Moves(base)
    device = Device(torch.device("meta"), "model", moves)
    device.place(base)
    moves.log.clear()
    with device.use(base, "net"), device.use(base, "text"):
        pass
    assert ("net", "cpu") not in moves.log


def test_drawing_passes_through_the_policy(base):
    moves = Moves(base)
    before = base.memory
    base.memory = Device(torch.device("cpu"), "model", moves)
    try:
        z = base.predict(torch.randn(1, 4, 8, 8), torch.tensor([5]), base.encode(["a dog"]))
        base.to_pixels(z)
        base.to_latents(torch.zeros(1, 3, 16, 16))
    finally:
        base.memory = before
    assert [part for part, _ in dict.fromkeys(moves.log)] == ["text", "net", "vae"]


def test_resident_moves_once_and_never_again(base):
    moves = Moves(base)
    device = Device(torch.device("meta"), "resident", moves)
    device.place(base)
    count = len(moves.log)
    with device.use(base, "net"), device.use(base, "vae"):
        pass
    assert len(moves.log) == count == 3


def test_tiles_are_switched_with_the_policy(base):
    device = Device(None)
    device.place(base, "tiled")
    assert base.vae.use_tiling
    device.place(base, "resident")
    assert not base.vae.use_tiling


def test_one_base_is_kept_and_leaves_for_the_next(tmp_path):
    place = Device(torch.device("cpu"))
    made = []

    class Thing:
        pass

    def make():
        made.append(1)
        return Thing()

    first = place.kept("a", make)
    assert place.kept("a", make) is first
    assert len(made) == 1
    gone = weakref.ref(first)
    del first
    place.kept("b", lambda: gone() is None)  # the old one had left when the new one came
    assert place.kept("b", make) is True
    gc.collect()


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory")],
)
def test_a_full_device_names_the_next_policy_and_lets_go(error):
    device = Device(torch.device("meta"), "resident")
    held = []

    def work():
        tensor = torch.zeros(10)
        held.append(weakref.ref(tensor))
        raise error

    with pytest.raises(OutOfMemory) as caught, device.guard("drawing"):
        work()
    assert held[0]() is None
    assert caught.value.next_policy == "model"
    assert "model" in caught.value.remedy
    device.policy = "tiled"
    with pytest.raises(OutOfMemory) as caught, device.guard("drawing"):
        work()
    assert caught.value.next_policy is None
    assert "smaller" in caught.value.remedy


def test_other_errors_pass_unchanged():
    with pytest.raises(RuntimeError, match="shapes"), Device(None).guard("drawing"):
        raise RuntimeError("shapes do not match")


def test_devices_by_name():
    assert pick("cpu") is pick("cpu")
    assert pick("auto").where is not None
    with pytest.raises(UnknownName) as caught:
        pick("cdua")
    assert caught.value.suggestion == "cuda"
    if not torch.cuda.is_available():
        with pytest.raises(NotAvailable):
            pick("cuda")


def test_forecast_counts_what_a_training_holds(base):
    plain = forecast(base, Training(1000, batch=2))
    own = sum(each.numel() * 4 for each in base.net.parameters())
    assert plain.weights == own + 4000
    assert (plain.gradients, plain.optimizer) == (4000, 8000)
    assert plain.activations == 2 * forecast(base, Training(1000)).activations
    assert forecast(base, Training(1000, 2, checkpointing=True)).activations < plain.activations
    assert forecast(base, Training(1000, 2, text=True)).weights > plain.weights
    assert "does not fit" in plain.sentence(plain.total - 1)
    assert "it fits" in plain.sentence(plain.total)


def test_forecast_is_near_what_autograd_saves(base):
    """The oracle: bytes that autograd keeps for a backward through every parameter."""
    kept = {}

    def pack(tensor):
        if not any(tensor is each or tensor.data_ptr() == each.data_ptr() for each in base.net.parameters()):
            kept[tensor.data_ptr()] = max(kept.get(tensor.data_ptr(), 0), tensor.untyped_storage().nbytes())
        return tensor

    base.net.requires_grad_(True)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each):
            out = base.predict(torch.randn(1, 4, 8, 8), torch.tensor([5]), base.encode(["a dog"]))
        measured = sum(kept.values())
        del out
    finally:
        base.net.requires_grad_(False)
    ratio = forecast(base, Training(0)).activations / measured
    assert 0.5 < ratio < 1.5


@pytest.mark.parametrize("build", [tiny.sdxl, tiny.sd3])
def test_forecast_knows_every_family(tmp_path, build):
    base = open_base(str(build(tmp_path / "b")), "cpu")
    assert (
        forecast(base, Training(10, width=32, height=32)).activations
        > forecast(base, Training(10)).activations
    )
