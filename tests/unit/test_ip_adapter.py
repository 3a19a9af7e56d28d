"""IP-Adapter against diffusers' own, and what it owes the base and the rows of a batch.

The published encoders are too large to have here: these are of the same class, tiny and random, or Toybox's.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from torch import Tensor

from pipelines.artifacts import assets, save_safetensors
from pipelines.base.attention import attention_control
from pipelines.base.backbone import rows_in_flight
from pipelines.errors import BadInput, BrokenWeights, Cancelled, MissingAsset, NotAvailable
from pipelines.guidance.cfg import CFG
from pipelines.progress import Job
from pipelines.reference.ip_adapter import FILES, FOLDER, IPAdapter
from pipelines.reference.nets.ip_adapter import numbered, read
from pipelines.sampling.generate import Request, generate
from pipelines.sampling.loop import sample
from pipelines.sampling.schedulers import make as make_sampler
from tests import bases
from tests.references import encoder, published


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))


@pytest.fixture
def base() -> Any:
    return bases.make("unet-eps")


@pytest.fixture
def files(tmp_path: Path, base: Any) -> Path:
    """ip.safetensors, plus.safetensors and image_encoder/ in one folder."""
    published(tmp_path / "ip.safetensors", base.net)
    published(tmp_path / "plus.safetensors", base.net, "plus")
    encoder(tmp_path / "image_encoder")
    return tmp_path


def method(files: Path, name: str = "ip.safetensors", **settings: Any) -> IPAdapter:
    return IPAdapter(weights=str(files / name), encoder=str(files / "image_encoder"), **settings)


def forward(base: Any, branches: dict[str, int] | None = None, count: int = 2) -> Tensor:
    """One forward of `count` rows, or of branches with so many rows each."""
    branches = branches or {"cond": count}
    rows, at = {}, 0
    for name, size in branches.items():
        rows[name] = slice(at, at + size)
        at += size
    with torch.no_grad(), rows_in_flight(base, rows):
        return base.predict(bases.noise(at), torch.full((at,), 500), bases.words(base, at))


def test_numbers_are_those_of_the_published_order(base: Any):
    names = [name.removesuffix(".processor") for name in base.net.attn_processors]
    assert numbered(base) == {number: name for number, name in enumerate(names) if name.endswith("attn2")}
    executed = [site.name for site in base.sites if site.kind == "cross"]
    assert list(numbered(base).values()) != executed  # the trap: the middle runs before the up blocks
    assert list(numbered(base).values())[-1].startswith("mid_block")


@pytest.mark.parametrize("name", ["ip.safetensors", "plus.safetensors"])
@pytest.mark.parametrize("scale", [0.6, 1.0])
def test_pictures_are_those_of_diffusers(base: Any, files: Path, name: str, scale: float):
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    attachment = method(files, name, scale=scale).prepare(base, [picture(1)], Job())
    words = {"cond": bases.words(base, 1, 5), "uncond": bases.words(base, 1, 6)}
    sampler = make_sampler(base, "ddim", 4)
    with attachment.open(base):
        ours = sample(
            base, words, CFG(scale=3).start(base), sampler, bases.noise(1), Job(), branches=("cond", "uncond")
        )  # fmt: skip
    without = sample(
        base, words, CFG(scale=3).start(base), sampler, bases.noise(1), Job(), branches=("cond", "uncond")
    )  # fmt: skip
    pipe = cast("Any", StableDiffusionPipeline)(
        base.vae, base.texts["text_encoder"], base.tokenizers["tokenizer"], base.net,
        DDIMScheduler.from_config(base.scheduler_config), None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.load_ip_adapter(str(files), subfolder="", weight_name=name)
    pipe.set_ip_adapter_scale(scale)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt_embeds=words["cond"].tokens, negative_prompt_embeds=words["uncond"].tokens,
        ip_adapter_image=picture(1), latents=bases.noise(1), num_inference_steps=4, guidance_scale=3,
        height=64, width=64, output_type="latent",
    ).images  # fmt: skip
    size = theirs.abs().max()  # random networks blow latents up
    assert (ours - theirs).abs().max() < 1e-5 * size
    assert (ours - without).abs().max() > 1e-2 * size


def test_scale_zero_is_the_base_bit_for_bit(base: Any, files: Path):
    before = forward(base)
    with method(files, scale=0).prepare(base, [picture(1)], Job()).open(base):
        assert torch.equal(forward(base), before)
    with method(files).prepare(base, [picture(1)], Job()).open(base):
        assert (forward(base) - before).abs().max() > 1e-2
    assert torch.equal(forward(base), before)


def test_nothing_is_left_behind_by_an_error_or_a_cancel(base: Any, files: Path):
    before, state = forward(base), footprint(base)
    attachment = method(files).prepare(base, [picture(1)], Job())
    with pytest.raises(RuntimeError, match="on purpose"), attachment.open(base):
        assert footprint(base) != state
        forward(base)
        raise RuntimeError("on purpose")
    assert footprint(base) == state
    job = Job()
    job.subscribe(lambda event: job.cancel())
    with pytest.raises(Cancelled), attachment.open(base):
        generate(base, Request(["a dog"], [0], steps=3), CFG(), job)
    assert footprint(base) == state
    assert torch.equal(forward(base), before)


def footprint(base: Any) -> Any:
    modules = [(name, "forward" in vars(each), id(each)) for name, each in base.net.named_modules()]
    tensors = [(name, each._version, each.requires_grad) for name, each in base.net.named_parameters()]
    return modules, tensors, dict(base.net.config), [id(each) for each in base.net.attn_processors.values()]


def test_references_of_a_batch_do_not_mix(base: Any, files: Path):
    together = {"cond": 2, "uncond": 2}
    with method(files, spread="one_each").prepare(base, [picture(1), picture(2)], Job()).open(base):
        both = forward(base, together)
    alone = []
    for seed in (1, 2):
        with method(files).prepare(base, [picture(seed)], Job()).open(base):
            alone.append(forward(base, together))
    assert (both[0] - alone[0][0]).abs().max() < 1e-5
    assert (both[1] - alone[1][1]).abs().max() < 1e-5
    assert (alone[0][0] - alone[1][0]).abs().max() > 1e-3
    assert (both[2:] - alone[0][2:]).abs().max() < 1e-5  # unguided rows hear of nothing, whoever is shown
    assert (alone[0][2:] - alone[1][2:]).abs().max() < 1e-5


def test_rows_are_found_by_name_not_by_place(base: Any, files: Path):
    with method(files).prepare(base, [picture(1)], Job()).open(base):
        usual = forward(base, {"cond": 1, "uncond": 1})
        turned = forward(base, {"uncond": 1, "cond": 1})
        all_told = forward(base, {"cond": 2})
    assert (usual[0] - all_told[0]).abs().max() < 1e-5
    assert (turned[1] - all_told[1]).abs().max() < 1e-5
    assert (usual[1] - all_told[1]).abs().max() > 1e-3


def test_several_references_in_any_order_and_too_few(base: Any, files: Path):
    outs = []
    for seeds in ((1, 2), (2, 1), (1, 1), (1,)):
        images = [picture(seed) for seed in seeds]
        with method(files).prepare(base, images, Job()).open(base):
            outs.append(forward(base))
    assert (outs[0] - outs[1]).abs().max() < 1e-5
    assert (outs[2] - outs[3]).abs().max() < 1e-5  # the same tokens twice change no average
    assert (outs[0] - outs[3]).abs().max() > 1e-3
    attachment = method(files, spread="one_each").prepare(base, [picture(1), picture(2)], Job())
    with pytest.raises(BadInput, match="2 references for 3 pictures"), attachment.open(base):
        forward(base, {"cond": 3})


def test_two_adapters_sum_and_a_control_sees_theirs_as_another_stream(base: Any, files: Path):
    published(files / "other.safetensors", base.net, seed=9)
    one = method(files).prepare(base, [picture(1)], Job())
    other = method(files, "other.safetensors").prepare(base, [picture(2)], Job())
    with one.open(base), other.open(base):
        both = forward(base)
    with other.open(base), one.open(base):
        assert (forward(base) - both).abs().max() < 1e-5
    seen: dict[str, set[int]] = {}

    def watch(site: Any, q: Tensor, k: Tensor, v: Tensor, rows: Any) -> Any:
        seen.setdefault(site.kind, set()).add(site.stream)
        return q, k, v

    with one.open(base):
        plain = forward(base)
        with attention_control(base, watch):
            watched = forward(base)
    assert (watched - plain).abs().max() < 1e-6
    assert seen == {"self": {0}, "cross": {0, 1}}


def test_toyboxs_own_encoder_reads_photos(base: Any, tmp_path: Path):
    state = {
        "image_proj.proj.weight": torch.randn(4 * bases.WIDTH, 128),
        "image_proj.proj.bias": torch.zeros(4 * bases.WIDTH),
        "image_proj.norm.weight": torch.ones(bases.WIDTH), "image_proj.norm.bias": torch.zeros(bases.WIDTH),
    }  # fmt: skip
    layers = read(published(tmp_path / "ip.safetensors", base.net)).layers
    for number, (key, value) in layers.items():
        state |= {f"ip_adapter.{number}.to_k_ip.weight": key, f"ip_adapter.{number}.to_v_ip.weight": value}
    file = save_safetensors(tmp_path / "toybox.safetensors", state)
    photos = sorted((assets() / "photos" / "dog").glob("*.jpg"))[:2]
    ip = IPAdapter(weights=str(file), encoder=str(assets() / "toybox" / "clip"))
    outs = []
    for path in photos:
        with Image.open(path) as photo, ip.prepare(base, [photo], Job()).open(base):
            outs.append(forward(base))
    assert (outs[0] - outs[1]).abs().max() > 1e-3


def test_another_family_is_named(base: Any, files: Path):
    published(files / "sdxl.safetensors", base.net, context=2048)
    with pytest.raises(BadInput, match=r"made for SDXL.*tiny.*sd1"):
        method(files, "sdxl.safetensors").prepare(base, [picture(1)], Job())
    with pytest.raises(NotAvailable, match="tiny-flow"):
        method(files).prepare(bases.make("dit-flow"), [picture(1)], Job())


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def pickled(path: Path) -> None:
    torch.save({"image_proj": {}, "ip_adapter": {}}, path)


def without(*prefixes: str) -> Callable[[Path], None]:
    def drop(path: Path) -> None:
        from safetensors.torch import load_file

        save_safetensors(path, {k: v for k, v in load_file(path).items() if not k.startswith(prefixes)})

    return drop


def renamed(path: Path) -> None:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    table = json.loads(raw[8 : 8 + length])
    text = json.dumps({k.replace("image_proj.proj", "image_proj.word"): v for k, v in table.items()}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "truncated"),
        (pickled, "pickled"),
        (without("image_proj."), "image_proj"),
        (without("ip_adapter."), "to_k_ip"),
        (without("ip_adapter.1.to_v"), "without values"),
        (without("image_proj.norm"), "fit together"),
        (renamed, "variant"),
    ],
)
def test_damaged_and_foreign_files_are_refused(base: Any, files: Path, damage: Any, words: str):
    damage(files / "ip.safetensors")
    with pytest.raises(BrokenWeights, match=words):
        method(files).prepare(base, [picture(1)], Job())


def test_face_adapters_are_told_from_pictures(base: Any, files: Path):
    from safetensors.torch import load_file

    state = load_file(files / "ip.safetensors") | {"ip_adapter.0.to_k_lora.down.weight": torch.zeros(2, 2)}
    save_safetensors(files / "ip.safetensors", state)
    with pytest.raises(BadInput, match="FaceID"):
        method(files).prepare(base, [picture(1)], Job())


def test_encoders_are_checked(base: Any, files: Path):
    net = files / "image_encoder" / "model.safetensors"
    whole = net.read_bytes()
    net.write_bytes(whole[:-10])
    with pytest.raises(BrokenWeights, match="truncated"):
        method(files).prepare(base, [picture(1)], Job())
    net.write_bytes(whole)
    without("visual_projection")(net)
    with pytest.raises(BrokenWeights, match="missing"):
        method(files).prepare(base, [picture(1)], Job())
    net.unlink()
    with pytest.raises(MissingAsset):
        method(files).prepare(base, [picture(1)], Job())
    clip = IPAdapter(weights=str(files / "ip.safetensors"), encoder=str(assets() / "toybox" / "clip"))
    with pytest.raises(BadInput, match=r"width 12;.*gives 128"):
        clip.prepare(base, [picture(1)], Job())


def test_missing_weights_say_where_to_get_and_put_them(
    base: Any, files: Path, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
):
    workspace = tmp_path_factory.mktemp("workspace")
    monkeypatch.setenv("LIKENESS_WORKSPACE", str(workspace))
    for variant in ("base", "plus"):
        with pytest.raises(NotAvailable, match="MB") as told:
            IPAdapter(variant=variant).prepare(base, [picture(1)], Job())
        name = FILES[("sd1", variant)][0]
        assert name in told.value.message
        assert str(workspace / FOLDER / name) in told.value.remedy
        assert "Apache-2.0" in told.value.remedy
    published(workspace / FOLDER / FILES[("sd1", "base")][0], base.net)
    with pytest.raises(NotAvailable, match=r"image encoder.*2\.5 GB"):
        IPAdapter().prepare(base, [picture(1)], Job())
    encoder(workspace / FOLDER / "models" / "image_encoder")
    with IPAdapter().prepare(base, [picture(1)], Job()).open(base):
        found = forward(base)
    with method(files).prepare(base, [picture(1)], Job()).open(base):
        assert torch.equal(found, forward(base))
    base.family = "toybox"
    with pytest.raises(NotAvailable, match="family toybox"):
        IPAdapter().prepare(base, [picture(1)], Job())


def test_without_a_picture_there_is_no_reference(base: Any, files: Path):
    with pytest.raises(BadInput, match="no reference picture"):
        method(files).prepare(base, [], Job())
    job = Job()
    job.cancel()
    with pytest.raises(Cancelled):
        method(files).prepare(base, [picture(1)], job)


def test_pictures_are_drawn_with_it(base: Any, files: Path):
    request = Request(["a dog", "a cat"], [0, 1], steps=3)
    plain = generate(base, request, CFG(scale=2), Job())
    with method(files, scale=1).prepare(base, [picture(1)], Job()).open(base):
        told = generate(base, request, CFG(scale=2), Job())
    assert [each.tobytes() for each in told] != [each.tobytes() for each in plain]
