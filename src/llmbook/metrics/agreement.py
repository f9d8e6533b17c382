"""Do raters agree more than chance would have them, and how many does a verdict need?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray


def observed_agreement(a: ArrayLike, b: ArrayLike) -> float:
    """Share of items to which two raters gave the same label: (N,) each."""
    one, other = _labels(a, b)
    return float((one == other).mean())


def cohen_kappa(a: ArrayLike, b: ArrayLike) -> float:
    """Cohen's (1960) κ of two raters' labels (N,): (p_o − p_e) / (1 − p_e).

    p_o is the observed agreement, p_e what it would be if each drew labels at their own rates, blindly. 1 where both
    gave one and the same label to everything: there is nothing to explain (scikit-learn answers NaN).
    """
    one, other = _labels(a, b)
    expected = sum(float((one == k).mean() * (other == k).mean()) for k in np.unique(np.concatenate([one, other])))
    return 1.0 if expected == 1 else (float((one == other).mean()) - expected) / (1 - expected)


def _nominal(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return (values[:, None] != values[None, :]).astype(float)


def _interval(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return (values[:, None] - values[None, :]) ** 2


def _ordinal(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared number of labels that lie between two ranks, each end counted by half."""
    middle = np.cumsum(counts) - counts / 2
    return (middle[:, None] - middle[None, :]) ** 2


LEVELS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "nominal": _nominal, "ordinal": _ordinal, "interval": _interval,
}  # fmt: skip


def krippendorff_alpha(ratings: ArrayLike, level: str = "nominal") -> float:
    """Krippendorff's α of (raters, items) numbers, NaN where a rater has not judged: 1 − D_o / D_e.

    D_o is the mean difference of two labels of one item, D_e that of two labels drawn from all (without putting the
    first back). ``level`` says what a difference is: "nominal", "ordinal" or "interval". Items with fewer than two
    labels don't count. 1 where all labels are the same. Krippendorff (2004, chapter 11).
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    table = np.asarray(ratings, dtype=float)
    if table.ndim != 2:
        raise ValueError(f"ratings must be a (raters, items) array, got shape {table.shape}")
    values = np.unique(table[~np.isnan(table)])
    counts = np.stack([(table == v).sum(0) for v in values], axis=1) if values.size else np.zeros((0, 0))
    counts = counts[counts.sum(1) >= 2].astype(float)  # (items, K)
    if not counts.size:
        raise ValueError("ratings must hold an item with at least two labels, got none")
    totals, pairs = counts.sum(0), counts.sum(1)
    apart = LEVELS[level](values, totals)  # (K, K)
    within = (np.einsum("ij,ik,jk->i", counts, counts, apart) / (pairs - 1)).sum() / totals.sum()
    between = totals @ apart @ totals / (totals.sum() * (totals.sum() - 1))
    return 1.0 if not between else float(1 - within / between)


def alpha_interval(
    ratings: ArrayLike, rng: np.random.Generator, level: str = "nominal", resamples: int = 500
) -> tuple[float, float]:
    """95 % percentile bootstrap of α over items: the raters are the ones at hand, the items a sample."""
    table = np.asarray(ratings, dtype=float)
    items = table.shape[1]
    draws = [krippendorff_alpha(table[:, rng.integers(items, size=items)], level) for _ in range(resamples)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def majority(ratings: ArrayLike, rng: np.random.Generator) -> NDArray[np.float64]:
    """Each item's most frequent label, (raters, items) -> (items,); a tie is settled by the die."""
    table = np.asarray(ratings, dtype=float)
    if table.ndim != 2 or np.isnan(table).all(0).any():
        raise ValueError(f"ratings must be (raters, items) with a label for each item, got shape {table.shape}")
    values = np.unique(table[~np.isnan(table)])
    votes = np.stack([(table == v).sum(0) for v in values])  # (K, items)
    return values[(votes + rng.uniform(0, 0.5, votes.shape)).argmax(0)]


def panel_accuracy(accuracy: float, raters: int, shared: float = 0.0) -> float:
    """Chance that the majority of an odd number of raters is right on a question of yes or no (Condorcet, 1785).

    Each is right with probability ``accuracy``, independently, but for a share of items on which all are misled alike,
    and wrong. There no panel helps: 1 − shared is the most that can be reached.
    """
    if raters < 1 or raters % 2 == 0:
        raise ValueError(f"raters must be odd and at least 1, got {raters}")
    if not (0 <= shared < 1 and 0 <= accuracy <= 1 - shared):
        raise ValueError(f"shared must be in [0, 1) and accuracy at most 1 − shared, got {shared} and {accuracy}")
    alone = accuracy / (1 - shared)  # on the items that do not mislead
    return (1 - shared) * float(scipy.stats.binom.sf(raters // 2, raters, alone))


def raters_needed(accuracy: float, wanted: float, most: int = 1001) -> int:
    """The smallest odd panel of independent raters whose majority is right often enough, on yes or no.

    ValueError where raters are no better than coins, or more than ``most`` would be needed.
    """
    if not 0.5 < accuracy <= 1:
        raise ValueError(f"accuracy must be above 1/2 and at most 1, got {accuracy}: more of these would not help")
    for raters in range(1, most + 1, 2):
        if panel_accuracy(accuracy, raters) >= wanted:
            return raters
    raise ValueError(f"wanted must be reached by at most {most} raters, got {wanted}")


def expected_alpha(accuracy: float, rates: Sequence[float]) -> float:
    """α (nominal) that many raters reach who are right with this probability and else take another label, any alike.

    ``rates`` (K,) are the true labels' shares. Their labels then have the shares q, D_e = 1 − Σ q², and two raters
    agree on an item with probability a² + (1 − a)² / (K − 1).
    """
    truth = np.asarray(rates, dtype=float)
    if truth.ndim != 1 or truth.size < 2 or (truth < 0).any() or not math.isclose(truth.sum(), 1):
        raise ValueError(f"rates must be at least two shares that sum to 1, got {rates}")
    other = (1 - accuracy) / (truth.size - 1)
    given = truth * accuracy + (1 - truth) * other
    same = accuracy**2 + (1 - accuracy) ** 2 / (truth.size - 1)
    return float(1 - (1 - same) / (1 - (given**2).sum()))


def _labels(a: ArrayLike, b: ArrayLike) -> tuple[NDArray, NDArray]:
    one, other = np.asarray(a), np.asarray(b)
    if one.ndim != 1 or not one.size or one.shape != other.shape:
        raise ValueError(f"a and b must be two non-empty (N,) arrays, got {one.shape} and {other.shape}")
    return one, other
