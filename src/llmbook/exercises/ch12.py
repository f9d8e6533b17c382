"""Checkers of chapter 12: what a training run costs, and the best size at one budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from llmbook.exercises import Case, Mistake, check

Bill = Callable[[float, float, float, float, float, float, float, float], tuple[float, float, float, float]]
BestSize = Callable[[Sequence[float], Sequence[float]], float]


def check_bill(function: Bill) -> bool:
    """Check ``function(n_params, tokens, peak, utilisation, watts, pue, price, carbon)``: hours, kWh, dollars, kg."""
    inputs = {
        "one card, one hour": (6e8, 1e9, 2e15, 0.5, 1000, 1.0, 2.0, 0.5),
        "a building that needs a fifth more": (6e8, 1e9, 2e15, 0.5, 1000, 1.2, 2.0, 0.5),
        "a large model": (405e9, 15.6e12, 989e12, 0.4, 700, 1.1, 2.5, 0.4),
        "an old card": (175e9, 300e9, 125e12, 0.2, 330, 1.1, 1.5, 0.43),
    }
    cases = [Case(name, args, _bill(*args)) for name, args in inputs.items()]
    return check(function, cases, _BILL_MISTAKES)


def _bill(
    n: float, tokens: float, peak: float, u: float, watts: float, pue: float, price: float, carbon: float,
    per_token: float = 6, per_hour: float = 3600, per_kilo: float = 1000,
) -> tuple[float, float, float, float]:  # fmt: skip
    hours = per_token * n * tokens / (u * peak) / per_hour
    kwh = hours * watts * pue / per_kilo
    return hours, kwh, hours * price, kwh * carbon


_BILL_MISTAKES = [
    Mistake("2 operations are the forward pass's; the backward pass has another 4.", lambda *a: _bill(*a, per_token=2)),
    Mistake("that is seconds where hours are wanted: divide by 3,600.", lambda *a: _bill(*a, per_hour=1)),
    Mistake("watts times hours are watt-hours; a thousand of them are a kWh.", lambda *a: _bill(*a, per_kilo=1)),
    Mistake(
        "a card reaches its *utilisation* of the peak, so the time is divided by it, not multiplied.",
        lambda n, t, peak, u, *rest: _bill(n, t, peak, 1 / u, *rest),
    ),
    Mistake(
        "the utilisation is missing: no run reaches the peak.",
        lambda n, t, peak, u, *rest: _bill(n, t, peak, 1.0, *rest),
    ),
    Mistake("PUE is missing: the building draws more than its machines.",
            lambda n, t, peak, u, w, pue, *rest: _bill(n, t, peak, u, w, 1.0, *rest)),
    Mistake("the price is that of an hour, whatever the card draws in it.",
            lambda *a: (*(b := _bill(*a))[:2], b[1] * a[6], b[3])),
    Mistake("carbon comes with the energy, kg per kWh, not with the hours.",
            lambda *a: (*(b := _bill(*a))[:3], b[0] * a[7])),
]  # fmt: skip


def check_best_size(function: BestSize) -> bool:
    """Check ``function(sizes, losses)``: where the parabola over ln N is lowest, NaN where it is not seen."""
    sizes = [1e6, 3e6, 1e7, 3e7, 1e8]

    def losses(middle: float, square: float = 0.02) -> list[float]:
        return [2.0 + square * math.log(n / middle) ** 2 for n in sizes]

    inputs = {
        "the lowest point is one of the sizes": (sizes, losses(1e7)),
        "between two sizes": (sizes, losses(5e6)),
        "three sizes": (sizes[:3], losses(2e6)[:3]),
        "a valley that is not symmetric": (sizes, [2.30, 2.12, 2.05, 2.07, 2.20]),
        "still falling at the last size: not seen": (sizes, losses(1e9)),
        "rising from the first: not seen": (sizes, losses(1e5)),
        "a hill has no lowest point": (sizes, losses(1e7, -0.02)),
    }
    cases = [Case(name, args, _best_size(*args)) for name, args in inputs.items()]
    return check(function, cases, _SIZE_MISTAKES)


def _vertex(sizes: Sequence[float], losses: Sequence[float], scale: Callable = np.log) -> tuple[float, float]:
    square, slope, _ = np.polyfit(scale(np.asarray(sizes)), losses, 2)
    return square, -slope / (2 * square)


def _best_size(sizes: Sequence[float], losses: Sequence[float]) -> float:
    square, best = _vertex(sizes, losses)
    inside = math.log(min(sizes)) <= best <= math.log(max(sizes))
    return math.exp(best) if square > 0 and inside else math.nan


def _plain(sizes: Sequence[float], losses: Sequence[float]) -> float:
    square, best = _vertex(sizes, losses, lambda n: n)
    return best if square > 0 and min(sizes) <= best <= max(sizes) else math.nan


def _any_hill(sizes: Sequence[float], losses: Sequence[float]) -> float:
    best = _vertex(sizes, losses)[1]
    return math.exp(best) if math.log(min(sizes)) <= best <= math.log(max(sizes)) else math.nan


def _anywhere(sizes: Sequence[float], losses: Sequence[float]) -> float:
    square, best = _vertex(sizes, losses)
    return math.exp(best) if square > 0 else math.nan


_SIZE_MISTAKES = [
    Mistake("that is ln N; the number of parameters is e to that power.",
            lambda n, x: math.log(_best_size(n, x))),
    Mistake("that is the best of the sizes that were tried; the parabola's lowest point lies between them.",
            lambda n, x: n[int(np.argmin(x))]),
    Mistake("the parabola is one over ln N, not over N.", _plain),
    Mistake("a parabola that opens downwards has a highest point: return nan.", _any_hill),
    Mistake("outside the sizes that were tried the valley has not been seen: return nan.", _anywhere),
    Mistake("the vertex of s·t² + m·t is at −m/2s; mind the sign.",
            lambda n, x: math.exp(-_vertex(n, x)[1]) if math.isfinite(_best_size(n, x)) else math.nan),
]  # fmt: skip
