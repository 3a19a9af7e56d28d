"""Identity without a browser: the tray, whose leave is needed, what a method lacks, sheet and results."""

import shutil
import time

import pytest
from PIL import Image

from pipelines.errors import BadInput, NotAvailable
from pipelines.jobs import presets, workspace
from pipelines.spec import catalog
from pipelines.worker import run
from studio import identity_result, identity_tray, identity_weights
from studio.binding import Sheet
from studio.desk import Desk
from studio.hall import Hall
from studio.identity_tray import MOST, PERSON, THING
from studio.settings import SPACE_GPU, Settings
from studio.tabs.identity import checked, table_of
from tests.sheets import sheet_of, shown

CAT = "asset:subjects/cat"
METHOD = next(iter(catalog("reference", {})))


class Fake:
    """Answers questions as the worker does; draws squares, the second most like its references."""

    def run(self, spec, job, folder=None):
        with workspace.at(folder):
            if spec.kind == "methods":
                return run(spec, job)
            out = workspace.new_run("compose", spec.prompts[0])
        done = []
        for index in range(spec.count):
            path = out / f"{index}.png"
            Image.new("RGB", (8, 8)).save(path)
            readings = {"dino_i": (0.4, 0.8, 0.5)[index % 3]}
            done.append({"path": str(path), "prompt": spec.prompts[0], "seed": index, "readings": readings})
        return {"pictures": done, "notes": ["<i>x</i>"]}


@pytest.fixture
def hall(tmp_path):
    hall = Hall(Settings(workspace=tmp_path / "space"), runners={"cpu": Fake()})
    yield hall
    hall.close()


@pytest.fixture
def desk(hall):
    return hall.desk(None)


def job(images, **settings):
    table = {"method": METHOD}
    return presets.build(
        "compose", form={"prompts": ["a cat"], "reference": table, "reference.images": images, **settings}
    )


def files(desk, count, tmp_path):
    source = sorted(desk.path(CAT).glob("*.png"))
    return [shutil.copy(source[index % len(source)], tmp_path / f"{index}.png") for index in range(count)]


def test_a_tray_holds_single_pictures_of_folders_files_and_uploads(desk, tmp_path):
    tray = identity_tray.pictures(desk, [CAT])
    assert len(tray) == 6
    tray = identity_tray.uploaded(desk, tray[:1], files(desk, 2, tmp_path))
    assert [each.partition(":")[0] for each in tray] == ["asset", "upload", "upload"]
    page = identity_tray.tray(desk, tray)
    assert page.count("<img") == 3
    assert all(desk.url(each) in page for each in tray)
    assert identity_tray.pictures(desk, ["upload:gone", "file:/etc/passwd", *tray]) == tray
    assert identity_tray.added(desk, tray, tray) == tray
    assert "No reference yet" in identity_tray.tray(desk, [])


def test_a_full_tray_takes_no_more_and_leaves_nothing_behind(desk, tmp_path):
    with pytest.raises(BadInput, match="13 references"):
        identity_tray.uploaded(desk, [], files(desk, MOST + 1, tmp_path))
    assert not list(desk.folder.glob("uploads/*"))


def test_what_leaves_the_tray_is_deleted_unless_a_job_was_made_with_it(desk, tmp_path):
    tray = identity_tray.uploaded(desk, [], files(desk, 3, tmp_path))
    paths = [desk.path(each) for each in tray]
    desk.submit(job(tray[:1]))
    rest = identity_tray.removed(desk, tray, tray[0])
    rest = identity_tray.removed(desk, rest, tray[1])
    assert rest == tray[2:]
    assert [each.is_file() for each in paths] == [True, False, True]
    sample = f"{CAT}/1.png"
    assert identity_tray.removed(desk, [sample], sample) == []
    assert desk.path(sample).is_file()
    alone = identity_tray.uploaded(desk, [], files(desk, 1, tmp_path))
    folder = desk.path(alone[0]).parent
    identity_tray.removed(desk, alone, alone[0])
    assert not folder.exists()


def test_people_are_asked_before_they_are_drawn():
    own, sample = job(["upload:references/me.png"]), job([f"{CAT}/1.png"])
    with pytest.raises(BadInput, match="show a person"):
        checked(own, PERSON, False)
    assert checked(own, PERSON, True) is own
    assert checked(own, THING, False) is own
    assert checked(sample, PERSON, False) is sample


def test_what_is_left_to_do_is_said():
    with pytest.raises(BadInput, match="no reference"):
        checked(presets.build("compose", form={"prompts": ["a"]}), THING, False)
    with pytest.raises(BadInput, match="nothing to draw"):
        checked(job([CAT], prompts=[""]), THING, False)


def test_only_ones_own_pictures_are_taken(desk):
    for foreign in ("file:/etc/passwd", "/etc/passwd", "upload:../../x.png"):
        with pytest.raises(BadInput, match=r"reference\.images"):
            desk.submit(job([foreign]))


def test_missing_files_are_told_before_anything_is_loaded(desk):
    with pytest.raises(NotAvailable, match="is not on this machine") as caught:
        identity_weights.check(desk, "sd15", {"method": METHOD})
    answer = identity_weights.ask(desk, "sd15", {"method": METHOD})
    lacking = identity_weights.missing(answer)
    assert lacking[0]["where"] in caught.value.remedy
    page = identity_weights.told(desk, "sd15", {"method": METHOD})
    for each in lacking:
        assert each["file"] in page
        assert each["licence"] in page
        assert each["where"] in page
    with pytest.raises(BadInput, match="cannot draw with this base"):
        identity_weights.check(desk, "toybox", {"method": METHOD})
    assert "cannot draw with this base" in identity_weights.told(desk, "toybox", {"method": METHOD})
    own = {"method": METHOD, "weights": "upload:a", "encoder": "upload:b"}
    identity_weights.check(desk, "toybox", own)
    assert identity_weights.told(desk, "toybox", own) == ""
    assert "note-bad" in identity_weights.told(desk, "sd15", {"method": "<b>"})


def test_a_shared_studio_does_not_tell_its_paths(tmp_path):
    hall = Hall(Settings(workspace=tmp_path, hosting=SPACE_GPU), runners={"cpu": Fake()})
    desk = Desk(tmp_path / "visitors" / "a", hall.settings, hall.runners, hall.light)
    page = identity_weights.told(desk, "sd15", {"method": METHOD})
    assert "not installed" in page
    assert str(tmp_path) not in page
    with pytest.raises(NotAvailable) as caught:
        identity_weights.check(desk, "sd15", {"method": METHOD})
    assert str(tmp_path) not in caught.value.remedy
    desk.close()
    hall.close()


def test_installed_files_are_not_asked_for(desk):
    for each in identity_weights.missing(identity_weights.ask(desk, "sd15", {"method": METHOD})):
        place = desk.folder / each["where"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x")
    identity_weights.check(desk, "sd15", {"method": METHOD})
    assert "installed" in identity_weights.told(desk, "sd15", {"method": METHOD})


def test_the_controls_are_the_job_and_back(hall):
    sheet: Sheet = sheet_of(hall, "identity")
    spec = job([CAT, "upload:a/b.png"], **{"reference.scale": 0.4, "count": 2, "seed": 9, "negative": "x"})
    values = shown(sheet, spec.portable())
    assert sheet.job(values, {}) == spec
    sent = shown(sheet, {"reference": {"images": f"{CAT}/1.png"}})  # a picture from another tab
    assert sheet.form(sent)["reference.images"] == [f"{CAT}/1.png"]
    assert sheet.form(sent)["reference"]["method"] == METHOD
    assert table_of({"images": ["a"]}) is None


def test_results_are_those_of_this_tab_and_say_which_is_nearest(desk):
    assert "Pictures of your subject appear here" in identity_result.results(desk)
    ids = [desk.submit(job([CAT], count=3)), desk.submit(presets.build("compose", form={"prompts": ["b"]}))]
    for _ in range(400):
        if all(desk.store.get(each).status == "done" for each in ids):
            break
        time.sleep(0.02)
    page = identity_result.results(desk)
    assert page.count("<article") == 3
    assert "Picture 2 is nearest" in page
    assert "<i>x</i>" not in page
    assert identity_result.nearest([{"readings": {}}, {}]) is None
    recent = identity_tray.recent(desk)
    assert len(recent) == 4
    assert all(desk.path(each).is_file() for each in recent)
    assert all(desk.url(each) in identity_tray.sources(desk) for each in recent)
