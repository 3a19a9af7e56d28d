"""Rules of the repository that no linter knows."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "studio").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])
# A drawing is a list of coordinates: cutting one in two would explain nothing.
DRAWINGS = {
    ROOT / "pipelines/toybox/world" / f"{name}.py" for name in ("animals", "bird_fish", "people", "things")
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    if path in DRAWINGS:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_no_pickles():
    assert not [path for path in SOURCES if re.search(r"torch\.load\(", path.read_text(encoding="utf-8"))]


def test_the_readme_names_one_test_command_and_ci_runs_it():
    commands = re.findall(
        r"^pip install uv && uv run pytest.*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(commands) == 1
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_ci_is_valid_bash():
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=False).returncode == 0
