"""Added words, prompt weights, and what a base cannot read."""

import pytest
import torch

from pipelines.base.loading import open_base
from pipelines.base.text import added, cut, embedding_of, unknown_words, weighted
from pipelines.errors import BadInput
from tests import tiny


@pytest.fixture(scope="module", params=["sd1", "sdxl", "sd3"])
def base(request, tmp_path_factory):
    folder = getattr(tiny, request.param)(tmp_path_factory.mktemp("text") / request.param)
    return open_base(str(folder), "cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return open_base(str(tiny.sd1(tmp_path_factory.mktemp("text") / "small")), "cpu")


def rows_for(base, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(count, embedding_of(each).embedding_dim, generator=generator)
        for key, each in base.texts.items()
    }


def state_of(base):
    return (
        dict(base.tokenizers),
        [each for text in base.texts.values() for each in text.state_dict().values()],
        [
            name
            for text in base.texts.values()
            for name, each in text.named_modules()
            if "forward" in vars(each)
        ],
        base.encode(["a sks dog"]).tokens,
        [(len(each), each("a sks dog")["input_ids"]) for each in base.tokenizers.values()],
    )


def assert_same(before, after):
    assert before[0].keys() == after[0].keys()
    assert all(before[0][key] is after[0][key] for key in before[0])
    assert all(torch.equal(one, two) for one, two in zip(before[1], after[1], strict=True))
    assert before[2] == after[2] == []
    assert torch.equal(before[3], after[3])
    assert before[4] == after[4]


def test_rows_reach_the_states_and_leave_no_trace(base):
    before = state_of(base)
    with added(base, {"sks": rows_for(base)}):
        inside = base.encode(["a sks dog"]).tokens
    assert (inside - before[3]).abs().max() > 1e-3
    assert_same(before, state_of(base))


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_exception(base, failure):
    before = state_of(base)
    with pytest.raises(failure), added(base, {"sks": rows_for(base)}):
        base.encode(["a sks dog"])
        raise failure
    assert_same(before, state_of(base))


def test_gradients_reach_rows_and_nothing_else(base):
    rows = {key: each.requires_grad_() for key, each in rows_for(base).items()}
    with added(base, {"sks": rows}):
        base.encode(["a sks dog"]).tokens.square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum(1).min() > 0 for each in rows.values())
    assert all(each.grad is None for text in base.texts.values() for each in text.parameters())


def test_rows_are_read_at_every_look_up(small):
    rows = rows_for(small)
    with added(small, {"sks": rows}):
        first = small.encode(["a sks dog"]).tokens
        rows["text_encoder"].neg_()
        second = small.encode(["a sks dog"]).tokens
    assert (first - second).abs().max() > 1e-3


def test_a_vocabulary_row_as_new_word_reads_like_the_word(base):
    rows = {}
    for key, encoder in base.texts.items():
        tokenizer = base.tokenizers[key.replace("text_encoder", "tokenizer")]
        index = tokenizer("dog", add_special_tokens=False)["input_ids"][-1]
        if key != "text_encoder_3":  # T5's letters are no words
            rows[key] = embedding_of(encoder).weight[[index]].clone()
    with added(base, {"zebracorn": rows}):
        found = base.encode(["a red zebracorn, big"])
    expected = base.encode(["a red dog, big"])
    length = tiny.LENGTH
    assert torch.allclose(found.tokens[:, :length], expected.tokens[:, :length], atol=1e-6)
    if found.pooled is not None:  # pooled at the end of text, not at the new word with its larger id
        assert torch.allclose(found.pooled, expected.pooled, atol=1e-6)


def test_pooling_is_repaired_where_the_config_is_old(tmp_path):
    base = open_base(str(tiny.sdxl(tmp_path / "old", eos=2)), "cpu")
    good = open_base(str(tiny.sdxl(tmp_path / "new")), "cpu")
    found, expected = base.encode(["a red dog"]).pooled, good.encode(["a red dog"]).pooled
    assert found is not None
    assert expected is not None
    assert torch.equal(found, expected)


def test_prefixes_cases_and_neighbours(small):
    one, two = rows_for(small, 1, 1), rows_for(small, 3, 2)
    with added(small, {"sks": two, "sksdog": one}):
        tokenizer = small.tokenizers["tokenizer"]
        names = tokenizer.likeness_words
        assert {key: len(each) for key, each in names.items()} == {"sks": 3, "sksdog": 1}
        same = small.encode(["A SKS dog, sksdog!", "a sks dog, sksdog!"]).tokens
        assert torch.equal(same[0], same[1])
        assert names["sksdog"] not in [names["sks"]]
        plain = small.encode(["a sksdogs"]).tokens
    assert torch.equal(plain, small.encode(["a sksdogs"]).tokens)  # part of a longer word is no word


def test_a_second_adapter_may_claim_the_name_of_a_vector(small):
    first, second = rows_for(small, 2, 1), rows_for(small, 1, 2)
    with added(small, {"sks": first}):
        alone = small.encode(["a sks dog"]).tokens
        with added(small, {"sks_1": second}):
            assert torch.equal(small.encode(["a sks dog"]).tokens, alone)
            assert (small.encode(["a sks_1 dog"]).tokens - alone).abs().max() > 1e-3
        assert torch.equal(small.encode(["a sks dog"]).tokens, alone)


@pytest.mark.parametrize("token", ["", "two words", "a(b"])
def test_bad_tokens_are_refused(small, token):
    with pytest.raises(BadInput, match="token"), added(small, {token: rows_for(small)}):
        pass


def test_rows_of_another_base_are_refused(small):
    with pytest.raises(BadInput, match="shape"), added(small, {"sks": {"text_encoder": torch.zeros(1, 7)}}):
        pass
    with (
        pytest.raises(BadInput, match="text_encoder_2"),
        added(small, {"sks": {"text_encoder_2": torch.zeros(1, 7)}}),
    ):
        pass


def test_weights_are_parsed():
    assert weighted("a (red:1.5) hat") == [("a ", 1.0), ("red", 1.5), (" hat", 1.0)]
    assert weighted("((red:2) hat:0.5)") == [("red", 1.0), (" hat", 0.5)]
    assert "".join(text for text, _ in weighted("a (red hat) :) (b")) == "a (red hat) :) (b"
    assert all(weight == 1 for _, weight in weighted("a (red hat) :) (b"))


def test_weights_move_their_own_words_only(base):
    plain = base.encode(["a red dog"]).tokens
    assert torch.equal(base.encode(["a (red:1.0) dog"]).tokens, plain)
    heavy = base.encode(["a (red:1.5) dog"]).tokens
    row = 2  # start, "a", "red"
    assert (heavy[:, row] - plain[:, row]).abs().max() > 1e-3
    assert torch.equal(heavy[:, :row], plain[:, :row])
    assert torch.equal(heavy[:, row + 1 : tiny.LENGTH], plain[:, row + 1 : tiny.LENGTH])
    empty, none = base.encode(["(dog:0.0) x"]).tokens, base.encode(["dog x"]).tokens
    assert (empty[:, 1] - none[:, 1]).abs().max() > 1e-3


def test_weights_follow_the_formula(small):
    plain, empty = small.encode(["a dog"]).tokens, small.encode([""]).tokens
    heavy = small.encode(["a (dog:1.4)", "a dog"]).tokens
    assert torch.allclose(heavy[0, 2], empty[0, 2] + 1.4 * (plain[0, 2] - empty[0, 2]), atol=1e-5)
    assert torch.allclose(heavy[1], plain[0], atol=1e-6)


def test_unknown_words_are_named(small):
    assert unknown_words(small, "a Red dog on a bicycle, (blorb:1.3) bicycle") == ["bicycle", "blorb"]
    with added(small, {"blorb": rows_for(small)}):
        assert unknown_words(small, "a blorb dog") == []


def test_what_is_cut_is_told(small):
    fits = "a dog " * 7
    assert cut(small, fits) == ""
    assert cut(small, fits + "in the snow") == "in the snow"
    assert torch.equal(small.encode([fits + "in the snow"]).tokens, small.encode([fits]).tokens)
    with added(small, {"sks": rows_for(small, 3)}):
        assert cut(small, "a sks dog " * 3) == "dog"
