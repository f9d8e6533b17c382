"""Does an event that was given 70 % happen seven times in ten? Confidence against frequency."""

from __future__ import annotations

import numbers
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Reliability(NamedTuple):
    """Bins of like confidence, those without items left out: mean confidence, share of right answers, items."""

    confidence: Array  # (B,)
    accuracy: Array  # (B,)
    count: NDArray[np.int64]  # (B,)


def bin_numbers(confidence: ArrayLike, bins: int = 15, equal_mass: bool = True) -> NDArray[np.int64]:
    """Each item's bin (N,): as many items in each (``equal_mass``), or intervals of the same width over [0, 1]."""
    c = _confidence(confidence)
    if not isinstance(bins, numbers.Integral) or bins < 1:
        raise ValueError(f"bins must be a whole number of at least 1, got {bins!r}")
    if not equal_mass:
        return np.minimum((c * bins).astype(np.int64), bins - 1)
    numbers_ = np.empty(c.size, dtype=np.int64)
    numbers_[np.argsort(c, kind="stable")] = np.arange(c.size) * bins // c.size
    return numbers_


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 15, equal_mass: bool = True) -> Reliability:
    """A reliability diagram's numbers (Murphy and Winkler, 1977): confidence (N,), correct (N,) from 0 to 1.

    ``correct`` is 0 or 1, or, where it is known, the true probability that the answer is right.
    """
    c, y = _pair(confidence, correct)
    where = bin_numbers(c, bins, equal_mass)
    count = np.bincount(where)
    kept = count > 0
    mean_c, mean_y = (np.bincount(where, weights=x)[kept] / count[kept] for x in (c, y))
    return Reliability(mean_c, mean_y, count[kept])


def calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15, equal_mass: bool = True) -> float:
    """Expected calibration error, Σ_b (n_b / N) |accuracy_b − confidence_b| (Naeini et al., 2015).

    It is biased upwards: chance alone moves each bin's accuracy away from its confidence.
    """
    r = reliability(confidence, correct, bins, equal_mass)
    return float(np.average(np.abs(r.accuracy - r.confidence), weights=r.count))


def debiased_squared_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15, equal_mass: bool = True) -> float:
    """Σ_b (n_b / N) (accuracy_b − confidence_b)² without the bias of chance; it may be negative.

    A bin's squared mean residual, r̄², is replaced by the mean product of two *different* items' residuals,
    Σ_{i≠j} rᵢ rⱼ / (n (n − 1)), whose expectation is the square of the expected residual. Where a bin's
    confidences are equal this is the estimator of Kumar et al. (2019). Bins of one item are left out.
    """
    c, y = _pair(confidence, correct)
    where = bin_numbers(c, bins, equal_mass)
    n = np.bincount(where)
    total, squares = (np.bincount(where, weights=x) for x in (y - c, (y - c) ** 2))
    many = n > 1
    if not many.any():
        raise ValueError(f"bins must leave some bin two items, got {bins} bins for {c.size} items")
    products = (total[many] ** 2 - squares[many]) / (n[many] * (n[many] - 1))
    return float(np.average(products, weights=n[many]))


# ------------------------------------------------------------ the Brier score


def brier_score(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance between a distribution (N, K) and what happened, labels (N,) (Brier, 1950): 0 to 2."""
    p, y = _distributions(probs, labels)
    hit = p[np.arange(len(y)), y]
    return float(np.mean((p**2).sum(1) - 2 * hit + 1))


class BrierParts(NamedTuple):
    """reliability − resolution + uncertainty + within is the Brier score of confidence against correct."""

    reliability: float  # squared gap between confidence and accuracy, over bins: less is better
    resolution: float  # how far the bins' accuracies lie from the overall one: more is better
    uncertainty: float  # variance of being right: it depends on the forecaster's own guesses
    within: float  # what differs inside the bins; 0 where all confidences of a bin are equal

    @property
    def score(self) -> float:
        return self.reliability - self.resolution + self.uncertainty + self.within


def brier_parts(confidence: ArrayLike, correct: ArrayLike, bins: int = 15, equal_mass: bool = True) -> BrierParts:
    """Murphy's (1973) decomposition of mean (confidence − correct)², with the terms within bins (Stephenson, 2008)."""
    c, y = _pair(confidence, correct)
    where = bin_numbers(c, bins, equal_mass)
    n = np.maximum(np.bincount(where), 1)
    mean_c, mean_y = (np.bincount(where, weights=x) / n for x in (c, y))
    own_c, own_y, base = mean_c[where], mean_y[where], y.mean()
    within = np.mean((c - own_c) ** 2 - 2 * (c - own_c) * (y - own_y)) + np.mean(y**2 - y)
    return BrierParts(
        float(np.mean((own_c - own_y) ** 2)),
        float(np.mean((own_y - base) ** 2)),
        float(base * (1 - base)),
        float(within),
    )


# ------------------------------------------------------------ temperature


def tempered(logits: ArrayLike, temperature: float) -> Array:
    """softmax(logits / temperature), (N, K). Log-probabilities will do for logits."""
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    return scipy.special.softmax(np.asarray(logits, dtype=float) / temperature, axis=-1)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature with the least loss on logits (N, K) and labels (N,) (Guo et al., 2017).

    The loss is convex in 1/T: its slope there, the mean of E[z] − z_label, has one zero, which is found by bisection
    between T = 1/100 and T = 100 (one of these ends where the zero lies outside).
    """
    z, y = _distributions(logits, labels, "logits")
    z = z - z.max(1, keepdims=True)  # (N, K)
    own = z[np.arange(len(y)), y].mean()

    def slope(log_beta: float) -> float:
        p = scipy.special.softmax(np.exp(log_beta) * z, axis=1)
        return float((p * z).sum(1).mean() - own)

    low, high = -np.log(100.0), np.log(100.0)
    if slope(low) >= 0 or slope(high) <= 0:
        return 100.0 if slope(low) >= 0 else 0.01
    return float(np.exp(-scipy.optimize.brentq(slope, low, high, xtol=1e-7)))


# ------------------------------------------------------------ checks


def _confidence(confidence: ArrayLike) -> Array:
    c = np.asarray(confidence, dtype=float)
    if c.ndim != 1 or not c.size or not ((c >= -1e-9) & (c <= 1 + 1e-6)).all():
        raise ValueError(f"confidence must be a non-empty (N,) array of numbers in [0, 1], got shape {c.shape}")
    return c


def _pair(confidence: ArrayLike, correct: ArrayLike) -> tuple[Array, Array]:
    c, y = _confidence(confidence), np.asarray(correct, dtype=float)
    if y.shape != c.shape or not ((y >= 0) & (y <= 1 + 1e-6)).all():
        raise ValueError(f"correct must have shape {c.shape} and lie in [0, 1], got shape {y.shape}")
    return c, y


def _distributions(probs: ArrayLike, labels: ArrayLike, name: str = "probs") -> tuple[Array, NDArray[np.int64]]:
    p, y = np.asarray(probs, dtype=float), np.asarray(labels)
    if p.ndim != 2 or not p.size or np.isnan(p).any():
        raise ValueError(f"{name} must be a non-empty (N, K) array without NaN, got shape {p.shape}")
    if y.shape != p.shape[:1] or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels must be ({len(p)},) whole numbers from 0 to {p.shape[1] - 1}, got shape {y.shape}")
    return p, y
