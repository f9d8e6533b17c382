"""Losses, units and their errors, against scipy, scikit-learn and plain simulation."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from llmbook.evaluation import (
    bits_to_nats,
    bootstrap_interval,
    cross_entropy,
    holm,
    mean_and_error,
    nats_to_bits,
    paired_difference,
    paired_excess,
    perplexity,
)

logprobs = hnp.arrays(float, st.integers(1, 30), elements=st.floats(-20, 0))


def test_cross_entropy_is_sklearns_log_loss():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(5), size=40)
    labels = rng.integers(5, size=40)
    ours = cross_entropy(np.log(probabilities[np.arange(40), labels]))
    assert ours == pytest.approx(sklearn.metrics.log_loss(labels, probabilities, labels=range(5)), rel=1e-12)


def test_cross_entropy_of_the_truth_is_its_entropy():
    p = np.array([0.5, 0.25, 0.25])
    text = np.repeat(np.arange(3), [2, 1, 1])  # each token as often as its probability says
    assert cross_entropy(np.log(p[text])) == pytest.approx(scipy.stats.entropy(p), rel=1e-12)


@given(st.integers(1, 1000))
def test_perplexity_of_a_uniform_choice_is_the_number_of_choices(size):
    assert perplexity(np.full(7, -math.log(size))) == pytest.approx(size)


@given(logprobs)
def test_units_round_trip_and_perplexity_does_not_depend_on_them(values):
    nats = cross_entropy(values)
    assert bits_to_nats(nats_to_bits(nats)) == pytest.approx(nats)
    assert 2 ** nats_to_bits(nats) == pytest.approx(perplexity(values))


def test_a_perplexity_that_no_float_holds_is_infinite():
    assert perplexity([-709.0]) < math.inf
    assert perplexity([-800.0]) == perplexity([-math.inf]) == math.inf


def test_units_of_arrays():
    assert nats_to_bits([math.log(2), math.log(8)]) == pytest.approx([1, 3])
    assert isinstance(nats_to_bits(1.0), float)


def test_an_impossible_token_costs_infinitely_much():
    assert cross_entropy([-1.0, -math.inf]) == math.inf
    assert perplexity([-1.0, -math.inf]) == math.inf
    assert paired_excess([-1.0, -math.inf], [-1.0, -1.0]) == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], r"non-empty \(N,\) array"),
        ([[-1.0]], r"got shape \(1, 1\)"),
        ([-1.0, math.nan], "must not hold NaN, got 1"),
        ([0.3], "at most 0, got 0.3"),
    ],
)
def test_log_probabilities_that_are_none(values, words):
    for function in (cross_entropy, perplexity):
        with pytest.raises(ValueError, match=words):
            function(values)
    with pytest.raises(ValueError, match=words):
        paired_excess(values, [-1.0])


def test_paired_excess_estimates_the_divergence_with_a_smaller_error_than_the_loss():
    rng = np.random.default_rng(0)
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.58, 0.31, 0.11])
    text = rng.choice(3, p=p, size=20_000)
    excess = paired_excess(np.log(q[text]), np.log(p[text]))
    assert abs(excess.mean - scipy.stats.entropy(p, q)) < 3 * excess.se
    assert excess.se < mean_and_error(np.log(q[text])).se / 3


def test_paired_excess_wants_equal_lengths_and_a_possible_text():
    with pytest.raises(ValueError, match=r"true_logprobs must match model_logprobs \(2,\), got \(1,\)"):
        paired_excess([-1.0, -2.0], [-1.0])
    with pytest.raises(ValueError, match="true_logprobs must be finite"):
        paired_excess([-1.0, -2.0], [-1.0, -math.inf])


@given(hnp.arrays(float, st.integers(2, 30), elements=st.floats(-100, 100)))
def test_the_standard_error_is_scipys(values):
    estimate = mean_and_error(values)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.se == pytest.approx(scipy.stats.sem(values), abs=1e-9)


def test_the_clustered_error_covers_where_the_plain_one_does_not():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 20)
    hits = {"plain": 0, "clustered": 0}
    for _ in range(300):
        values = rng.normal(size=50)[groups] + rng.normal(size=1000)  # a shared part for each group; mean 0
        for name, labels in (("plain", None), ("clustered", groups)):
            mean, se = mean_and_error(values, labels)
            hits[name] += abs(mean) < 1.96 * se
    assert hits["clustered"] / 300 > 0.9
    assert hits["plain"] / 300 < 0.6


@pytest.mark.parametrize(
    ("values", "groups", "words"),
    [
        ([], None, "non-empty"),
        ([1.0, math.nan], None, "without NaN"),
        ([1.0], None, "at least 2 groups"),
        ([1.0, 2.0], [0, 0], "at least 2 groups"),
        ([1.0, 2.0], [0], r"groups must have shape \(2,\)"),
    ],
)
def test_no_standard_error_without_data(values, groups, words):
    with pytest.raises(ValueError, match=words):
        mean_and_error(values, groups)


def test_the_bootstrap_interval_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(size=80)
    ours = bootstrap_interval(values, np.median, rng=np.random.default_rng(1), resamples=4000)
    theirs = scipy.stats.bootstrap(
        (values,), np.median, method="percentile", rng=np.random.default_rng(1), n_resamples=4000
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.05)


def test_the_bootstrap_interval_is_repeatable_and_widens_with_confidence():
    values = np.arange(20.0)
    narrow, wide = (bootstrap_interval(values, rng=np.random.default_rng(0), confidence=level) for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]
    assert narrow == bootstrap_interval(values, rng=np.random.default_rng(0), confidence=0.5)


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ([], {}, "non-empty"),
        ([math.nan], {}, "without NaN"),
        ([1.0], {"confidence": 1.0}, "confidence must lie between 0 and 1, got 1.0"),
        ([1.0], {"resamples": 0}, "resamples must be a whole number of at least 1, got 0"),
        ([1.0], {"resamples": 2.5}, "resamples must be a whole number of at least 1, got 2"),
    ],
)
def test_bootstrap_bad_input(values, options, words):
    with pytest.raises(ValueError, match=words):
        bootstrap_interval(values, rng=np.random.default_rng(0), **options)


def test_the_paired_difference_is_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.3, 1, 5), rng.normal(0, 1, 5)
    found, wanted = paired_difference(x, y, 0.9), scipy.stats.ttest_rel(x, y)
    low, high = wanted.confidence_interval(0.9)
    assert found.mean == pytest.approx((x - y).mean())
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))


def test_three_seeds_cost_a_factor_of_four():
    assert paired_difference([1, 2, 3], [0, 0, 0]).half_width == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)


def test_a_difference_without_spread():
    assert paired_difference([1, 2], [0, 1]) == (1.0, 0.0, 0.0)
    assert paired_difference([1, 2], [1, 2]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("values", "baseline"), [([1], [2]), ([1, 2], [1, 2, 3]), ([[1, 2]], [[1, 2]]), ([1, math.nan], [1, 2])]
)
def test_pairs_that_are_none(values, baseline):
    with pytest.raises(ValueError, match="values and baseline"):
        paired_difference(values, baseline)


def test_holm_on_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    with pytest.raises(ValueError, match="p_values"):
        holm([0.2, 1.2])


@given(hnp.arrays(float, st.integers(1, 12), elements=st.floats(0, 1)))
def test_holm_lies_between_no_correction_and_bonferronis(p):
    adjusted = holm(p)
    assert (adjusted >= p - 1e-12).all()
    assert (adjusted <= np.minimum(1, p.size * p) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
