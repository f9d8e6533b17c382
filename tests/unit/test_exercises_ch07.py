"""Chapter 07's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch07 import check_shares, check_training_bytes


@pytest.mark.parametrize("checker", [check_shares, check_training_bytes])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def shares(counts):
    total = sum(counts)
    return [count / total if count > 0 else None for count in counts]


def test_right_shares(capsys):
    assert_right(check_shares, shares, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda counts: [1 / len(counts) for _ in counts], "equal shares"),
        (lambda counts: [None if n == 0 else 1 / sum(m > 0 for m in counts) for n in counts], "that have labels"),
        (lambda counts: [1 for _ in counts], "twice too large"),
        (lambda counts: [None if n == 0 else n for n in counts], "not their mean"),
        (lambda counts: [n / sum(counts) for n in counts], "zero times NaN"),
        (lambda counts: [None if n == 0 else sum(counts) / n for n in counts], "upside down"),
    ],
)
def test_nearly_right_shares(answer, hint, capsys):
    assert_nearly(check_shares, answer, hint, capsys)


def test_wrong_shares(capsys):
    assert_wrong(check_shares, lambda counts: [n / max(counts) if n else None for n in counts], capsys)


def test_training_bytes(capsys):
    assert check_training_bytes(lambda n, size: n * size * 4)
    assert_nearly(check_training_bytes, lambda n, size: n * size, "weights alone", capsys)
    assert_nearly(check_training_bytes, lambda n, size: 3 * n * size, "two* means", capsys)
    assert_nearly(check_training_bytes, lambda n, size: 4 * n, "not bytes", capsys)
    assert_wrong(check_training_bytes, lambda n, size: n, capsys)
