"""Vocabularies: order, round trips, unknown words, files, and clear errors."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbook.tokenization import Vocabulary

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)


def test_ids_fall_by_count_then_alphabet_after_the_specials():
    vocabulary = Vocabulary(["b", "a", "b", "c", "a", "d"], specials=("<unk>", "<s>"))
    assert vocabulary.tokens == ["<unk>", "<s>", "a", "b", "c", "d"]
    assert vocabulary.counts == [0, 0, 2, 2, 1, 1]
    assert len(vocabulary) == 6


def test_counts_and_tokens_give_the_same_vocabulary():
    tokens = ["to", "be", "or", "not", "to", "be"]
    assert Vocabulary(tokens) == Vocabulary(Counter(tokens))


def test_min_count_and_max_size():
    tokens = ["a", "a", "a", "b", "b", "c"]
    assert Vocabulary(tokens, min_count=2).tokens == ["<unk>", "a", "b"]
    assert Vocabulary(tokens, max_size=2).tokens == ["<unk>", "a"]


def test_a_special_that_occurs_in_the_text_keeps_one_id_and_its_count():
    vocabulary = Vocabulary(["<unk>", "<unk>", "a"])
    assert vocabulary.tokens == ["<unk>", "a"]
    assert vocabulary.counts == [2, 1]


@given(st.lists(words, min_size=1))
def test_round_trip_of_known_tokens(tokens):
    vocabulary = Vocabulary(tokens)
    assert vocabulary.decode(vocabulary.encode(tokens)) == tokens
    assert all(token in vocabulary for token in tokens)
    assert sorted(vocabulary.encode(vocabulary.tokens)) == list(range(len(vocabulary)))


def test_unknown_tokens_become_unk():
    vocabulary = Vocabulary(["a"])
    assert vocabulary.decode(vocabulary.encode(["a", "z"])) == ["a", "<unk>"]
    assert "z" not in vocabulary


def test_without_unk_an_unknown_token_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="token 'z' is not in the vocabulary"):
        Vocabulary(["a"], specials=()).encode(["z"])


def test_an_empty_text_leaves_the_specials():
    assert Vocabulary([]).tokens == ["<unk>"]
    assert Vocabulary([]).encode([]) == []


@pytest.mark.parametrize("index", [-1, 2])
def test_an_id_out_of_range_is_an_error(index):
    with pytest.raises(ValueError, match="id must be from 0 to 1"):
        Vocabulary(["a"]).id_to_token(index)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("a string",), TypeError, "got a string: split it first"),
        (([["a"], ["b"]],), TypeError, "flat list of tokens"),
        (([1, 2],), TypeError, "must hold strings, got 1"),
        (({"a": -1},), ValueError, "counts of at least 0, got 'a': -1"),
        ((["a"], 0), ValueError, "min_count must be at least 1, got 0"),
        ((["a"], 1, 0), ValueError, "max_size must have room"),
        ((["a"], 1, None, ("<s>", "<s>")), ValueError, "specials must differ"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        Vocabulary(*arguments)


def test_encoding_a_string_is_an_error():
    with pytest.raises(TypeError, match="split it first"):
        Vocabulary(["a"]).encode("a b")


@given(st.lists(words))
def test_save_and_load(tmp_path_factory, tokens):
    path = tmp_path_factory.mktemp("vocabulary") / "v.json"
    vocabulary = Vocabulary(tokens, specials=("<s>", "<unk>"))
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert loaded == vocabulary
    assert loaded.encode(tokens) == vocabulary.encode(tokens)
    assert [entry.name for entry in path.parent.iterdir()] == ["v.json"]  # no temporary file is left


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        json.dumps(["a"]),
        json.dumps({"tokens": ["a"]}),
        json.dumps({"specials": ["<unk>"], "tokens": ["a", "a"], "counts": [1, 1]}),
    ],
)
def test_loading_something_else_is_an_error(tmp_path, content):
    path = tmp_path / "v.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"path must be a vocabulary that save\(\) wrote, got .*v\.json"):
        Vocabulary.load(path)
