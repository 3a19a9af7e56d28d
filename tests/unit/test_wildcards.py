"""Wildcards: one choice a seed, the same whoever asks, and never a file that is not a list."""

import random

import pytest

from pipelines.base.text import weighted
from pipelines.errors import BadInput, UnknownName
from pipelines.jobs import wildcards, workspace
from pipelines.jobs.wildcards import escaped, expand, has_wildcards, lists
from pipelines.toybox.world.vocabulary import COLOURS, WORDS


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(workspace.ENV, str(tmp_path))
    (tmp_path / "wildcards").mkdir()
    return tmp_path


def write(folder, name, text):
    (folder / "wildcards" / f"{name}.txt").write_text(text, encoding="utf-8")


def said(prompt, seeds=200):
    return {expand(prompt, seed) for seed in range(seeds)}


def test_every_choice_comes_about_as_often_and_a_seed_always_makes_the_same():
    drawn = [expand("a {red|blue|green} dog", seed) for seed in range(3000)]
    assert drawn == [expand("a {red|blue|green} dog", seed) for seed in range(3000)]
    counts = [drawn.count(f"a {each} dog") for each in ("red", "blue", "green")]
    assert sum(counts) == 3000
    assert min(counts) > 900


def test_two_wildcards_choose_apart():
    assert len(said("{a|b} {a|b}")) == 4


def test_what_one_wildcard_says_does_not_move_another():
    for seed in range(50):
        short, long = expand("{a|b} {c|d|e}", seed), expand("very {a|b} {c|d|e} indeed", seed)
        assert long == f"very {short} indeed"
        nested = expand("{x|{p|q}} {c|d|e}", seed)
        assert nested.split()[1] == expand("{x|{p|r} y} {c|d|e}", seed).split()[-1]


def test_braces_nest():
    assert said("{red|{dark|light} {blue|green}}") == {
        "red", "dark blue", "dark green", "light blue", "light green",
    }  # fmt: skip
    assert said("a{| big} dog") == {"a dog", "a big dog"}


@pytest.mark.parametrize(
    "text", ["a dog", "{dog}", "a { dog", "a } dog", "a | b", "{a {b}", "snake_case", "__", "____", "{a|b"]
)
def test_what_is_no_wildcard_is_ordinary_text(text):
    assert said(text, 5) == {text}
    assert not has_wildcards(text)


def test_braces_without_end_are_read_in_no_time():
    assert expand("{" * 3000 + "y", 3) == "{" * 3000 + "y"
    assert expand("{x|" * 3000 + "x" + "|x}" * 3000, 3) == "x"


def test_a_backslash_takes_the_meaning_away():
    assert said(r"\{a|b\} \__colours_\_ {a\|b|a\|b} \n") == {r"{a|b} __colours__ a|b \n"}
    assert has_wildcards("{a|b}") and has_wildcards("__colours__")


def test_an_escaped_text_is_given_back_whole():
    dice = random.Random(3)
    texts = ["".join(dice.choices("\\{}|_ab ", k=dice.randint(0, 14))) for _ in range(20_000)]
    for text in [*texts, "__colours__", "a __my-list__ b", "a_b__c__d"]:
        assert expand(escaped(text), 1) == text
        assert not has_wildcards(escaped(text))
    assert escaped("a red dog (big:1.2), snake_case | b") == "a red dog (big:1.2), snake_case | b"


def test_shipped_lists_use_words_that_toybox_knows():
    assert {"places", "styles", "colours"} <= lists().keys()
    assert said("__colours__", 500) == set(COLOURS)
    for name in ("places", "styles", "colours"):
        for line in said(f"__{name}__", 500):
            assert set(line.split()) <= set(WORDS)


def test_a_list_of_the_workspace_comes_first_and_may_name_others(folder):
    write(folder, "colours", "\ufeffmauve\n\n# a remark\n  teal  \n")
    write(folder, "pets", "a __colours__ {cat|dog}\n")
    assert said("__pets__") == {"a mauve cat", "a mauve dog", "a teal cat", "a teal dog"}
    with workspace.at(folder / "elsewhere"):
        assert "mauve" not in said("__colours__")
    assert said("__colours__") == {expand("__colours__", seed, folder) for seed in range(200)}


def test_lists_that_cannot_be_used_say_why(folder, monkeypatch):
    with pytest.raises(UnknownName) as error:
        expand("a __colors__ dog", 1)
    assert error.value.suggestion == "colours"
    write(folder, "nothing", "# only a remark\n")
    with pytest.raises(BadInput, match="empty"):
        expand("__nothing__", 1)
    write(folder, "loop", "a __loop__")
    with pytest.raises(BadInput, match="leads back"):
        expand("__loop__", 1)
    write(folder, "wide", " ".join(["__wide__"] * 50))
    with pytest.raises(BadInput, match="leads back"):
        expand("__wide__", 1)
    write(folder, "long", "word\n" * 60_000)
    with pytest.raises(BadInput, match="too long"):
        expand("__long__", 1)
    (folder / "secret.txt").write_text("secret")
    for name in ("../secret", "..secret", "wildcards/../secret"):
        assert expand(f"__{name}__", 1) == f"__{name}__"


def test_weights_hold_around_and_inside_wildcards():
    for seed in range(20):
        around = expand("a ({red|blue}:1.3) dog", seed)
        word = around[len("a (") : -len(":1.3) dog")]
        assert weighted(around) == [("a ", 1.0), (word, 1.3), (" dog", 1.0)]
    assert said("a {(red:1.2)|blue} dog") == {"a (red:1.2) dog", "a blue dog"}
    assert weighted("a (red:1.2) dog")[1] == ("red", 1.2)
    assert wildcards.expand("(a {b|b}:0.5)", 0) == "(a b:0.5)"
