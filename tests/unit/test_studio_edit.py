"""Edit without a browser: the sheet, the mask, what a result says, and chains of edits."""

import base64
import io
import time
from typing import Any

import pytest
from PIL import Image

from pipelines.errors import BadInput
from pipelines.jobs import pictures
from pipelines.jobs.kinds import AdapterRef, Edit, Sampler
from studio import edit_drawing, edit_result, edit_samples
from studio.hall import Hall
from studio.mask import MOST_SIDE, address, board, keep_mask, settled
from studio.settings import Settings
from studio.tabs.edit import checked
from tests.sheets import sheet_of, shown

HOUSE = "asset:samples/house.png"


class Fake:
    """Draws plain squares that carry their job, as the worker's do."""

    def run(self, spec, job, folder: Any = None):
        out = folder / "runs" / f"edit-{spec.seed}-{len(list((folder / 'runs').iterdir()))}"
        out.mkdir(parents=True)
        done = []
        for index in range(spec.count):
            path = out / f"{index}.png"
            seed = spec.seed + index
            table = spec.shareable() | {"seed": seed, "count": 1, "out": None}
            pictures.save(path, Image.new("RGB", (8, 8), (0, 0, 200)), table)
            done.append({"path": str(path), "prompt": spec.prompts[0], "seed": seed, "readings": {}})
        return {"pictures": done, "readings": {"outside_psnr_before_paste": 24.0}, "notes": ["<b>note</b>"]}


@pytest.fixture
def hall(tmp_path):
    hall = Hall(Settings(workspace=tmp_path / "space"), runners={"cpu": Fake()})
    yield hall
    hall.close()


@pytest.fixture
def desk(hall):
    return hall.desk(None)


def painted(width=16, height=8) -> str:
    file = io.BytesIO()
    Image.new("RGBA", (width, height), "white").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def drawn(desk, image=HOUSE, **settings):
    ident = desk.submit(Edit(image=image, prompts=("a blue house",), **settings))
    for _ in range(400):
        if desk.store.get(ident).status == "done":
            return desk.store.get(ident)
        time.sleep(0.02)
    raise AssertionError(desk.store.get(ident))


def test_a_mask_is_kept_by_its_content_and_opens_as_painted(desk):
    first, again = keep_mask(desk, painted()), keep_mask(desk, painted())
    assert first == again
    assert keep_mask(desk, painted(8)) != first
    assert Image.open(desk.path(first)).convert("L").getextrema() == (255, 255)
    assert keep_mask(desk, "") == ""
    assert address(desk, first).endswith(".png")
    assert desk.allowed(Edit(image=HOUSE, mask=first, prompts=("a",))).kind == "edit"


@pytest.mark.parametrize(
    "data",
    [
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:image/png;base64,%%%",
        "data:image/png;base64," + base64.b64encode(b"<svg onload=alert(1)>" * 9).decode(),
        "data:image/png;base64," + "A" * 8_000_000,
        painted(MOST_SIDE + 1, 1),
        "/etc/passwd",
    ],
)
def test_what_is_no_mask_is_refused_and_nothing_is_written(desk, data):
    with pytest.raises(BadInput):
        keep_mask(desk, data)
    assert not list(desk.folder.glob("uploads/masks/*"))


def test_a_mask_stays_with_its_picture():
    assert settled("a", "m", ("a", "m")) == ("a", "m")
    assert settled("b", "m", ("a", "m")) == ("b", "")  # another picture came without a mask
    assert settled("b", "n", ("a", "m")) == ("b", "n")  # or with its own
    assert settled("a", "m", ("", "")) == ("a", "m")  # a draft after a reload
    assert settled("", "m", ("a", "n")) == ("", "")


def test_the_board_shows_nothing_for_what_is_gone(desk):
    assert address(desk, "upload:gone/x.png") == ""
    assert '"image": ""' in board(desk, "file:/etc/passwd", "")


def test_the_controls_are_the_job_and_back(hall):
    """Through the page as it is built: what a picture's settings put into the form is the job again."""
    sheet = sheet_of(hall, "edit")
    spec = Edit(
        image=HOUSE, prompts=("a blue house",), source="a red house", mask="upload:masks/a.png", count=3,
        seed=7, negative="blurry", adapters=(AdapterRef(adapter="run:x", weight=0.5),),
        edit={"method": "ddim_inversion", "strength": 0.7}, sampler=Sampler(name="ddim", steps=33),
    )  # fmt: skip
    values = shown(sheet, spec.portable())
    again = sheet.job(values, {})
    assert again == spec
    assert checked(again) == spec


def test_what_is_left_to_do_is_said():
    with pytest.raises(BadInput, match="no picture"):
        checked(Edit(prompts=("a",)))
    with pytest.raises(BadInput, match="Nothing is to be changed"):
        checked(Edit(image=HOUSE, prompts=(" ",)))


def test_scenes_say_what_they_show(desk):
    assert len(edit_samples.scenes()) >= 4
    for reference, words in edit_samples.scenes():
        assert desk.path(reference).is_file()
        assert words in edit_samples.strip(desk)
    assert edit_result.picture(desk, HOUSE) == {
        "image": HOUSE, "source": "a red house in the meadow", "mask": "",
    }  # fmt: skip


def test_results_can_be_chosen_and_gone_on_with(desk):
    assert "Before and after appear here" in edit_result.results(desk)
    row = drawn(desk, count=2, seed=4, mask=keep_mask(desk, painted(8, 8)))
    page = edit_result.results(desk)
    assert page.count('aria-pressed="true"') == 1
    assert "seed 4" in page
    assert desk.url(HOUSE) in page
    assert "<b>note" not in page
    second = desk.reference(row.result["pictures"][1]["path"])
    edit_result.show(desk, second)
    assert "seed 5" in edit_result.results(desk)
    parcel = edit_result.go_on(desk, second)
    assert parcel["to"] == "edit"
    assert parcel["table"] == {"image": second, "source": "a blue house", "mask": ""}


def test_a_source_that_is_gone_leaves_the_result(desk):
    image = edit_result.only(desk, desk.upload([desk.path(HOUSE)], "picture"))
    drawn(desk, image)
    assert 'class="wipe-frame"' in edit_result.results(desk)
    desk.path(image).unlink()
    page = edit_result.results(desk)
    assert 'class="wipe-frame"' not in page
    assert "wipe alone" in page


@pytest.mark.parametrize(
    ("drift", "words"),
    [(45.0, "hardly to be seen"), (33.0, "small"), (25.0, "clear to see"), (9.0, "strong")],
)
def test_figures_are_said_in_words(drift, words):
    [untouched, said] = edit_result.in_words({"outside_psnr_before_paste": drift}, True)
    assert "nothing changed" in untouched
    assert words in said
    assert f"{drift:.1f} dB" in said
    assert edit_result.in_words({}, False) == []
    [back] = edit_result.in_words({"reconstruction_psnr": drift, "ceiling_psnr": 46.0}, False)
    assert words in back
    assert "46.0" in back


def test_words_of_a_form_are_prompts():
    assert edit_drawing.words("  a dog ") == ["a dog"]
    assert edit_drawing.words(" ") is None
    assert edit_drawing.first(()) == ""
