"""Vocabularies: order, round trips, unknown words, files, and clear errors."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
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
        ((["a"], 1, None, "<s>"), TypeError, "specials must be a list of strings, got the string '<s>'"),
        ((["a"], 1, None, (None,)), TypeError, "specials must be non-empty strings, got None"),
        (([None, "a"],), TypeError, "must hold strings, got None"),
        ((["a", "b\ud800"],), ValueError, "lone surrogate"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        Vocabulary(*arguments)


@pytest.mark.parametrize("strange", [None, 3, 2.5, b"a", ["a"], ("a", "b"), float("nan")])
@pytest.mark.parametrize("specials", [("<unk>",), ()])
def test_what_is_no_token_is_an_error_and_not_unknown(strange, specials):
    vocabulary = Vocabulary(["a"], specials=specials)
    with pytest.raises(TypeError, match="tokens must be a flat list of strings, got"):
        vocabulary.encode(["a", strange])
    with pytest.raises(TypeError, match="tokens must be strings, got"):
        vocabulary.token_to_id(strange)


def test_tokens_may_come_from_an_iterator():
    assert Vocabulary(["a"]).encode(iter(["a", "z"])) == [1, 0]


@pytest.mark.parametrize("strange", [1.0, None, "1"])
def test_what_is_no_integer_is_no_id(strange):
    with pytest.raises(TypeError, match="ids must be integers, got"):
        Vocabulary(["a"]).id_to_token(strange)
    with pytest.raises(TypeError, match="ids must be integers, got"):
        Vocabulary(["a"]).decode([0, strange])


def test_ids_of_numpy_and_torch_are_ids():
    vocabulary = Vocabulary(["a"])
    assert vocabulary.decode(np.array([1, 0])) == vocabulary.decode(torch.tensor([1, 0])) == ["a", "<unk>"]


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
        json.dumps({"specials": [], "tokens": ["a", 3], "counts": [1, 1]}),
        json.dumps({"specials": [], "tokens": ["a", "b"], "counts": [1, "one"]}),
        "\0",
    ],
)
def test_loading_something_else_is_an_error(tmp_path, content):
    path = tmp_path / "v.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"path must be a vocabulary that save\(\) wrote, got .*v\.json"):
        Vocabulary.load(path)
