"""Photos: opened whatever they are, refused in plain words, and judged as a person would."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFilter
from pillow_heif import register_heif_opener

from pipelines.artifacts import assets
from pipelines.data.crops import open_cropped, pixels
from pipelines.data.opening import MAX_PHOTOS
from pipelines.data.photos import check, list_photos, open_photo
from pipelines.errors import BadInput, Cancelled, MissingAsset
from pipelines.jobs.kinds import Check, PhotoSet
from pipelines.progress import Job

SUBJECTS = ("backpack", "bear_plushie", "cat", "clock", "dog", "teapot")
register_heif_opener()


def photos(name):
    return list_photos(assets() / "photos" / name)


def saved(folder, images, suffix="png"):
    paths = []
    for index, image in enumerate(images):
        paths.append(folder / f"{index}.{suffix}")
        image.save(paths[-1], **({"compress_level": 1} if suffix == "png" else {}))
    return paths


def halves(left="red", right="blue", size=(64, 32)):
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def near(image, x, y, colour, tolerance=12):
    return np.abs(np.subtract(image.getpixel((x, y)), colour)).max() <= tolerance


# ---- opening


def test_orientation_of_the_camera_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    halves().save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = open_photo(tmp_path / "a.jpg")
    assert image.size == (32, 64)
    assert near(image, 16, 10, (255, 0, 0))  # what was left is up
    assert near(image, 16, 54, (0, 0, 255))


@pytest.mark.parametrize("suffix", ["heic", "webp", "avif", "tiff", "bmp", "gif", "png", "jpg"])
def test_formats(tmp_path, suffix):
    (path,) = saved(tmp_path, [halves()], suffix)
    image = open_photo(path)
    assert image.mode == "RGB"
    assert near(image, 10, 16, (255, 0, 0), 20)
    assert list_photos(tmp_path) == [path]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(tmp_path, mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((40, 40, 40, 255), (4, 0, 8, 8))
    image.convert(mode).save(tmp_path / "a.png")
    opened = open_photo(tmp_path / "a.png")
    assert near(opened, 1, 1, (255, 255, 255), 0)
    assert near(opened, 6, 1, (40, 40, 40), 6)


def test_sixteen_bits_keep_their_tones(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (4, 1))).save(tmp_path / "a.png")
    assert np.abs(np.asarray(open_photo(tmp_path / "a.png"))[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_gray_and_cmyk(tmp_path):
    Image.new("L", (8, 8), 90).save(tmp_path / "gray.jpg")
    Image.new("RGB", (8, 8), (200, 30, 30)).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert near(open_photo(tmp_path / "gray.jpg"), 4, 4, (90, 90, 90), 2)
    assert near(open_photo(tmp_path / "cmyk.jpg"), 4, 4, (200, 30, 30), 6)


def test_colour_profiles_are_followed_and_damaged_ones_ignored(tmp_path):
    from PIL import ImageCms

    image = Image.new("RGB", (8, 8), (200, 90, 40))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "srgb.png", icc_profile=srgb)
    image.save(tmp_path / "odd.png", icc_profile=b"not a profile")
    # the same profile with red and green swapped: what is called red in the file is green to the eye
    swapped = srgb.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "swapped.png", icc_profile=swapped)
    assert near(open_photo(tmp_path / "srgb.png"), 4, 4, (200, 90, 40), 1)
    assert near(open_photo(tmp_path / "odd.png"), 4, 4, (200, 90, 40), 0)
    assert near(open_photo(tmp_path / "swapped.png"), 4, 4, (0, 255, 0), 3)


def test_of_a_moving_picture_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert near(open_photo(tmp_path / "a.gif"), 4, 4, (255, 0, 0))


def bomb(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [14_200, 60_000])
def test_a_bomb_is_refused_from_its_header(tmp_path, side, monkeypatch):
    from PIL import ImageFile

    def decoded(*_):
        raise AssertionError("decoded before the size was looked at")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    (tmp_path / "a.png").write_bytes(bomb(side, side))
    with warnings.catch_warnings(), pytest.raises(BadInput, match="million pixels") as caught:
        warnings.simplefilter("error")
        open_photo(tmp_path / "a.png")
    assert "a.png" in caught.value.message
    assert caught.value.remedy


def heic_bytes():
    out = io.BytesIO()
    open_photo(photos("dog")[0]).save(out, format="HEIF")
    return out.getvalue()


def jpeg_bytes():
    return photos("dog")[0].read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.jpg", lambda: b"dear diary, today I was a picture"),
        ("empty.png", lambda: b""),
        ("cut.jpg", lambda: jpeg_bytes()[:4000]),
        ("cut.heic", lambda: heic_bytes()[:3000]),
        ("cut.png", lambda: bomb(100, 100)),
        ("drawing.eps", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    ],
)
def test_what_is_no_picture_is_named_with_a_way_out(tmp_path, name, content):
    (tmp_path / name).write_bytes(content())
    with pytest.raises(BadInput, match=name) as caught:
        open_photo(tmp_path / name)
    assert caught.value.remedy
    report = check([tmp_path / name, *photos("dog")])
    assert report.photos[0].verdict == "unusable"
    assert name in report.photos[0].reasons[0]
    assert len(report.kept) == 5


def test_a_picture_that_is_not_there(tmp_path):
    with pytest.raises(MissingAsset):
        open_photo(tmp_path / "none.jpg")


# ---- listing


def test_photos_are_listed_as_a_person_would(tmp_path):
    for name in ("b10.jpg", "b2.JPG", "A1.png", ".hidden.jpg", "b2.txt", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "inner.jpg").mkdir()
    assert [path.name for path in list_photos(tmp_path)] == ["A1.png", "b2.JPG", "b10.jpg"]
    assert list_photos(tmp_path / "A1.png") == [tmp_path / "A1.png"]


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(MissingAsset):
        list_photos(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="empty"):
        list_photos(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadInput, match="1 other file"):
        list_photos(tmp_path)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "1.jpg").write_bytes(b"x")
    with pytest.raises(BadInput) as caught:
        list_photos(tmp_path)
    assert str(tmp_path / "dog") in caught.value.remedy


def test_ten_thousand_photos_are_too_many(tmp_path):
    for index in range(10_000):
        (tmp_path / f"{index}.jpg").touch()
    with pytest.raises(BadInput, match=f"10,000 photos; at most {MAX_PHOTOS:,}"):
        list_photos(tmp_path)


# ---- judging


@pytest.mark.parametrize("name", SUBJECTS)
def test_real_photos_are_good(name):
    for size in (512, 128):
        report = check(photos(name), size)
        assert report.verdict == "good", report.reasons
        assert {each.verdict for each in report.photos} == {"good"}
        assert report.kept == photos(name)


def dimmed(factor, offset=0):
    return lambda image: image.point(lambda level: max(0, min(255, int(level * factor + offset))))


def barred(image):
    still = Image.new("RGB", image.size, "black")
    still.paste(image.resize((image.width, image.height * 3 // 4)), (0, image.height // 8))
    return still


DEGRADED = {
    "blurred": (lambda image: image.filter(ImageFilter.GaussianBlur(3)), "poor", "blurred"),
    "soft": (lambda image: image.filter(ImageFilter.BoxBlur(2)), "usable", "sharp"),
    "tiny": (lambda image: image.resize((20, 20)), "unusable", "too small"),
    "small": (lambda image: image.resize((200, 200)), "poor", "too small"),
    "rather small": (lambda image: image.resize((400, 400)), "usable", "little small"),
    "black": (dimmed(0.2), "poor", "dark"),
    "burnt": (dimmed(0.3, 195), "poor", "overexposed"),
    "plain": (lambda image: Image.new("RGB", image.size, "teal"), "unusable", "plain colour"),
    "long": (lambda image: image.resize((1600, 512)), "usable", "long"),
    "barred": (barred, "usable", "bars above and below"),
    "pillared": (
        lambda image: barred(image.transpose(Image.Transpose.ROTATE_90)).transpose(
            Image.Transpose.ROTATE_270
        ),
        "usable",
        "bars left and right",
    ),
}


@pytest.mark.parametrize("kind", DEGRADED)
def test_degraded_copies_are_flagged(tmp_path, kind):
    spoil, verdict, words = DEGRADED[kind]
    originals = [open_photo(path) for name in SUBJECTS for path in photos(name)[:2]]
    report = check(saved(tmp_path, [spoil(image) for image in originals]))
    order = ["good", "usable", "poor", "unusable"]
    flagged = [
        each
        for each in report.photos
        if order.index(each.verdict) >= order.index(verdict) and words in " ".join(each.reasons)
    ]
    share = 0.6 if kind == "soft" else 0.9  # softness depends most on what the photo shows
    assert len(flagged) >= share * len(originals), [(each.verdict, each.reasons) for each in report.photos]


def test_the_same_picture_twice(tmp_path):
    first, second, third = (open_photo(path) for path in photos("dog")[:3])
    copies = [first, second, first.resize((600, 600)), second.crop((8, 8, 504, 504)), third]
    report = check(saved(tmp_path, copies))
    assert [each.verdict for each in report.photos] == ["good", "good", "poor", "poor", "good"]
    assert "same picture as 0.png" in report.photos[2].reasons[0]
    assert "same picture as 1.png" in report.photos[3].reasons[0]
    assert report.verdict == "usable"


def test_backgrounds_alike_are_named(tmp_path):
    rng = np.random.default_rng(0)
    room = open_photo(photos("teapot")[0])
    scenes = []
    for path in photos("cat"):
        scene = room.copy()
        left, top = rng.integers(80, 200, 2).tolist()
        scene.paste(open_photo(path).resize((240, 240)), (left, top))
        scenes.append(scene)
    report = check(saved(tmp_path, scenes))
    assert report.verdict == "usable"
    assert "backgrounds are all alike" in report.reasons[0]
    assert len(report.kept) == 5


def test_too_few(tmp_path):
    assert check(photos("dog")[:1]).verdict == "poor"
    assert check(photos("dog")[:2]).verdict == "usable"
    assert check(photos("dog")[:3]).verdict == "good"
    blurred = [open_photo(path).filter(ImageFilter.GaussianBlur(6)) for path in photos("dog")]
    assert check(saved(tmp_path, blurred)).verdict == "poor"
    with pytest.raises(BadInput):
        check([])


def test_shapes_that_differ_are_a_remark_only(tmp_path):
    images = [open_photo(path) for path in photos("dog")[:3]]
    report = check(
        saved(tmp_path, [images[0].crop((0, 0, 512, 300)), images[1].crop((0, 0, 300, 512)), images[2]]), 300
    )
    assert report.verdict == "good"
    assert "shapes differ" in report.reasons[0]


def test_a_large_jpeg_is_judged_by_its_own_size(tmp_path):
    large = open_photo(photos("dog")[0]).resize((4000, 3000))
    exif = Image.Exif()
    exif[0x0112] = 6
    large.save(tmp_path / "a.jpg", exif=exif)
    (photo,) = check([tmp_path / "a.jpg"]).photos
    assert (photo.width, photo.height) == (3000, 4000)
    assert photo.verdict == "good"


def test_the_report_travels_as_json_without_paths():
    table = check(photos("dog")).as_dict()
    assert table["verdict"] == "good"
    assert table["photos"][0] == {
        "name": "00.jpg",
        "verdict": "good",
        "reasons": [],
        "width": 512,
        "height": 512,
        "small": "",
    }


def test_looking_reports_and_can_be_stopped():
    seen = []
    job = Job(seen.append)
    check(photos("dog"), job=job)
    assert [event.step for event in seen] == [1, 2, 3, 4, 5]
    job.cancel()
    with pytest.raises(Cancelled):
        check(photos("dog"), job=job)


# ---- small copies and crops


def test_small_copies_are_upright_and_made_of_every_photo_that_opens(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = tmp_path / "in"
    folder.mkdir()
    halves(size=(800, 400)).save(folder / "a.jpg", exif=exif, quality=95)
    halves(size=(30, 20)).save(folder / "b.png")
    (folder / "c.png").write_bytes(b"no picture")
    report = check(list_photos(folder), 64, out=tmp_path / "small").as_dict()
    assert [each["small"] for each in report["photos"]] == ["a.jpg.jpg", "b.png.jpg", ""]
    assert sorted(each.name for each in (tmp_path / "small").iterdir()) == ["a.jpg.jpg", "b.png.jpg"]
    with Image.open(tmp_path / "small" / "a.jpg.jpg") as small:
        assert (small.format, small.size) == ("JPEG", (160, 320))
        assert near(small, 80, 40, (255, 0, 0))
        assert not small.getexif()
    with Image.open(tmp_path / "small" / "b.png.jpg") as small:
        assert small.size == (30, 20)
    plain = check(list_photos(folder), 64).as_dict()
    assert {each["small"] for each in plain["photos"]} == {""}


def test_a_crop_is_taken_of_the_upright_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    halves().save(tmp_path / "a.jpg", exif=exif, quality=95)
    crops = {"a.jpg": (0.0, 0.5, 1.0, 1.0), "b.jpg": (0.0, 0.0, 0.5, 0.5)}
    image = open_cropped(tmp_path / "a.jpg", crops)
    assert image.size == (32, 32)
    assert near(image, 16, 16, (0, 0, 255))
    assert open_cropped(tmp_path / "a.jpg", {}).size == (32, 64)


@pytest.mark.parametrize("box", [(0.999, 0.0, 1.0, 0.001), (0.0, 0.0, 1e-9, 1e-9), (0.3, 0.3, 0.7, 0.7)])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (4000, 3000)])
def test_a_crop_in_pixels_holds_at_least_one_and_stays_inside(box, size):
    left, top, right, bottom = pixels(box, *size)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]


def test_a_photo_is_judged_by_what_its_crop_keeps(tmp_path):
    (path,) = saved(tmp_path, [Image.new("RGB", (600, 300), "grey")])
    dog = open_photo(photos("dog")[0]).resize((300, 300))
    image = Image.open(path).convert("RGB")
    image.paste(dog, (300, 0))
    image.save(path)
    crops = {"0.png": (0.5, 0.0, 1.0, 1.0)}
    kept = check([path], 256, crops=crops).photos[0]
    assert (kept.width, kept.height) == (300, 300)
    left_out = check([path], 256, crops={"0.png": (0.0, 0.0, 0.5, 1.0)}).photos[0]
    assert left_out.verdict == "unusable"
    assert left_out.reasons == ("it shows one plain colour", *left_out.reasons[1:])
    assert kept.verdict != "unusable"


@pytest.mark.parametrize(
    "box",
    [(0.5, 0, 0.5, 1), (0.6, 0, 0.5, 1), (0, -0.1, 1, 1), (0, 0, 1, 1.01), (0, float("nan"), 1, 1)],
)
def test_crops_that_are_empty_or_leave_the_picture_are_refused(box):
    for kind in (PhotoSet, Check):
        with pytest.raises(BadInput, match=r"a\.png"):
            kind.model_validate({"crops": {"a.png": box}})
