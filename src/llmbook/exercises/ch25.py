"""Checker of chapter 25: the clipped sum of DP-SGD."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from llmbook.exercises import Case, Mistake, check

Rows = Sequence[Sequence[float]]


def check_clipped_sum(function: Callable[[Rows, float], NDArray[np.float64]]) -> bool:
    """Check ``function(gradients, clip)``: each row of (B, P) clipped to length ``clip``, then added up, (P)."""
    inputs = {
        "one long row": ([[3.0, 4.0]], 1.0),
        "one short row": ([[0.3, 0.4]], 1.0),
        "a long and a short row": ([[6.0, 8.0, 0.0], [0.0, 0.1, 0.2]], 2.0),
        "rows that nearly cancel": ([[5.0, 0.0], [-4.0, 0.5], [0.1, 0.0]], 1.5),
        "a row of zeros": ([[0.0, 0.0], [0.0, 2.0]], 1.0),
    }
    cases = [Case(name, args, _clipped_sum(*args)) for name, args in inputs.items()]
    return check(function, cases, _MISTAKES)


def _lengths(rows: Rows) -> NDArray[np.float64]:
    return np.maximum(np.linalg.norm(np.asarray(rows, dtype=float), axis=1, keepdims=True), 1e-12)


def _clipped_sum(rows: Rows, clip: float) -> NDArray[np.float64]:
    return (np.asarray(rows) * np.minimum(1, clip / _lengths(rows))).sum(0)


def _sum_clipped(rows: Rows, clip: float) -> NDArray[np.float64]:
    total = np.asarray(rows, dtype=float).sum(0)
    return total * min(1, clip / max(float(np.linalg.norm(total)), 1e-12))


_MISTAKES = [
    Mistake("clip every row before you add; you clip the sum, and one row could still fill it.", _sum_clipped),
    Mistake(
        "short rows stay as they are; you stretch them to the clip's length.",
        lambda rows, clip: (np.asarray(rows) * clip / _lengths(rows)).sum(0),
    ),
    Mistake(
        "a row is clipped in its length, not number by number: its direction must stay.",
        lambda rows, clip: np.clip(rows, -clip, clip).sum(0),
    ),
    Mistake("that is the mean; the sum is wanted.", lambda rows, clip: _clipped_sum(rows, clip) / len(rows)),
    Mistake("nothing is clipped yet.", lambda rows, clip: np.asarray(rows, dtype=float).sum(0)),
]
