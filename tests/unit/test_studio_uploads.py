"""Uploads: judged by content, counted, named by us; nothing is left of what is refused."""

import io
import struct
import zipfile
import zlib

import pytest
from PIL import Image

from pipelines.errors import BadInput, DiskFull
from studio import uploads
from studio.settings import SPACE, Settings

LOCAL, SHARED = Settings(), Settings(hosting=SPACE)


def png(color="red", size=(32, 32)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def written(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, data in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(data)
        paths.append(path)
    return paths


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "workspace" / "uploads"
    folder.parent.mkdir()
    return folder


def archive(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members:
            made.writestr(name, data)
    return path


def nothing_is_left(home):
    return not home.exists() or not list(home.iterdir())


def test_pictures_keep_their_content_and_get_safe_names(tmp_path, home):
    files = written(
        tmp_path / "in", **{"My dog! __png": png(), "b__jpeg": png("blue"), "notes__html": b"<b>"}
    )
    files.append(tmp_path / "in" / "<img onerror=x>.png")
    files[-1].write_bytes(png())
    folder = uploads.keep_photos(files, home, "My <Dog>", LOCAL)
    assert folder.name == "my-dog"
    names = sorted(each.name for each in folder.iterdir())
    assert names == ["My-dog.png", "b.png", "img-onerror-x.png"]  # a PNG whatever it was called
    assert (folder / "b.png").read_bytes() == png("blue")


def test_captions_stay_beside_their_photos(tmp_path, home):
    made = archive(tmp_path / "a.zip", ("set/a.png", png()), ("set/a.txt", "a dog"), ("b.txt", "x" * 100_000))
    folder = uploads.keep_photos([made], home, "set", LOCAL)
    assert (folder / "a.txt").read_text() == "a dog"
    assert sorted(each.name for each in folder.iterdir()) == ["a.png", "a.txt"]


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.zip", ".png", "a.svg"])
@pytest.mark.parametrize(
    "data", [b"", b"<html><script>alert(1)</script>", b"PK\x03\x04broken", b"\x80\x04pickle"]
)
def test_what_is_no_picture_is_refused_whatever_it_is_called(tmp_path, home, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BadInput):
        uploads.keep_photos([path], home, "x", LOCAL)
    assert nothing_is_left(home)


def test_a_zip_is_unpacked_flat_and_leaves_its_folder_never(tmp_path, home):
    made = tmp_path / "a.zip"
    with zipfile.ZipFile(made, "w") as file:
        for name in ("../../up.png", "/etc/abs.png", "C:\\win\\dos.png", "deep/er/in.png"):
            file.writestr(name, png())
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as nested:
            nested.writestr("nested.png", png())
        file.writestr("inner.zip", inner.getvalue())
        file.writestr("disguised.png", inner.getvalue())
    folder = uploads.keep_photos([made], home, "x", LOCAL)
    assert sorted(each.name for each in folder.iterdir()) == ["abs.png", "dos.png", "in.png", "up.png"]
    assert not any(each.is_symlink() for each in folder.iterdir())
    assert not (tmp_path / "up.png").exists()
    assert [each.name for each in home.iterdir()] == ["x"]


def test_a_bomb_is_refused_before_it_fills_anything(tmp_path, home):
    made = archive(tmp_path / "bomb.zip", ("a.png", png() + bytes(60 * 2**20)))
    assert made.stat().st_size < 200_000
    with pytest.raises(BadInput, match="photos never are"):
        uploads.keep_photos([made], home, "x", LOCAL)
    assert nothing_is_left(home)


def test_ten_thousand_photos_are_too_many_at_once_and_in_a_zip(tmp_path, home):
    one = written(tmp_path / "in", a__png=png())[0]
    with pytest.raises(BadInput, match="10,000 files"):
        uploads.keep_photos([one] * 10_000, home, "x", LOCAL)
    made = archive(tmp_path / "many.zip", *((f"{n}.png", b"") for n in range(10_000)))
    with pytest.raises(BadInput, match="10,000 files"):
        uploads.keep_photos([made], home, "x", LOCAL)
    assert nothing_is_left(home)


@pytest.mark.parametrize("sixtyfour", [False, True])
def test_a_table_of_contents_is_measured_before_it_is_read(tmp_path, home, monkeypatch, sixtyfour):
    made = archive(tmp_path / "a.zip", ("a.png", png()))
    data = bytearray(made.read_bytes())
    at = data.rfind(b"PK\x05\x06")
    if sixtyfour:
        record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 2**40, 0)
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)
        data[at:at] = record + locator
    else:
        struct.pack_into("<I", data, at + 12, 2**31)
    made.write_bytes(data)
    monkeypatch.setattr(zipfile, "ZipFile", None)  # it must not come to that
    with pytest.raises(BadInput, match="too many files"):
        uploads.keep_photos([made], home, "x", LOCAL)


def test_damaged_and_locked_archives_are_told_in_words(tmp_path, home):
    made = archive(tmp_path / "a.zip", ("a.png", png(size=(400, 400))))
    data = bytearray(made.read_bytes())
    for index in range(60, 120):
        data[index] ^= 0x5A
    made.write_bytes(data)
    with pytest.raises(BadInput, match=r"unpacked|None of these"):
        uploads.keep_photos([made], home, "x", LOCAL)
    locked = bytearray(archive(tmp_path / "b.zip", ("a.png", png())).read_bytes())
    locked[6] |= 1
    locked[locked.rfind(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "b.zip").write_bytes(locked)
    with pytest.raises(BadInput, match="unpacked"):
        uploads.keep_photos([tmp_path / "b.zip"], home, "x", LOCAL)
    assert nothing_is_left(home)


def test_a_shared_studio_bounds_number_and_bytes(tmp_path, home):
    paths = written(tmp_path / "in", **{f"p{n}__png": png() for n in range(31)})
    with pytest.raises(BadInput, match="31 files"):
        uploads.keep_photos(paths, home, "x", SHARED)
    big = png() + zlib.compress(bytes(1000)) + bytes(40 * 2**20)
    two = written(tmp_path / "big", a__png=big, b__png=big)
    with pytest.raises(BadInput, match="64 MB together"):
        uploads.keep_photos(two, home, "x", SHARED)
    assert nothing_is_left(home)


def test_a_full_disk_leaves_nothing_behind(tmp_path, home, monkeypatch):
    paths = written(tmp_path / "in", a__png=png(), b__png=png())
    calls = []

    def full(path, data):
        calls.append(path)
        if len(calls) == 2:
            raise DiskFull(path)
        path.write_bytes(data)

    monkeypatch.setattr(uploads, "atomic_write", full)
    with pytest.raises(DiskFull):
        uploads.keep_photos(paths, home, "x", LOCAL)
    assert nothing_is_left(home)


def test_two_uploads_of_one_name_never_share_a_folder(tmp_path, home):
    paths = written(tmp_path / "in", a__png=png())
    names = {uploads.keep_photos(paths, home, "dog", LOCAL).name for _ in range(3)}
    assert names == {"dog", "dog-2", "dog-3"}


@pytest.mark.parametrize(
    ("start", "ending"),
    [
        (b"\xff\xd8\xff\xe0", ".jpg"),
        (b"\x89PNG\r\n\x1a\n", ".png"),
        (b"RIFF\0\0\0\0WEBP", ".webp"),
        (b"\0\0\0\x18ftypheic", ".heic"),
        (b"\0\0\0\x18ftypavif", ".avif"),
        (b"RIFF\0\0\0\0WAVE", ""),
        (b"", ""),
    ],
)
def test_kinds_are_told_by_their_first_bytes(start, ending):
    assert uploads.kind_of(start) == ending
