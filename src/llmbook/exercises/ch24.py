"""Checker of chapter 24: the two-sided exact p-value of an association test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from llmbook.exercises import Case, Mistake, check

Numbers = Sequence[float]


def check_p(function: Callable[[Numbers, Numbers], float]) -> bool:
    """Check ``function(x, y)``: the share of splits of all words at least as extreme as the real one, two-sided."""
    inputs = {
        "the most extreme split of six": ([5.0, 6, 7], [1.0, 2, 3]),
        "the least extreme split": ([1.0, 2, 3], [5.0, 6, 7]),
        "one in the middle": ([1.0, 6, 3], [5.0, 2, 8]),
        "ties between words": ([2.0, 2, 1], [1.0, 2, 0]),
        "eight words": ([0.5, 3, -1, 4], [0.0, 2, -2, 1]),
        "tenths, which rounding may part": ([0.1, 0.2, 0.7], [0.3, 0.3, 0.1]),
    }
    cases = [Case(name, args, _p(*args)) for name, args in inputs.items()]
    return check(function, cases, _MISTAKES)


def _splits(x: Numbers, y: Numbers) -> tuple[list[float], float]:
    """The statistic of every split, and the real one."""
    both = [*x, *y]
    return [2 * sum(half) - sum(both) for half in combinations(both, len(x))], sum(x) - sum(y)


def _p(x: Numbers, y: Numbers) -> float:
    splits, real = _splits(x, y)
    return sum(abs(s) >= abs(real) - 1e-9 for s in splits) / len(splits)


def _strict(x: Numbers, y: Numbers) -> float:
    splits, real = _splits(x, y)
    return sum(abs(s) > abs(real) + 1e-9 for s in splits) / len(splits)


def _one_sided(x: Numbers, y: Numbers) -> float:
    splits, real = _splits(x, y)
    return sum(s >= real - 1e-9 for s in splits) / len(splits)


def _one_sided_strict(x: Numbers, y: Numbers) -> float:
    splits, real = _splits(x, y)
    return sum(s > real for s in splits) / len(splits)


def _doubled(x: Numbers, y: Numbers) -> float:
    return 2 * _one_sided(x, y)


def _any_size(x: Numbers, y: Numbers) -> float:
    both, real = [*x, *y], sum(x) - sum(y)
    sums = [2 * sum(part) - sum(both) for n in range(len(both) + 1) for part in combinations(both, n)]
    return sum(abs(s) >= abs(real) - 1e-9 for s in sums) / len(sums)


def _unrounded(x: Numbers, y: Numbers) -> float:
    splits, real = _splits(x, y)
    return sum(abs(s) >= abs(real) for s in splits) / len(splits)


def _unrounded_strict(x: Numbers, y: Numbers) -> float:
    splits, real = _splits(x, y)
    return sum(abs(s) > abs(real) for s in splits) / len(splits)


_NOT_COUNTED = "the real split is one of the splits; count it, and no p-value is 0."
_ONE_SIDE = "the test is two-sided: compare sizes, since a difference in the other direction counts, too."
_MISTAKES = [
    Mistake(_NOT_COUNTED, _strict),
    Mistake(_NOT_COUNTED, _unrounded_strict),
    Mistake(_ONE_SIDE, _one_sided),
    Mistake(f"{_ONE_SIDE} And {_NOT_COUNTED}", _one_sided_strict),
    Mistake("twice the one-sided value holds only where the real difference is positive.", _doubled),
    Mistake("the halves are of equal size; you take parts of every size.", _any_size),
    Mistake("equal sums may differ in their last digit: compare with a little slack, such as 1e-9.", _unrounded),
]
