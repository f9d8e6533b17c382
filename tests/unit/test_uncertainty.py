"""Calibration, ensembles, conformal sets and meanings: by hand, by properties, and against the field's libraries."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import APSConformityScore
from scipy.spatial.distance import jensenshannon
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, roc_auc_score
from torch import nn

from llmbook import uncertainty as u
from llmbook.training import row_logprobs
from llmbook.uncertainty.asking import draw, row_probs
from llmbook.uncertainty.register import (
    FORMS,
    LENGTH,
    PLACES,
    Register,
    kalai_bound,
    missing_mass,
    place_probs,
    singleton_rate,
    train_reader,
)

UNIT = st.floats(0, 1, allow_subnormal=False)
FORECASTS = st.lists(st.tuples(UNIT, st.integers(0, 1)), min_size=1, max_size=40)


def outcomes(n, seed, shift=0.0):
    """Forecasts and what happened; the truth is the forecast plus a shift."""
    rng = np.random.default_rng(seed)
    c = rng.uniform(0.2, 0.8, size=n)
    return c, (rng.random(n) < c + shift).astype(float)


def distributions(n, k, seed, sharp=2.0):
    rng = np.random.default_rng(seed)
    logits = sharp * rng.standard_normal((n, k))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return logits, p, np.array([rng.choice(k, p=row) for row in p])


# ------------------------------------------------------------ reliability


@pytest.mark.parametrize(("equal_mass", "strategy"), [(True, "quantile"), (False, "uniform")])
def test_reliability_is_scikit_learns(equal_mass, strategy):
    c, y = outcomes(1001, 0)  # quantiles that fall on items
    ours = u.reliability(c[:1000] if equal_mass else c, y[:1000] if equal_mass else y, 10, equal_mass)
    size = 1000 if equal_mass else 1001
    accuracy, confidence = calibration_curve(y[:size], c[:size], n_bins=10, strategy=strategy)
    np.testing.assert_allclose(ours.accuracy, accuracy)
    np.testing.assert_allclose(ours.confidence, confidence)
    assert ours.count.sum() == size


@given(FORECASTS, st.integers(1, 9), st.booleans())
def test_bins_keep_the_means(pairs, bins, equal_mass):
    c, y = map(np.array, zip(*pairs, strict=True))
    r = u.reliability(c, y, bins, equal_mass)
    assert np.average(r.confidence, weights=r.count) == pytest.approx(c.mean())
    assert np.average(r.accuracy, weights=r.count) == pytest.approx(y.mean())
    if equal_mass:
        assert r.count.max() - r.count.min() <= 1
    assert abs(c.mean() - y.mean()) - 1e-9 <= u.calibration_error(c, y, bins, equal_mass) <= 1 + 1e-9


def test_calibration_error_by_hand():
    c, y = [0.9, 0.9, 0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0, 1, 1]
    assert u.calibration_error(c, y, 10, equal_mass=False) == pytest.approx((4 * 0.15 + 2 * 0.4) / 6)
    assert u.calibration_error([1.0, 0.0], [1, 0], 15, equal_mass=False) == 0  # 1 falls into the last bin


def test_the_debiased_error_has_no_bias_and_the_plain_one_has():
    """The truth's own squared error is 0; the plain estimate is far from it, the debiased one is not."""
    draws = [outcomes(150, seed) for seed in range(600)]
    debiased = [u.debiased_squared_error(c, y, 15) for c, y in draws]
    plain = [np.average((r.accuracy - r.confidence) ** 2, weights=r.count) for r in (u.reliability(*d) for d in draws)]
    error = np.std(debiased) / math.sqrt(len(draws))
    assert abs(np.mean(debiased)) < 4 * error
    assert np.mean(plain) > 20 * error
    wrong = [u.debiased_squared_error(*outcomes(150, seed, 0.1), 15) for seed in range(600)]
    assert np.mean(wrong) == pytest.approx(0.01, abs=4 * np.std(wrong) / math.sqrt(600))


def test_the_debiased_error_is_kumars_where_confidences_are_equal():
    y = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0, 1.0])
    gap, n = y.mean() - 0.6, len(y)
    kumar = gap**2 - y.mean() * (1 - y.mean()) / (n - 1)
    assert u.debiased_squared_error(np.full(n, 0.6), y, 1) == pytest.approx(kumar)


# ------------------------------------------------------------ Brier score


def test_brier_score_is_scikit_learns():
    _, p, y = distributions(200, 5, 1)
    assert u.brier_score(p, y) == pytest.approx(brier_score_loss(y, p, labels=range(5), scale_by_half=False))


@given(FORECASTS, st.integers(1, 9), st.booleans())
def test_the_parts_add_up(pairs, bins, equal_mass):
    c, y = map(np.array, zip(*pairs, strict=True))
    parts = u.brier_parts(c, y, bins, equal_mass)
    assert parts.score == pytest.approx(np.mean((c - y) ** 2), abs=1e-12)
    assert 0 <= parts.resolution <= parts.uncertainty + 1e-12


def test_parts_of_known_forecasters():
    y = np.array([1, 1, 0, 0, 1, 0, 0, 0.0])
    base = u.brier_parts(np.full(8, y.mean()), y, 4)
    assert base.reliability - base.resolution + base.within == pytest.approx(0)  # one confidence, whatever its bins
    perfect = u.brier_parts(y, y, 2, equal_mass=False)
    assert perfect.score == 0
    assert perfect.resolution == pytest.approx(perfect.uncertainty)


# ------------------------------------------------------------ temperature


class Given(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose features are its logits."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        return np.asarray(X)

    def predict_proba(self, X):
        return u.tempered(X, 1.0)

    def predict(self, X):
        return self.classes_[np.argmax(X, 1)]


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_temperature_is_scikit_learns(scale):
    logits, _, y = distributions(800, 4, 2)
    shifted = scale * logits
    theirs = CalibratedClassifierCV(FrozenEstimator(Given().fit(shifted, y)), method="temperature", ensemble=False)
    theirs.fit(shifted, y)
    ours = u.fit_temperature(shifted, y)
    np.testing.assert_allclose(u.tempered(shifted, ours), theirs.predict_proba(shifted), atol=2e-3)
    assert ours == pytest.approx(scale, rel=0.15)


def test_temperature_is_the_least_loss_and_keeps_the_order():
    logits, _, y = distributions(300, 6, 3, sharp=1.0)
    best = u.fit_temperature(5 * logits, y)

    def loss(t):
        return -np.log(u.tempered(5 * logits, t)[np.arange(300), y]).mean()

    assert loss(best) < min(loss(best * 1.02), loss(best / 1.02))
    assert (u.tempered(5 * logits, best).argmax(1) == logits.argmax(1)).all()


def test_temperature_at_its_ends():
    logits = np.array([[3.0, 0.0], [0.0, 3.0]])
    assert u.fit_temperature(logits, np.array([0, 1])) == pytest.approx(0.01)  # always right: as sure as may be
    assert u.fit_temperature(logits, np.array([1, 0])) == pytest.approx(100)  # always wrong: as unsure as may be


# ------------------------------------------------------------ ensembles


@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 99))
def test_parts_of_uncertainty(members, k, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(k), size=(members, 3))
    parts = u.uncertainty_parts(p)
    np.testing.assert_allclose(parts.total, scipy.stats.entropy(p.mean(0), axis=-1))
    np.testing.assert_allclose(parts.aleatoric, np.mean([scipy.stats.entropy(q, axis=-1) for q in p], 0))
    to_mean = np.mean([u.kl_divergence(q, p.mean(0)) for q in p], 0)
    np.testing.assert_allclose(parts.epistemic, to_mean, atol=1e-12)
    assert (parts.epistemic > -1e-12).all()
    assert (parts.epistemic < math.log(members) + 1e-12).all()


def test_two_members_disagree_by_jensen_and_shannon():
    p = np.random.default_rng(0).dirichlet(np.ones(4), size=(2, 1))
    assert u.uncertainty_parts(p).epistemic[0] == pytest.approx(jensenshannon(p[0, 0], p[1, 0]) ** 2)


def test_kl_is_scipys_and_may_be_infinite():
    p, q = np.random.default_rng(0).dirichlet(np.ones(4), size=2)
    assert u.kl_divergence(p, q) == pytest.approx(scipy.stats.entropy(p, q))
    assert u.kl_divergence([0.5, 0.5], [1.0, 0.0]) == math.inf
    assert u.kl_divergence([1.0, 0.0], [0.5, 0.5]) == pytest.approx(math.log(2))


def test_dropout_draws_and_leaves_no_trace():
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.LayerNorm(64)).eval()
    x, before = torch.ones(2, 4), torch.get_rng_state()
    still = model(x)
    with u.dropout_on(model, 1):
        first, second = model(x), model(x)
    with u.dropout_on(model, 1):
        again = model(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(model(x), still)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="dropout above 0"), u.dropout_on(nn.Linear(2, 2), 0):
        pass


# ------------------------------------------------------------ conformal prediction


def mapie_sets(score, p, y, new, alpha):
    """MAPIE's, with a model whose probabilities are its features."""

    class Features(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.arange(p.shape[1])
            return self

        def predict_proba(self, X):
            return np.asarray(X)

        def predict(self, X):
            return np.asarray(X).argmax(1)

    model = SplitConformalClassifier(
        Features().fit(p, y), confidence_level=1 - alpha, conformity_score=score, random_state=0
    )
    return model.conformalize(p, y).predict_set(new)[1][:, :, 0]


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("n", [99, 200])
def test_label_sets_are_mapies(alpha, n):
    _, p, y = distributions(n + 300, 6, 4)
    threshold = u.conformal_quantile(u.label_scores(p[:n], y[:n]), alpha)
    ours = u.label_sets(p[n:], threshold)
    np.testing.assert_array_equal(ours, mapie_sets("lac", p[:n], y[:n], p[n:], alpha))


def test_adaptive_scores_are_mapies():
    _, p, y = distributions(200, 6, 5)
    share = np.random.RandomState(0).uniform(size=200)
    score = APSConformityScore()
    score.set_external_attributes(classes=np.arange(6), random_state=0)
    theirs = score.get_conformity_scores(y, p, y_enc=y)[:, 0]
    np.testing.assert_allclose(u.adaptive_scores(p, 1 - share)[np.arange(200), y], theirs)  # theirs counts down


@pytest.mark.parametrize("n", [99, 200])
def test_adaptive_sets_that_keep_their_last_member_are_mapies(n):
    """Without chance, a set holds an answer while the mass before it is within the threshold."""
    _, p, y = distributions(n + 300, 6, 6)
    share = np.random.RandomState(0).uniform(size=n)
    threshold = u.conformal_quantile(u.adaptive_scores(p[:n], 1 - share)[np.arange(n), y[:n]], 0.1)
    ours = u.adaptive_scores(p[n:], np.zeros(300)) <= threshold
    np.testing.assert_array_equal(ours, mapie_sets("aps", p[:n], y[:n], p[n:], 0.1))


def test_the_truths_adaptive_scores_are_even():
    rng = np.random.default_rng(7)
    _, p, y = distributions(3000, 5, 7)
    scores = u.adaptive_scores(p, rng.random(3000))[np.arange(3000), y]
    assert scipy.stats.kstest(scores, "uniform").pvalue > 0.01
    np.testing.assert_allclose(u.adaptive_scores([[0.2, 0.5, 0.3]], [0.5]), [[0.9, 0.25, 0.65]])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.02, 0.9))
def test_the_quantile_covers_its_own_share(scores, alpha):
    q, n = u.conformal_quantile(scores, alpha), len(scores)
    rank = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    assert q == (math.inf if rank > n else sorted(scores)[rank - 1])


def test_coverage_follows_its_law():
    rng, alpha, n = np.random.default_rng(0), 0.1, 50
    covered = [u.conformal_quantile(rng.random(n), alpha) for _ in range(2000)]  # of uniform scores: the threshold
    law = u.coverage_law(n, alpha)
    assert scipy.stats.kstest(covered, law.cdf).pvalue > 0.01
    assert 1 - alpha <= law.mean() <= 1 - alpha + 1 / (n + 1)


@settings(max_examples=50)
@given(st.integers(0, 1000))
def test_sets_hold_what_scores_at_most_the_threshold(seed):
    _, p, y = distributions(30, 5, seed)
    scores = u.label_scores(p, y)
    threshold = np.median(scores)
    np.testing.assert_array_equal(u.label_sets(p, threshold)[np.arange(30), y], scores <= threshold)


# ------------------------------------------------------------ meanings


def test_meanings_are_found_in_order():
    found = u.meanings(["Paris", "it is Paris", "Lyon", "so Paris"], lambda a, b: a.split()[-1] == b.split()[-1])
    assert found.tolist() == [0, 0, 1, 0]


def test_semantic_entropy_by_hand():
    assert u.semantic_entropy([0, 0, 1, 1]) == pytest.approx(math.log(2))
    assert u.semantic_entropy([0, 0, 0]) == 0
    logs = np.log([0.5, 0.25, 0.125])
    p = np.array([0.75, 0.125]) / 0.875  # Farquhar's: within a meaning added, over all normalised
    assert u.semantic_entropy([0, 0, 1], logs) == pytest.approx(-(p * np.log(p)).sum())
    assert u.self_consistency([2, 0, 2, 2]) == 0.75


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_semantic_entropy_lies_between_nothing_and_all_different(m):
    assert -1e-12 <= u.semantic_entropy(m) <= math.log(len(m)) + 1e-12
    assert u.semantic_entropy(m) == pytest.approx(u.semantic_entropy(m, np.zeros(len(m))))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_scikit_learns(rows):
    s, y = map(np.array, zip(*rows, strict=True))
    if len(set(y.tolist())) == 2:
        assert u.auroc(s, y) == pytest.approx(roc_auc_score(y, s))


def test_auroc_interval_covers_and_a_rival_that_is_the_same_differs_by_nothing():
    hits, rng = 0, np.random.default_rng(0)
    for _ in range(150):
        y = np.arange(80) < 30
        s = rng.standard_normal(80) + y
        low, high = u.auroc_interval(s, y, rng=rng, resamples=200)
        hits += low <= scipy.stats.norm.cdf(1 / math.sqrt(2)) <= high
    assert 0.87 <= hits / 150 <= 0.99
    assert u.auroc_interval(s, y, rng=rng, rival=s, resamples=20) == (0.0, 0.0)


# ------------------------------------------------------------ register


def test_good_turing_expects_the_missing_mass():
    register, rng = Register(500, 1.0, seed=1), np.random.default_rng(0)
    drawn = [register.draw(400, rng) for _ in range(300)]
    rates = [singleton_rate(d) for d in drawn]
    missing = [missing_mass(register, d) for d in drawn]
    error = np.std(np.subtract(rates, missing)) / math.sqrt(300)
    assert abs(np.mean(rates) - np.mean(missing)) < 4 * error + 1 / 400
    assert singleton_rate([1, 1, 2, 3]) == 0.5
    assert missing_mass(register, np.arange(500)) == 0


def test_rows_answer_as_the_text_tells():
    register = Register(50, 1.0, 0.3, 0.3, seed=2)
    people = np.arange(50).repeat(20)
    rows = register.rows(people, np.random.default_rng(0))
    assert max(map(len, rows)) <= LENGTH == max(3 + len(f.split()) + 1 for f in FORMS)
    for person, row in zip(people, rows, strict=True):
        assert row[:3] in (register.question(person, "place"), register.question(person, "tell"))
        assert register.told[person][register.meaning(row[3:-1])] > 0
    assert ((register.told != register.true).any(1) == register.rumour).all()
    assert ((register.told > 0).sum(1) == 1 + register.split).all()
    assert not (register.split & register.rumour).any()
    assert (register.told[register.rumour] * register.true[register.rumour]).max() == 0
    assert register.meaning([]) == -1
    both = [register.token_to_id[p] for p in PLACES[:2]]
    assert register.meaning(both) == -1
    assert register.text(both) == "Arden Brill"


def test_a_reader_knows_whom_it_read_of_and_answers_are_drawn_from_it():
    register = Register(12, 0.0, seed=3)
    read = np.arange(8).repeat(4)
    model = train_reader(register, register.rows(read, np.random.default_rng(0)), max_steps=80, batch_size=32)
    probs = place_probs(model, register, np.arange(12))
    homes = register.told.argmax(1)
    assert (probs[:8].argmax(1) == homes[:8]).all()
    ends = [register.token_to_id["<eos>"]]
    prompts = [register.question(p, "place") for p in range(12)]
    greedy = draw(model, prompts, ends=ends)
    assert [register.meaning(a[0]) for a in greedy.ids[:8]] == homes[:8].tolist()
    many = draw(model, prompts, 400, 6, ends=ends, generator=torch.Generator().manual_seed(0))
    named = [place for a in many.ids[11] if (place := register.meaning(a)) >= 0]
    shares = np.bincount(named, minlength=24) / len(named)
    assert np.abs(shares - probs[11]).max() < 0.12
    assert many.logprobs.shape == (12, 400)


def test_drawn_logprobs_are_the_models():
    register = Register(6, 0.0, seed=4)
    rows = register.rows(np.arange(6), np.random.default_rng(0))
    model = train_reader(register, rows, max_steps=5, batch_size=8)
    prompts = [register.question(0, "tell"), register.question(1, "tell")[1:]]  # unequal lengths
    end = register.token_to_id["<eos>"]
    found = draw(model, prompts, 3, 4, ends=[end], generator=torch.Generator().manual_seed(1))
    for prompt, answers, logs, lengths, spread in zip(
        prompts, found.ids, found.logprobs, found.lengths, found.entropies, strict=True
    ):
        for answer, log, length, total in zip(answers, logs, lengths, spread, strict=True):
            whole = [*prompt, *answer, *([end] if length > len(answer) else [])]
            with torch.no_grad():
                q = model(torch.tensor([whole])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            assert log == pytest.approx(float(q.gather(1, torch.tensor(whole[len(prompt) :])[:, None]).sum()), abs=1e-4)
            assert total == pytest.approx(float(-(q.exp() * q).sum()), abs=1e-3)


def test_row_probs_are_the_distributions_of_row_logprobs():
    register = Register(6, 0.0, seed=4)
    rows = register.rows(np.arange(6), np.random.default_rng(0))
    model = train_reader(register, rows, max_steps=3, batch_size=8)
    q = row_probs(model, rows, batch_size=4)
    taken = np.log(q[np.arange(len(q)), [i for row in rows for i in row[1:]]])
    np.testing.assert_allclose(taken, row_logprobs(model, rows), atol=1e-5)
    np.testing.assert_allclose(q.sum(1), 1, atol=1e-5)


def test_kalais_bound_is_empty_where_n_is_small():
    assert kalai_bound(0.5, 23, 1000) < 0
    assert kalai_bound(0.5, 364, 10**8) == pytest.approx(0.5 - 2 / 364 - (35 + 6 * math.log(1e8)) / 1e4)


# ------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: u.reliability([], []), "confidence must be"),
        (lambda: u.reliability([1.5], [1]), "confidence must be"),
        (lambda: u.reliability([0.5], [1, 0]), "correct must have shape"),
        (lambda: u.reliability([0.5], [2]), "correct must have shape"),
        (lambda: u.calibration_error([0.5], [1], 0), "bins must be"),
        (lambda: u.debiased_squared_error([0.5, 0.6], [1, 0], 2), "two items"),
        (lambda: u.brier_score([0.5, 0.5], [1]), "probs must be"),
        (lambda: u.brier_score([[0.5, 0.5]], [2]), "labels must be"),
        (lambda: u.fit_temperature([[0.0, np.nan]], [0]), "logits must be"),
        (lambda: u.tempered([[0.0]], 0), "temperature must be"),
        (lambda: u.uncertainty_parts([[0.5, 0.6]]), "members must be"),
        (lambda: u.conformal_quantile([], 0.1), "scores must be"),
        (lambda: u.conformal_quantile([0.1], 1.0), "alpha must lie"),
        (lambda: u.coverage_law(5, 0.1), "n must be at least 9"),
        (lambda: u.label_sets([0.5], 0.5), "probs must be"),
        (lambda: u.adaptive_scores([[0.5, 0.5]], [1.5]), "luck must be"),
        (lambda: u.semantic_entropy([]), "meaning must be"),
        (lambda: u.semantic_entropy([0, 1], [0.0]), "logprobs must be"),
        (lambda: u.auroc([1.0, 2.0], [1, 1]), "both kinds"),
        (lambda: u.auroc([1.0], [1, 0]), "two \\(N,\\) arrays"),
        (lambda: Register(1), "people must be"),
        (lambda: singleton_rate([]), "people must be"),
        (lambda: kalai_bound(0.1, 0, 5), "at least 1"),
        (lambda: row_probs(None, [[1]]), "rows must hold"),
        (lambda: draw(None, [], ends=[0]), "prompts must hold"),
        (lambda: draw(None, [[1]], 2, ends=[0]), "samples must be"),
        (lambda: draw(None, [[1]], ends=[0], temperature=0), "temperature must be"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
