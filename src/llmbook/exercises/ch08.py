"""Checkers of chapter 08: a schedule and the gradient noise scale."""

from __future__ import annotations

from collections.abc import Callable

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
