"""Scores against scikit-learn, sacrebleu, statsmodels and krippendorff, and by what they must do."""

import math

import krippendorff
import numpy as np
import pytest
import sacrebleu
import scipy.stats
import sklearn.metrics
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests

from llmbook.metrics import agreement, classification, contamination, ratings, significance, text

# --- classification ---------------------------------------------------------------------------------------

labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(labels)
def test_counts_and_scores_are_sklearns(pairs):
    true, said = map(list, zip(*pairs, strict=True))
    ours = classification.confusion_matrix(true, said, range(4))
    assert (ours == sklearn.metrics.confusion_matrix(true, said, labels=range(4))).all()
    p, r, f, _ = sklearn.metrics.precision_recall_fscore_support(true, said, labels=range(4), zero_division=0)
    scores = classification.class_scores(ours)
    assert np.allclose(scores, [p, r, f])
    for average, value in (("micro", classification.micro_f1(ours)), ("macro", classification.macro_f1(ours))):
        theirs = sklearn.metrics.f1_score(true, said, labels=range(4), average=average, zero_division=0)
        assert value == pytest.approx(theirs)
    some = sklearn.metrics.f1_score(true, said, labels=[0, 1], average="micro", zero_division=0)
    assert classification.micro_f1(ours, [0, 1]) == pytest.approx(some)
    assert classification.accuracy(ours) == pytest.approx(sklearn.metrics.accuracy_score(true, said))


@given(st.integers(1, 12), st.just(0.0) | st.floats(1e-12, 1))  # nearer to 0 scipy's binomial overflows
def test_pass_at_k_is_unbiased(n, p):
    c = np.arange(n + 1)
    chance = scipy.stats.binom.pmf(c, n, p)
    for k in range(1, n + 1):
        assert chance @ classification.pass_at_k(n, c, k) == pytest.approx(1 - (1 - p) ** k, abs=1e-9)


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_a_ratio_of_binomials(case):
    n, c, k = case
    assert classification.pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: classification.confusion_matrix([0], [0, 1], [0, 1]), "as many labels"),
        (lambda: classification.confusion_matrix([], [], [0]), "at least 1"),
        (lambda: classification.confusion_matrix([0], [2], [0, 1]), "classes must hold"),
        (lambda: classification.confusion_matrix([0], [0], [0, 0]), "differ"),
        (lambda: classification.accuracy([[1, 2]]), "confusion"),
        (lambda: classification.accuracy([[0, 0], [0, 0]]), "confusion"),
        (lambda: classification.pass_at_k(5, 6, 1), "between 0 and n"),
        (lambda: classification.pass_at_k(5, 1, 6), "at least k"),
        (lambda: classification.pass_at_k(5, 1, 0), "k must"),
        (lambda: classification.pass_at_k(5.0, 1, 1), "whole numbers"),
    ],
)
def test_classification_names_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- text -------------------------------------------------------------------------------------------------

sentences = st.lists(st.text("ab c,", min_size=0, max_size=20), min_size=1, max_size=4)


@given(sentences, sentences)
def test_chrf_is_sacrebleus(hypotheses, references):
    size = min(len(hypotheses), len(references))
    ours, theirs = hypotheses[:size], references[:size]
    wanted = sacrebleu.corpus_chrf(ours, [theirs]).score
    assert text.chrf(ours, theirs) == pytest.approx(wanted, abs=1e-6)


def test_chrf_refuses_what_does_not_match():
    with pytest.raises(ValueError, match="references must match"):
        text.chrf(["a"], [])
    with pytest.raises(ValueError, match="sequences of texts"):
        text.chrf("ab", "ab")


def test_bits_per_byte_does_not_depend_on_the_cut():
    """Two bytes at a time with the product of the probabilities: the same text costs the same."""
    logprobs = np.log([0.5, 0.25, 0.5, 0.125])
    joined = logprobs.reshape(2, 2).sum(1)
    assert text.bits_per_byte(logprobs, "abcd") == pytest.approx((1 + 2 + 1 + 3) / 4)
    assert text.bits_per_byte(joined, "abcd") == pytest.approx(text.bits_per_byte(logprobs, "abcd"))
    assert text.bits_per_byte(np.log([0.5]), "é") == pytest.approx(0.5)  # two bytes
    with pytest.raises(ValueError, match="at least one byte"):
        text.bits_per_byte(np.log([0.5]), "")


# --- ratings ----------------------------------------------------------------------------------------------


def some_games(count=300, players=4, seed=0):
    rng = np.random.default_rng(seed)
    strength = np.arange(players) * 0.6
    games = []
    for _ in range(count):
        i, j = rng.choice(players, 2, replace=False)
        games.append((int(i), int(j), float(rng.random() < 1 / (1 + math.exp(strength[j] - strength[i])))))
    return games


def test_bradley_terry_is_logistic_regression():
    games = some_games()
    rows, results = np.zeros((len(games), 4)), np.array([r for _, _, r in games])
    for row, (i, j, _) in zip(rows, games, strict=True):
        row[i], row[j] = 1, -1
    ours = ratings.bradley_terry(ratings.wins_of(games, 4))
    theirs = sm.Logit(results, rows[:, 1:]).fit(disp=0).params  # the first player's strength is 0
    assert np.allclose(ours - ours[0], [0, *theirs], atol=1e-6)
    sk = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000).fit(rows, results).coef_[0]
    assert np.allclose(ours, sk - sk.mean(), atol=1e-4)


def test_elo_is_a_gradient_step_of_bradley_terrys_likelihood():
    k, rating = 16.0, np.array([1000.0, 1100.0])
    one = ratings.elo([(0, 1, 1.0)], 2, k=k, start=1000)
    assert one == pytest.approx([1008, 992])
    h = 1e-4  # d/dr ln P = (1 − P) / SCALE
    p = lambda d: math.log(float(ratings.win_probability(rating[0] + d, rating[1])))  # noqa: E731
    slope = (p(h) - p(-h)) / (2 * h)
    expected = float(ratings.win_probability(*rating))
    assert k * (1 - expected) == pytest.approx(k * ratings.SCALE * slope, rel=1e-6)


def test_order_matters_to_elo_only():
    games = some_games()
    assert ratings.wins_of(games, 4) == pytest.approx(ratings.wins_of(games[::-1], 4))
    assert np.abs(ratings.elo(games, 4) - ratings.elo(games[::-1], 4)).max() > 1
    assert ratings.elo(games, 4).sum() == pytest.approx(4000)


def test_a_draw_is_half_a_win():
    assert ratings.wins_of([(0, 1, 0.5)], 2) == pytest.approx(np.array([[0, 0.5], [0.5, 0]]))
    assert ratings.to_elo(ratings.bradley_terry([[0, 3], [1, 0]])) == pytest.approx(
        1000 + np.array([1, -1]) * 200 * math.log10(3)
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ratings.bradley_terry([[0, 3], [0, 0]]), "connect"),
        (lambda: ratings.bradley_terry([[1, 3], [1, 0]]), "diagonal"),
        (lambda: ratings.elo([(0, 0, 1.0)], 2), "games must"),
        (lambda: ratings.elo([(0, 1, 1.0)], 2, k=0), "k must"),
        (lambda: ratings.wins_of([(0, 5, 1.0)], 2), "games must"),
    ],
)
def test_ratings_name_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- significance -----------------------------------------------------------------------------------------

results = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(results)
def test_mcnemar_is_statsmodels(pairs):
    a, b = (np.array(x, dtype=int) for x in zip(*pairs, strict=True))
    ours = significance.mcnemar(a, b)
    table = [[(a & b).sum(), ours.only_a], [ours.only_b, ((1 - a) & (1 - b)).sum()]]
    assert ours.p == pytest.approx(their_mcnemar(table, exact=True).pvalue)


def test_two_proportions_is_statsmodels():
    a, b = np.repeat([1, 0], [40, 20]), np.repeat([1, 0], [30, 30])
    _, p = sm.stats.proportions_ztest([40, 30], [60, 60])
    assert significance.two_proportions(a, b) == pytest.approx(p)


def test_paired_test_is_scipys_and_clustering_averages_groups():
    rng = np.random.default_rng(0)
    a, b = rng.random(60), rng.random(60)
    plain = significance.paired_test(a, b)
    theirs = scipy.stats.ttest_rel(a, b)
    assert plain.p == pytest.approx(theirs.pvalue)
    assert (plain.low, plain.high) == pytest.approx(tuple(theirs.confidence_interval()))
    groups = np.repeat(np.arange(20), 3)
    clustered = significance.paired_test(a, b, groups)
    means = scipy.stats.ttest_1samp((a - b).reshape(20, 3).mean(1), 0)  # equal groups: a test of their means
    assert clustered.p == pytest.approx(means.pvalue)


def test_clustered_error_is_statsmodels():
    rng = np.random.default_rng(1)
    d, groups = rng.random(60), np.sort(rng.integers(0, 12, 60))
    fit = sm.OLS(d, np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": groups, "df_correction": True})
    g = len(np.unique(groups))
    ours = significance.paired_test(d, np.zeros(60), groups).se
    assert ours == pytest.approx(float(fit.bse[0]) / math.sqrt(59 / 59), rel=1e-9)
    assert g < 60


def test_bootstrap_resembles_the_clustered_test():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(100), 4)
    d = np.repeat(rng.normal(size=100), 4) + 0.1
    low, high = significance.paired_bootstrap(d, np.zeros(400), rng=rng, groups=groups)
    test = significance.paired_test(d, np.zeros(400), groups)
    assert (low, high) == pytest.approx((test.low, test.high), abs=0.05)
    alone = significance.paired_bootstrap(d, np.zeros(400), rng=rng)
    assert (high - low) / (alone[1] - alone[0]) == pytest.approx(2, rel=0.15)  # four copies: half the error


def test_items_needed_give_the_power_they_promise():
    n = significance.items_needed(0.05, 0.15)
    rng = np.random.default_rng(3)
    only = rng.multinomial(n, [0.10, 0.05, 0.85], size=4000)
    p = scipy.stats.norm.sf(np.abs(only[:, 0] - only[:, 1]) / np.sqrt(only[:, 0] + only[:, 1])) * 2
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.03)
    assert significance.power_of(n, 0.05, math.sqrt(0.15 - 0.05**2)) == pytest.approx(0.8, abs=0.01)


def test_power_without_a_difference_is_alpha():
    assert significance.power_of([10, 1000], 0.0, 0.5) == pytest.approx([0.05, 0.05])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_is_statsmodels(p):
    assert np.allclose(significance.benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: significance.mcnemar([0, 1], [0]), "two non-empty"),
        (lambda: significance.mcnemar([0, 2], [0, 1]), "0 and 1 only"),
        (lambda: significance.paired_test([0.0, 1.0], [0.0]), "shape of a"),
        (lambda: significance.paired_test([0.0, 1.0], [0.0, 1.0], confidence=1.0), "confidence"),
        (lambda: significance.paired_bootstrap([0.0], [], rng=np.random.default_rng()), "two non-empty"),
        (lambda: significance.items_needed(0.2, 0.1), "discordant"),
        (lambda: significance.items_needed(0.1, 0.2, power=1.0), "power"),
        (lambda: significance.power_of(10, 0.1, 0.0), "error_of_one"),
        (lambda: significance.benjamini_hochberg([1.5]), "p_values"),
    ],
)
def test_significance_names_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- agreement --------------------------------------------------------------------------------------------

ratings_tables = st.integers(2, 5).flatmap(
    lambda raters: st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, 5.0, math.nan]), min_size=raters, max_size=raters),
        min_size=2, max_size=12,
    )
)  # fmt: skip


@settings(deadline=None)
@given(ratings_tables, st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_is_the_librarys(rows, level):
    table = np.array(rows).T
    counted = (~np.isnan(table)).sum(0) >= 2
    used = table[:, counted]
    if len(np.unique(used[~np.isnan(used)])) < 2:
        return  # the library refuses tables of one value
    ours = agreement.krippendorff_alpha(table, level)
    pruned = np.where(counted, table, np.nan)
    assert ours == pytest.approx(krippendorff.alpha(pruned, level_of_measurement=level), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=40))
def test_kappa_is_sklearns(pairs):
    a, b = map(np.array, zip(*pairs, strict=True))
    ours = agreement.cohen_kappa(a, b)
    if len(set(a) | set(b)) > 1:
        assert ours == pytest.approx(sklearn.metrics.cohen_kappa_score(a, b))
    else:
        assert ours == 1.0


def test_alpha_of_two_raters_is_kappa_when_items_are_many():
    """Scott's expectation in the place of Cohen's, and a correction that vanishes: near each other."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 20_000)
    a, b = (np.where(rng.random(20_000) < 0.8, truth, 1 - truth) for _ in range(2))
    assert agreement.krippendorff_alpha(np.stack([a, b])) == pytest.approx(agreement.cohen_kappa(a, b), abs=1e-3)
    assert agreement.cohen_kappa(a, b) == pytest.approx(agreement.expected_alpha(0.8, [0.5, 0.5]), abs=0.02)


def test_alpha_is_one_for_agreement_and_zero_for_dice():
    assert agreement.krippendorff_alpha([[0, 1, 2], [0, 1, 2]]) == 1
    assert agreement.krippendorff_alpha([[1, 1], [1, 1]]) == 1
    dice = np.random.default_rng(0).integers(0, 3, (3, 5000))
    assert agreement.krippendorff_alpha(dice) == pytest.approx(0, abs=0.02)
    low, high = agreement.alpha_interval(dice[:, :300], np.random.default_rng(1))
    assert low < 0 < high


def test_expected_alpha_is_what_many_raters_reach():
    rng = np.random.default_rng(4)
    truth = rng.choice(3, 40_000, p=[0.6, 0.3, 0.1])
    table = [np.where(rng.random(truth.size) < 0.75, truth, (truth + rng.integers(1, 3, truth.size)) % 3)
             for _ in range(3)]  # fmt: skip
    want = agreement.expected_alpha(0.75, [0.6, 0.3, 0.1])
    assert agreement.krippendorff_alpha(np.array(table)) == pytest.approx(want, abs=0.01)


def test_a_panel_is_condorcets():
    rng = np.random.default_rng(5)
    votes = rng.random((5, 40_000)) < 0.7
    assert (votes.sum(0) >= 3).mean() == pytest.approx(agreement.panel_accuracy(0.7, 5), abs=0.01)
    assert agreement.panel_accuracy(0.7, 1) == pytest.approx(0.7)
    assert agreement.panel_accuracy(0.7, 999, shared=0.1) == pytest.approx(0.9)
    n = agreement.raters_needed(0.7, 0.9)
    assert agreement.panel_accuracy(0.7, n) >= 0.9 > agreement.panel_accuracy(0.7, n - 2)


def test_majority_counts_votes_and_breaks_ties_by_the_die():
    table = np.array([[0, 1, 2, 0], [0, 1, 0, 1], [0, math.nan, 2, math.nan]])
    winners = [agreement.majority(table, np.random.default_rng(s)) for s in range(40)]
    assert all((w[:3] == [0, 1, 2]).all() for w in winners)
    assert {w[3] for w in winners} == {0.0, 1.0}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: agreement.cohen_kappa([1], []), "two non-empty"),
        (lambda: agreement.krippendorff_alpha([[1, 2]], "ratio"), "level"),
        (lambda: agreement.krippendorff_alpha([[1.0, 2.0]]), "at least two labels"),
        (lambda: agreement.krippendorff_alpha([1.0, 2.0]), "raters, items"),
        (lambda: agreement.panel_accuracy(0.7, 2), "odd"),
        (lambda: agreement.panel_accuracy(0.95, 3, shared=0.2), "shared"),
        (lambda: agreement.raters_needed(0.5, 0.9), "accuracy"),
        (lambda: agreement.raters_needed(0.501, 0.9999, most=3), "wanted"),
        (lambda: agreement.expected_alpha(0.7, [0.5]), "rates"),
        (lambda: agreement.majority([[math.nan]], np.random.default_rng()), "label for each item"),
    ],
)
def test_agreement_names_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- contamination ----------------------------------------------------------------------------------------


def test_overlap_counts_runs():
    index = contamination.ngram_index([list("abcdef")], 3)
    assert contamination.overlap(list("abcdef"), index, 3) == 1
    assert contamination.overlap(list("xabcx"), index, 3) == pytest.approx(1 / 3)
    assert contamination.overlap(list("ab"), index, 3) == 0
    with pytest.raises(ValueError, match="n must"):
        contamination.ngram_index([], 0)


def test_below_floor_finds_knowledge_and_clears_the_honest():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 20)
    truth = np.log(rng.uniform(0.2, 1, 600))
    assert contamination.below_floor(truth * 0.5, truth, groups).p < 1e-6
    assert contamination.below_floor(truth - 0.1, truth, groups).p > 0.99
    assert contamination.below_floor(truth, truth, groups).p == 1  # exactly the truth: no gap, no error
    with pytest.raises(ValueError, match="true_logprobs"):
        contamination.below_floor([0.0], [0.0, 0.0], [0])


def test_below_twin_is_welchs_one_sided_test():
    rng = np.random.default_rng(1)
    test, twin = rng.normal(1.0, 0.2, 200), rng.normal(1.1, 0.3, 300)
    ours = contamination.below_twin(test, twin)
    theirs = scipy.stats.ttest_ind(test, twin, equal_var=False, alternative="less")
    assert ours.gap / ours.se == pytest.approx(-theirs.statistic)
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-3)
    assert contamination.text_means([1.0, 2.0, 6.0], [0, 0, 1]) == pytest.approx([1.5, 6.0])
