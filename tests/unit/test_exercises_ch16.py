"""Chapter 16's checker tells a right, a nearly right and a wrong answer apart, in words."""

import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch16 import check_rouge1


def test_a_stub_is_not_attempted(capsys):
    assert_not_attempted(check_rouge1, capsys)


def shared(a, b):
    """Word by word, each taken out of the reference once."""
    left = list(b)
    return sum(left.remove(word) is None for word in a if word in left)


def test_right(capsys):
    assert_right(check_rouge1, lambda a, b: 2 * shared(a, b) / (len(a) + len(b)) if a or b else 0.0, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda a, b: 2 * sum(w in b for w in a) / max(1, len(a) + len(b)), "minimum of both counts"),
        (lambda a, b: 2 * len(set(a) & set(b)) / max(1, len(a) + len(b)), "how often"),
        (lambda a, b: shared(a, b) / max(1, len(b)), "the recall"),
        (lambda a, b: shared(a, b) / max(1, len(a)), "the precision"),
        (lambda a, b: shared(a, b) / max(1, len(a) + len(b)), "2m"),
    ],
)
def test_nearly_right(answer, hint, capsys):
    assert_nearly(check_rouge1, answer, hint, capsys)


def test_wrong(capsys):
    assert_wrong(check_rouge1, lambda a, b: 1.0, capsys)
