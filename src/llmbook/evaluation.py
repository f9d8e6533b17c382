"""How good is a model, and how sure are we? Losses in nats, their units, and their standard errors."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray


class Estimate(NamedTuple):
    """A mean and its standard error, in the unit of what was averaged."""

    mean: float
    se: float


def nats_to_bits(nats: ArrayLike) -> NDArray[np.float64] | float:
    """1 nat is 1/ln 2 ≈ 1.4427 bits."""
    return np.asarray(nats, dtype=float)[()] / math.log(2)


def bits_to_nats(bits: ArrayLike) -> NDArray[np.float64] | float:
    """1 bit is ln 2 ≈ 0.6931 nats."""
    return np.asarray(bits, dtype=float)[()] * math.log(2)


def cross_entropy(logprobs: ArrayLike) -> float:
    """Mean surprise, nats per token, of a text to which a model gave these log-probabilities (N,).

    −(1/N) Σ log p(wᵢ | w₁…wᵢ₋₁). Infinite if the model called a token of the text impossible.
    """
    return float(-_logprobs("logprobs", logprobs).mean())


def perplexity(logprobs: ArrayLike) -> float:
    """exp of the cross-entropy: the number of equally likely tokens that would be as hard to guess.

    Infinite where the cross-entropy is, and where it is so large (about 710 nats) that no float holds the result.
    """
    loss = cross_entropy(logprobs)
    return math.exp(loss) if loss < math.log(sys.float_info.max) else math.inf


def paired_excess(model_logprobs: ArrayLike, true_logprobs: ArrayLike, groups: ArrayLike | None = None) -> Estimate:
    """Mean excess loss of a model over the truth on the same tokens, nats per token, with its standard error.

    Estimates KL(truth ‖ model). Differences on the same token share that token's own luck, so their error is
    far smaller than that of either loss. Tokens of one story are not independent: give each token its story's
    number in `groups` (N,) and the error is the cluster-robust one over stories.
    """
    model, truth = _logprobs("model_logprobs", model_logprobs), _logprobs("true_logprobs", true_logprobs)
    if model.shape != truth.shape:
        raise ValueError(f"true_logprobs must match model_logprobs {model.shape}, got {truth.shape}")
    if np.isinf(truth).any():
        raise ValueError("true_logprobs must be finite: the truth cannot have called its own text impossible")
    return mean_and_error(truth - model, groups)


def mean_and_error(values: ArrayLike, groups: ArrayLike | None = None) -> Estimate:
    """Mean of (N,) values and its standard error; with `groups` (N,), values of one group may be dependent.

    The clustered error is that of a ratio of sums over G groups: √(G/(G−1) Σ_g r_g²) / N, where r_g sums the
    group's residuals. With one value per group it is the familiar s/√N.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or x.size == 0 or np.isnan(x).any():
        raise ValueError(f"values must be a non-empty (N,) array without NaN, got shape {x.shape}")
    labels = np.arange(x.size) if groups is None else np.asarray(groups)
    if labels.shape != x.shape:
        raise ValueError(f"groups must have shape {x.shape}, one label for each value, got {labels.shape}")
    if np.isinf(x).any():
        return Estimate(float(x.mean()), math.inf)
    _, index = np.unique(labels, return_inverse=True)
    residuals = np.bincount(index, weights=x - x.mean())  # (G,)
    if len(residuals) < 2:
        raise ValueError("values must come from at least 2 groups for a standard error, got 1")
    factor = len(residuals) / (len(residuals) - 1)
    return Estimate(float(x.mean()), float(math.sqrt(factor * (residuals**2).sum()) / x.size))


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], float] = np.mean,
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of independent (N,) values (Efron 1979)."""
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or x.size == 0 or np.isnan(x).any():
        raise ValueError(f"values must be a non-empty (N,) array without NaN, got shape {x.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if not isinstance(resamples, numbers.Integral) or resamples < 1:
        raise ValueError(f"resamples must be a whole number of at least 1, got {resamples!r}")
    draws = [statistic(x[rng.integers(x.size, size=x.size)]) for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


class Difference(NamedTuple):
    """A mean difference over seeds, half the width of its t-interval, and the p-value of no difference."""

    mean: float
    half_width: float
    p: float


def paired_difference(values: ArrayLike, baseline: ArrayLike, confidence: float = 0.95) -> Difference:
    """Student's (1908) t for (n,) values against their partners, pair by pair: values minus baseline."""
    x, y = np.asarray(values, dtype=float), np.asarray(baseline, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or x.size < 2:
        raise ValueError(f"values and baseline must be two (n,) arrays with n at least 2, got {x.shape} and {y.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"values and baseline must be finite, got {x} and {y}")
    d = x - y
    error = d.std(ddof=1) / math.sqrt(d.size)
    factor = scipy.stats.t.ppf((1 + confidence) / 2, d.size - 1)
    if error == 0:
        return Difference(float(d.mean()), 0.0, 1.0 if d.mean() == 0 else 0.0)
    p = 2 * scipy.stats.t.sf(abs(d.mean()) / error, d.size - 1)
    return Difference(float(d.mean()), float(factor * error), float(p))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's (1979) p-values (m,), adjusted for m comparisons: reject those below α, and the chance of even one
    false rejection is at most α, however the comparisons depend on each other.

    The smallest is multiplied by m, the next by m − 1, and so on; none may fall below one before it.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or p.size == 0 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values must be a non-empty (m,) array of numbers in [0, 1], got {p}")
    order = np.argsort(p, kind="stable")
    scaled = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted


def _logprobs(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """As a float array (N,), after the checks every log-probability must pass."""
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"{name} must be a non-empty (N,) array, got shape {x.shape}")
    if np.isnan(x).any():
        raise ValueError(f"{name} must not hold NaN, got {int(np.isnan(x).sum())} of them")
    if (x > 1e-6).any():
        raise ValueError(f"{name} must be logs of probabilities, at most 0, got {x.max():.4g}")
    return x
