"""Checkers of chapter 17: the mean reciprocal rank, the fusion of two rankings, risk at a coverage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llmbook.exercises import Case, Mistake, check

Numbers = Sequence[float]


def check_mrr(function: Callable[[Sequence[Sequence[str]], Sequence[str]], float]) -> bool:
    """Check ``function(rankings, right)``: the mean over queries of 1/place of the right passage; 0 where it lacks."""
    inputs = {
        "first and second": ([["a", "b"], ["a", "b"]], ["a", "b"]),
        "one query, third": ([["x", "y", "z"]], ["z"]),
        "a passage that was not found": ([["a", "b"], ["a", "b"]], ["b", "q"]),
        "places 1, 2 and 4": ([list("abcd")] * 3, ["a", "b", "d"]),
    }
    cases = [Case(name, args, _mrr(*args)) for name, args in inputs.items()]
    return check(function, cases, _MRR_MISTAKES)


def _mrr(rankings: Sequence[Sequence[str]], right: Sequence[str], *, first: int = 1, missing: bool = True) -> float:
    gains = [
        1 / (row.index(w) + first) if w in row else 0.0
        for row, w in zip(rankings, right, strict=True)
        if missing or w in row
    ]
    return float(np.mean(gains))


def _of_mean(rankings: Sequence[Sequence[str]], right: Sequence[str]) -> float:
    places = [row.index(w) + 1 for row, w in zip(rankings, right, strict=True) if w in row]
    return float(1 / np.mean(places))


_MRR_MISTAKES = [
    Mistake("a query whose passage was not found counts too, with 0.", lambda r, w: _mrr(r, w, missing=False)),
    Mistake("places begin at 1; yours begin at 2.", lambda r, w: _mrr(r, w, first=2)),
    Mistake("that is one over the mean place; take the mean of one over each place.", _of_mean),
    Mistake(
        "that is the share of queries whose passage is first: recall at 1.",
        lambda r, w: float(np.mean([row[0] == x for row, x in zip(r, w, strict=True)])),
    ),
]


def check_fused(function: Callable[[Sequence[str], Sequence[str]], Sequence[str]]) -> bool:
    """Check ``function(one, two)``: two rankings of the same passages as one, by Σ 1/(60 + place), ties by name."""
    inputs = {
        "the same twice": (list("bac"), list("bac")),
        "the second agrees in part": (list("abcd"), list("badc")),
        "a first place against two seconds": (list("abcde"), list("cbdea")),
        "upside down": (list("abc"), list("cba")),
    }
    cases = [Case(name, args, _fused(*args)) for name, args in inputs.items()]
    return check(function, cases, _FUSED_MISTAKES)


def _fused(
    one: Sequence[str], two: Sequence[str], *, gain: Callable[[int], float] = lambda place: 1 / (60 + place)
) -> list[str]:
    total = {w: gain(one.index(w) + 1) + gain(two.index(w) + 1) for w in one}
    return sorted(one, key=lambda w: (-round(total[w], 12), w))


_FUSED_MISTAKES = [
    Mistake(
        "the lowest sum comes first in your list; the passage with the highest is the best.",
        lambda a, b: _fused(a, b, gain=lambda place: -1 / (60 + place)),
    ),
    Mistake("add 60 to the place before you divide.", lambda a, b: _fused(a, b, gain=lambda place: 1 / place)),
    Mistake("that adds places; add 1/(60 + place).", lambda a, b: _fused(a, b, gain=lambda place: -float(place))),
    Mistake("that is the first ranking; the second counts as much.", lambda a, b: list(a)),
]


def check_risk(function: Callable[[Numbers, Sequence[int], float], float]) -> bool:
    """Check ``function(sure, right, share)``: the share of wrong answers among the surest ``share`` of all."""
    inputs = {
        "all of them": ([0.9, 0.2, 0.6, 0.4], [1, 0, 1, 0], 1.0),
        "the surer half": ([0.9, 0.2, 0.6, 0.4], [1, 0, 1, 0], 0.5),
        "sure and wrong": ([0.3, 0.8, 0.5, 0.1], [1, 0, 1, 1], 0.25),
        "three of four": ([0.1, 0.4, 0.3, 0.2], [1, 1, 0, 1], 0.75),
    }
    cases = [Case(name, args, _risk(*args)) for name, args in inputs.items()]
    return check(function, cases, _RISK_MISTAKES)


def _risk(sure: Numbers, right: Sequence[int], share: float, *, sign: int = -1, of_all: bool = False) -> float:
    n = round(share * len(sure))
    chosen = np.argsort(sign * np.asarray(sure, dtype=float), kind="stable")[:n]
    wrong = 1 - np.asarray(right, dtype=float)[chosen]
    return float(wrong.sum() / (len(sure) if of_all else n))


_RISK_MISTAKES = [
    Mistake(
        "that is the share of right answers; the risk is that of wrong ones.",
        lambda s, r, c: 1 - _risk(s, r, c),
    ),
    Mistake("those are the least sure; answer where confidence is high.", lambda s, r, c: _risk(s, r, c, sign=1)),
    Mistake(
        "divide by the number of answers that are given, not by all questions.",
        lambda s, r, c: _risk(s, r, c, of_all=True),
    ),
    Mistake(
        "the first ones in the list are not the surest; sort by confidence.",
        lambda s, r, c: float(1 - np.mean(r[: round(c * len(r))])),
    ),
]
