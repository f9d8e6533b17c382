"""Checkers of chapter 08: a schedule, the mean over unequal micro-batches, and the gradient noise scale."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from llmbook.exercises import Case, Mistake, check


def check_wsd(function: Callable[[int, int, int, int, float], float]) -> bool:
    """Check ``function(step, steps, warmup, decay, peak)``: warm-up, stable, decay; steps counted from 0."""
    trials = {
        "the first step of the warm-up": (0, 100, 10, 20, 1.0),
        "inside the warm-up": (4, 100, 10, 20, 2.0),
        "the last step of the warm-up": (9, 100, 10, 20, 1.0),
        "on the plateau": (50, 100, 10, 20, 3.0),
        "the first step of the decay": (80, 100, 10, 20, 1.0),
        "inside the decay": (85, 100, 10, 20, 1.0),
        "the last step": (99, 100, 10, 20, 1.0),
        "no warm-up": (0, 100, 0, 20, 1.0),
    }
    cases = [Case(name, args, _wsd(*args)) for name, args in trials.items()]
    return check(function, cases, _WSD_MISTAKES)


def _wsd(step: int, steps: int, warmup: int, decay: int, peak: float, shift: int = 1, low: float = 0.0) -> float:
    if step < warmup:
        return peak * (step + shift) / warmup
    into = step - (steps - decay)
    return peak * (1 - (1 - low) * max(0, into) / decay)


_WSD_MISTAKES = [
    Mistake(
        "your warm-up begins at a rate of zero, so the first step does nothing. With steps counted from 0, step t "
        "has (t + 1)/warmup of the peak.",
        lambda *args: _wsd(*args, shift=0),
    ),
    Mistake(
        "the decay reaches zero one step too early, on the last step, which then does nothing.",
        lambda step, steps, warmup, decay, peak: (
            peak * (step + 1) / warmup if step < warmup else peak * (1 - max(0, step - (steps - decay) + 1) / decay)
        ),
    ),
    Mistake(
        "the rate falls from the end of the warm-up on: that is a linear schedule. Hold the peak until `decay` "
        "steps are left.",
        lambda step, steps, warmup, decay, peak: (
            peak * (step + 1) / warmup if step < warmup else peak * (1 - (step - warmup) / (steps - warmup))
        ),
    ),
    Mistake(
        "the decay is missing: the peak is held to the end.",
        lambda step, steps, warmup, decay, peak: peak * min(1.0, (step + 1) / warmup) if warmup else peak,
    ),
    Mistake(
        "the warm-up is missing: the first step already has the peak.",
        lambda step, steps, warmup, decay, peak: _wsd(step, steps, 0, decay, peak),
    ),
    Mistake("the shape is right, but the peak is taken to be 1.", lambda *args: _wsd(*args[:-1], 1.0)),
]


def check_accumulate(function: Callable[[Sequence[float], Sequence[int]], float]) -> bool:
    """Check ``function(means, counts)``: the mean per token over micro-batches of unequal size."""
    trials = {
        "two of the same size": ([1.0, 3.0], [5, 5]),
        "one long, one short": ([2.0, 0.5], [90, 10]),
        "three": ([1.0, 2.0, 6.0], [1, 2, 3]),
        "one micro-batch": ([0.7], [11]),
        "one without any label": ([1.5, 0.0], [8, 0]),
        "one whose mean is NaN, for want of labels": ([1.5, math.nan, 0.5], [6, 0, 2]),
    }
    cases = [Case(name, args, _weighted(*args)) for name, args in trials.items()]
    return check(function, cases, _ACCUMULATE_MISTAKES)


def _weighted(means: Sequence[float], counts: Sequence[int]) -> float:
    return _total(means, counts) / sum(counts)


def _total(means: Sequence[float], counts: Sequence[int], skip: bool = True) -> float:
    """The sum over all tokens; without ``skip`` a micro-batch that has none spoils it by its NaN."""
    return sum(m * n for m, n in zip(means, counts, strict=True) if n or not skip)


_ACCUMULATE_MISTAKES = [
    Mistake(
        "a micro-batch without labels spoils the sum: its mean is NaN, and NaN times zero is NaN. Leave it out.",
        lambda means, counts: _total(means, counts, skip=False) / sum(counts),
    ),
    Mistake(
        "this is the mean of the means: a token in a short micro-batch counts for more than one in a long one.",
        lambda means, counts: sum(means) / len(means),
    ),
    Mistake(
        "this is the sum of the means. It grows with the number of micro-batches, like a larger learning rate.",
        lambda means, counts: sum(means),
    ),
    *[
        Mistake(
            "this is the sum over all tokens; divide it by their number.",
            functools.partial(_total, skip=skip),
        )
        for skip in (True, False)
    ],
    *[
        Mistake(
            "the sum over all tokens is right; divide by the number of *tokens*, not of micro-batches.",
            lambda means, counts, skip=skip: _total(means, counts, skip) / len(counts),
        )
        for skip in (True, False)
    ],
]


def check_noise_scale(function: Callable[[int, int, float, float], float]) -> bool:
    """Check ``function(small, big, norm_small, norm_big)``: tr Σ/|G|² from two mean *squared* gradient norms."""
    trials = {
        "the noise is 12, the gradient 1": (2, 8, 1 + 12 / 2, 1 + 12 / 8),
        "batches of 1 and 64": (1, 64, 0.5 + 100, 0.5 + 100 / 64),
        "little noise": (4, 16, 3 + 0.4 / 4, 3 + 0.4 / 16),
        "a long gradient": (4, 32, 100 + 5 / 4, 100 + 5 / 32),
    }
    cases = [Case(name, args, _noise_scale(*args)) for name, args in trials.items()]
    return check(function, cases, _NOISE_MISTAKES)


def _noise_scale(small: int, big: int, norm_small: float, norm_big: float) -> float:
    signal = (big * norm_big - small * norm_small) / (big - small)
    return (norm_small - norm_big) / (1 / small - 1 / big) / signal


_NOISE_MISTAKES = [
    Mistake(
        "you divide by the big batch's norm. That one holds noise as well: the true |G|² is (B₂n₂ − B₁n₁)/(B₂ − B₁).",
        lambda small, big, a, b: (a - b) / (1 / small - 1 / big) / b,
    ),
    Mistake(
        "1/B₁ − 1/B₂ is missing: the difference of the norms is not yet the variance of *one* example's gradient.",
        lambda small, big, a, b: (a - b) * (big - small) / (big * b - small * a),
    ),
    Mistake(
        "you give the variance tr Σ; the noise scale is its ratio to |G|².",
        lambda small, big, a, b: (a - b) / (1 / small - 1 / big),
    ),
    Mistake(
        "you give |G|², the denominator; the noise scale is tr Σ over it.",
        lambda small, big, a, b: (big * b - small * a) / (big - small),
    ),
    Mistake("upside down: this is |G|² over tr Σ.", lambda *args: 1 / _noise_scale(*args)),
    Mistake(
        "the arguments are squared norms already; do not square them again.",
        lambda small, big, a, b: _noise_scale(small, big, a * a, b * b),
    ),
]
