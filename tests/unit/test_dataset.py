"""Photos → latents and captions."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from pipelines.data import dataset
from pipelines.data.buckets import bucket, square
from pipelines.data.cache import Wanted, drawn, key_of
from pipelines.data.captions import captions_of, class_captions
from pipelines.errors import BadInput, BrokenWeights, Cancelled
from pipelines.progress import Job
from tests import bases
from tests.training import PHOTOS, concept, data_of, photos


@pytest.mark.parametrize(
    "size", [(4000, 3000), (3000, 4000), (512, 512), (300, 1200), (1, 5000), (1920, 1080)]
)
@pytest.mark.parametrize(("resolution", "multiple"), [(128, 32), (512, 64), (1024, 64), (30, 32)])
def test_a_bucket_keeps_the_shape_as_far_as_multiples_and_pixels_allow(size, resolution, multiple):
    width, height = bucket(size[0], size[1], resolution, multiple)
    assert width % multiple == height % multiple == 0
    assert width * height <= max(resolution**2, multiple**2)
    turned = bucket(size[1], size[0], resolution, multiple)
    assert turned == (height, width)
    if resolution >= 512:
        ratio = min(max(size[0] / size[1], 0.5), 2.0)
        assert max(width / height / ratio, ratio * height / width) < 1.2
        assert width * height > 0.75 * resolution**2


def test_a_square_is_what_the_base_can_take():
    assert square(512, 64) == (512, 512)
    assert square(100, 32) == (96, 96)
    assert square(8, 32) == (32, 32)


def test_a_text_file_beside_a_photo_is_its_caption_and_the_token_comes_first(tmp_path):
    photo = tmp_path / "1.jpg"
    templates = ("a photo of {token} {class_word}", "a {token}")
    assert captions_of(photo, PHOTOS, templates, "sks dog") == ("a photo of sks dog", "a sks")
    caption = tmp_path / "1.txt"
    caption.write_text("\ufeffa dog\n  on grass ", encoding="utf-8")
    assert captions_of(photo, PHOTOS, templates, "sks dog") == ("sks dog, a dog on grass",)
    caption.write_text("my SKS dog on grass", encoding="utf-8")
    assert captions_of(photo, PHOTOS, templates, "sks dog") == ("my SKS dog on grass",)
    caption.write_text("the {token} {class_word} sleeps", encoding="utf-8")
    assert captions_of(photo, PHOTOS, templates, "sks dog") == ("the sks dog sleeps",)
    without = PHOTOS.model_copy(update={"captions": False})
    assert captions_of(photo, without, templates, "sks dog")[0] == "a photo of sks dog"
    caption.write_text("  ", encoding="utf-8")
    assert captions_of(photo, PHOTOS, templates[:1], "sks dog") == ("a photo of sks dog",)


def test_templates_that_name_something_else_or_lack_the_token_are_refused(tmp_path):
    for template in ("a photo of {name}", "a photo of a dog", "{token} {}"):
        with pytest.raises(BadInput, match="caption"):
            captions_of(tmp_path / "1.jpg", PHOTOS, (template,), "sks dog")


def test_class_captions_do_without_the_token():
    templates = ("a photo of {token} {class_word}", "a photo of a {token}", "{token}, a {class_word}")
    assert class_captions(PHOTOS, templates) == ("a photo of dog", "a photo of a dog", ", a dog")


def test_latents_are_those_of_the_cropped_photo_and_of_its_mirror_image(tmp_path):
    base = bases.make("unet-eps")
    (path,) = photos(tmp_path, [(128, 64)])
    flipped = PHOTOS.model_copy(update={"flip": True})
    data = dataset.build(base, [path], flipped, concept("dreambooth_lora"), Job())
    latents = data.photos[0].latents
    assert latents.shape == (2, 4, 8, 8)
    with Image.open(path) as photo:
        middle = photo.crop((32, 0, 96, 64))
    pixels = torch.tensor(list(middle.tobytes()), dtype=torch.float32).view(1, 64, 64, 3).permute(0, 3, 1, 2)
    pixels = pixels / 127.5 - 1
    assert torch.allclose(latents[:1], base.to_latents(pixels), atol=1e-5)
    assert torch.allclose(latents[1:], base.to_latents(pixels.flip(-1)), atol=1e-5)


def test_photos_encode_at_the_size_asked_for(tmp_path):
    base = bases.make("unet-eps")
    paths = photos(tmp_path, [(128, 64)])
    small = concept("dreambooth_lora", resolution=32)
    assert dataset.build(base, paths, PHOTOS, small, Job()).photos[0].latents.shape[-2:] == (4, 4)


def test_class_pictures_are_drawn_once_by_the_same_base_and_belong_to_their_captions(tmp_path):
    base = bases.make("unet-eps")
    calls: list[list[int]] = []

    def draw(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        calls.append(seeds)
        assert prompts == ["a dog" if seed % 2 == 0 else "one dog" for seed in seeds]
        return [Image.new("RGB", (64, 64), (seed, 0, 0)) for seed in seeds]

    wanted = Wanted(("a dog", "one dog"), 20, (64, 64), "cfg 4")
    first = drawn(base, wanted, draw, Job(), tmp_path)
    assert drawn(bases.make("unet-eps"), wanted, draw, Job(), tmp_path) == first
    assert [seed for seeds in calls for seed in seeds] == list(range(20))
    others = [
        key_of(base, Wanted(("a dog",), 20, (64, 64), "cfg 4")),
        key_of(base, Wanted(("a dog", "one dog"), 20, (64, 64), "cfg 5")),
        key_of(bases.make("unet-v"), wanted),
    ]
    with torch.no_grad():
        next(base.net.parameters()).add_(1)
    assert len({key_of(base, wanted), first[0].parent.name, *others}) == 5


def test_a_stop_while_drawing_leaves_no_half_set(tmp_path):
    base, job = bases.make("unet-eps"), Job()

    def draw(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        job.cancel()
        return [Image.new("RGB", (64, 64))] * len(seeds)

    with pytest.raises(Cancelled):
        drawn(base, Wanted(("a dog",), 20, (64, 64)), draw, job, tmp_path)
    assert list(tmp_path.glob("**/*.png")) == []


def test_class_pictures_may_come_from_a_folder_and_have_to_come_from_somewhere(tmp_path):
    base = bases.make("unet-eps")
    own = photos(tmp_path / "dogs", [(64, 64)] * 2)
    method = concept("dreambooth_lora", prior_weight=1.0, prior_folder=str(tmp_path / "dogs"))
    data = dataset.build(base, own[:1], PHOTOS, method, Job())
    assert [each.captions for each in data.priors] == [("a photo of dog",)] * 2
    with pytest.raises(BadInput, match="class pictures"):
        dataset.build(base, own, PHOTOS, concept("dreambooth_lora", prior_weight=1.0), Job())
    with pytest.raises(BadInput, match="no photos"):
        dataset.build(base, [], PHOTOS, method, Job())


def test_latents_that_are_not_finite_are_refused(tmp_path):
    base = bases.make("unet-eps")
    with torch.no_grad():
        next(base.vae.parameters()).fill_(float("nan"))
    with pytest.raises(BrokenWeights, match="not finite"):
        data_of(base, tmp_path, concept("dreambooth_lora"))


def test_the_key_tells_other_photos_and_other_captions(tmp_path):
    base, method = bases.make("unet-eps"), concept("dreambooth_lora")
    one = data_of(base, tmp_path, method)
    assert one.key() == data_of(base, tmp_path, method).key()
    other = PHOTOS.model_copy(update={"class_word": "cat"})
    assert one.key() != data_of(base, tmp_path, method, other).key()


def test_crops_change_the_latents_and_the_key_of_the_data(tmp_path):
    base = bases.make("unet-eps")
    method = concept("dreambooth_lora")
    paths = photos(tmp_path, [(128, 128)] * 2)
    plain = dataset.build(base, paths, PHOTOS, method, Job())
    cropping = PHOTOS.model_copy(update={"crops": {"0.png": (0.0, 0.0, 0.5, 0.5)}})
    cut = dataset.build(base, paths, cropping, method, Job())
    with Image.open(paths[0]) as image:
        alone = dataset.encode(base, image.crop((0, 0, 64, 64)), base.latent.size, PHOTOS, Job())
    assert torch.equal(cut.photos[0].latents, alone)
    assert not torch.equal(cut.photos[0].latents, plain.photos[0].latents)
    assert torch.equal(cut.photos[1].latents, plain.photos[1].latents)
    assert cut.key() != plain.key()
