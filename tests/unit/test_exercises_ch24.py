"""Chapter 24's checker tells a right, a nearly right and a wrong answer apart, in words."""

from itertools import combinations

import numpy as np
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong
from scipy import stats

from llmbook.exercises.ch24 import check_p


def differences(x, y, sizes=None):
    both = [*x, *y]
    return [2 * sum(h) - sum(both) for n in sizes or [len(x)] for h in combinations(both, n)], sum(x) - sum(y)


def by_scipy(x, y):
    test = stats.permutation_test(
        (x, y), lambda u, v, axis: u.sum(axis) - v.sum(axis), alternative="two-sided", n_resamples=np.inf
    )
    return test.pvalue


def share(hits):
    return sum(hits) / len(hits)


def answer(compare, sizes=None):
    def function(x, y):
        splits, real = differences(x, y, sizes and range(len(x) * 2 + 1))
        return share([compare(s, real) for s in splits])

    return function


def test_p(capsys):
    assert_not_attempted(check_p, capsys)
    assert_right(check_p, by_scipy, capsys)
    assert_nearly(check_p, answer(lambda s, real: abs(s) > abs(real)), "count it", capsys)
    assert_nearly(check_p, answer(lambda s, real: abs(s) > abs(real) + 1e-9), "count it", capsys)
    assert_nearly(check_p, answer(lambda s, real: s >= real - 1e-9), "two-sided", capsys)
    assert_nearly(check_p, answer(lambda s, real: s > real), "two-sided", capsys)
    assert_nearly(check_p, lambda x, y: 2 * answer(lambda s, real: s >= real - 1e-9)(x, y), "twice", capsys)
    assert_nearly(check_p, answer(lambda s, real: abs(s) >= abs(real) - 1e-9, True), "equal size", capsys)
    assert_nearly(check_p, answer(lambda s, real: abs(s) >= abs(real)), "slack", capsys)
    assert_wrong(check_p, lambda x, y: 0.5, capsys)
