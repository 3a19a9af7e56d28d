"""The commands of the main job: words become jobs, jobs are kept, and every way out has its exit code."""

import json
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from pipelines.errors import BadInput, BrokenWeights, Cancelled, UnknownName
from pipelines.jobs import pictures, workspace
from pipelines.jobs.spec import KINDS, Compose, JobSpec, Train, from_table
from pipelines.jobs.store import FILE, Store
from pipelines.progress import Event, Job
from studio import cli, cli_words
from studio.cli_commands import adapter


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKENESS_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Fake:
    """A runner that keeps what it was given, and answers or raises."""

    def __init__(self, answer: Any = None) -> None:
        self.specs: list[Any] = []
        self.answer = answer

    def run(self, spec: JobSpec, job: Job, folder: Path | None = None) -> dict[str, Any]:
        self.specs.append(spec)
        answer = self.answer(spec, job) if callable(self.answer) else self.answer
        return cast("dict[str, Any]", answer or {})


def read(words: list[str]) -> Any:
    return cli.read_command(words)


def store(folder):
    return Store(folder / "workspace" / FILE)


def test_train(folder):
    (folder / "photos").mkdir()
    spec = read(
        ["train", "photos", "--token", "sks", "--class-word", "dog", "--seed", "3", "--base", "sd15",
         "--out", "run", "--set", "data.flip=true", "--no-captions",
         "--exclude", "a.png", "--exclude", "b.png"]
    )  # fmt: skip
    assert isinstance(spec, Train)
    assert spec.data.photos == str(folder / "photos")
    assert (spec.data.token, spec.data.class_word, spec.data.flip, spec.data.captions) == (
        "sks",
        "dog",
        True,
        False,
    )
    assert spec.data.exclude == ("a.png", "b.png")
    assert (spec.seed, spec.base, spec.out) == (3, "sd15", folder / "run")


def test_generate(folder):
    (folder / "dog.safetensors").write_bytes(b"")
    spec = read(
        ["generate", "a dog", "a cat", "--guidance", "cfg", "--set", "scale=6", "--steps", "9",
         "--sampler", "euler",
         "--adapter", "dog.safetensors:0.5", "--adapter", "run:x", "--count", "2", "--no-score"]
    )  # fmt: skip
    assert isinstance(spec, Compose)
    assert spec.prompts == ("a dog", "a cat")
    assert spec.guidance == {"method": "cfg", "scale": 6}
    assert (spec.sampler.name, spec.sampler.steps, spec.count, spec.score) == ("euler", 9, 2, False)
    assert [(each.adapter, each.weight) for each in spec.adapters] == [
        (str(folder / "dog.safetensors"), 0.5),
        ("run:x", 1.0),
    ]


def test_the_bases_own_settings_are_the_lowest_layer():
    toybox, other = read(["generate", "a"]), read(["generate", "a", "--base", "sdxl"])
    assert toybox.guidance["scale"] == 4.0
    assert (other.width, other.sampler.name) == (1024, "dpmpp_2m")
    assert read(["generate", "a", "--base", "sdxl", "--steps", "7"]).sampler.steps == 7


def test_presets_lie_between_base_and_options():
    spec = read(["generate", "a", "--preset", "faithful", "--preset", "draft", "--count", "2"])
    assert spec.guidance == {"method": "cfg", "scale": 9.0, "rescale": 0.5}
    assert (spec.count, spec.sampler.steps) == (2, 10)


def test_compare_reads_its_grid_from_a_preset_or_a_file(folder):
    spec = read(["compare", "guidance_steps", "--out", "grid", "--base", "sd15", "--set", "job.seed=9"])
    assert spec.title
    assert [each.path for each in spec.axes] == ["guidance.scale", "sampler.steps"]
    assert (spec.job["base"], spec.job["seed"], spec.out) == ("sd15", 9, folder / "grid")
    (folder / "mine.toml").write_text('title = "t"\n[[axes]]\npath = "seed"\nvalues = [1, 2]\n')
    assert read(["compare", "mine.toml"]).axes[0].values == (1, 2)


def test_the_other_commands():
    assert read(["methods", "--family", "guidance"]).family == "guidance"
    assert read(["jobs"]).action == "list"
    assert read(["jobs", "cancel", "3"]).id == 3
    assert read(["merge", "a:0.5", "b", "--out", "c.safetensors"]).adapters[0].weight == 0.5
    assert read(["score", "a.png", "b.png", "--prompt", "x"]).images == ("a.png", "b.png")
    assert read(["info", "a.png"]).file == "a.png"
    assert read(["edit", "a.png", "--prompt", "b", "--method", "sdedit"]).prompts == ("b",)
    for word in ("bases", "doctor", "demo", "bench"):
        assert read([word]).kind == word


def test_every_kind_has_a_command_with_help_and_json(capsys):
    names = {"compose": "generate"}
    for kind in KINDS:
        assert cli.main([*names.get(kind, kind).split("_"), "--help"]) == 0
        assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("tarin x", "train"),
        ("generate a --guidnace cfg", "--guidance"),
        ("generate a --guidance cgf", "cfg"),
        ("generate a --set scael=3", "scale"),
        ("generate a --set sampler.stesp=3", "sampler.steps"),
        ("generate a --preset darft", "draft"),
        ("compare guidance_step", "guidance_steps"),
        ("jobs cansel 3", "cancel"),
    ],
)
def test_misspelt_names_are_hinted(capsys, words, hint):
    assert cli.main(words.split(), Fake()) == 2
    assert f'Did you mean "{hint}"?' in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    ["train", "score", "info", "generate a --seed x", "generate a --set nothing", "train x --resume",
     "generate a --adapter x:9", "info a b", "compare none.toml", "generate a --like none.png"],
)  # fmt: skip
def test_bad_input_is_2_with_a_remedy_and_no_traceback(capsys, words):
    assert cli.main(words.split(), Fake()) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1)),
        ("a.safetensors:0.5", ("a.safetensors", 0.5)),
        ("run:dog", ("run:dog", 1)),
        ("run:dog:-0.5", ("run:dog", -0.5)),
        ("run:7", ("run:7", 1)),
        ("C:\\a.safetensors", ("C:\\a.safetensors", 1)),
    ],
)
def test_adapters_with_weights(text, expected):
    found = adapter(text)
    assert (found["adapter"], found.get("weight", 1)) == expected


def test_like_repeats_a_picture(folder):
    made = Compose.model_validate(
        {"prompts": ["a dog"], "seed": 5, "guidance": {"method": "cfg", "scale": 3.5}, "out": "/private"}
    )
    pictures.save(folder / "a.png", Image.new("RGB", (64, 64)), made.shareable())
    again = read(["generate", "--like", "a.png"])
    assert again == made.model_copy(update={"out": None})
    assert read(["generate", "--like", "a.png", "--seed", "6", "a cat"]).prompts == ("a cat",)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"out": "x"}, 0),
        ({"verdict": "good"}, 0),
        ({"verdict": "unusable"}, 1),
        ({"ok": False, "rows": []}, 1),
        (BrokenWeights("x", "it is truncated"), 1),
        (BadInput("a", "b"), 2),
        (UnknownName("base", "x", ["y"]), 2),
        (Cancelled("Stopped."), 130),
        (KeyError("bug"), 1),
    ],
)
@pytest.mark.parametrize("word", ["doctor", "demo"])
def test_exit_codes(capsys, word, answer, code):
    def act(spec, job):
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert cli.main([word, "--json"], Fake(act)) == code
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is not isinstance(answer, Exception)
    if isinstance(answer, Exception):
        assert printed["error"]["remedy"]


def test_what_makes_something_is_kept_and_what_asks_is_not(folder):
    assert cli.main(["doctor"], Fake({"ok": True})) == 0
    assert not (folder / "workspace").exists()
    assert (
        cli.main(
            ["generate", "a", "--out", "x"], Fake({"out": str(folder / "x"), "readings": {"clip_t": 0.3}})
        )
        == 0
    )
    kept = store(folder)
    assert [(each.spec.kind, each.status) for each in kept.jobs()] == [("compose", "done")]
    assert kept.readings(folder / "x")[0]["value"] == 0.3


def test_a_training_has_its_folder_before_it_begins_and_is_taken_up_again(folder, capsys):
    def stop(spec, job):
        complete = spec.out / "checkpoints" / "step-000050" / "complete"
        complete.parent.mkdir(parents=True)
        complete.touch()
        job.checkpoint = complete.parent
        raise Cancelled("Stopped as asked.")

    runner = Fake(stop)
    assert cli.main(["train", "photos", "--class-word", "Brown dog"], runner) == 130
    assert runner.specs[0].out == folder / "workspace" / "runs" / "train-brown-dog"
    assert "step-000050" in capsys.readouterr().err
    again = Fake({"out": "x"})
    assert cli.main(["jobs", "resume", "1"], again) == 0
    assert (again.specs[0].resume, again.specs[0].out) == (True, runner.specs[0].out)
    assert store(folder).get(1).status == "done"
    assert cli.main(["jobs", "resume", "1"], again) == 2
    assert cli.main(["jobs", "resume", "9"], again) == 2


def test_a_job_of_another_process_is_cancelled_through_the_store(folder):
    def act(spec, job):
        store(folder).cancel(1)
        for _ in range(500):
            job.check()
            signal.sigtimedwait([], 0.01)
        return {}

    assert cli.main(["generate", "a", "--out", "x"], Fake(act)) == 130
    assert store(folder).get(1).status == "cancelled"


def test_a_killed_command_is_told_as_interrupted(folder):
    script = """
import os, sys
from studio import cli
class Dies:
    def run(self, spec, job, folder=None):
        os.kill(os.getpid(), 9)
cli.main(["generate", "a", "--out", "x"], Dies())
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert cli.main(["generate", "b", "--out", "y"], Fake()) == 0
    assert [each.status for each in store(folder).jobs()] == ["done", "interrupted"]


def test_an_unwritable_workspace_matters_only_to_those_who_need_it(folder, capsys):
    (folder / "file").write_text("")
    words = ["generate", "a", "--workspace", str(folder / "file")]
    assert cli.main(words, Fake()) == 2
    assert "--workspace" in capsys.readouterr().err
    assert cli.main([*words, "--out", "x"], Fake({"out": "x"})) == 0
    assert "not kept" in capsys.readouterr().err


def test_the_workspace_option_is_for_the_whole_job(folder):
    seen = []
    words = ["generate", "a", "--workspace", str(folder / "other")]
    assert cli.main(words, Fake(lambda spec, job: seen.append(workspace.root()))) == 0
    assert seen == [folder / "other"]


def test_python_m_studio_is_the_same_command(folder):
    done = subprocess.run(
        [sys.executable, "-m", "studio", "generate", "--sede", "3", "--json"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["remedy"].startswith('Did you mean "--seed"?')


def test_reading_a_command_needs_no_torch(folder):
    script = """
import sys
from studio import cli
cli.read_command(["train", "x", "--class-word", "dog"])
cli.read_command(["generate", "a", "--guidance", "cfg", "--set", "scale=3"])
heavy = {"torch", "diffusers", "transformers", "peft", "accelerate"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "result",
    [
        {"rows": 3, "seconds": 1.5},
        {"rows": []},
        {"rows": [{"method": "cfg", "title": "a|b"}]},
        {
            "pictures": [{"path": "a.png", "seed": 1, "readings": {"clip_t": 0.25}}],
            "readings": {"clip_t": 0.25},
        },
        {"nested": {"a": {"b": [1, 2.5]}}, "none": None, "text": "two\nlines"},
        {},
    ],
)
def test_every_result_can_be_said(result):
    assert cli_words.in_words(result)


def test_readings_of_pictures_become_columns():
    text = cli_words.in_words(
        {"pictures": [{"path": "a.png", "readings": {"clip_t": 0.25}}, {"path": "b.png"}]}
    )
    assert text.splitlines()[1:] == ["| path | clip_t |", "| --- | --- |", "| a.png | 0.25 |", "| b.png |  |"]


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_drawn_on_a_terminal_and_starts_anew_with_the_next_work():
    screen = Terminal()
    bar = cli_words.Bar(screen, every=0)
    for step, total in ((0, 4), (2, 4), (4, 4), (1, 2)):
        bar(Event("report", step, total))
    drawn = screen.getvalue().split("\r\x1b[2K")[1:]
    assert [each.count("█") for each in drawn] == [0, 12, 24, 12]
    assert "2/4 · 50%" in drawn[1]
    bar(Event("note", text="a note"))
    assert screen.getvalue().endswith("\na note\n")


def test_ctrl_c_while_it_runs_is_kept_as_cancelled(folder):
    def act(spec, job):
        os.kill(os.getpid(), signal.SIGINT)
        job.check()

    assert cli.main(["generate", "a", "--out", "x"], Fake(act)) == 130
    assert store(folder).get(1).status == "cancelled"


def test_a_command_line_can_be_read_back_from_what_is_kept():
    spec = read(["generate", "a", "--set", "scale=2.5"])
    assert from_table(json.loads(json.dumps(spec.portable()))) == spec
