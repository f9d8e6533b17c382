"""Checkers of chapter 22: the expected calibration error, and the threshold of conformal prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from llmbook.exercises import Case, Mistake, check

Numbers = Sequence[float]


def check_ece(function: Callable[[Numbers, Numbers, int], float]) -> bool:
    """Check ``function(confidence, correct, bins)``: the calibration error over bins of equal width."""
    inputs = {
        "two bins, one of them right": ([0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0], 10),
        "bins of unequal size": ([0.95, 0.95, 0.95, 0.95, 0.55], [1, 0, 1, 0, 1], 5),
        "an empty bin": ([0.1, 0.9], [0, 1], 4),
        "a confidence of 1": ([1.0, 1.0, 0.2], [1, 0, 0], 5),
        "too low and too high": ([0.3, 0.3, 0.8, 0.8], [1, 0, 0, 1], 2),
    }
    cases = [Case(name, args, _ece(*args)) for name, args in inputs.items()]
    return check(function, cases, _ECE_MISTAKES)


def _ece(
    confidence: Numbers, correct: Numbers, bins: int, *, even: bool = False, signed: bool = False, middle: bool = False
) -> float:
    c, y = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    where = np.minimum((c * bins).astype(int), bins - 1)
    found = []
    for b in sorted(set(where)):
        claimed = (b + 0.5) / bins if middle else c[where == b].mean()
        gap = y[where == b].mean() - claimed
        found.append(((where == b).mean(), gap if signed else abs(gap)))
    weights, gaps = zip(*found, strict=True)
    return float(abs(np.average(gaps, weights=None if even else weights)))


_ECE_MISTAKES = [
    Mistake("each bin counts by its share of the items; yours count alike.", lambda c, y, b: _ece(c, y, b, even=True)),
    Mistake(
        "take each bin's gap without its sign before you add: gaps of opposite sign cancel.",
        lambda c, y, b: _ece(c, y, b, signed=True),
    ),
    Mistake("compare with the bin's mean confidence, not with its middle.", lambda c, y, b: _ece(c, y, b, middle=True)),
]


def check_threshold(function: Callable[[Numbers, float], float]) -> bool:
    """Check ``function(scores, alpha)``: the ⌈(n + 1)(1 − α)⌉-th smallest score, infinite where there is none."""
    nine = [0.1, 0.9, 0.4, 0.3, 0.8, 0.2, 0.6, 0.5, 0.7]
    inputs = {
        "nine scores, alpha a fifth": (nine, 0.2),
        "nine scores, alpha a half": (nine, 0.5),
        "nineteen scores, alpha a tenth": ([i / 20 for i in range(1, 20)], 0.1),
        "a rank that is no whole number": ([0.5, 0.1, 0.4, 0.2], 0.3),
        "too few scores": ([0.2, 0.3], 0.1),
    }
    cases = [Case(name, args, _threshold(*args)) for name, args in inputs.items()]
    return check(function, cases, _THRESHOLD_MISTAKES)


def _threshold(scores: Numbers, alpha: float, *, extra: int = 1, limit: bool = False) -> float:
    rank = math.ceil((len(scores) + extra) * (1 - alpha) - 1e-9)
    if rank > len(scores):
        return max(scores) if limit else math.inf
    return sorted(scores)[rank - 1]


_THRESHOLD_MISTAKES = [
    Mistake("the new item counts as well: n + 1 scores, not n.", lambda s, a: _threshold(s, a, extra=0)),
    Mistake(
        "where n is too small for alpha no finite score will do: return math.inf.",
        lambda s, a: _threshold(s, a, limit=True),
    ),
    Mistake("that is the α-quantile; take that of 1 − α.", lambda s, a: _threshold(s, 1 - a)),
    Mistake(
        "np.quantile interpolates between two scores and forgets the new item: take a score by its rank.",
        lambda s, a: float(np.quantile(s, 1 - a)),
    ),
]
