"""Chapter 23's checker tells a right, a nearly right and a wrong answer apart, in words."""

import numpy as np
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch23 import check_integrated


def by_rule(shift, factor, share=1.0):
    """Integrated gradients with a choice of where slopes are taken and what they are multiplied by."""

    def function(gradient, x, baseline, steps):
        slopes = [gradient(baseline + (k + shift) / steps * (x - baseline)) for k in range(steps)]
        return np.mean(slopes, axis=0) * factor(x, baseline) * (steps if share != 1.0 else 1)

    return function


def test_integrated(capsys):
    way = lambda x, baseline: x - baseline  # noqa: E731
    assert_not_attempted(check_integrated, capsys)
    assert_right(check_integrated, by_rule(0.5, way), capsys)
    assert_nearly(check_integrated, by_rule(0.0, lambda x, b: 1.0), "two things", capsys)
    assert_nearly(check_integrated, by_rule(0.0, way), "beginning of each step", capsys)
    assert_nearly(check_integrated, by_rule(1.0, way), "end of each step", capsys)
    assert_nearly(check_integrated, by_rule(0.5, lambda x, b: 1.0), "mean slope; multiply", capsys)
    assert_nearly(check_integrated, by_rule(0.5, lambda x, b: x), "multiplied by x", capsys)
    assert_nearly(check_integrated, by_rule(0.5, way, 0.0), "divide by steps", capsys)
    assert_nearly(check_integrated, lambda g, x, b, n: g(x) * (x - b), "nothing is integrated", capsys)
    assert_wrong(check_integrated, lambda g, x, b, n: x * 0 + 1, capsys)
