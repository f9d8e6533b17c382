"""Checker of chapter 21: the unbiased estimate of pass@k."""

from __future__ import annotations

import math
from collections.abc import Callable

from llmbook.exercises import Case, Mistake, check


def check_pass_at(function: Callable[[int, int, int], float]) -> bool:
    """Check ``function(n, c, k)``: the chance that one of k programs passes, drawn from n of which c pass."""
    inputs = {
        "three of ten pass, five are drawn": (10, 3, 5),
        "one is drawn": (8, 2, 1),
        "none passes": (10, 0, 4),
        "all pass": (6, 6, 3),
        "too few failures to fill the draw": (10, 7, 4),
        "all are drawn": (5, 1, 5),
        "two hundred programs": (200, 13, 100),
    }
    cases = [Case(name, args, _estimate(*args)) for name, args in inputs.items()]
    return check(function, cases, _MISTAKES)


def _estimate(n: int, c: int, k: int) -> float:
    return 1 - math.comb(n - c, k) / math.comb(n, k)


_MISTAKES = [
    Mistake(
        "that draws with replacement; the k programs are drawn from the n without putting one back.",
        lambda n, c, k: 1 - (1 - c / n) ** k,
    ),
    Mistake("that is the chance that all k fail; take it from 1.", lambda n, c, k: 1 - _estimate(n, c, k)),
    Mistake("that is the chance that all k pass; one is enough.", lambda n, c, k: math.comb(c, k) / math.comb(n, k)),
    Mistake("that is the share that passes, whatever k is.", lambda n, c, k: c / n),
    Mistake(
        "the number of failures may never fall below 0: with fewer than k failures the answer is 1.",
        lambda n, c, k: 1 - math.prod((n - c - i) / (n - i) for i in range(k)),
    ),
]
