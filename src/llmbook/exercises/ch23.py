"""Checker of chapter 23: integrated gradients by the midpoint rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from llmbook.exercises import Case, Mistake, check

Vector = NDArray[np.float64]
Gradient = Callable[[Vector], Vector]


def check_integrated(function: Callable[[Gradient, Vector, Vector, int], Vector]) -> bool:
    """Check ``function(gradient, x, baseline, steps)``: integrated gradients of x, (C,), by the midpoint rule."""
    x, base = np.array([1.0, -2.0, 0.5]), np.array([0.2, 0.4, -1.0])
    inputs = {
        "a linear function": (_of_line, x, np.zeros(3), 4),
        "a cubic, from zero": (_of_cubic, x, np.zeros(3), 5),
        "a cubic, from another point": (_of_cubic, x, base, 7),
        "one step": (_of_cubic, x, base, 1),
        "nowhere to go": (_of_cubic, x, x, 3),
    }
    cases = [Case(name, args, _integrated(*args)) for name, args in inputs.items()]
    return check(function, cases, _MISTAKES)


def _of_line(x: Vector) -> Vector:
    return np.array([2.0, -1.0, 3.0]) + 0 * x


def _of_cubic(x: Vector) -> Vector:
    """Of x₀³ + x₁² x₂."""
    return np.array([3 * x[0] ** 2, 2 * x[1] * x[2], x[1] ** 2])


def _integrated(
    gradient: Gradient,
    x: Vector,
    baseline: Vector,
    steps: int,
    *,
    shift: float = 0.5,
    by: str = "way",
    mean: bool = True,
) -> Vector:
    total = sum(gradient(baseline + (k + shift) / steps * (x - baseline)) for k in range(steps))
    factor = {"way": x - baseline, "input": x, "nothing": 1.0}[by]
    return total * factor / (steps if mean else 1)


def _mistake(hint: str, **how: object) -> Mistake:
    return Mistake(hint, lambda *args: _integrated(*args, **how))


_MISTAKES = [
    _mistake(
        "two things: the slopes are taken at the beginning of each step and not in its middle, and they are not "
        "multiplied by the way x − baseline.", shift=0.0, by="nothing",
    ),
    _mistake("the slopes are taken at the beginning of each step; the midpoint rule takes its middle.", shift=0.0),
    _mistake("the slopes are taken at the end of each step; the midpoint rule takes its middle.", shift=1.0),
    _mistake("this is the mean slope; multiply it by the way, x − baseline.", by="nothing"),
    _mistake("the mean slope is multiplied by x; the way is x − baseline.", by="input"),
    _mistake("the slopes are added; their mean is wanted, so divide by steps.", mean=False),
    Mistake("this is gradient times way at x alone: nothing is integrated.", lambda g, x, b, steps: g(x) * (x - b)),
]  # fmt: skip
