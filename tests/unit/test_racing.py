"""The benchmarks' verdicts: what the rounds allow to say, and no more."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from racing import Ratio, compare, in_turn


def test_the_median_round_counts_and_the_outermost_bound_it():
    ratio = compare([2.0, 3.0, 90.0, 2.2, 2.4], [1.0] * 5)
    assert (ratio.median, ratio.low, ratio.high) == (2.4, 2.0, 90.0)
    assert str(compare([3.0], [2.0])) == "1.50 (1.50 to 1.50)"


def test_a_verdict_needs_the_whole_interval_on_one_side():
    ratio = Ratio(median=1.4, low=1.2, high=1.6)
    assert [ratio.verdict(at_most) for at_most in (1.7, 1.6, 1.5, 1.2, 1.1)] == [
        "met",
        "met",
        "not decided",
        "not decided",
        "missed",
    ]


def test_a_least_is_judged_like_a_most():
    ratio = Ratio(median=1.4, low=1.2, high=1.6)
    said = [ratio.verdict(at_least=at_least) for at_least in (1.1, 1.2, 1.3, 1.6, 1.7)]
    assert said == ["met", "met", "not decided", "not decided", "missed"]


@pytest.mark.parametrize("rounds", [6, 9, 12, 25])
def test_the_interval_holds_the_true_median_in_nineteen_cases_of_twenty(rounds):
    rng = random.Random(rounds)
    held = 0
    for _ in range(2000):
        times = [rng.lognormvariate(0, 1) for _ in range(rounds)]  # a median of 1, and a long tail
        ratio = compare(times, [1.0] * rounds)
        held += ratio.low <= 1 <= ratio.high
    assert held / 2000 >= 0.935


def test_more_rounds_narrow_the_interval():
    rng = random.Random(0)
    times = [rng.lognormvariate(0, 0.3) for _ in range(60)]
    few, many = (compare(times[:n], [1.0] * n) for n in (8, 60))
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_rounds_alternate_their_order():
    assert [in_turn("ab", n) for n in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [([], [], "at least 1"), ([1.0], [1.0, 2.0], "equally many"), ([0.0, 1.0], [1.0, 1.0], "above 0")],
)
def test_rounds_that_cannot_be_compared_are_refused(ours, theirs, says):
    with pytest.raises(ValueError, match=says):
        compare(ours, theirs)
