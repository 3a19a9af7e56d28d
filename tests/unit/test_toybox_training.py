"""The training engine and the stages: exact resume, kills, bad input, folders that stock classes load."""

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

from pipelines.artifacts import load_safetensors, save_safetensors
from pipelines.concepts import checkpoint
from pipelines.errors import BadInput, BrokenWeights, Cancelled, MissingAsset, UnknownName
from pipelines.jobs.spec import ToyboxBuild
from pipelines.progress import Job
from pipelines.toybox import build, cache, nets, tokenizer
from pipelines.toybox.quick import PlainAttention, quicken
from pipelines.toybox.stages import encoders, unet, vae, weak, world
from pipelines.toybox.stages.details import focus
from pipelines.toybox.training import NotFinite, Plan, pick_device, rate, train
from pipelines.toybox.world import Scene, caption
from pipelines.toybox.world.labels import IGNORE, SUBJECT_HEADS, subject_truth

CPU = torch.device("cpu")
PLAN = Plan(views=64, batch=4, lr=1e-2, warmup=3, tail=0.25, seed=5, ema=0.9, checkpoint_seconds=1e9)


class Small:
    """A net with dropout, which draws from the global generator, trained on a batch drawn from the step."""

    name = "small"

    def __init__(self, spoil_at: int | None = None) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(32, 2))
        self.modules: dict[str, nn.Module] = {"net": net.to(memory_format=torch.channels_last)}
        self.spoil_at, self.closed = spoil_at, False

    def batch(self, step: int) -> Tensor:
        rows = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        return rows * float("nan") if step == self.spoil_at else rows

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        error = F.mse_loss(self.modules["net"](batch).float(), batch.mean((1, 2))[:, :2])
        return error, {"twice": 2 * error, "constant": 1.0}

    def sample(self, job: Job) -> Image.Image | None:
        return Image.new("RGB", (4, 4))

    def export(self, folder: Path) -> None:
        weights = {name: each.half() for name, each in self.modules["net"].state_dict().items()}
        save_safetensors(folder / "model.safetensors", weights)

    def close(self) -> None:
        self.closed = True


class StopAt(Job):
    """A job whose user cancels it before the given step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.cancel()
        super().check()


def files(state: Path) -> dict[str, bytes]:
    """The newest checkpoint's tensors, as bytes."""
    newest = checkpoint.checkpoints(state)[-1][1]
    return {path.name: path.read_bytes() for path in sorted(newest.glob("*.safetensors"))}


def steps_of(state: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (state / "log.jsonl").read_text().splitlines()]


# ---- the engine


@pytest.mark.parametrize("muon", [False, True])
def test_stopped_and_resumed_equals_straight_through_bit_for_bit(tmp_path: Path, muon: bool) -> None:
    plan = replace(PLAN, muon=muon)
    straight = train(Small(), plan, tmp_path / "straight", CPU, Job())
    stopped = Small()
    with pytest.raises(Cancelled):
        train(stopped, plan, tmp_path / "parts", CPU, StopAt(7))
    assert stopped.closed
    assert checkpoint.checkpoints(tmp_path / "parts")[-1][0] == 7
    resumed = train(Small(), PLAN, tmp_path / "parts", CPU, Job(), resume=True)
    assert files(tmp_path / "straight") == files(tmp_path / "parts")
    assert straight["done"]
    assert resumed["step"] == straight["step"] == 16
    exports = [
        (tmp_path / name / "export" / "model.safetensors").read_bytes() for name in ("straight", "parts")
    ]
    assert exports[0] == exports[1]


def test_a_checkpoint_from_before_muon_goes_on_without_it(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        train(Small(), PLAN, tmp_path, CPU, StopAt(3))
    path = checkpoint.checkpoints(tmp_path)[-1][1] / "checkpoint.json"
    facts = json.loads(path.read_text())
    del facts["plan"]["muon"]
    path.write_text(json.dumps(facts))
    assert train(Small(), replace(PLAN, muon=True), tmp_path, CPU, Job(), resume=True)["done"]
    held = checkpoint.load(checkpoint.checkpoints(tmp_path)[-1][1]).groups["optimizer"]
    assert not any(name.endswith(".momentum") for name in held)


def test_the_export_holds_the_averages_in_half_precision(tmp_path: Path) -> None:
    train(Small(), PLAN, tmp_path, CPU, Job(), export=tmp_path / "out")
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    for name, exported in load_safetensors(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(exported, found.groups["ema"][f"net.{name}"].half())
        assert not torch.equal(exported, found.groups["weights"][f"net.{name}"].half())


def test_the_thread_count_of_the_checkpoint_is_restored(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watching(Small):
        def batch(self, step: int) -> Tensor:
            seen.append(torch.get_num_threads())
            return super().batch(step)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        train(Watching(), replace(PLAN, views=8), tmp_path, CPU, Job())
        torch.set_num_threads(2)
        train(Watching(), PLAN, tmp_path, CPU, Job(), resume=True)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_more_views_extend_a_plan_and_fewer_do_not_shorten_it(tmp_path: Path) -> None:
    first = train(Small(), replace(PLAN, views=8), tmp_path, CPU, Job())
    longer = train(Small(), PLAN, tmp_path, CPU, Job(), resume=True)
    again = train(Small(), replace(PLAN, views=8, lr=9.0), tmp_path, CPU, Job(), resume=True)
    assert (first["step"], longer["step"], again["step"]) == (2, 16, 16)
    assert again["of"] == 64
    assert checkpoint.load(checkpoint.checkpoints(tmp_path)[-1][1]).facts["plan"]["lr"] == PLAN.lr


def test_the_clock_stops_it_with_a_checkpoint(tmp_path: Path) -> None:
    result = train(Small(), replace(PLAN, views=4_000_000), tmp_path, CPU, Job(), minutes=0.002)
    assert not result["done"]
    assert 0 < result["step"] == checkpoint.checkpoints(tmp_path)[-1][0]


def test_a_second_start_does_not_overwrite_the_first(tmp_path: Path) -> None:
    train(Small(), PLAN, tmp_path, CPU, Job())
    before = files(tmp_path)
    with pytest.raises(BadInput, match="step 16") as caught:
        train(Small(), PLAN, tmp_path, CPU, Job())
    assert "--resume" in caught.value.remedy
    assert files(tmp_path) == before


def test_nothing_that_is_not_finite_is_kept(tmp_path: Path) -> None:
    plan = replace(PLAN, checkpoint_seconds=0.0)
    with pytest.raises(NotFinite, match="step 5") as caught:
        train(Small(spoil_at=5), plan, tmp_path, CPU, Job())
    assert str(tmp_path / "step-000005") in caught.value.remedy
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    assert found.step == 5
    assert all(each.isfinite().all() for group in found.groups.values() for each in group.values())


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(Small(), PLAN, tmp_path, CPU, Job())
    moments = tmp_path / "step-000016" / "optimizer.safetensors"
    kept = load_safetensors(moments)
    save_safetensors(moments, {name: each for name, each in kept.items() if "0.weight" not in name})
    with pytest.raises(BrokenWeights, match=r"optimizer\.safetensors.*net\.0\.weight"):
        train(Small(), PLAN, tmp_path, CPU, Job(), resume=True)


def test_logs_and_sheets_tell_of_every_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.toybox.training.LOG_SECONDS", 0.0)
    plan = replace(PLAN, sample_every=5)
    with pytest.raises(Cancelled):
        train(Small(), plan, tmp_path, CPU, StopAt(7))
    with (tmp_path / "log.jsonl").open("a") as file:  # what a killed sitting logged after its checkpoint, cut
        file.write('{"step": 8}\n{"step": 9, "vie')
    train(Small(), plan, tmp_path, CPU, Job(), resume=True)
    assert steps_of(tmp_path) == list(range(1, 17))
    assert [path.name for path in sorted((tmp_path / "samples").iterdir())] == [
        f"step-{step:06d}.png" for step in (5, 10, 15)
    ]
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert line["views"] == 64
    assert line["raw"]["twice"] == pytest.approx(2 * line["raw"]["loss"], rel=1e-3)
    assert line["smooth"]["constant"] == pytest.approx(1.0)


def test_sampling_and_the_callers_generator_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    stage = Small()
    torch.manual_seed(3)
    train(stage, replace(PLAN, sample_every=1), tmp_path / "drawn", CPU, Job())
    assert torch.equal(torch.rand(2), expected)
    train(Small(), PLAN, tmp_path / "plain", CPU, Job())
    assert files(tmp_path / "drawn") == files(tmp_path / "plain")


def test_the_rate_rises_stays_and_falls() -> None:
    plan = Plan(views=1000, batch=10, lr=2.0, warmup=10, tail=0.3)
    rates = [rate(plan, step) for step in range(plan.steps)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[10:70] == pytest.approx([2.0] * 60)
    assert rates[70:] == sorted(rates[70:], reverse=True)
    assert 0.02 <= rates[-1] < 0.03


def test_a_device_that_is_not_there() -> None:
    assert pick_device("cpu") == CPU
    if not torch.cuda.is_available():
        assert pick_device("auto") == CPU
        with pytest.raises(BadInput, match="CUDA"):
            pick_device("cuda")


# only what it needs, so that starting it is quick
KILLED = """
from __future__ import annotations
import sys
from pathlib import Path
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from pipelines.artifacts import save_safetensors
from pipelines.progress import Job
from pipelines.toybox.training import Plan, train
{small}
train(Small(), {plan!r}, Path(sys.argv[1]), torch.device("cpu"), Job(), resume=True)
"""


def test_killed_at_any_moment_it_goes_on_exactly(tmp_path: Path) -> None:
    """SIGKILL while it writes a checkpoint after every step, twice; then a straight run must agree."""
    state = tmp_path / "killed"
    plan = replace(PLAN, views=4000)
    code = KILLED.format(small=inspect.getsource(Small), plan=replace(plan, checkpoint_seconds=0.0))
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for least in (3, 9):
        process = subprocess.Popen([sys.executable, "-c", code, str(state)], env=environment)
        until = time.monotonic() + 120
        while (
            not (found := checkpoint.checkpoints(state)) or found[-1][0] < least
        ) and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    reached = checkpoint.checkpoints(state)[-1][0]
    assert 9 <= reached < 1000
    with pytest.raises(Cancelled):
        train(Small(), plan, state, CPU, StopAt(5), resume=True)
    with pytest.raises(Cancelled):
        train(Small(), plan, tmp_path / "straight", CPU, StopAt(reached + 5))
    assert files(state) == files(tmp_path / "straight")


# ---- the world's cache and the latents


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with twelve rows and an untrained autoencoder of 16 channels."""
    folder = tmp_path_factory.mktemp("state")
    world.build_world(folder, 12, Job(), processes=1)
    nets.export_diffusers(nets.seeded(lambda: nets.vae(16), 0), folder / "export" / "vae")
    return folder


def test_cached_rows_are_the_scenes_of_their_seeds(state: Path) -> None:
    rows = world.World(state)
    assert len(rows) == 12
    images, truths = world.render_rows(3, 5)
    assert np.array_equal(rows.images(slice(3, 5)), images)
    assert np.array_equal(rows.truth()[3:5], truths)
    assert world.build_world(state, 8, Job())["rows"] == 12  # what is there is not drawn again


def test_an_interrupted_rendering_goes_on_and_a_longer_one_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "CHUNK", 4)
    drawn: list[int] = []

    def here(todo: list[int], rows: int, processes: int, job: Job) -> Any:
        for start in todo:
            job.check()
            drawn.append(start)
            yield start, *world.render_rows(start, min(rows, start + world.CHUNK))

    monkeypatch.setattr(world, "_rendered", here)
    with pytest.raises(Cancelled):
        world.build_world(tmp_path, 10, StopAt(2))
    with pytest.raises(MissingAsset, match=r"images\.npy"):
        world.World(tmp_path)
    world.build_world(tmp_path, 10, Job())
    assert drawn == [0, 4, 8]
    world.build_world(tmp_path, 14, Job())
    assert drawn == [0, 4, 8, 8, 12]
    assert np.array_equal(world.World(tmp_path).images(slice(0, 14)), world.render_rows(0, 14)[0])


def test_rows_of_another_world_are_refused(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "rows.json").write_text('{"fingerprint": "other", "rows": 1, "done": []}')
    with pytest.raises(BadInput, match="another version"):
        world.build_world(tmp_path, 4, Job())
    (tmp_path / "world" / "rows.json").write_text("[")
    with pytest.raises(BrokenWeights, match=r"rows\.json"):
        world.build_world(tmp_path, 4, Job())


def test_the_truth_of_cells_agrees_with_the_masks() -> None:
    for row in range(20):
        scene = world.scene(row)
        masks = np.zeros((len(scene.subjects), 128, 128), bool)
        for index in range(len(masks)):
            masks[index, 16 * index : 16 * index + 16, :9] = True  # one cell each, covered by 9/16
        cells = world.truth(masks, scene)
        assert np.count_nonzero(cells[0]) == len(scene.subjects)
        for index, subject in enumerate(scene.subjects):
            assert world.KINDS[cells[0, index, 0] - 1] == subject.identity.kind
            assert list(world.COLOURS)[cells[1, index, 0] - 1] == subject.identity.colour


def test_latents_are_encoded_once_and_belong_to_their_autoencoder(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "ROWS", 5)
    (tmp_path / "world").symlink_to(state / "world")
    first = state / "export" / "vae"
    folder = cache.build_latents(tmp_path, first, CPU, Job())
    latents = cache.load(folder, 12)
    assert latents.shape == (12, 16, 16, 16)
    assert latents.dtype == np.float16
    model = nets.load_vae(first)
    images = np.array(world.World(state).images(slice(10, 12)))
    expected = vae.code(model, images, CPU) * model.config["scaling_factor"]
    np.testing.assert_allclose(latents[10:], expected.numpy(), atol=0.1)
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    broken = folder / "latents-0000005.npy"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(BrokenWeights, match="latents-0000005"):
        cache.load(folder, 12)
    cache.build_latents(tmp_path, first, CPU, Job())
    assert np.array_equal(cache.load(folder, 12), latents)
    assert [path.name for path in sorted(stamps) if path.stat().st_mtime_ns != stamps[path]] == [broken.name]
    nets.export_diffusers(nets.seeded(lambda: nets.vae(16), 1), tmp_path / "other")
    cache.build_latents(tmp_path, tmp_path / "other", CPU, Job())
    assert not np.array_equal(cache.load(folder, 12), latents)


def test_the_focus_is_worked_out_once_for_every_row(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "world").symlink_to(state / "world")
    folder = cache.build_focus(tmp_path, Job(), processes=1)
    rows = cache.load(folder, 12)
    assert rows.dtype == np.float16
    assert np.array_equal(rows, np.stack([focus(world.scene(row)) for row in range(12)]))
    monkeypatch.setattr(cache, "ProcessPoolExecutor", None)  # a second call works out nothing
    assert cache.build_focus(tmp_path, Job()) == folder


# ---- the autoencoder's start


def test_a_code_narrowed_to_all_its_axes_changes_nothing(state: Path) -> None:
    wide = nets.seeded(lambda: nets.vae(6), 2)
    images = np.array(world.World(state).images(slice(0, 8)))
    same = vae.narrowed(wide, 6, images)
    pixels = torch.from_numpy(images[:2]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        # away from the border, where padding meets the bias, and from the soft clamp
        left, right = (each.decoder.layers(each.encoder(pixels)) for each in (wide, same))
    torch.testing.assert_close(left[..., 40:88, 40:88], right[..., 40:88, 40:88], atol=2e-3, rtol=0)
    code = vae.code(vae.narrowed(wide, 3, images), images, CPU)
    assert code.shape[1] == 3
    spread = code.std((0, 2, 3))
    assert spread[0] > spread[1] > spread[2]
    assert float(spread.pow(2).mean().sqrt()) == pytest.approx(1.0, abs=0.1)


def test_the_two_halves_of_taef2_become_one_autoencoder(tmp_path: Path) -> None:
    wide = nets.seeded(lambda: nets.vae(32), 3)
    halves: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for name, each in wide.state_dict().items():
        half, _, layer, rest = name.split(".", 3)
        number = int(layer) + (half == "decoder")  # there, layer 0 is a clamp
        halves[half][f"{number}.{rest}"] = each
    halves["encoder"]["11.pool.1.weight"] = torch.ones(4)
    for half, tensors in halves.items():
        save_safetensors(tmp_path / f"taef2_{half}.safetensors", tensors)
    found = vae.from_halves(tmp_path).state_dict()
    assert all(torch.equal(found[name], each) for name, each in wide.state_dict().items())
    (tmp_path / "taef2_decoder.safetensors").write_bytes(b"version https://git-lfs")
    with pytest.raises(BrokenWeights, match="taef2_decoder"):
        vae.from_halves(tmp_path)


def test_a_start_that_does_not_fit_is_refused(state: Path, tmp_path: Path) -> None:
    rows = world.World(state)
    with pytest.raises(BadInput, match="16 channels, not 20"):
        vae.start(state / "export" / "vae", 20, rows, 0)
    with pytest.raises(MissingAsset):
        vae.start(tmp_path, 16, rows, 0)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(BrokenWeights, match="AutoencoderKL"):
        vae.start(tmp_path, 16, rows, 0)


def test_the_autoencoder_trains_and_its_export_has_unit_spread(state: Path, tmp_path: Path) -> None:
    plan = replace(vae.PLANS["cpu"], views=4, batch=2, sample_every=0)
    rows = world.World(state)
    stage = vae.VaeStage(vae.start(state / "export" / "vae", 16, rows, 0), rows, plan, CPU)
    assert torch.equal(stage.batch(3), stage._make(3))
    result = train(stage, plan, tmp_path, CPU, Job())
    assert {"psnr_world", "loss"} <= result.keys()
    model = nets.load_vae(tmp_path / "export")
    images = np.array(world.World(state).images(slice(None)))
    spread = float(vae.code(model, images, CPU).std()) * model.config["scaling_factor"]
    assert spread == pytest.approx(1.0, abs=0.02)


def test_training_the_decoder_alone_keeps_the_latents_valid(state: Path, tmp_path: Path) -> None:
    plan = replace(vae.PLANS["cpu"], views=4, batch=2, sample_every=0)
    rows, first = world.World(state), state / "export" / "vae"
    stage = vae.VaeStage(vae.start(first, 16, rows, 0), rows, plan, CPU, decoder_only=True)
    train(stage, plan, tmp_path, CPU, Job())
    assert cache.code_key(tmp_path / "export") == cache.code_key(first)
    before, after = (load_safetensors(folder / nets.WEIGHTS) for folder in (first, tmp_path / "export"))
    assert not torch.equal(before["decoder.layers.0.weight"], after["decoder.layers.0.weight"])


def test_a_decoder_taken_up_again_keeps_the_scale_of_its_code(state: Path, tmp_path: Path) -> None:
    """The checkpoint holds tensors alone; the scale stands in the config of what the training began with."""
    for name in ("world", "export"):
        shutil.copytree(state / name, tmp_path / name)
    first = nets.load_vae(tmp_path / "export" / "vae")
    first.register_to_config(scaling_factor=1.25)
    nets.export_diffusers(first, tmp_path / "export" / "vae")
    key = cache.code_key(tmp_path / "export" / "vae")
    for views in (8, 16):
        build.build(spec(tmp_path, "vae", decoder_only=True, views=views, resume=views > 8), Job())
        assert cache.code_key(tmp_path / "export" / "vae") == key


# ---- the base


@pytest.fixture
def data() -> unet.Data:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(12, 4, 16, 16, generator=generator).half()
    truth = torch.randint(0, 10, (12, 2, 8, 8), generator=generator, dtype=torch.uint8)
    return unet.Data(latents, truth, torch.rand(12, 16, 16, generator=generator).half())


def tiny_stage(data: unet.Data, plan: Plan, aux: float = 0.1) -> unet.UNetStage:
    net, text = nets.seeded(lambda: (nets.weak_unet(4), nets.text_encoder()), 1)
    return unet.UNetStage(net, text, data, plan, CPU, aux=aux)


def test_plain_attention_is_diffusers_attention() -> None:
    net = nets.seeded(lambda: nets.weak_unet(4), 0).eval()
    inputs = (torch.randn(2, 4, 16, 16), torch.tensor([3, 700]), torch.randn(2, 48, nets.TEXT_WIDTH))
    with torch.no_grad():
        net.set_attn_processor(AttnProcessor())
        expected = net(*inputs).sample
        net.set_attn_processor(PlainAttention())
        torch.testing.assert_close(net(*inputs).sample, expected, atol=1e-5, rtol=1e-4)


def test_a_quickened_unet_has_the_same_output_and_the_same_gradients() -> None:
    plain = nets.seeded(lambda: nets.weak_unet(4), 0)
    quick = nets.plain_unet(plain)
    quicken(quick)
    inputs = (torch.randn(2, 4, 16, 16), torch.tensor([3, 700]), torch.randn(2, 48, nets.TEXT_WIDTH))
    outputs = [net(*inputs).sample for net in (plain, quick)]
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-4)
    for each in outputs:
        each.pow(2).mean().backward()
    theirs = dict(plain.named_parameters())
    for name, parameter in quick.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-3, msg=name)


def test_batches_are_functions_of_the_step_and_reword_every_epoch(data: unet.Data) -> None:
    plan = replace(unet.PLANS["cpu"], batch=10)
    one, other = tiny_stage(data, plan), tiny_stage(data, plan)
    for step in (0, 5, 2):
        left, right = one.batch(step), other.batch(step)
        assert torch.equal(left.rows, right.rows)
        assert torch.equal(left.ids, right.ids)
        assert torch.equal(left.times, right.times)
        assert left.noise_seed == right.noise_seed
    # three of ten go through every row, epoch by epoch
    assert round(unet.RICH * plan.batch) == 7
    parts = [[one.batch(4 * epoch + part) for part in range(4)] for epoch in (0, 1)]
    rows, ids = (
        [torch.cat([getattr(each, name)[:3] for each in epoch]) for epoch in parts]
        for name in ("rows", "ids")
    )
    assert all(sorted(each.tolist()) == list(range(12)) for each in rows)
    assert not torch.equal(ids[0][rows[0].argsort()], ids[1][rows[1].argsort()])


def test_most_of_a_batch_is_drawn_by_how_much_there_is_to_name(data: unet.Data) -> None:
    rows = unet.rich_rows(200)
    counts = np.bincount(rows, minlength=200)
    for row, count in enumerate(counts):
        scene = world.scene(row)
        if not scene.subjects:
            assert count == 0
        elif scene.subjects[0].identity.kind == "person":
            assert count >= 1  # hair, or that there is none
        else:
            subject = scene.subjects[0]
            patterned = subject.identity.pattern != "plain" and scene.style != "pixel"
            names = [item for item, _ in subject.accessories] + [subject.identity.pattern] * patterned
            details = sum(unet.WORTH[name] for name in names)
            assert count == details * (2 if len(scene.subjects) == 1 else 1)
    batch = tiny_stage(data, replace(unet.PLANS["cpu"], batch=10)).batch(0)
    assert set(batch.rows[3:].tolist()) <= set(unet.rich_rows(12).tolist())


def test_what_was_trained_before_goes_on_with_muon_and_falls_sooner() -> None:
    plan = unet.going_on(replace(unet.PLANS["cpu"], warmup=0, views=6400))
    rates = [rate(plan, step) for step in range(plan.steps)]
    assert plan.muon and not unet.PLANS["cpu"].muon
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == rates[39] > rates[60] > 30 * rates[-1]


def test_most_timesteps_are_those_at_which_details_are_decided() -> None:
    drawn = np.sort(unet.timesteps(np.random.default_rng(0), 1000))
    low, high = unet.MIDDLE
    anywhere = 1000 * (1 - unet.MIDDLE_SHARE)
    expected = 1000 * unet.MIDDLE_SHARE + anywhere * (high - low) / 1000
    assert ((drawn >= low) & (drawn < high)).sum() == pytest.approx(expected, abs=2)
    assert drawn[0] >= 0 and drawn[-1] <= 999
    assert np.diff(drawn).max() <= 2 * 1000 / anywhere + 1  # one from each of equal parts, and rounding


def test_half_of_the_captions_name_everything(data: unet.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def listening(scene: Scene, word: int, full: bool = False) -> str:
        asked.append(full)
        return caption(scene, word, full)

    monkeypatch.setattr(unet, "caption", listening)
    stage = tiny_stage(data, replace(unet.PLANS["cpu"], batch=64))
    ids = [stage.batch(step).ids for step in range(4)]
    assert np.mean(asked) == pytest.approx(unet.FULL, abs=0.1)
    empty = tokenizer.tokenise([""])[0]
    dropped = sum((each == empty).all(1).sum().item() for each in ids)
    assert dropped == 256 - len(asked)  # these ask nothing


def test_of_the_heads_gradient_little_reaches_the_network(data: unet.Data) -> None:
    stage = tiny_stage(data, replace(unet.PLANS["cpu"], batch=2))
    batch = stage.batch(0)
    noisy = torch.randn(2, 4, 16, 16)
    context = stage.encode_text(batch.ids)
    features: list[Tensor] = []
    stage.unet.up_blocks[-2].attentions[-1].register_forward_hook(lambda *given: features.append(given[2][0]))
    logits = stage._forward(noisy, batch.times, context)[1]
    assert logits is not None
    whole = torch.autograd.grad(stage.aux_head(features[0]).sum(), features[0], retain_graph=True)[0]
    part = torch.autograd.grad(logits.sum(), features[0])[0]
    torch.testing.assert_close(part, unet.PULL * whole)


def test_weights_are_min_snr_above_one_and_grow_below() -> None:
    given = torch.tensor([25.0, 5.0, 1.0, 0.125, 0.008])
    torch.testing.assert_close(unet.weights(given), torch.tensor([0.2, 1.0, 1.0, 2.0, 5.0]))


def test_white_noise_weighs_the_same_at_every_scale_and_an_even_error_more() -> None:
    noise = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(unet.at_every_scale(noise).mean(), torch.tensor(1.0), atol=0.05, rtol=0)
    even = unet.at_every_scale(torch.full((1, 4, 16, 16), 0.1))
    torch.testing.assert_close(even, torch.tensor([0.01 * (1 + 2 + 4 + 8 + 16) / (31 / 16)]))


def test_the_loss_is_the_weighted_noise_error(data: unet.Data) -> None:
    stage = tiny_stage(data, replace(unet.PLANS["cpu"], batch=4), aux=0.0)
    batch = stage.batch(0)
    with torch.no_grad():
        for each in stage.unet.parameters():
            each.zero_()  # it predicts 0, so the error is the noise's own square
        loss, parts = stage.loss(batch)
    noise = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(batch.noise_seed))
    share = nets.scheduler().alphas_cumprod[batch.times]
    weights = unet.weights(share / (1 - share))
    focused = (data.focus[batch.rows].float()[:, None] * noise.pow(2)).mean((1, 2, 3))
    torch.testing.assert_close(loss, (weights * (unet.at_every_scale(noise) + focused)).mean())
    assert "cells" not in parts


def test_a_cell_shows_what_its_subject_shows_and_nothing_where_two_are_alike() -> None:
    truth = torch.zeros(2, 2, 8, 8, dtype=torch.long)
    truth[0, :, 2, 2], truth[0, :, 2, 5] = torch.tensor([3, 1]), torch.tensor([3, 4])
    truth[1, :, 0, 0] = torch.tensor([3, 1])
    codes = torch.tensor([[[3, 1], [3, 4]], [[3, 1], [3, 1]]], dtype=torch.uint8)
    details = torch.tensor([[[2, IGNORE], [0, 1]], [[1, 1], [1, 1]]])
    cells = unet.in_cells(truth, codes, details)
    assert cells.shape == (2, 2, 8, 8)
    assert cells[0, :, 2, 2].tolist() == [2, IGNORE]
    assert cells[0, :, 2, 5].tolist() == [0, 1]
    assert (cells[0] != IGNORE).sum() == 3
    assert (cells[1] == IGNORE).all()


def test_a_batch_knows_the_subjects_of_its_rows(data: unet.Data) -> None:
    batch = tiny_stage(data, replace(unet.PLANS["cpu"], batch=6)).batch(1)
    for row, codes, details in zip(batch.rows.tolist(), batch.codes, batch.details, strict=True):
        subjects = world.scene(row).subjects
        assert (codes[:, 0] > 0).sum() == len(subjects)
        for slot, subject in enumerate(subjects):
            shown = subject_truth(subject, world.scene(row).style)
            for column, head in enumerate(unet.DETAILS):
                wanted = SUBJECT_HEADS[head].index(shown[head]) if head in shown else IGNORE
                assert details[slot, column] == wanted


def test_the_base_resumes_exactly_and_its_head_is_not_exported(data: unet.Data, tmp_path: Path) -> None:
    plan = replace(unet.going_on(unet.PLANS["cpu"]), views=12, batch=3, warmup=1, sample_every=0)
    train(tiny_stage(data, plan), plan, tmp_path / "straight", CPU, Job())
    with pytest.raises(Cancelled):
        train(tiny_stage(data, plan), plan, tmp_path / "parts", CPU, StopAt(2))
    train(tiny_stage(data, plan), plan, tmp_path / "parts", CPU, Job(), resume=True)
    assert files(tmp_path / "straight") == files(tmp_path / "parts")
    held = checkpoint.load(checkpoint.checkpoints(tmp_path / "parts")[-1][1]).groups["weights"]
    assert any(name.startswith("aux.") for name in held)
    assert any(name.startswith("text_encoder.") for name in held)
    moments = checkpoint.load(checkpoint.checkpoints(tmp_path / "parts")[-1][1]).groups["optimizer"]
    by_adamw = {name.rsplit(".", 1)[0] for name in moments if name.endswith(".exp_avg")}
    by_muon = {name.rsplit(".", 1)[0] for name in moments if name.endswith(".momentum")}
    assert by_adamw | by_muon == {name for name, each in held.items() if each.is_floating_point()}
    assert all(held[name].ndim > 1 for name in by_muon)
    outer = {"unet.conv_in.weight", "unet.conv_out.weight", "aux.weight"}
    tables = {f"text_encoder.embeddings.{name}_embedding.weight" for name in ("token", "position")}
    assert {name for name in by_adamw if held[name].ndim > 1} == outer | tables
    loaded = UNet2DConditionModel.from_pretrained(tmp_path / "parts" / "export" / "unet")
    assert isinstance(loaded, UNet2DConditionModel)
    assert loaded.dtype == torch.float32
    text = nets.text_encoder()
    encoders.load_model(text, tmp_path / "parts" / "export" / "text_encoder")
    averages = checkpoint.load(checkpoint.checkpoints(tmp_path / "parts")[-1][1]).groups["ema"]
    assert all(
        torch.equal(each, averages[f"text_encoder.{name}"].half()) for name, each in text.named_parameters()
    )


def test_the_weak_sibling_leaves_the_text_encoder_as_it_is(data: unet.Data, tmp_path: Path) -> None:
    plan = replace(weak.PLANS["cpu"], views=4, batch=2, warmup=1)
    net, text = nets.seeded(lambda: (nets.weak_unet(4), nets.text_encoder()), 1)
    before = {name: each.clone() for name, each in text.state_dict().items()}
    stage = weak.WeakStage(net, text, data, plan, CPU, frozen_text=True)
    train(stage, plan, tmp_path, CPU, Job())
    assert all(torch.equal(each, before[name]) for name, each in text.state_dict().items())
    assert (tmp_path / "export" / "config.json").is_file()


def test_the_nets_keep_to_their_sizes() -> None:
    with torch.device("meta"):
        made = [make(16) for make in (nets.unet, nets.weak_unet, nets.vae)]
    counts = [sum(each.numel() for each in net.parameters()) for net in made]
    assert all(count < limit for count, limit in zip(counts, (9_000_000, 1_000_000, 2_500_000), strict=True))
    shards = nets._shards({name: each.half() for name, each in made[0].state_dict().items()})
    assert all(sum(map(nets._size, shard.values())) <= 16 * 2**20 for shard in shards)


def test_a_net_in_shards_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets, "SHARD", 2**20)
    net = nets.seeded(lambda: nets.weak_unet(4), 0)
    nets.export_diffusers(net, tmp_path)
    assert len(nets.weights_in(tmp_path)) == 2
    expected = {name: each.half().float() for name, each in net.state_dict().items()}
    own, stock = nets.weak_unet(4), UNet2DConditionModel.from_pretrained(tmp_path)
    nets.load_into(own, tmp_path)
    for loaded in (own, stock):
        assert isinstance(loaded, UNet2DConditionModel)
        assert all(torch.equal(each, expected[name]) for name, each in loaded.state_dict().items())


# ---- the command


def spec(state: Path, stage: str, **more: Any) -> ToyboxBuild:
    usual = ToyboxBuild(device="cpu", state=state).model_dump()
    return ToyboxBuild.model_construct(**{**usual, "stage": stage, **more})


def test_bad_wishes_are_answered(state: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="stage") as unknown:
        build.build(spec(tmp_path, "unett"), Job())
    assert '"unet"' in unknown.value.remedy
    with pytest.raises(MissingAsset, match=r"images\.npy") as missing:
        build.build(spec(tmp_path, "vae"), Job())
    assert "--stage world" in missing.value.remedy
    with pytest.raises(BadInput, match="one stage"):
        build.build(spec(tmp_path, "all", init=tmp_path), Job())
    foreign = tmp_path / "foreign.safetensors"
    save_safetensors(foreign, {"x": torch.zeros(2)})
    (tmp_path / "own" / "export").mkdir(parents=True)
    for name in ("world", "export/vae"):
        (tmp_path / "own" / name).symlink_to(state / name)
    with pytest.raises(BrokenWeights, match=r"foreign\.safetensors"):
        build.build(spec(tmp_path / "own", "unet", init=foreign, views=1), Job())


def test_from_the_stages_to_a_pipeline_that_draws(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unet and weak stages through the command, narrow, then the folder in the stock pipeline."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    monkeypatch.setattr(nets, "unet", nets.weak_unet)
    monkeypatch.setitem(unet.PLANS, "cpu", replace(unet.PLANS["cpu"], batch=2, sample_every=1))
    monkeypatch.setitem(weak.PLANS, "cpu", replace(weak.PLANS["cpu"], batch=2))
    monkeypatch.setattr(unet, "SHEET", 2)
    monkeypatch.setattr(unet, "STEPS", 2)
    (tmp_path / "export").mkdir()
    for name in ("world", "export/vae"):
        (tmp_path / name).symlink_to(state / name)
    first = build.build(spec(tmp_path, "unet", views=2, init=build.SCRATCH), Job())
    assert first["step"] == 1
    assert (tmp_path / "unet" / "samples" / "step-000001.png").is_file()
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.md").write_text("kept")
    result = build.build(spec(tmp_path, "weak", views=2, init=build.SCRATCH, out=out), Job())
    assert result["out"] == str(out)
    assert (out / "notes.md").read_text() == "kept"
    assert "taesd" in (out / "LICENSE").read_text()
    assert not list(out.rglob("complete"))
    pipeline = StableDiffusionPipeline.from_pretrained(out)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a red dog", num_inference_steps=2, height=128, width=128, return_dict=False)[0]
    assert drawn[0].size == (128, 128)
    assert pipeline.text_encoder.dtype == pipeline.unet.dtype == pipeline.vae.dtype == torch.float32
