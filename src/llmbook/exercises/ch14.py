"""Checkers of chapter 14: rounding to a grid, two codes in a byte, the second weight's answer to the first's error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llmbook.exercises import Case, Mistake, check

Numbers = Sequence[float]


def check_rounded(function: Callable[[Numbers, int], Numbers]) -> bool:
    """Check ``function(weights, bits)``: the numbers that symmetric codes of so many bits stand for."""
    inputs = {
        "three bits": ([0.62, -0.31, 0.08, -0.75, 0.20], 3),
        "the largest is negative": ([0.1, -1.4, 0.33, 0.9], 4),
        "eight bits": ([0.5, -0.123, 0.077], 8),
        "nothing but zeros": ([0.0, 0.0], 4),
    }
    cases = [Case(name, args, _rounded(*args)) for name, args in inputs.items()]
    return check(function, cases, _ROUNDED_MISTAKES)


def _rounded(
    weights: Numbers,
    bits: int,
    *,
    size: Callable[[np.ndarray], float] = lambda w: np.abs(w).max(),
    most: Callable[[int], int] = lambda bits: 2 ** (bits - 1) - 1,
    whole: Callable[[np.ndarray], np.ndarray] = np.round,
    back: bool = True,
) -> np.ndarray:
    w = np.asarray(weights, dtype=float)
    step = (size(w) / most(bits)) or 1.0
    return (step if back else 1) * whole(w / step)


_ROUNDED_MISTAKES = [
    Mistake(
        "two faults: the largest in *size* sets the step, and b bits leave 2^(b−1) − 1 codes on each side of zero.",
        lambda w, b: _rounded(w, b, size=np.max, most=lambda bits: 2 ** (bits - 1)),
    ),
    Mistake(
        "the largest in *size* sets the step: take the absolute value first.", lambda w, b: _rounded(w, b, size=np.max)
    ),
    Mistake(
        "those are the codes; multiply by the step to get what they stand for.", lambda w, b: _rounded(w, b, back=False)
    ),
    Mistake("that cuts digits off; round to the nearest whole number.", lambda w, b: _rounded(w, b, whole=np.trunc)),
    Mistake("that rounds down; round to the nearest whole number.", lambda w, b: _rounded(w, b, whole=np.floor)),
    Mistake(
        "a symmetric grid of b bits reaches from −(2^(b−1) − 1) to 2^(b−1) − 1; yours is one code too wide.",
        lambda w, b: _rounded(w, b, most=lambda bits: 2 ** (bits - 1)),
    ),
    Mistake(
        "b bits have 2^b codes for both signs together; half of them are for each.",
        lambda w, b: _rounded(w, b, most=lambda bits: 2**bits - 1),
    ),
    Mistake(
        "where all weights are zero, the step is zero, too: divide by something else.", lambda w, b: _divided(w, b)
    ),
]


def _divided(weights: Numbers, bits: int) -> np.ndarray:
    w = np.asarray(weights, dtype=float)
    return _rounded(w, bits) if np.abs(w).max() else np.full_like(w, np.nan)


def check_packed(function: Callable[[Sequence[int]], Sequence[int]]) -> bool:
    """Check ``function(codes)``: codes of four bits as bytes, two to each, the first in the low half."""
    inputs = {
        "two codes": [3, 5],
        "the largest": [15, 15, 0, 15],
        "an odd number": [1, 2, 3],
        "none": [],
    }
    cases = [Case(name, (codes,), _packed(codes)) for name, codes in inputs.items()]
    return check(function, cases, _PACKED_MISTAKES)


def _packed(codes: Sequence[int], *, swap: bool = False, factor: int = 16, drop: bool = False) -> list[int]:
    full = list(codes) + [0] * (len(codes) % 2)
    full = full[: len(codes) // 2 * 2] if drop else full
    pairs = zip(full[::2], full[1::2], strict=True)
    return [int(b + factor * a) if swap else int(a + factor * b) for a, b in pairs]


_PACKED_MISTAKES = [
    Mistake("the first code belongs into the low half of the byte.", lambda codes: _packed(codes, swap=True)),
    Mistake(
        "the last code of an odd number is lost; give it a byte with a zero.", lambda codes: _packed(codes, drop=True)
    ),
    Mistake("the high half begins at bit 4: shift by four, or multiply by 16.", lambda codes: _packed(codes, factor=8)),
    Mistake("that is one byte for each code.", lambda codes: list(codes)),
    Mistake(
        "you pair the first half of the codes with the second; here neighbours share a byte.",
        lambda codes: _halves(codes),
    ),
]


def _halves(codes: Sequence[int]) -> list[int]:
    full = list(codes) + [0] * (len(codes) % 2)
    half = len(full) // 2
    return [a + 16 * b for a, b in zip(full[:half], full[half:], strict=True)]


def check_second_weight(function: Callable[[Numbers, Sequence[Numbers], float], float]) -> bool:
    """Check ``function(w, H, kept)``: the best second weight once the first of two has been rounded to ``kept``."""
    inputs = {
        "inputs that move together": ([0.45, 0.40], [[2.0, 0.9], [0.9, 1.0]], 0.0),
        "inputs that move against each other": ([0.45, 0.40], [[1.0, -0.5], [-0.5, 1.0]], 0.0),
        "a second input that is larger": ([1.3, -0.2], [[1.0, 1.2], [1.2, 4.0]], 1.0),
        "inputs without relation": ([0.6, 0.7], [[2.0, 0.0], [0.0, 3.0]], 1.0),
    }
    cases = [Case(name, args, _second(*args)) for name, args in inputs.items()]
    return check(function, cases, _SECOND_MISTAKES)


def _second(w: Numbers, H: Sequence[Numbers], kept: float) -> float:
    return w[1] + (w[0] - kept) * H[0][1] / H[1][1]


_SECOND_MISTAKES = [
    Mistake(
        "the sign: what the first has lost, the second must gain.",
        lambda w, H, q: w[1] - (w[0] - q) * H[0][1] / H[1][1],
    ),
    Mistake(
        "divide by the second input's mean square, H[1][1]: it is the second weight that moves.",
        lambda w, H, q: w[1] + (w[0] - q) * H[0][1] / H[0][0],
    ),
    Mistake(
        "how far it moves depends on the size of the second input: divide by H[1][1].",
        lambda w, H, q: w[1] + (w[0] - q) * H[0][1],
    ),
    Mistake(
        "that moves it by the whole error, whatever the inputs have to do with each other.",
        lambda w, H, q: w[1] + (w[0] - q),
    ),
    Mistake(
        "that is by how much it moves; add it to the second weight.", lambda w, H, q: (w[0] - q) * H[0][1] / H[1][1]
    ),
    Mistake(
        "don't round it yet: the best place is asked for, the rounding comes after it.",
        lambda w, H, q: round(_second(w, H, q)),
    ),
]
