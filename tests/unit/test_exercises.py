"""The checker tells a stub, a right, a nearly right and a wrong answer apart, and says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmbook.exercises import Case, Mistake, check


def softmax(x):
    e = np.exp(np.asarray(x, dtype=float))
    return e / e.sum()


CASES = [Case(name, (np.array(x),), softmax(x)) for name, x in {"two equal": [0.0, 0.0], "three": [1, 2, 3]}.items()]
MISTAKES = [Mistake("divide by the sum: the weights must add up to 1.", lambda x: np.exp(x))]


def said(capsys, function, cases=CASES, mistakes=MISTAKES):
    """The verdict and the words."""
    verdict = check(function, cases, mistakes)
    return verdict, capsys.readouterr().out.splitlines()


def not_written(x):
    raise NotImplementedError


@pytest.mark.parametrize("stub", [lambda x: None, lambda x: ..., not_written])
def test_stub(capsys, stub):
    assert said(capsys, stub) == (False, ["○ Not attempted yet."])


def test_right(capsys):
    assert said(capsys, softmax) == (True, ["✓ two equal", "✓ three", "All right."])


def test_right_as_a_tensor_or_list(capsys):
    assert said(capsys, lambda x: torch.softmax(torch.tensor(x, requires_grad=False).double(), 0))[0]
    assert said(capsys, lambda x: list(softmax(x)))[0]
    assert said(capsys, lambda x: torch.tensor(softmax(x), requires_grad=True))[0]


def test_nearly_right_is_told_the_known_mistake(capsys):
    verdict, words = said(capsys, lambda x: [float(v) for v in np.exp(x)])
    assert not verdict
    assert words == ["✗ two equal", "✗ three", "Nearly: divide by the sum: the weights must add up to 1."]


def test_wrong_shows_the_first_case_with_both_answers(capsys):
    verdict, words = said(capsys, lambda x: np.full(len(x), 0.5))
    assert not verdict
    assert words[:2] == ["✓ two equal", "✗ three"]
    assert words[2] == "On “three” your answer was [0.5 0.5 0.5]; the right one is [0.090031 0.244728 0.665241]."


def test_wrong_shape(capsys):
    _, words = said(capsys, lambda x: softmax(x)[None])
    assert words[2] == "On “two equal” your answer has shape (1, 2); the right one has (2,)."


def test_raises(capsys):
    def broken(x):
        raise KeyError("weights")

    _, words = said(capsys, broken)
    assert words[2] == "On “two equal” your function raised KeyError: 'weights'"


def test_none_in_one_case_only(capsys):
    verdict, words = said(capsys, lambda x: softmax(x) if len(x) == 2 else None)
    assert not verdict
    assert words[2] == "On “three” your function returned None: is a `return` missing on some path?"


def test_nan_is_not_right(capsys):
    assert not said(capsys, lambda x: x * np.nan)[0]


def test_answer_that_changes_its_arguments_spoils_no_case(capsys):
    def in_place(x):
        x -= x.max()
        return softmax(x)

    floats = [Case("floats", (np.array([1.0, 2.0]),), softmax([1.0, 2.0]))]
    assert said(capsys, in_place, floats)[0]
    assert floats[0].args[0].tolist() == [1.0, 2.0]


def test_words_and_dictionaries(capsys):
    cases = [Case("count", (["a", "b", "a"],), {"a": 2, "b": 1})]
    assert said(capsys, lambda w: {x: w.count(x) for x in w}, cases, [])[0]
    assert said(capsys, lambda w: {"a": 1}, cases, [])[1][-1] == (
        "On “count” your answer was {'a': 1}; the right one is {'a': 2, 'b': 1}."
    )


def test_tuple_of_different_shapes(capsys):
    cases = [Case("two arrays", (3,), (np.eye(3), np.ones(3)))]
    assert said(capsys, lambda n: (np.eye(n), np.ones(n)), cases, [])[0]
    verdict, words = said(capsys, lambda n: (np.eye(1), np.zeros(n)), cases, [])
    assert not verdict
    assert words[1].startswith("On “two arrays” your answer was ([[1.]], [0. 0. 0.]); the right one is (")


def test_wrong_type_of_answer(capsys):
    verdict, words = said(capsys, lambda x: "softmax")
    assert not verdict
    assert words[2] == "On “two equal” your answer was softmax; the right one is [0.5 0.5]."


def test_text_is_no_number(capsys):
    assert not said(capsys, lambda x: "3", [Case("three", (0,), 3)], [])[0]


def test_checker_refuses_no_cases():
    with pytest.raises(ValueError, match="cases"):
        check(softmax, [])


@pytest.mark.parametrize(
    ("want", "shown"), [(4.0, "4"), (0.0, "0"), (np.float64(2.5), "2.5"), (torch.tensor(3.0), "3")]
)
def test_a_number_in_a_message_ends_in_one_full_stop(want, shown, capsys):
    check(lambda x: want + 1, [Case("a number", (1,), want)])
    said = capsys.readouterr().out
    assert f"the right one is {shown}." in said
    assert ".." not in said
