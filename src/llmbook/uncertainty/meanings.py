"""Uncertainty over what is meant, not over how it is said; and how well a score finds wrong answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from llmbook.evaluation import bootstrap_interval


def meanings(answers: Sequence[str], same: Callable[[str, str], bool]) -> NDArray[np.int64]:
    """Each answer's meaning, numbered as they appear (n,): it joins the first whose founder says the same.

    Farquhar et al. (2024) let a model judge ``same``: each of the two must entail the other.
    """
    founders: list[str] = []
    found = []
    for answer in answers:
        number = next((i for i, founder in enumerate(founders) if same(answer, founder)), len(founders))
        if number == len(founders):
            founders.append(answer)
        found.append(number)
    return np.array(found, dtype=np.int64)


def semantic_entropy(meaning: ArrayLike, logprobs: ArrayLike | None = None) -> float:
    """Entropy over the meanings (n,) of n sampled answers, nats.

    Without ``logprobs`` a meaning's probability is its share of the samples. With the answers' log-probabilities
    (n,) it is the sum over its samples, divided by that over all samples.
    """
    m = _meaning(meaning)
    logs = np.zeros(m.size) if logprobs is None else np.asarray(logprobs, dtype=float)
    if logs.shape != m.shape or not np.isfinite(logs).all():
        raise ValueError(f"logprobs must be {m.shape} finite numbers, got shape {logs.shape}")
    weights = np.bincount(m, weights=scipy.special.softmax(logs))
    return float(scipy.special.entr(weights).sum())


def self_consistency(meaning: ArrayLike) -> float:
    """The share of samples that have the most frequent meaning (Wang et al., 2023)."""
    m = _meaning(meaning)
    return float(np.bincount(m).max() / m.size)


def _meaning(meaning: ArrayLike) -> NDArray[np.int64]:
    m = np.asarray(meaning)
    if m.ndim != 1 or not m.size or m.dtype.kind not in "iu" or m.min() < 0:
        raise ValueError(f"meaning must be a non-empty (n,) array of whole numbers from 0, got {m!r}")
    return m


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """The chance that a positive item scores higher than a negative one, ties counting half. Both are (N,)."""
    s, y = np.asarray(score, dtype=float), np.asarray(positive)
    if s.ndim != 1 or s.shape != y.shape or np.isnan(s).any():
        raise ValueError(f"score and positive must be two (N,) arrays without NaN, got {s.shape} and {y.shape}")
    y = y.astype(bool)
    n_pos, n_neg = int(y.sum()), int((~y).sum())
    if not n_pos or not n_neg:
        raise ValueError(f"positive must hold both kinds, got {n_pos} positive and {n_neg} negative")
    return float((scipy.stats.rankdata(s)[y].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def auroc_interval(
    score: ArrayLike,
    positive: ArrayLike,
    *,
    rng: np.random.Generator,
    rival: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> tuple[float, float]:
    """Bootstrap interval of :func:`auroc`, positives and negatives drawn apart; with ``rival`` of the difference.

    The rival's score (N,) is drawn on the same items: what they share cancels.
    """
    s, y = np.asarray(score, dtype=float), np.asarray(positive).astype(bool)
    other = None if rival is None else np.asarray(rival, dtype=float)
    auroc(s, y)  # its checks
    up, down = np.flatnonzero(y), np.flatnonzero(~y)

    def once(_: NDArray[np.float64]) -> float:
        at = np.concatenate([up[rng.integers(up.size, size=up.size)], down[rng.integers(down.size, size=down.size)]])
        return auroc(s[at], y[at]) - (0.0 if other is None else auroc(other[at], y[at]))

    return bootstrap_interval(s, once, rng=rng, confidence=confidence, resamples=resamples)
