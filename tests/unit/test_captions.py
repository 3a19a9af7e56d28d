"""Captions: what is put into them, what is wrong with them, and who may write them."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from pipelines.data.captions import READ, check_words, lint, lint_all, remarks_on, with_trigger
from pipelines.errors import BadInput, NotAvailable
from pipelines.jobs.kinds import PhotoSet
from pipelines.jobs.spec import from_table
from pipelines.progress import Job
from pipelines.worker import run

SKS = {"token": "sks", "class_word": "dog"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKENESS_WORKSPACE", str(tmp_path / "workspace"))
    photos = tmp_path / "photos"
    photos.mkdir()
    for index, colour in enumerate(("red", "green", "blue")):
        Image.effect_noise((64, 64), 50 + index).convert("RGB").save(photos / f"{index}-{colour}.png")
    return photos


def ask(folder, kind="caption", **settings: Any) -> Any:
    return run(from_table({"kind": kind, "photos": str(folder), **settings}), Job())


def texts(folder) -> dict[str, str]:
    return {each.stem: each.read_text(encoding="utf-8") for each in sorted(folder.glob("*.txt"))}


class Fake:
    """A captioner that says what it was shown: how many pictures, and what."""

    def __init__(self, said: str) -> None:
        self.said = said
        self.asked: list[int] = []

    def captions(self, images: list[Image.Image]) -> list[str]:
        self.asked.append(len(images))
        return [self.said for _ in images]


@pytest.fixture
def fake(monkeypatch):
    captioner = Fake("a brown dog on grass")
    monkeypatch.setattr("pipelines.vision.captions.captioner", lambda device: captioner)
    return captioner


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("a brown dog on grass", "a brown sks dog on grass"),
        ("A Dog, and another dog", "A sks dog, and another dog"),
        ("a puppy on grass", "sks dog, a puppy on grass"),
        ("two dogs", "sks dog, two dogs"),
        ("a SKS on grass", "a sks dog on grass"),
        ("sks dog beside sks  dog", "sks dog beside dog"),
        ("  \n", "sks dog"),
    ],
)
def test_the_trigger_is_in_a_caption_once_and_stays_once(caption, wanted):
    assert with_trigger(caption, "sks", "dog") == wanted
    assert with_trigger(wanted, "sks", "dog") == wanted


def test_class_words_of_two_words_and_tokens_with_signs_are_found():
    assert (
        with_trigger("a glass  teapot on a table", "<x+>", "glass teapot") == "a <x+> glass teapot on a table"
    )
    assert with_trigger("a <x+> glass teapot", "<x+>", "glass teapot") == "a <x+> glass teapot"


def test_each_fault_of_a_caption_is_named_and_a_good_one_has_none():
    assert lint("a photo of sks dog on grass", **SKS) == []
    assert lint("anything", "") == []
    for caption, word in [
        (" ", "empty"),
        ("a dog on grass", "not in the caption"),
        ("a sks on grass", 'without "dog"'),
        ("sks dog and sks dog", "2 times"),
        ("sks dog " + "and " * READ, f"read {READ}"),
    ]:
        (said,) = lint(caption, **SKS)
        assert word in said
    assert lint("sks dog " + "and " * (READ - 4), **SKS) == []


def test_what_all_captions_share_is_named_but_not_how_captions_usually_begin():
    white = ["a photo of a sks dog on a white background", "sks dog asleep, on a white background."]
    (said,) = lint_all(white, "sks")
    assert '"on a white background"' in said
    assert lint_all(["a photo of a sks dog on grass", "a photo of a sks dog in snow"], "sks") == []
    (same,) = lint_all(["a photo of a sks dog", "A photo of a sks dog."], "sks")
    assert "the same" in same
    assert lint_all(white[:1], "sks") == []
    # the new word is where phrases end: it is meant to be everywhere
    assert lint_all(["my own sks dog here", "my own sks dog here, asleep"], "sks", "dog") == []


def test_a_training_hears_each_remark_once_with_the_photos_it_is_about(folder):
    photos = sorted(folder.glob("*.png"))
    data = PhotoSet(token=SKS["token"], class_word=SKS["class_word"])
    assert remarks_on(photos, data) == []
    for each, text in zip(photos, ("a dog asleep", "{token} dog runs", "my dog"), strict=True):
        each.with_suffix(".txt").write_text(text, encoding="utf-8")
    (said,) = remarks_on(photos, data)
    assert said.startswith("0-red.png, 2-blue.png: ")
    assert remarks_on(photos, data.model_copy(update={"captions": False})) == []


@pytest.mark.parametrize(
    ("token", "class_word"), [("", "dog"), ("two words", "dog"), ("dog", "brown Dog"), ("sks", " ")]
)
def test_words_that_cannot_be_used_are_refused(token, class_word):
    with pytest.raises(BadInput):
        check_words(PhotoSet(token=token, class_word=class_word))


def test_without_a_captioner_the_template_is_written(folder):
    told = ask(folder, plain=True, **SKS)
    assert (told["photos"], told["written"], told["notes"]) == (3, 3, [])
    assert set(texts(folder).values()) == {"a photo of sks dog\n"}
    assert ask(folder, plain=True, **SKS)["written"] == 0
    told = ask(folder, plain=True, template="my {token} {class_word}", overwrite=True, **SKS)
    assert told["written"] == 3
    assert set(texts(folder).values()) == {"my sks dog\n"}


def test_what_a_user_wrote_stays_unless_asked(folder, fake):
    own = folder / "0-red.txt"
    own.write_text("my own words", encoding="utf-8")
    (folder / "1-green.txt").write_text(" \n", encoding="utf-8")
    told = ask(folder, **SKS)
    assert fake.asked == [2]
    assert [each["written"] for each in told["rows"]] == [False, True, True]
    assert told["rows"][0]["caption"] == "my own words"
    assert "--overwrite" in told["rows"][0]["why"]
    assert texts(folder) == {
        "0-red": "my own words",
        "1-green": "a brown sks dog on grass\n",
        "2-blue": "a brown sks dog on grass\n",
    }
    ask(folder, overwrite=True, **SKS)
    assert own.read_text(encoding="utf-8") == "a brown sks dog on grass\n"


def test_a_dry_run_shows_the_captions_and_writes_nothing(folder, fake):
    told = ask(folder, dry_run=True, **SKS)
    assert {each["caption"] for each in told["rows"]} == {"a brown sks dog on grass"}
    assert told["written"] == 0
    assert texts(folder) == {}
    assert "the same" in told["notes"][0]


def test_photos_that_cannot_be_opened_or_share_a_name_are_told_and_the_others_written(folder, fake):
    (folder / "0-red.jpg").write_bytes((folder / "0-red.png").read_bytes())
    (folder / "1-green.png").write_bytes(b"no picture")
    rows = {each["name"]: each for each in ask(folder, **SKS)["rows"]}
    assert {name for name, each in rows.items() if each["written"]} == {"0-red.jpg", "2-blue.png"}
    assert "0-red.jpg" in rows["0-red.png"]["why"]
    assert "not a picture" in rows["1-green.png"]["why"]
    assert set(texts(folder)) == {"0-red", "2-blue"}


def test_a_missing_captioner_is_named_with_size_and_licence_before_anything_is_written(folder):
    with pytest.raises(NotAvailable) as caught:
        ask(folder, **SKS)
    for word in ("blip", "GB", "BSD", "captioner", "--plain"):
        assert word in caught.value.remedy
    assert texts(folder) == {}
    ask(folder, plain=True, **SKS)
    assert ask(folder, **SKS)["written"] == 0, "where every photo has a caption, no captioner is needed"


def test_what_cannot_be_is_refused(folder):
    with pytest.raises(BadInput, match="--plain"):
        ask(folder, template="my {token}", **SKS)
    with pytest.raises(BadInput, match="lacks"):
        ask(folder, plain=True, template="my dog", **SKS)
    with pytest.raises(BadInput, match="class word"):
        ask(folder, plain=True)
    with pytest.raises(BadInput, match="come with the program"):
        ask("asset:photos/dog", plain=True, **SKS)
    assert ask("asset:photos/dog", plain=True, dry_run=True, **SKS)["photos"] == 5


def test_a_folder_that_refuses_is_bad_input(folder, monkeypatch):
    def refuse(path, data):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pipelines.worker.caption.atomic_write", refuse)
    with pytest.raises(BadInput, match="cannot be written"):
        ask(folder, plain=True, **SKS)


def test_check_tells_captions_and_their_faults_where_there_are_any(folder):
    bare = ask(folder, "check", size=64)
    assert "caption_warnings" not in bare
    assert not any("caption" in each for each in bare["photos"])
    (folder / "0-red.txt").write_text("a dog on a red wall", encoding="utf-8")
    (folder / "1-green.txt").write_text("{token} {class_word} on a red wall", encoding="utf-8")
    told = ask(folder, "check", size=64, **SKS)
    first, second, third = told["photos"]
    assert "not in the caption" in first["caption_warnings"][0]
    assert (second["caption"], second["caption_warnings"]) == ("sks dog on a red wall", [])
    assert "caption" not in third
    assert '"on a red wall"' in told["caption_warnings"][0]
    assert ask(folder, "check", size=64)["photos"][0]["caption_warnings"] == []
