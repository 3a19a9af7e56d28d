"""Train Concept without a browser: the chooser, what is asked of a job, and what a training told."""

import dataclasses
import time

import gradio as gr
import pytest

from pipelines.concepts.watch import Watcher
from pipelines.errors import BadInput, MissingAsset
from pipelines.jobs import presets
from pipelines.jobs.kinds import KEPT, PhotoSet, Train
from pipelines.jobs.store import Row
from pipelines.progress import Event
from pipelines.spec import catalog
from studio import (
    photos_captions,
    photos_set,
    train_chooser,
    train_form,
    train_live,
    train_result,
    train_watch,
)
from studio.binding import Sheet
from studio.desk import Desk
from studio.hall import Hall
from studio.settings import Settings
from studio.train_story import Stories, Story

PHOTOS = {
    "verdict": "good",
    "reasons": [],
    "photos": [
        {"name": "00.jpg", "verdict": "good", "reasons": [], "small": "00.jpg.jpg"},
        {"name": "01.jpg", "verdict": "poor", "reasons": ["blurred"], "small": "01.jpg.jpg"},
        {"name": "02.jpg", "verdict": "unusable", "reasons": ["it is no picture"], "small": ""},
    ],
}


class Fake:
    """A runner that answers checks with `PHOTOS` and remembers what it was asked for."""

    def __init__(self):
        self.specs = []

    def run(self, spec, job, folder=None):
        self.specs.append(spec)
        if spec.kind == "check":
            return PHOTOS
        return {"out": str(spec.out), "steps": 3}


@pytest.fixture
def runner() -> Fake:
    return Fake()


@pytest.fixture
def desk(tmp_path, runner):
    hall = Hall(Settings(workspace=tmp_path / "space"), runners={"cpu": runner})
    yield hall.desk(None)
    hall.close()


def dog(desk: Desk) -> photos_set.Photos:
    photos_set.choose(desk, "asset:photos/dog")
    return photos_set.check(desk, "toybox")


# ---- the chooser


RULES = train_chooser.rules()


def test_every_preset_that_suggests_itself_names_a_method_that_is_there():
    assert len(RULES) >= 4
    for rule in RULES:
        assert rule.table["concept"]["method"] in catalog("concepts")
        assert rule.why
        assert set(rule.kinds) <= {value for _, value in train_chooser.KINDS}


@pytest.mark.parametrize("kind", [value for _, value in train_chooser.KINDS])
def test_every_kind_of_subject_has_a_way(kind):
    for faithful in (1, 2, 3):
        for small in (1, 2, 3):
            choice = train_chooser.choose(RULES, kind, faithful, small, "toybox")
            assert choice is not None
            assert kind in choice.rule.kinds


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        (("animal", 2, 2), "quick"),
        (("animal", 3, 2), "close"),
        (("person", 3, 1), "whole"),
        (("thing", 1, 3), "word"),
        (("thing", 3, 3), "word"),  # a size is a limit, likeness a wish
        (("style", 2, 2), "style"),
        (("word", 3, 1), "word"),
    ],
)
def test_the_answers_choose(answers, name):
    kind, faithful, small = answers
    choice = train_chooser.choose(RULES, kind, faithful, small, "sd15")
    assert choice is not None
    assert choice.rule.name == name


def test_what_the_answers_cannot_have_is_said():
    choice = train_chooser.choose(RULES, "thing", 3, 3)
    assert choice is not None
    assert "larger file" in choice.why
    style = train_chooser.choose([each for each in RULES if each.name == "style"], "style", 2, 3)
    assert style is not None
    assert "Nothing smaller" in style.why


def test_a_base_keeps_its_own_settings_below_a_choice():
    native = {"concept": {"method": "m", "rank": 16, "steps": 150}}
    rule = train_chooser.Rule(
        "x", "x", ("thing",), 3, 2, "why", table={"concept": {"method": "m", "rank": 32}}
    )
    table = train_chooser.table_for(train_chooser.Choice(rule, ""), native)
    assert table == {"concept": {"method": "m", "rank": 32, "steps": 150}}
    other = train_chooser.Rule("y", "y", ("thing",), 3, 2, "why", table={"concept": {"method": "n"}})
    assert train_chooser.table_for(train_chooser.Choice(other, ""), native) == {"concept": {"method": "n"}}


def test_a_preset_without_a_reason_is_no_suggestion(tmp_path):
    folder = tmp_path / "presets" / "concepts"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text('title = "Mine"\nkind = "train"\n')
    (folder / "odd.toml").write_text('title = "Odd"\n[for]\nkinds = 3\nwhy = "x"\n')
    assert {each.name for each in train_chooser.rules(tmp_path)} == {each.name for each in RULES}


def test_answers_that_make_no_sense_are_the_usual_ones():
    assert train_chooser.answers({"kind": "<b>", "faithful": 9, "small": "x"}) == ("thing", 2, 2)
    assert train_chooser.answers({"kind": "style", "faithful": 3, "small": 1}) == ("style", 3, 1)


# ---- the sheet


@pytest.fixture
def sheet() -> Sheet:
    sheet = Sheet("train")
    with gr.Blocks(analytics_enabled=False):
        sheet.add("base", gr.Textbox("toybox"))
        sheet.add("concept", gr.State({"method": "textual_inversion", "steps": 7}))
        train_form.what_is_it(sheet)
        train_form._watching(sheet)
    return sheet


def values(sheet: Sheet, **said) -> list:
    """What the controls hold, with some of it changed by dotted path."""
    return [said.get(each.path.replace(".", "_"), each.component.value) for each in sheet.bound]


def test_the_controls_are_a_job_and_back(desk, sheet):
    dog(desk)
    photos_set.leave_out(desk, "01.jpg")
    photos_set.crop(desk, "00.jpg", (0.1, 0.2, 0.9, 1))
    told = {"data_class_word": " dog ", "watch_prompts": "a sks dog\n\n in snow ", "seed": 5}
    spec = train_form.job(desk, sheet, values(sheet, **told), False)
    assert isinstance(spec, Train)
    assert spec.data.photos == "asset:photos/dog"
    assert (spec.data.exclude, spec.data.crops) == (("01.jpg",), {"00.jpg": (0.1, 0.2, 0.9, 1.0)})
    assert (spec.data.token, spec.data.class_word) == ("sks", "dog")
    assert spec.watch.prompts == ("a sks dog", "in snow")
    assert spec.concept == {"method": "textual_inversion", "steps": 7}
    shown = sheet.filled(spec.portable())
    by_path = {each.path: update for each, update in zip(sheet.bound, shown, strict=True)}
    assert by_path["watch.prompts"]["value"] == "a sks dog\nin snow"
    assert by_path["seed"]["value"] == 5


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "no name yet"),
        ({"data_class_word": "dog", "data_token": "two words"}, "not one word"),
        ({"data_class_word": "dog", "data_template": "a photo"}, "lacks {token}"),
    ],
)
def test_what_is_missing_is_said_before_it_is_queued(desk, sheet, told, words):
    dog(desk)
    with pytest.raises(BadInput, match=words):
        train_form.job(desk, sheet, values(sheet, **told), False)


def test_without_photos_there_is_no_training(desk, sheet):
    with pytest.raises(BadInput, match="no photos yet"):
        train_form.job(desk, sheet, values(sheet, data_class_word="dog"), False)
    dog(desk)
    for name in ("00.jpg", "01.jpg"):
        photos_set.leave_out(desk, name)
    with pytest.raises(BadInput, match="No photo is left"):
        train_form.job(desk, sheet, values(sheet, data_class_word="dog"), False)


def test_a_person_needs_consent_and_a_drawn_one_does_not(desk, sheet):
    desk.keep(train_form.CHOOSER, {"kind": "person", "faithful": 2, "small": 2})
    borrowed = desk.borrow("asset:photos/dog", "friend")
    photos_set.choose(desk, borrowed)
    photos_set.check(desk, "toybox")
    told = values(sheet, data_class_word="woman")
    with pytest.raises(BadInput, match="may use photos of this person"):
        train_form.job(desk, sheet, told, False)
    assert train_form.job(desk, sheet, told, True).kind == "train"
    photos_set.choose(desk, "asset:subjects/bearded_man")
    assert not train_form.needs_rights(desk)


def test_words_that_the_base_never_learned_are_told(desk):
    told = train_form.suggestion(desk, "toybox", "dog zxqvy")
    assert "never learned &quot;zxqvy&quot;" in told
    assert "never learned" not in train_form.suggestion(desk, "toybox", "dog")
    assert "never learned" not in train_form.suggestion(desk, "sd15", "dog zxqvy")


def test_the_forecast_goes_by_the_last_training_of_its_kind(desk):
    def row(**result) -> Row:
        ident = desk.store.add(Train(concept={"method": "m", "batch": 2}, base="b"), device="none")
        desk.store.finish(ident, "done", {"seconds": {"train": 50.0}, "steps": 100, **result})
        return desk.store.get(ident)

    concept = {"method": "m", "steps": 200, "batch": 4}
    assert "3 min 20 s" in train_form.forecast([row()], "b", concept)
    assert train_form.forecast([row()], "other", concept) == ""
    assert train_form.forecast([row()], "b", {"method": "n"}) == ""


# ---- the photos


def test_sample_sets_are_there_and_their_pictures_are_served(desk):
    for sample in photos_set.SAMPLES:
        files = [each for each in desk.path(sample.reference).iterdir() if each.is_file()]
        assert len(files) >= 3
        assert desk.url(files[0]).startswith("/studio/asset/")


def test_the_check_asks_for_the_pixels_of_the_base(desk, runner):
    dog(desk)
    assert runner.specs[-1].size == 128
    assert photos_set.size_of(desk, "sd15") == 512
    assert photos_set.size_of(desk, "sdxl") == 1024
    assert runner.specs[-1].out == desk.folder / "thumbs" / "asset-photos-dog"


def test_a_set_outlives_the_page(desk):
    dog(desk)
    photos_set.leave_out_poor(desk)
    again = Desk(desk.folder, desk.settings, {}, Fake())
    found = photos_set.read(again)
    assert (found.reference, found.exclude) == ("asset:photos/dog", ("01.jpg", "02.jpg"))
    assert found.used == ["00.jpg"]
    photos_set.take_back(again, "01.jpg")
    assert photos_set.read(again).used == ["00.jpg", "01.jpg"]
    again.close()


def test_a_check_that_is_refused_says_so_where_the_photos_are(desk, runner, monkeypatch):
    def refuse(spec, job, folder=None):
        raise BadInput("These are no photos.", "Choose others.")

    monkeypatch.setattr(runner, "run", refuse)
    assert dog(desk).problem == ("These are no photos.", "Choose others.")


def test_a_foreign_or_damaged_draft_is_an_empty_set(desk):
    with pytest.raises((BadInput, MissingAsset)):
        photos_set.choose(desk, "asset:../../secret")
    for table in ({"reference": "asset:photos/none"}, {"reference": "asset:photos/dog", "crops": {"x": [2]}}):
        desk.keep(photos_set.NAME, table)
        assert photos_set.read(desk) == photos_set.Photos()


@pytest.mark.parametrize("box", [(0, 0, 0, 1), (0.5, 0, 0.4, 1), (0, 0, 1, 1.2), (0, 0, 1), ("a", 0, 1, 1)])
def test_a_crop_must_keep_something(desk, box):
    dog(desk)
    with pytest.raises(BadInput):
        photos_set.crop(desk, "00.jpg", box)
    assert photos_set.read(desk).crops == {}


def test_dropping_more_photos_joins_them(desk, tmp_path):
    files = []
    for index in range(3):
        path = tmp_path / f"p{index}.jpg"
        path.write_bytes(desk.path("asset:photos/dog/00.jpg").read_bytes())
        files.append(path)
    first = photos_set.add(desk, files[:2], "mine")
    assert len(list(desk.path(first.reference).iterdir())) == 2
    second = photos_set.add(desk, files[2:], "mine")
    assert {each.name for each in desk.path(second.reference).iterdir()} == {"p0.jpg", "p1.jpg", "p2.jpg"}
    dog(desk)
    third = photos_set.add(desk, files[2:], "mine")
    assert [each.name for each in desk.path(third.reference).iterdir()] == ["p2.jpg"]


def test_captions_are_written_to_a_copy_and_never_to_our_own(desk):
    dog(desk)
    photos_captions.write(desk, "00.jpg", "a sks dog  on <b>grass</b>\n")
    now = photos_set.read(desk)
    assert now.reference == "upload:dog"
    assert now.sample is not None
    folder = desk.path(now.reference)
    assert photos_captions.read(folder, "00.jpg") == "a sks dog on <b>grass</b>"
    assert not list(desk.path("asset:photos/dog").glob("*.txt"))
    photos_captions.write(desk, "00.jpg", " ")
    assert not (folder / "00.txt").exists()
    with pytest.raises(BadInput):
        photos_captions.write(desk, "../../x.jpg", "out")


def test_captions_in_bulk(desk):
    dog(desk)
    assert photos_captions.use_template(desk, "a photo of {token} {class_word}", "sks", "dog") == 3
    assert photos_captions.replace(desk, "a photo of", "a drawing of") == 3
    folder = desk.path(photos_set.read(desk).reference)
    assert photos_captions.read(folder, "01.jpg") == "a drawing of sks dog"
    photos_captions.write(desk, "01.jpg", "a dog")
    assert photos_captions.put_trigger(desk, "sks", "dog") == 1
    assert photos_captions.read(folder, "01.jpg") == "a sks dog"
    assert photos_captions.clear(desk) == 3
    assert photos_captions.put_trigger(desk, "sks", "dog") == 0
    with pytest.raises(BadInput):
        photos_captions.replace(desk, "", "x")
    with pytest.raises(BadInput):
        photos_captions.use_template(desk, "no word", "sks", "dog")


def test_captions_are_judged_by_the_words_of_the_form():
    assert photos_captions.said("a photo of a dog", "sks", "dog")
    assert photos_captions.said("a photo of {token} {class_word}", "sks", "dog") == []
    assert photos_captions.said("", "sks", "dog") == []


# ---- what a training told


def report(step, **told) -> Event:
    return Event("report", step=step, total=10, values=told)


def test_a_story_is_what_the_events_say():
    story = Story()
    for event in (
        report(1, caption="x"),
        report(0, anatomy=[{"part": "unet"}]),
        Event("note", text="Step 4: it copies."),
        Event("note", text="Step 4: it copies."),
        report(4, loss=0.5, smooth=0.6, seconds_left=12.0),
        report(4, readings={"dino_i": 0.3, "clip_t": 0.2}, samples=["samples/a.png"]),
        report(5, loss=0.4, saved="saved/step-000005.safetensors"),
    ):
        story.take(event)
    assert story.losses == [(4, 0.5), (5, 0.4)]
    assert story.smooth == [(4, 0.6), (5, 0.4)]
    assert story.curve("dino_i") == [(4, 0.3)]
    assert story.samples == [(4, ["samples/a.png"])]
    assert (story.alarms, story.notes) == (["Step 4: it copies."], ["Step 4: it copies."])
    assert story.saved == ["saved/step-000005.safetensors"]
    assert (story.step, story.total) == (5, 10)


def test_going_on_from_a_checkpoint_forgets_what_came_after_it():
    story = Story()
    for step in range(1, 6):
        story.take(report(step, loss=float(step)))
    story.take(report(5, readings={"dino_i": 0.1}, samples=["a"]))
    story.take(report(3, anatomy=[]))
    assert [step for step, _ in story.losses] == [1, 2, 3]
    assert story.readings == []
    assert story.samples == []


def test_stories_read_only_what_is_new(desk):
    ident = desk.store.add(Train(), device="none")
    stories = Stories()
    desk.store.log(ident, report(1, loss=1.0))
    first = stories.of(desk, ident)
    desk.store.log(ident, report(2, loss=0.5))
    assert stories.of(desk, ident) is first
    assert first.losses == [(1, 1.0), (2, 0.5)]


def test_what_is_shown_is_what_runs_else_what_ended_last(desk):
    ids = [desk.store.add(Train(), device="none") for _ in range(4)]

    def shown() -> int:
        row = train_live.on_view(desk)
        assert row is not None
        return row.id

    assert shown() == ids[0]  # the next of those that wait
    desk.store.claim("none", ids[1])
    assert shown() == ids[1]
    desk.store.finish(ids[1], "done", {})
    for each in (ids[0], ids[2], ids[3]):
        desk.store.cancel(each)
    assert shown() == ids[1]  # those that never began are nothing to look at
    desk.keep(train_live.VIEW, {"job": ids[3]})
    assert shown() == ids[3]
    desk.keep(train_live.VIEW, {"job": 999})
    assert shown() == ids[1]


CURVE = [
    {"step": 5, "dino_i": 0.5, "clip_t": 0.3},
    {"step": 10, "dino_i": 0.6, "clip_t": 0.1},
]


@pytest.mark.parametrize(
    ("result", "best", "words"),
    [
        ({"best_step": 5, "steps": 10, "curve": CURVE}, True, "Step 5 of 10 is kept: there likeness 0.50"),
        ({"best_step": 5, "steps": 10, "curve": CURVE}, True, "At the end it was likeness 0.60"),
        ({"best_step": 10, "steps": 10, "curve": CURVE}, True, "never better"),
        ({"best_step": 10, "steps": 10, "curve": CURVE}, False, "as you asked"),
        ({"best_step": 10, "steps": 10, "curve": []}, True, "no samples were measured"),
    ],
)
def test_the_kept_step_has_its_reason(result, best, words):
    assert words in train_result.reason(result, best)


def test_what_the_base_still_does_is_told_from_canaries():
    told = train_result.kept_of_the_base({"readings": {"kept_class": 0.97, "kept_world": 0.7}}, "dog")
    assert told[0].startswith('A plain "dog" looks as')
    assert "no longer quite as" in told[1]
    told = train_result.kept_of_the_base({"readings": {"kept_class": 0.16}}, "dog")
    assert "looks no longer as the untrained base draws it (0.16 of 1)" in told[0]
    assert train_result.kept_of_the_base({}, "dog") == []


@pytest.mark.parametrize("below", [True, False])
def test_the_result_speaks_where_the_alarm_does(below):
    reading = {"kept_class": KEPT - 1e-6 * below}
    told = train_result.kept_of_the_base({"readings": reading}, "dog")[0]
    assert ("looks no longer as" in told) is below is bool(Watcher().alarms(1, reading))


def finished(desk: Desk) -> Row:
    photos_set.choose(desk, "asset:photos/dog")
    spec = presets.build(
        "train",
        base_defaults=desk.native("toybox"),
        form={"data.photos": "asset:photos/dog", "data.class_word": "dog"},
    )
    ident = desk.submit(spec)
    deadline = time.monotonic() + 10
    while desk.store.get(ident).status != "done" and time.monotonic() < deadline:
        time.sleep(0.02)
    return desk.store.get(ident)


def test_a_trained_concept_goes_to_compose(desk):
    row = finished(desk)
    assert row.run is not None
    parcel = train_result.compose(desk, str(row.id))
    assert parcel["to"] == "compose"
    assert parcel["table"]["adapters"] == [{"adapter": f"run:{row.run.name}", "weight": 1.0}]
    assert parcel["table"]["prompts"] == ["a sks dog on the beach"]
    assert parcel["table"]["references"] == "asset:photos/dog"
    presets.build("compose", preset=parcel["table"])
    with pytest.raises(BadInput):
        train_result.compose(desk, f"{row.id}/../../secret")


def test_words_of_people_are_text_in_what_is_shown(desk):
    evil = "<img src=x onerror=alert(1)>"
    spec = Train(data=PhotoSet(class_word=evil))  # its token is "sks" by default
    ident = desk.store.add(spec, device="none")
    row, story = desk.store.get(ident), Story(notes=[evil, f"Step 1: {evil}"])
    shown = [
        train_watch.state(desk, row, story, [row]),
        train_watch.said(story, None),
        train_result.runs(desk, [row, row], None),
    ]
    assert all("<img" not in each for each in shown)
    assert all("&lt;img" in each for each in shown)


def test_what_learns_is_told_in_sizes():
    rows = [
        {"part": "unet", "group": "attention", "parameters": 2_400_000, "trained": 180_000, "bytes": 720_000},
        {"part": "autoencoder", "group": "all", "parameters": 1_900_000, "trained": 0, "bytes": 0},
    ]
    shown = train_watch.anatomy(Story(), rows)
    assert "learns 720 KB" in shown
    assert "1.9 million weights" in shown
    assert train_watch.anatomy(Story()) == ""
    assert [train_watch.weights(each) for each in (850, 12_400, 3_400_000)] == [
        "850",
        "12 thousand",
        "3.4 million",
    ]


def test_a_training_that_went_on_says_that_its_last_part_is_what_it_took(desk):
    row = finished(desk)
    row = dataclasses.replace(row, started=100.0, ended=190.0)
    assert "It took 1 min 30 s" in train_watch.state(desk, row, Story(), [])
    again = dataclasses.replace(row, spec=row.spec.model_copy(update={"resume": True}))
    assert "Its last part took 1 min 30 s" in train_watch.state(desk, again, Story(), [])
