"""Bias and fairness: each measure against its definition, and against scipy's, fairlearn's and transformers'."""

import itertools
import math

import numpy as np
import pytest
import torch
from fairlearn import metrics
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmbook import fairness
from llmbook.toyworld import ToyWorld

shares = st.floats(0.001, 0.999)
temperatures = st.floats(0.1, 5)


# ------------------------------------------------------------ shares


@given(shares, temperatures, st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_a_tempered_share_is_that_of_the_tempered_distribution(share, temperature, words):
    logits = torch.tensor([share / words[0]] * words[0] + [(1 - share) / words[1]] * words[1], dtype=torch.float64)
    tempered = (logits.log() / temperature).softmax(-1)
    assert fairness.tempered_share(share, temperature, words) == pytest.approx(float(tempered[: words[0]].sum()))


def test_greedy_is_the_limit_and_may_reverse_a_majority():
    assert fairness.tempered_share(0.7, 0) == 1 == pytest.approx(fairness.tempered_share(0.7, 0.01))
    assert fairness.tempered_share(0.5, 0) == 0.5
    assert fairness.tempered_share(0.55, 0, (3, 2)) == 0  # 0.183 for each of three words, 0.225 for each of two
    assert fairness.tempered_share(1, 0.5) == 1
    assert fairness.tempered_share(0, 0) == 0


@pytest.mark.parametrize(
    ("arguments", "name"), [((1.2, 1), "share"), ((0.5, -1), "temperature"), ((0.5, 1, (0, 1)), "words")]
)
def test_what_cannot_be_tempered_is_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        fairness.tempered_share(*arguments)


@given(shares, shares)
def test_the_price_is_a_divergence(p, q):
    assert fairness.price(p, q) == pytest.approx(stats.entropy([p, 1 - p], [q, 1 - q]), abs=1e-12)
    assert fairness.price(1, 0.5) == pytest.approx(math.log(2))
    assert fairness.price(0.5, 1) == math.inf


def test_balanced_groups_share_equally_and_leave_the_rest():
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    before = logits.softmax(-1)
    after = fairness.BalanceGroups([[0, 1], [4]])(logits).exp()
    assert torch.allclose(after.sum(-1), torch.ones(4))
    assert torch.allclose(after[:, [0, 1]].sum(-1), after[:, 4])
    assert torch.allclose(after[:, [2, 3, 5, 6]], before[:, [2, 3, 5, 6]])
    assert torch.allclose(after[:, 0] / after[:, 1], before[:, 0] / before[:, 1])
    settled = torch.tensor([0.7, 0.0, 0.3]).log()
    assert torch.equal(fairness.BalanceGroups([[0], [1]])(settled), settled.log_softmax(-1))
    with pytest.raises(ValueError, match="overlap"):
        fairness.BalanceGroups([[0, 1], [1]])
    with pytest.raises(ValueError, match="groups"):
        fairness.BalanceGroups([[0]])


# ------------------------------------------------------------ WEAT


def vectors(seed, n=4):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, 6)) for _ in range(4)]


def by_definition(x, y, a, b):
    """The paper's formulas, word by word."""

    def cos(u, v):
        return u @ v / np.linalg.norm(u) / np.linalg.norm(v)

    def s(w):
        return np.mean([cos(w, v) for v in a]) - np.mean([cos(w, v) for v in b])

    def test(first, second):
        return sum(map(s, first)) - sum(map(s, second))

    both = [*x, *y]
    halves = [set(c) for c in itertools.combinations(range(len(both)), len(x))]
    sums = [test([both[i] for i in h], [both[i] for i in range(len(both)) if i not in h]) for h in halves]
    effect = (np.mean(list(map(s, x))) - np.mean(list(map(s, y)))) / np.std(list(map(s, both)))
    return test(x, y), effect, np.mean([t > test(x, y) + 1e-9 for t in sums])


@pytest.mark.parametrize("seed", range(5))
def test_weat_is_the_papers_definition(seed):
    x, y, a, b = vectors(seed)
    found = fairness.weat(x, y, a, b)
    assert (found.statistic, found.effect, found.p_paper) == pytest.approx(by_definition(x, y, a, b))
    assert found.splits == 70


@pytest.mark.parametrize("seed", range(3))
def test_its_p_value_is_scipys_exact_one(seed):
    x, y, a, b = vectors(seed, 5)
    s, t = fairness.associations(x, a, b), fairness.associations(y, a, b)
    theirs = stats.permutation_test(
        (s, t), lambda u, v, axis: u.sum(axis) - v.sum(axis), alternative="greater", n_resamples=np.inf, vectorized=True
    )
    assert fairness.weat(x, y, a, b).p == pytest.approx(theirs.pvalue)


def test_the_most_extreme_split():
    x, a = np.tile([1.0, 0], (4, 1)), np.array([[1.0, 0]])
    found = fairness.weat(x, -x, a, -a)
    assert found.effect == pytest.approx(2)  # no larger one is possible
    assert found.p == pytest.approx(1 / 70)
    assert found.p_paper == 0


def test_random_splits_come_near_the_exact_p():
    x, y, a, b = vectors(7, 5)
    some = fairness.weat(x, y, a, b, most_splits=200, rng=np.random.default_rng(0))
    assert some.splits == 200
    assert abs(some.p - fairness.weat(x, y, a, b).p) < 0.1
    with pytest.raises(ValueError, match="rng"):
        fairness.weat(x, y, a, b, most_splits=200)


def test_exchanging_the_sets_turns_the_sign():
    x, y, a, b = vectors(3)
    one, other = fairness.weat(x, y, a, b), fairness.weat(y, x, a, b)
    assert one.effect == pytest.approx(-other.effect)
    assert fairness.weat(x, y, b, a).effect == pytest.approx(-one.effect)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, a, b: (x[:3], y, a, b), "equally many"),
        (lambda x, y, a, b: (0 * x, y, a, b), "length 0"),
        (lambda x, y, a, b: (x, y, a[:, :5], b), "width"),
        (lambda x, y, a, b: (x, y, a, a), "differ"),
        (lambda x, y, a, b: (x[0], y, a, b), "words must be"),
    ],
)
def test_weat_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        fairness.weat(*change(*vectors(0)))


def test_a_planted_direction_is_found_and_removed():
    rng = np.random.default_rng(0)
    middle, planted = rng.normal(size=(6, 5)), np.array([0, 0, 3.0, 0, 0])
    noise = 0.01 * rng.normal(size=(2, 6, 5))
    direction = fairness.pair_direction(middle + planted + noise[0], middle - planted + noise[1])
    assert direction == pytest.approx(planted / 3, abs=0.02)
    left = fairness.project_out(middle + planted, direction)
    assert left @ direction == pytest.approx(0, abs=1e-12)
    assert fairness.project_out(left, direction) == pytest.approx(left)
    with pytest.raises(ValueError, match="direction"):
        fairness.project_out(middle, direction[:3])
    with pytest.raises(ValueError, match="first and second"):
        fairness.pair_direction(middle, middle[:3])


# ------------------------------------------------------------ exchanged persons

WORLD = ToyWorld("small", bias=0.8)
STORIES = WORLD.stories(60, 3)


def test_exchanged_persons_make_a_possible_story_of_the_mirrored_world():
    mirrored = ToyWorld("small", bias=0.2)
    for story in STORIES:
        other = fairness.swap_people(WORLD, story)
        told = WORLD.replay(other)
        assert fairness.swap_people(WORLD, told) == story.tokens
        assert mirrored.replay(other).logprobs.sum() == pytest.approx(story.logprobs.sum())
        assert told.state.cast != story.state.cast or set(story.state.cast) <= set(WORLD.names_open)


def test_exchanged_words_break_stories_with_towns():
    pairs = fairness.person_pairs(WORLD)
    broken = [s for s in STORIES if not WORLD.is_possible(fairness.swap_words(s.tokens, pairs))]
    assert broken
    assert all("travels" in s.tokens for s in broken)
    assert fairness.swap_words("she sees his dog".split(), pairs) == "he sees her dog".split()
    with pytest.raises(ValueError, match="share a word"):
        fairness.swap_words([], [("a", "b"), ("b", "c")])


# ------------------------------------------------------------ decisions

people = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from("ab"), st.floats(0.1, 3)), min_size=30, max_size=60
)


@given(people)
def test_rates_are_fairlearns(rows):
    """Every group gets one row of each kind, so that every rate has a case."""
    rows = rows + [(y, d, g, 1.0) for y in (0, 1) for d in (0, 1) for g in "ab"]
    y, d, g, w = map(np.array, zip(*rows, strict=True))
    found = fairness.group_rates(y, d, g, w)
    theirs = metrics.MetricFrame(
        metrics={
            "selected": metrics.selection_rate,
            "tpr": metrics.true_positive_rate,
            "fpr": metrics.false_positive_rate,
        },
        y_true=y, y_pred=d, sensitive_features=g,
        sample_params={name: {"sample_weight": w} for name in ("selected", "tpr", "fpr")},
    )  # fmt: skip
    for name, row in theirs.by_group.iterrows():
        ours = found[name]
        assert (ours.selected, ours.tpr, ours.fpr) == pytest.approx((row.selected, row.tpr, row.fpr))
        assert fairness.implied_fpr(ours.base, ours.ppv, ours.tpr) == pytest.approx(ours.fpr)
    parity = metrics.demographic_parity_difference(y, d, sensitive_features=g, sample_weight=w)
    odds = metrics.equalized_odds_difference(y, d, sensitive_features=g, sample_weight=w)
    assert fairness.demographic_parity_difference(found) == pytest.approx(parity)
    assert fairness.equalized_odds_difference(found) == pytest.approx(odds)


def test_rates_by_hand():
    found = fairness.group_rates([1, 1, 0, 0, 1], [1, 0, 1, 0, 0], list("aaaab"))
    assert found["a"] == fairness.Rates(0.8, 0.5, 0.5, 0.5, 0.5, 0.5)
    assert math.isnan(found["b"].fpr)
    assert math.isnan(found["b"].ppv)
    assert found["b"].tpr == 0


def test_calibration_and_balance_by_hand():
    truth, score, groups = [1, 0, 1, 1, 0], [0.5, 0.5, 0.9, 0.4, 0.4], list("aaabb")
    assert fairness.calibration_by_group(truth, score, groups) == {"a": {0.5: 0.5, 0.9: 1.0}, "b": {0.4: 0.5}}
    assert fairness.balance_of_scores(truth, score, groups) == {
        "a": (0.5, pytest.approx(0.7)),
        "b": (pytest.approx(0.4), pytest.approx(0.4)),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 0], [1], ["a", "b"]), "must be"),
        (([1, 2], [1, 0], ["a", "b"]), "0 and 1"),
        (([1, 0], [1, 0], ["a", "b"], [-1, 1]), "weights"),
    ],
)
def test_people_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        fairness.group_rates(*arguments)


def test_one_group_has_no_difference():
    with pytest.raises(ValueError, match="2 groups"):
        fairness.demographic_parity_difference(fairness.group_rates([1, 0], [1, 0], ["a", "a"]))
    with pytest.raises(ValueError, match="base"):
        fairness.implied_fpr(0, 0.5, 0.5)
