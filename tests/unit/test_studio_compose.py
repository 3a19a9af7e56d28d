"""Compose: from controls to a job and back, what stands beside the prompt, results, pictures, presets."""

from __future__ import annotations

import json
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from pipelines.errors import BadInput, UnknownName
from pipelines.jobs import pictures, presets, workspace
from pipelines.jobs.kinds import Compose
from pipelines.jobs.spec import from_table
from pipelines.progress import Job
from studio import (
    bases,
    compose_addons,
    compose_gallery,
    compose_start,
    compose_words,
    page,
    post,
    presets_bar,
    stack,
)
from studio.binding import Sheet
from studio.desk import Desk
from studio.hall import Hall
from studio.settings import Settings


class Painter:
    """A runner that writes a grey picture a seed, with its settings inside."""

    def run(self, spec: Any, job: Job, folder: Path | None = None) -> dict[str, Any]:
        with workspace.at(folder):
            home = workspace.new_run(spec.kind, "x")
            rows = []
            for seed in range(spec.seed, spec.seed + spec.count):
                path = home / f"{seed}.png"
                one = spec.model_copy(update={"seed": seed, "count": 1})
                pictures.save(path, Image.new("RGB", (8, 8), "grey"), one.shareable())
                rows.append({"path": str(path), "prompt": spec.prompts[0], "seed": seed, "readings": {}})
            return {"out": str(home), "pictures": rows, "notes": ["a <b>note</b>"]}


@pytest.fixture
def hall(tmp_path: Path):
    """A hall of one desk, whose device draws grey."""
    made = Hall(Settings(workspace=tmp_path / "work"), runners={"cpu": Painter()})
    made.start()
    yield made
    made.close()


@pytest.fixture
def desk(hall: Hall) -> Desk:
    """The desk of this machine."""
    return hall.desk(None)


@pytest.fixture
def sheet(hall: Hall) -> Sheet:
    """The sheet of the tab, on a page that was built whole."""
    built: dict[str, Sheet] = {}
    register = page.Page.register

    def note(self: page.Page, name: str, given: Sheet) -> None:
        built[name] = given
        register(self, name, given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page.Page, "register", note)
        page.build(hall)
    return built["compose"]


def values(sheet: Sheet, **changed: Any) -> list[Any]:
    """What stands in the controls at first, with some of it changed by path."""
    found = {each.path: getattr(each.component, "value", None) for each in sheet.bound}
    found |= {path.replace("__", "."): value for path, value in changed.items()}
    return [found[each.path] for each in sheet.bound]


def trained(
    desk: Desk, name: str, trigger: str, photos: str = "asset:photos/dog", family: str = "toybox"
) -> str:
    """A run with an adapter of no layers; → its reference."""
    folder = desk.folder / "runs" / name
    folder.mkdir(parents=True)
    about = {"__metadata__": {"likeness.trigger": trigger, "likeness.family": family}}
    header = json.dumps(about).encode()
    (folder / "adapter.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    spec = from_table({"kind": "train", "data": {"photos": photos}})
    workspace.write_run(folder, spec, "done")
    return f"run:{name}"


def drawn(desk: Desk, spec: Compose) -> int:
    """A job that was drawn; → its number."""
    ident = desk.submit(spec)
    for _ in range(400):
        if desk.store.get(ident).status not in ("queued", "running"):
            return ident
        time.sleep(0.02)
    raise AssertionError("it was never drawn")


# ---- the form


def test_the_form_makes_a_job_and_shows_it_again(desk: Desk, sheet: Sheet) -> None:
    given = values(
        sheet, prompts="a red dog", negative="blur", seed="7", count=3, width="96", height="160",
        strength=0.3,        adapters=[{"adapter": trained(desk, "train-a", "sks dog"), "weight": 0.75}],
        guidance={"method": "cfg", "scale": 3.0}, references="", score=False, sampler__steps=9,
    )  # fmt: skip
    job = compose_words.job_of(desk, sheet, given)
    assert (job.prompts, job.negative, job.seed, job.count) == (("a red dog",), "blur", 7, 3)
    assert (job.width, job.height, job.sampler.steps, job.score) == (96, 160, 9, False)
    assert job.adapters[0].weight == 0.75
    assert job.guidance["scale"] == 3.0
    table = post.told(job.portable())
    shown = dict(
        zip((each.path for each in sheet.bound), sheet.filled(table, *(0 for _ in sheet.forms)), strict=False)
    )
    assert shown["prompts"]["value"] == "a red dog"
    assert (shown["seed"]["value"], shown["width"]["value"]) == ("7", "96")
    assert shown["adapters"] == [{"adapter": "run:train-a", "weight": 0.75}]
    assert shown["_lines"]["value"] is False


def test_an_empty_stack_in_a_job_empties_the_stack(sheet: Sheet) -> None:
    revisions = [3 for _ in sheet.forms]
    updates = sheet.filled({"adapters": [], "start": ""}, *revisions)
    told = dict(zip((each.path for each in sheet.bound), updates, strict=False))
    assert told["adapters"] == []
    assert told["start"] == ""
    assert updates[len(sheet.bound) + list(sheet.forms).index("adapters")] == 4


def test_lines_are_prompts_only_when_asked_for(desk: Desk, sheet: Sheet) -> None:
    text = "a dog\n\n  a cat  "
    assert compose_words.job_of(desk, sheet, values(sheet, prompts=text)).prompts == ("a dog\n\n  a cat",)
    both = compose_words.job_of(desk, sheet, values(sheet, prompts=text, _lines=True))
    assert both.prompts == ("a dog", "a cat")


def test_an_open_seed_differs_and_a_typed_one_holds(desk: Desk, sheet: Sheet) -> None:
    open_seeds = {
        compose_words.job_of(desk, sheet, values(sheet, prompts="x", seed="")).seed for _ in range(5)
    }
    assert len(open_seeds) == 5
    assert compose_words.job_of(desk, sheet, values(sheet, prompts="x", seed="1 000")).seed == 1000
    with pytest.raises(BadInput, match="seed"):
        compose_words.job_of(desk, sheet, values(sheet, prompts="x", seed="twelve"))


def test_nothing_to_draw_is_said(desk: Desk, sheet: Sheet) -> None:
    with pytest.raises(BadInput, match="nothing to draw"):
        compose_words.job_of(desk, sheet, values(sheet, prompts="  "))


def test_likeness_is_measured_against_what_the_concept_saw(desk: Desk, sheet: Sheet) -> None:
    rows = [{"adapter": trained(desk, "train-a", "sks dog", "asset:photos/cat"), "weight": 1.0}]
    job = compose_words.job_of(desk, sheet, values(sheet, prompts="x", adapters=rows))
    assert job.references == "asset:photos/cat"
    none = compose_words.job_of(desk, sheet, values(sheet, prompts="x", adapters=rows, references=""))
    assert none.references == ""


def test_photos_that_are_gone_are_not_named(desk: Desk) -> None:
    rows = [{"adapter": trained(desk, "train-a", "sks dog", "upload:gone"), "weight": 1.0}]
    assert compose_words.own_photos(desk, rows) == ""


def test_a_mask_without_a_picture_is_left_out(desk: Desk, sheet: Sheet) -> None:
    assert compose_words.job_of(desk, sheet, values(sheet, prompts="x", mask="upload:masks/m.png")).mask == ""


# ---- words


def test_words_that_the_base_never_learned_are_named_but_not_trained_ones(desk: Desk) -> None:
    rows = [{"adapter": trained(desk, "train-a", "wibblefrotz dog"), "weight": 1.0}]
    said = compose_words.notes(desk, "toybox", "a wibblefrotz dog, quuxly", "", rows)
    assert "quuxly" in said
    assert "wibblefrotz" not in said
    assert compose_words.notes(desk, "toybox", "a red dog", "", ()) == ""


def test_a_wildcard_list_that_is_not_there_is_said(desk: Desk) -> None:
    assert "nolist" in compose_words.notes(desk, "toybox", "a __nolist__ dog", "", ())


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a dog on the beach", "a sks dog on the beach"),
        ("", "a photo of sks dog"),
        ("a house", "a house, sks dog"),
        ("a sks dog", "a sks dog"),
        ("hotdogs", "hotdogs, sks dog"),
    ],
)
def test_the_words_of_a_concept_go_where_they_belong(prompt: str, expected: str) -> None:
    assert stack.inserted(prompt, "sks dog") == expected


# ---- the stack


def test_the_stack_takes_each_adapter_once_and_not_too_many() -> None:
    one = stack.added([], "run:a")
    assert stack.added(one, "run:a") == one == [{"adapter": "run:a", "weight": 1.0}]
    full = [{"adapter": f"run:{index}", "weight": 1.0} for index in range(stack.MOST)]
    with pytest.raises(BadInput, match="already"):
        stack.added(full, "run:z")


@pytest.mark.parametrize("told", ["0 nan", "x 1", "9 0.5", "0 1; drop", ""])
def test_a_weight_that_is_none_changes_nothing(told: str) -> None:
    rows = [{"adapter": "run:a", "weight": 1.0}]
    assert stack.weighed(rows, told) == rows
    assert stack.weighed(rows, "0 0.35") == [{"adapter": "run:a", "weight": 0.35}]


def test_rows_warn_of_burning_and_of_another_base(desk: Desk) -> None:
    own, other = trained(desk, "train-a", "sks dog"), trained(desk, "train-b", "zwx", family="sdxl")
    calm = stack.rows(desk, [{"adapter": own, "weight": 1.0}], "toybox")
    assert 'class="stack-row"' in calm
    assert "misfit" not in calm
    hot = stack.rows(desk, [{"adapter": own, "weight": 1.2}], "toybox")
    assert 'class="stack-row hot"' in hot
    assert "made for SDXL" in stack.rows(desk, [{"adapter": other, "weight": 1.0}], "toybox")
    assert "no longer" in stack.rows(desk, [{"adapter": "run:gone", "weight": 1.0}], "toybox")


def test_names_of_people_are_text(desk: Desk) -> None:
    reference = trained(desk, "train-a", "<img src=x onerror=alert(1)>")
    assert "<img src=x" not in stack.tray(desk)
    assert "<img src=x" not in stack.rows(desk, [{"adapter": reference, "weight": 1.0}], "toybox")


def test_a_sweep_is_a_grid_over_one_weight(desk: Desk) -> None:
    job = {
        "kind": "compose",
        "prompts": ["x"],
        "count": 4,
        "adapters": [{"adapter": "run:a"}, {"adapter": "run:b"}],
    }
    grid = from_table(stack.sweep_of(job, 1, "b"))
    assert grid.axes[0].path == "adapters.1.weight"  # type: ignore[attr-defined]
    assert grid.axes[0].values == stack.STRENGTHS  # type: ignore[attr-defined]
    assert grid.job["count"] == 1  # type: ignore[attr-defined]


# ---- guidance and its cost


def test_a_step_costs_what_the_methods_declare() -> None:
    plain = {"method": "cfg", "scale": 4.0}
    assert compose_addons.rows_a_step(plain) == 2
    assert compose_addons.rows_a_step({"method": "cfg", "scale": 1.0}) == 1
    for name in compose_addons.stackable():
        around = compose_addons.put_around(plain, [name])
        assert around == {**plain, "with": {name: {}}}
        assert (compose_addons.rows_a_step(around) or 0) >= 2
        assert compose_addons.put_around(around, []) == plain
    assert compose_addons.rows_a_step({"method": "nothing"}) is None
    assert "runs 160 times" in compose_addons.cost(plain, 20, 4)


# ---- bases and sizes


def test_sizes_are_those_that_the_base_draws(desk: Desk) -> None:
    width, height, step = bases.native_size(desk, "toybox")
    assert (width, height) == (128, 128)
    for _, shape in bases.shapes(desk, "toybox"):
        sides = bases.sides(shape)
        assert all(side % step == 0 for side in sides)
        assert 0.6 < sides[0] * sides[1] / (width * height) < 1.5
    assert bases.native_size(desk, "sdxl")[:2] == (1024, 1024)
    assert "demonstration" in bases.sentence(desk, "toybox")


def test_another_base_brings_its_own_settings(desk: Desk) -> None:
    table = bases.filling(desk, "sdxl")
    assert table["sampler"]["name"] == "dpmpp_2m"
    assert bases.filling(desk, "toybox")["width"] is None


# ---- the picture to begin from


def test_a_picture_to_begin_from_is_copied(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    Image.new("RGB", (8, 8)).save(path)
    reference = compose_start.bring(desk, str(path))
    path.unlink()
    assert desk.path(reference).is_file()
    assert "Begin from noise" in compose_start.told(desk, reference)
    assert "note" not in compose_start.told(desk, reference)
    assert compose_start.told(desk, "") == ""
    assert "note" in compose_start.told(desk, "file:/etc/passwd")


# ---- results


def test_results_the_strip_and_the_archive(desk: Desk) -> None:
    first = drawn(desk, Compose(prompts=("one",), count=2, seed=5))
    second = drawn(desk, Compose(prompts=("two",), seed=9))
    assert compose_gallery.ended(desk) == (second, first)
    newest, strip = compose_gallery.results(desk)
    assert "two" in newest
    assert "a &lt;b&gt;note" in newest
    assert strip.count('class="thumb') == 2
    older, _ = compose_gallery.results(desk, first)
    assert "one" in older
    assert "Back to the newest" in older
    link = compose_gallery.packed(desk, str(first))
    archive = next((desk.folder / "runs").rglob("*.zip"))
    assert archive.name in link
    assert sorted(zipfile.ZipFile(archive).namelist()) == ["5.png", "6.png"]
    with pytest.raises(BadInput):
        compose_gallery.packed(desk, "../1")


def test_new_seeds_repeat_all_but_the_seed(desk: Desk) -> None:
    ident = drawn(desk, Compose(prompts=("one",), seed=5, negative="fog"))
    compose_gallery.fresh(desk, str(ident))
    newest = desk.latest("compose")
    assert newest is not None
    assert newest.id != ident
    assert newest.spec.seed != 5  # type: ignore[attr-defined]
    assert newest.spec.negative == "fog"  # type: ignore[attr-defined]


def test_a_dropped_picture_brings_its_settings(desk: Desk, tmp_path: Path) -> None:
    own = trained(desk, "train-a", "sks dog")
    adapter = desk.path(own) / "adapter.safetensors"
    spec = Compose(prompts=("a dog",), seed=3, adapters=({"adapter": str(adapter), "weight": 0.5},))  # type: ignore[arg-type]
    path = pictures.save(tmp_path / "p.png", Image.new("RGB", (8, 8)), spec.shareable())
    sent = post.restored(desk, path)
    assert sent["to"] == "compose"
    assert sent["table"]["seed"] == 3
    assert sent["table"]["adapters"] == [{"adapter": own, "weight": 0.5}]


def test_a_foreign_picture_says_what_was_left_out(desk: Desk, tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(
        "parameters",
        "a cat <lora:strange:0.8>\nSteps: 12, Seed: 4, CFG scale: 7, Clip skip: 2, Size: 128x128",
    )
    path = tmp_path / "p.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    sent = post.restored(desk, path)
    assert sent["table"]["prompts"] == ["a cat"]
    assert sent["table"]["adapters"] == []
    assert "strange" in sent["note"]
    assert "Clip skip" in sent["note"]
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(BadInput) as caught:
        post.restored(desk, path)
    assert str(tmp_path) not in caught.value.message


# ---- presets


def test_a_preset_is_kept_and_comes_back(desk: Desk, sheet: Sheet) -> None:
    given = values(sheet, prompts="a dog", seed="7", count=2, guidance={"method": "cfg", "scale": 2.0})
    table = presets_bar.kept(sheet, given, whole=False)
    assert "prompts" not in table
    assert "seed" not in table
    path = presets_bar.keep(desk, "compose", "Soft & <calm>", table)
    assert ("Soft & <calm>", f"compose/{path.stem}") in presets_bar.choices(("compose",), desk.folder)
    back = presets_bar.checked("compose", presets.load("compose", path.stem, desk.folder))
    assert back["guidance"]["scale"] == 2.0
    assert back["count"] == 2
    assert "<calm>" not in presets_bar.link_to(path)
    assert presets_bar.kept(sheet, given, whole=True)["prompts"] == ["a dog"]


def test_presets_with_unknown_keys_or_names_are_refused(desk: Desk) -> None:
    with pytest.raises(UnknownName, match="stepz"):
        presets_bar.checked("compose", {"title": "x", "stepz": 3})
    with pytest.raises(BadInput, match="no name"):
        presets_bar.keep(desk, "compose", "  ", {})
    with pytest.raises(BadInput, match="comes with"):
        presets_bar.keep(desk, "compose", "Draft", {})


def test_what_is_of_the_page_alone_stands_in_no_job() -> None:
    with gr.Blocks():
        sheet = Sheet("compose")
        sheet.add("_lines", gr.Checkbox())
        sheet.add("count", gr.Number())
    assert sheet.form([True, 2]) == {"count": 2}
