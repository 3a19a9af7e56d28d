"""The toybox tokenizer: every word one token, stock classes load it, and the fast path agrees with it."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipelines.errors import BadInput
from pipelines.toybox import tokenizer
from pipelines.toybox.world import WORDS, caption, sample_scene


@pytest.fixture(scope="module")
def stock() -> CLIPTokenizer:
    return tokenizer.build_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tokenizer.save(tmp_path_factory.mktemp("tokenizer"))


def ids_of(stock, text: str) -> list[int]:
    return stock(text, add_special_tokens=False)["input_ids"]


def test_every_word_is_one_token_of_its_own(stock):
    ids = [ids_of(stock, word) for word in WORDS]
    assert all(len(each) == 1 for each in ids)
    assert len({each[0] for each in ids}) == len(WORDS)
    assert "sks" in WORDS
    assert stock.unk_token_id not in {each[0] for each in ids}


def test_special_tokens_and_length(stock):
    assert (stock.bos_token_id, stock.eos_token_id, stock.pad_token_id) == (
        tokenizer.BOS,
        tokenizer.EOS,
        tokenizer.EOS,
    )
    assert stock.model_max_length == tokenizer.LENGTH == 48
    assert len(stock) == tokenizer.vocabulary_size() == max(stock.get_vocab().values()) + 1
    ids = stock("dog " * 80, padding="max_length", truncation=True)["input_ids"]
    assert len(ids) == 48
    assert (ids[0], ids[-1]) == (tokenizer.BOS, tokenizer.EOS)


def test_appended_words_leave_earlier_ids_alone(stock):
    longer = tokenizer.build_tokenizer([*WORDS, "zebra", "doghouse"])
    for token, index in stock.get_vocab().items():
        assert longer.get_vocab()[token] == index
    for word in (*WORDS, "zebra", "doghouse"):
        assert len(ids_of(longer, word)) == 1
    assert ids_of(longer, "dog") == ids_of(stock, "dog")


@pytest.mark.parametrize("words", [("Dog",), ("two words",), ("",), ("t-shirt",)])
def test_a_word_that_cannot_be_one_token_is_refused(words):
    with pytest.raises(BadInput):
        tokenizer.merges_for(words)


def test_merges_survive_words_that_contain_each_other():
    words = ["ab", "abab", "bab", "a", "aab", "abaab", "babab"]
    built = tokenizer.build_tokenizer(words)
    assert [len(ids_of(built, word)) for word in words] == [1] * len(words)


@pytest.mark.parametrize("text", ["zebra", "naïve café", "龍 and 🐕", "x_y@z#1", "\u0000"])
def test_unknown_text_falls_to_pieces_and_comes_back(stock, text):
    ids = ids_of(stock, text)
    assert stock.unk_token_id not in ids
    assert stock.decode(ids).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("loader", [CLIPTokenizer, AutoTokenizer])
def test_stock_classes_load_the_folder(stock, folder, loader):
    loaded = loader.from_pretrained(folder)
    assert isinstance(loaded, CLIPTokenizer)
    text = "A photo of a sks dog, on the beach. It's a zebra"
    assert loaded(text)["input_ids"] == stock(text)["input_ids"]
    assert loaded.get_vocab() == stock.get_vocab()
    assert loaded.model_max_length == 48
    assert loaded.pad_token_id == tokenizer.EOS


def test_vocab_and_merges_alone_suffice(stock, folder, tmp_path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    text = "two spotted rabbits, watercolour"
    assert loaded(text)["input_ids"] == stock(text)["input_ids"]


def test_added_tokens(folder):
    loaded = CLIPTokenizer.from_pretrained(folder)
    before = len(loaded)
    assert loaded.add_tokens(["<me>", "<me-1>"]) == 2
    ids = loaded("a photo of <me> <me-1> in space")["input_ids"]
    assert before in ids
    assert before + 1 in ids
    assert ids.index(before) < ids.index(before + 1)


def test_text_tower_pools_at_the_first_end_with_added_tokens(folder):
    """With eos_token_id == 2 transformers pools at the largest id, which would be the added token."""
    loaded = CLIPTokenizer.from_pretrained(folder)
    loaded.add_tokens(["<me>"])
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(loaded), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=48, bos_token_id=tokenizer.BOS,
        eos_token_id=tokenizer.EOS, pad_token_id=tokenizer.EOS,
    )  # fmt: skip
    tower = CLIPTextModel(config).eval()
    ids = torch.tensor([loaded("a <me> dog", padding="max_length")["input_ids"]])
    assert ids.max() > tokenizer.EOS
    with torch.no_grad():
        out = tower(ids)
    end = ids[0].tolist().index(tokenizer.EOS)
    torch.testing.assert_close(out.pooler_output[0], out.last_hidden_state[0, end])
    # what is behind the first end must not matter
    shorter = tower(ids[:, : end + 1]).pooler_output
    torch.testing.assert_close(out.pooler_output, shorter, atol=1e-5, rtol=1e-5)


def test_fast_path_equals_the_tokenizer(stock):
    texts = [caption(sample_scene(seed), seed, full=seed % 2 == 0) for seed in range(300)]
    texts += [
        "", " ", "DOG", "It's a dog's hat!?", "we'll they've i'm 12 3b", "t-shirt", "a  b\tc\nd", "dog " * 60,
        "zebra " * 30, "über", "a <|endoftext|> b", "<|startoftext|>", "don't ,.;:!? x", "İstanbul", "'s't",
        "…", "a\u00a0b",
    ]  # fmt: skip
    expected = stock(texts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    found = tokenizer.tokenise(texts)
    assert found.dtype == torch.int64
    assert torch.equal(found, expected)


def test_captions_use_known_words_only_and_fit(stock):
    known = {ids_of(stock, word)[0] for word in (*WORDS, ",", ".")}
    for seed in range(200):
        ids = ids_of(stock, caption(sample_scene(seed), seed, full=True))
        assert set(ids) <= known
        assert len(ids) <= 46
