"""Checkers of chapter 03: the gradients of two losses over all pairs at once, softmax and negative sampling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit, softmax

from llmbook.exercises import Case, Mistake, check

Array = np.ndarray
Gradients = tuple[Array, Array]


def check_softmax_gradient(function: Callable[[Array, Array, Array], Gradients]) -> bool:
    """Check ``function(w_in, w_out, pair)``: the gradients (V, d), (V, d) of skip-gram's expected loss.

    The loss is -Σ pair[w, c] ln q(c | w) for q = softmax(w_in @ w_out.T) along each row; ``pair`` (V, V) sums to 1.
    """
    cases = [Case(name, args, _softmax(*args)) for name, args in _trials().items()]
    return check(function, cases, _SOFTMAX_MISTAKES)


def check_negative_gradient(function: Callable[[Array, Array, Array, int], Gradients]) -> bool:
    """Check ``function(w_in, w_out, pair, k)``: the gradients (V, d), (V, d) of negative sampling's expected loss.

    The loss is -Σ pair[w, c] ln σ(x) - k Σ p(w) p(c) ln σ(-x) for scores x = w_in @ w_out.T, where p(w) and p(c)
    are the sums of ``pair`` (V, V) along its rows and columns.
    """
    trials = {f"{name}, k = {k}": (*args, k) for k, (name, args) in zip((1, 5, 2), _trials().items(), strict=True)}
    cases = [Case(name, args, _negative(*args)) for name, args in trials.items()]
    return check(function, cases, _NEGATIVE_MISTAKES)


def _trials() -> dict[str, tuple[Array, Array, Array]]:
    """Vectors and pair probabilities; no matrix of pairs is symmetric, so that p(w) and p(c) differ."""
    rng = np.random.default_rng(7)
    trials = {}
    for name, (size, width) in {"six words": (6, 3), "width 1": (4, 1), "pairs that never meet": (5, 4)}.items():
        pair = rng.random((size, size)) ** 2
        if name == "pairs that never meet":
            pair[rng.random((size, size)) < 0.4] = 0
        trials[name] = (rng.normal(size=(size, width)), rng.normal(size=(size, width)), pair / pair.sum())
    return trials


def _both(slope: Array, w_in: Array, w_out: Array) -> Gradients:
    """From the gradient of the scores, (V, V), to those of the two tables."""
    return slope @ w_out, slope.T @ w_in


def _softmax(w_in: Array, w_out: Array, pair: Array, weigh: bool = True, truth: float = 1, axis: int = 1) -> Gradients:
    """The right gradients, but for the weight of each word, the true pairs' push, and what sums to 1."""
    word = pair.sum(axis=1, keepdims=True)
    q = softmax(w_in @ w_out.T, axis=axis)
    slope = word * q - truth * pair if weigh else q - truth * pair / word
    return _both(slope, w_in, w_out)


def _negative(
    w_in: Array, w_out: Array, pair: Array, k: int, sigma: bool = True, noise: float = 1, by: int = 0
) -> Gradients:
    """The right gradients, but for the true pairs' (1 - σ), the noise's push, and whose shares the noise has."""
    x = w_in @ w_out.T
    chance = np.outer(pair.sum(axis=1), pair.sum(axis=by))
    slope = noise * k * chance * expit(x) - pair * (expit(-x) if sigma else 1)
    return _both(slope, w_in, w_out)


def _wrong_ways(right: Callable[..., Gradients]) -> list[Mistake]:
    """What can go wrong after the slope is found, whichever loss it is."""
    return [
        Mistake(
            "the sign is turned round: this is the direction in which the loss falls. The gradient points uphill.",
            lambda *args: tuple(-g for g in right(*args)),
        ),
        Mistake(
            "the two gradients are exchanged. Return that of w_in first.",
            lambda *args: right(*args)[::-1],
        ),
        Mistake(
            "the second is right but for a transposition: u_c is met along a *column* of the scores.",
            lambda w_in, w_out, *rest: (right(w_in, w_out, *rest)[0], _untransposed(right, w_in, w_out, *rest)),
        ),
        Mistake(
            "only one gradient came. Return two, of w_in and of w_out.",
            lambda *args: right(*args)[0],
        ),
    ]


def _untransposed(right: Callable[..., Gradients], w_in: Array, w_out: Array, *rest: Array | int) -> Array:
    """The slope times w_in where its transpose belongs; with tables of one-hot rows the slope itself comes out."""
    eye = np.eye(len(w_in))
    slope = right(w_in @ w_out.T, eye, *rest)[0]  # the same scores, so the same slope
    return slope @ w_in


_SOFTMAX_MISTAKES = [
    Mistake(
        "every word counts alike. A word's row comes as often as the word does: weigh it by p(w).",
        lambda *args: _softmax(*args, weigh=False),
    ),
    Mistake(
        "the true pairs are missing: what came pulls by p(w, c), what is predicted pushes.",
        lambda *args: _softmax(*args, truth=0),
    ),
    Mistake(
        "your q sums to 1 over the words that are given. For each word w it must sum to 1 over c: axis 1.",
        lambda *args: _softmax(*args, axis=0),
    ),
    *_wrong_ways(_softmax),
]

_NEGATIVE_MISTAKES = [
    Mistake(
        "the noise counts once. There are k words of it for each true pair.",
        lambda w_in, w_out, pair, k: _negative(w_in, w_out, pair, 1),
    ),
    Mistake(
        "your true pairs pull with full force for ever. The derivative of -ln σ(x) is -(1 - σ(x)).",
        lambda *args: _negative(*args, sigma=False),
    ),
    Mistake(
        "the noise is missing: with true pairs alone every score grows without end.",
        lambda *args: _negative(*args, noise=0),
    ),
    Mistake(
        "your noise has the shares of the *given* words. It is drawn by those of the context words: sum over rows.",
        lambda *args: _negative(*args, by=1),
    ),
    *_wrong_ways(_negative),
]
