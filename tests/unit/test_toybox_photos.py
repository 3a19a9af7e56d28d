"""The photographs in assets: small, attributed, and cropped reproducibly."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.artifacts import assets
from pipelines.errors import BadInput, MissingAsset, UnknownName
from pipelines.toybox import photos
from pipelines.toybox.world import WORDS


def test_photographs_are_small_attributed_and_decode():
    folder = assets() / "photos"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 2 * 2**20
    assert "CC BY 4.0" in (folder / "README.md").read_text()
    for name in photos.SUBJECTS:
        stack = photos.subject_photos(name, 64)
        assert stack.dtype == np.uint8
        assert stack.shape[1:] == (64, 64, 3)
        assert len(stack) >= 5
        assert not stack.flags.writeable
    assert all(word in WORDS for words in photos.CLASS_WORDS.values() for word in words.split())


def test_crops_are_a_function_of_the_generator():
    first, second, other = (photos.photo_crops(np.random.default_rng(seed), 6, 32) for seed in (1, 1, 2))
    assert first.shape == (6, 32, 32, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_held_out_subjects_are_left_out_unless_asked_for():
    assert set(photos.training_subjects()) == {"backpack", "bear_plushie", "cat", "dog"}
    assert photos.training_subjects(("clock",), ()) == ("clock",)
    assert len(photos.photo_crops(np.random.default_rng(0), 2, 16, subjects=("clock",), exclude=())) == 2


def test_bad_subjects_are_typed_errors(monkeypatch, tmp_path):
    with pytest.raises(UnknownName, match="clok"):
        photos.subject_photos("clok")
    with pytest.raises(BadInput):
        photos.training_subjects(("clock",))
    photos._photos.cache_clear()
    monkeypatch.setattr(photos, "assets", lambda: tmp_path)
    with pytest.raises(MissingAsset):
        photos._photos("cat")
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "00.jpg").write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"00\.jpg"):
        photos._photos("cat")
