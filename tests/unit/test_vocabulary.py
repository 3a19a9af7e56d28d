"""Words never learned, told without the engine: the same words that the engine names."""

import random
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from transformers import CLIPTokenizer

from pipelines.artifacts import assets
from pipelines.base import text
from pipelines.jobs import vocabulary
from pipelines.jobs.vocabulary import unknown
from pipelines.toybox.world.vocabulary import WORDS

TOKENIZER = CLIPTokenizer.from_pretrained(assets() / "toybox" / "tokenizer")
BASE = cast("Any", SimpleNamespace(tokenizers={"tokenizer": TOKENIZER}))


@pytest.mark.parametrize(
    "prompt",
    [
        "", "a red dog on the beach", "a photorealistic corgi, 8k, trending", "A Dog's HAT; it's the dog’s",
        "(corgi:1.3) and ((red:1.2) hat:0.5) (not:me) (a)", "Käfer café naïve Æther ÿ", "犬 в лесу 🐕 dog",
        "dogcat redhat", "snake_case x_dog dog_x", "dog(cat:1.2)hat", "123 dog4 4dog ²",
        "e\u0301te\u0301 Ångström",
        "a {red|mauve} dog", "don't we're i'll",
    ],
)  # fmt: skip
def test_it_names_the_words_that_the_engine_names(prompt):
    assert unknown("toybox", prompt) == text.unknown_words(BASE, prompt)


def test_it_agrees_on_every_piece_of_the_vocabulary_and_on_random_words():
    dice = random.Random(5)
    pieces = [each.removesuffix("</w>") for each in TOKENIZER.get_vocab()]
    made = ["".join(dice.choices("abcdeghiorst", k=dice.randint(1, 7))) for _ in range(2000)]
    glued = [dice.choice(WORDS) + dice.choice(WORDS) for _ in range(300)]
    prompt = " ".join([*pieces, *made, *glued, *WORDS])
    said = unknown("toybox", prompt)
    assert said == text.unknown_words(BASE, prompt)
    assert said
    assert not set(said) & set(WORDS)


def test_trained_words_and_lists_are_no_strangers():
    assert unknown("toybox", "a blorb dog __pets__ of BLORB", known=["blorb"]) == []
    assert unknown("toybox", "a blorb dog") == ["blorb"]
    assert vocabulary.CLOSED == text.CLOSED


def test_bases_that_spell_any_word_or_are_not_here_say_nothing(tmp_path):
    assert unknown("sd15", "a blorb") == []
    assert unknown("someone/some-model", "a blorb") == []
    (tmp_path / "tokenizer").mkdir()
    for damaged in ("{}", "[", '{"model": 3}', '{"model": {"vocab": {}}, "added_tokens": []}'):
        (tmp_path / "tokenizer" / "tokenizer.json").write_text(damaged)
        assert unknown(str(tmp_path), "a blorb") == []


def test_it_needs_no_torch_and_no_transformers():
    script = (
        "import sys; from pipelines.jobs.vocabulary import unknown; assert unknown('toybox', 'blorb');"
        "sys.exit(bool({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
