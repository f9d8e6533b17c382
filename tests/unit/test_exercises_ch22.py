"""Chapter 22's checkers tell right, nearly right and wrong answers apart, in words."""

import math

import numpy as np
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch22 import check_ece, check_threshold
from llmbook.uncertainty import calibration_error, conformal_quantile


def ece(confidence, correct, bins):
    return calibration_error(confidence, correct, bins, equal_mass=False)


def test_ece(capsys):
    assert_not_attempted(check_ece, capsys)
    assert_right(check_ece, ece, capsys)
    assert_nearly(check_ece, lambda c, y, b: _by_bins(c, y, b, np.mean), "counts by its share", capsys)
    assert_nearly(check_ece, lambda c, y, b: abs(np.mean(c) - np.mean(y)), "opposite sign cancel", capsys)
    assert_wrong(check_ece, lambda c, y, b: 0.5, capsys)


def _by_bins(c, y, bins, combine):
    c, y = np.array(c), np.array(y)
    where = np.minimum((c * bins).astype(int), bins - 1)
    return combine([abs(y[where == b].mean() - c[where == b].mean()) for b in set(where)])


def test_threshold(capsys):
    assert_not_attempted(check_threshold, capsys)
    assert_right(check_threshold, conformal_quantile, capsys)
    assert_nearly(check_threshold, lambda s, a: sorted(s)[math.ceil(len(s) * (1 - a) - 1e-9) - 1], "n + 1", capsys)
    assert_nearly(check_threshold, lambda s, a: min(conformal_quantile(s, a), max(s)), "math.inf", capsys)
    assert_nearly(check_threshold, lambda s, a: np.quantile(s, 1 - a), "interpolates", capsys)
    assert_nearly(check_threshold, lambda s, a: conformal_quantile(s, 1 - a), "of 1 − α", capsys)
    assert_wrong(check_threshold, lambda s, a: 0.0, capsys)
