"""Sets of answers that hold the right one as often as promised (Vovk et al., 2005), whatever the model is worth.

A score says how badly an answer fits. Of n scores of right answers, seen beforehand, take the ⌈(n + 1)(1 − α)⌉-th
smallest: a new item's right answer scores at most that with probability at least 1 − α, if the new item comes
from where the old ones came from (if their order could be any).
"""

from __future__ import annotations

import math

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Sets = NDArray[np.bool_]


def conformal_quantile(scores: ArrayLike, alpha: float) -> float:
    """The ⌈(n + 1)(1 − α)⌉-th smallest of scores (n,); infinite where n is too small for α."""
    s = np.asarray(scores, dtype=float)
    if s.ndim != 1 or not s.size or np.isnan(s).any():
        raise ValueError(f"scores must be a non-empty (n,) array without NaN, got shape {s.shape}")
    rank = _rank(s.size, alpha)
    return math.inf if rank > s.size else float(np.partition(s, rank - 1)[rank - 1])


def coverage_law(n: int, alpha: float) -> scipy.stats.rv_continuous:
    """The distribution of a rule's coverage over draws of its n calibration items, where scores have no ties.

    Coverage is the value of a rank among uniform ones: Beta(k, n + 1 − k) with k = ⌈(n + 1)(1 − α)⌉.
    """
    rank = _rank(n, alpha)
    if n < 1 or rank > n:
        raise ValueError(f"n must be at least {math.ceil(1 / alpha) - 1} for alpha = {alpha}, got {n}")
    return scipy.stats.beta(rank, n + 1 - rank)


def _rank(n: int, alpha: float) -> int:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    return math.ceil((n + 1) * (1 - alpha) - 1e-9)


def label_scores(probs: ArrayLike, labels: ArrayLike) -> Array:
    """1 − q(label) of distributions (N, K) and labels (N,): Sadinle et al. (2019)."""
    p = _probs(probs)
    return 1 - p[np.arange(len(p)), np.asarray(labels)]


def label_sets(probs: ArrayLike, threshold: float) -> Sets:
    """All answers that score at most the threshold, (N, K): the likely ones, perhaps none."""
    return 1 - _probs(probs) <= threshold


def adaptive_scores(probs: ArrayLike, luck: ArrayLike) -> Array:
    """For each answer the mass of all likelier ones and a share of its own, (N, K): Romano et al. (2020).

    ``luck`` (N,) holds the shares, drawn evenly from [0, 1]; with 1 a set takes no chances with its last member.
    Among equally likely answers the first counts as the likelier.
    """
    p, share = _probs(probs), np.asarray(luck, dtype=float)
    if share.shape != p.shape[:1] or not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"luck must be ({len(p)},) numbers in [0, 1], got shape {share.shape}")
    order = np.argsort(-p, axis=1, kind="stable")
    mass = np.take_along_axis(p, order, axis=1)
    found = np.empty_like(p)
    np.put_along_axis(found, order, mass.cumsum(1) - mass + share[:, None] * mass, axis=1)
    return found


def _probs(probs: ArrayLike) -> Array:
    p = np.asarray(probs, dtype=float)
    if p.ndim != 2 or not p.size:
        raise ValueError(f"probs must be a non-empty (N, K) array, got shape {p.shape}")
    return p
