import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import BrokenWeights
from pipelines.jobs.spec import JobSpec, ToyboxBuild
from pipelines.progress import Job
from studio import cli


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every command has a workspace of its own, and a folder to stand in."""
    monkeypatch.setenv("LIKENESS_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Replay:
    """A runner that answers without doing anything."""

    def __init__(self, answer: Any):
        self.answer = answer

    def run(self, spec: JobSpec, job: Job, folder: Path | None = None) -> dict[str, Any]:
        return self.answer if isinstance(self.answer, dict) else self.answer(job)


def test_help_needs_no_torch():
    script = """
import sys
from studio.cli import main
code = main(["toybox", "build", "--help"])
heavy = {"torch", "diffusers", "transformers", "peft", "accelerate", "PIL", "numpy"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--minutes" in done.stdout


def test_options_become_the_spec():
    words = "toybox build --stage vae --minutes 1.5 --resume --state s --channels 8 --views 10 --seed 3"
    spec = cli.read_command(words.split())
    assert spec == ToyboxBuild(
        stage="vae", minutes=1.5, resume=True, state=Path("s"), channels=8, views=10, seed=3
    )


def test_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("likeness 0")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("toybix judge", "toybox"),
        ("toybox jugde", "judge"),
        ("toybox build --stage unte", "unet"),
        ("toybox judge --promts 3", "--prompts"),
    ],
)
def test_unknown_words_are_hinted(capsys, words, hint):
    assert cli.main(words.split()) == 2
    assert f'Did you mean "{hint}"?' in capsys.readouterr().err


@pytest.mark.parametrize("words", ["", "toybox", "toybox judge --prompts", "toybox judge --prompts x"])
def test_half_commands_get_a_remedy_and_no_traceback(capsys, words):
    assert cli.main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 2
    assert "Traceback" not in error


def test_json_is_one_object_on_stdout(capsys):
    assert cli.main(["toybox", "judge", "--json"], Replay({"rows": []})) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "result": {"rows": []}}
    assert cli.main(["toybox", "judge", "--json", "--prompts", "0"]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert (printed["ok"], printed["error"]["type"]) == (False, "BadInput")
    assert printed["error"]["remedy"]


def test_an_error_of_the_job_prints_message_and_remedy(capsys):
    def broken(job):
        raise BrokenWeights("unet.safetensors", "it is truncated", "Fetch it again.")

    assert cli.main(["toybox", "sheet"], Replay(broken)) == 1
    assert capsys.readouterr().err == "unet.safetensors cannot be used: it is truncated.\nFetch it again.\n"


def test_the_judge_prints_a_markdown_table(capsys):
    rows = [
        {"bar": "class", "value": 0.951234, "at_least": 0.95, "ok": True, "note": "a|b"},
        {"bar": "colour", "value": 0.8, "at_least": 0.9, "ok": False, "note": None},
        {"bar": "seconds", "value": 1.1, "at_least": None, "ok": None, "note": ""},
    ]
    assert cli.main(["toybox", "judge"], Replay({"rows": rows, "folder": "assets"})) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:5] == [
        "| class | 0.9512 | 0.95 | ✓ | a\\|b |",
        "| colour | 0.8 | 0.9 | ✗ |  |",
        "| seconds | 1.1 |  |  |  |",
    ]
    assert lines[-1] == "folder: assets"


def interrupted(job):
    job.checkpoint = Path("state/step-000050")
    os.kill(os.getpid(), signal.SIGINT)
    job.check()


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_ctrl_c_cancels_and_says_where_the_checkpoint_is(capsys, flags):
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(["toybox", "build", *flags], Replay(interrupted)) == 130
    assert signal.getsignal(signal.SIGINT) is before
    printed = capsys.readouterr()
    assert "state/step-000050" in printed.err
    assert "--resume" in printed.err
    if flags:
        assert json.loads(printed.out)["error"]["type"] == "Cancelled"


def test_a_second_ctrl_c_interrupts_work_that_does_not_check(capsys):
    def deaf(job):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    assert cli.main(["toybox", "judge"], Replay(deaf)) == 130
