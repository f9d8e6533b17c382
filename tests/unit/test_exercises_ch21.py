"""Chapter 21's checker tells a right, a nearly right and a wrong answer apart, in words."""

import math

from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch21 import check_pass_at
from llmbook.metrics.classification import pass_at_k


def test_pass_at(capsys):
    assert_not_attempted(check_pass_at, capsys)
    assert_right(check_pass_at, pass_at_k, capsys)
    assert_nearly(check_pass_at, lambda n, c, k: 1 - (1 - c / n) ** k, "with replacement", capsys)
    assert_nearly(check_pass_at, lambda n, c, k: math.comb(n - c, k) / math.comb(n, k), "all k fail", capsys)
    assert_nearly(check_pass_at, lambda n, c, k: math.comb(c, k) / math.comb(n, k), "one is enough", capsys)
    assert_nearly(check_pass_at, lambda n, c, k: c / n, "whatever k is", capsys)
    words = assert_wrong(check_pass_at, lambda n, c, k: 0.5, capsys)
    assert "three of ten" in words
