"""Is one system better than another, or was it lucky? And how large must a test set be to tell?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from llmbook.evaluation import mean_and_error


class McNemar(NamedTuple):
    """How many items only the one and only the other got right, and the exact two-sided p-value of no difference."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: ArrayLike, b: ArrayLike) -> McNemar:
    """McNemar's (1947) test, exact: of the items on which two systems differ, does each have half?

    a, b: (N,) of 0 and 1, right or wrong on the same items. Items on which both agree say nothing about which is
    better. The items must be independent.
    """
    one, other = _right_or_wrong(a, b)
    only_a, only_b = int((one & ~other).sum()), int((other & ~one).sum())
    if not only_a + only_b:
        return McNemar(0, 0, 1.0)
    return McNemar(only_a, only_b, float(scipy.stats.binomtest(only_a, only_a + only_b).pvalue))


def two_proportions(a: ArrayLike, b: ArrayLike) -> float:
    """p-value of the z-test that ignores the pairing: as if the two systems had been tried on different items."""
    one, other = _right_or_wrong(a, b)
    pooled = (one.mean() + other.mean()) / 2
    error = math.sqrt(2 * pooled * (1 - pooled) / len(one))
    if not error:
        return 1.0
    return float(2 * scipy.stats.norm.sf(abs(one.mean() - other.mean()) / error))


class Compared(NamedTuple):
    """A mean difference, its standard error, its interval, and the p-value of no difference."""

    difference: float
    se: float
    low: float
    high: float
    p: float


def paired_test(a: ArrayLike, b: ArrayLike, groups: ArrayLike | None = None, confidence: float = 0.95) -> Compared:
    """The mean of a − b with the error of a paired, and with ``groups`` clustered, comparison (Miller, 2024).

    a, b: (N,) scores of two systems on the same items; groups: (N,) which items hang together. The interval and the
    p-value are Student's, with one degree of freedom less than there are groups.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape:
        raise ValueError(f"b must have the shape of a, {x.shape}, got {y.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    mean, se = mean_and_error(x - y, groups)
    freedom = len(np.unique(np.arange(x.size) if groups is None else np.asarray(groups))) - 1
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, freedom)) * se
    if not se:
        return Compared(mean, 0.0, mean, mean, 0.0 if mean else 1.0)
    return Compared(mean, se, mean - half, mean + half, float(2 * scipy.stats.t.sf(abs(mean) / se, freedom)))


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    *,
    rng: np.random.Generator,
    groups: ArrayLike | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean of a − b; of whole groups where there are some (Efron 1979; Koehn 2004)."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or not x.size:
        raise ValueError(f"a and b must be two non-empty (N,) arrays, got {x.shape} and {y.shape}")
    _, which = np.unique(np.arange(x.size) if groups is None else np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(which, weights=x - y), np.bincount(which)  # (G,)
    drawn = rng.integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def items_needed(difference: float, discordant: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """How many items McNemar's test needs to see a true difference with this power (Connor, 1987).

    ``discordant`` is the share of items that exactly one of the two gets right, at least |difference|.
    """
    if not 0 < abs(difference) <= discordant <= 1:
        raise ValueError(f"discordant must lie between |difference| = {abs(difference)} and 1, got {discordant}")
    if not (0 < power < 1 and 0 < alpha < 1):
        raise ValueError(f"power and alpha must lie between 0 and 1, got {power} and {alpha}")
    z = scipy.stats.norm.ppf
    spread = z(1 - alpha / 2) * math.sqrt(discordant) + z(power) * math.sqrt(discordant - difference**2)
    return math.ceil((spread / difference) ** 2)


def power_of(n: ArrayLike, difference: float, error_of_one: float, alpha: float = 0.05) -> NDArray[np.float64]:
    """Chance that a z-test on n items finds a true difference; ``error_of_one`` is √n times the standard error.

    For a paired test of right and wrong that is √(discordant − difference²), for an unpaired one
    √(p(1−p) + q(1−q)), for a clustered one what ``mean_and_error`` gives, times √n.
    """
    if not error_of_one > 0:
        raise ValueError(f"error_of_one must be above 0, got {error_of_one}")
    shift = difference * np.sqrt(np.asarray(n, dtype=float)) / error_of_one
    z = scipy.stats.norm.ppf(1 - alpha / 2)
    return scipy.stats.norm.sf(z - shift) + scipy.stats.norm.cdf(-z - shift)


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values (m,) adjusted so that, of those below α, the expected share of false ones is at most α (1995).

    Holds for independent tests, and for some kinds of dependence. The k-th smallest is multiplied by m/k.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not p.size or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values must be a non-empty (m,) array of numbers in [0, 1], got {p}")
    order = np.argsort(-p, kind="stable")
    scaled = np.minimum.accumulate(p[order] * p.size / np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted


def _right_or_wrong(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    one, other = np.asarray(a), np.asarray(b)
    if one.ndim != 1 or not one.size or one.shape != other.shape:
        raise ValueError(f"a and b must be two non-empty (N,) arrays, got {one.shape} and {other.shape}")
    if not (np.isin(one, (0, 1)).all() and np.isin(other, (0, 1)).all()):
        raise ValueError("a and b must hold 0 and 1 only, wrong or right")
    return one.astype(bool), other.astype(bool)
