"""Checkers of chapter 11: the nucleus, a careless speculation, positions behind padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llmbook.exercises import Case, Mistake, check

Probs = Sequence[float]
Rows = list[list[int]]


def check_nucleus(function: Callable[[Probs, float], Probs]) -> bool:
    """Check ``function(probs, p)``: the distribution after nucleus sampling."""
    inputs = {
        "one token is enough": ([0.05, 0.8, 0.15], 0.5),
        "the token that crosses p": ([0.5, 0.3, 0.15, 0.05], 0.7),
        "not in order": ([0.1, 0.4, 0.2, 0.3], 0.65),
        "nearly everything": ([0.25, 0.4, 0.35], 0.9),
    }
    cases = [Case(name, args, _nucleus(*args)) for name, args in inputs.items()]
    return check(function, cases, _NUCLEUS_MISTAKES)


def _kept(probs: Probs, keep: np.ndarray, scaled: bool = True) -> np.ndarray:
    out = np.where(keep, np.asarray(probs, dtype=float), 0.0)
    return out / out.sum() if scaled and out.sum() else out


def _sums(probs: Probs) -> np.ndarray:
    """At each token, the sum from the likeliest down to it."""
    order = np.argsort(-np.asarray(probs, dtype=float), kind="stable")
    sums = np.empty(len(probs))
    sums[order] = np.cumsum(np.asarray(probs, dtype=float)[order])
    return sums


def _needed(probs: Probs, p: float) -> np.ndarray:
    """Tokens before which the sum, from the likeliest down, is below p."""
    return _sums(probs) - probs < p - 1e-12


def _below(probs: Probs, p: float) -> np.ndarray:
    """Tokens with which the sum is still at most p."""
    return _sums(probs) <= p


def _as_given(probs: Probs, p: float) -> np.ndarray:
    probs = np.asarray(probs, dtype=float)
    return np.cumsum(probs) - probs < p


def _nucleus(probs: Probs, p: float) -> np.ndarray:
    return _kept(probs, _needed(probs, p))


_NUCLEUS_MISTAKES = [
    Mistake(
        "the token that carries the sum across p belongs to the nucleus, and what is left must sum to 1.",
        lambda probs, p: _kept(probs, _below(probs, p), scaled=False),
    ),
    Mistake(
        "the token that carries the sum across p belongs to the nucleus.",
        lambda probs, p: _kept(probs, _below(probs, p)),
    ),
    Mistake("what is left must sum to 1.", lambda probs, p: _kept(probs, _needed(probs, p), scaled=False)),
    Mistake("sort first: the sum runs from the likeliest down.", lambda probs, p: _kept(probs, _as_given(probs, p))),
    Mistake(
        "that keeps tokens of at least probability p; p bounds the sum.",
        lambda probs, p: _kept(probs, np.asarray(probs) >= p),
    ),
]


def check_careless_law(function: Callable[[Probs, Probs], Probs]) -> bool:
    """Check ``function(p, q)``: the law of a token drawn from q, kept with min(1, p/q), else drawn from p."""
    inputs = {
        "a good draft": ([0.5, 0.3, 0.2], [0.4, 0.4, 0.2]),
        "a bad draft": ([0.6, 0.3, 0.1], [0.2, 0.2, 0.6]),
        "the same": ([0.25, 0.75], [0.25, 0.75]),
        "a draft that forbids": ([0.5, 0.25, 0.25], [1.0, 0.0, 0.0]),
    }
    cases = [Case(name, args, _careless(*map(np.array, args))) for name, args in inputs.items()]
    return check(function, cases, _LAW_MISTAKES)


def _careless(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    both = np.minimum(p, q)
    return both + (1 - both.sum()) * p


_LAW_MISTAKES = [
    Mistake("that is the law with the right replacement; here it is drawn from p itself.", lambda p, q: np.array(p)),
    Mistake("the refused share is missing: what you have doesn't sum to 1.", lambda p, q: np.minimum(p, q)),
    Mistake(
        "kept tokens have probability q · min(1, p/q), not the ratio alone.",
        lambda p, q: np.minimum(1, np.array(p) / np.maximum(q, 1e-300)),
    ),
    Mistake(
        "that scales the kept tokens up to 1, as if one drew again until a token is kept.",
        lambda p, q: np.minimum(p, q) / np.minimum(p, q).sum(),
    ),
    Mistake(
        "the replacement is drawn from p, not from q.",
        lambda p, q: np.minimum(p, q) + (1 - np.minimum(p, q).sum()) * np.array(q),
    ),
]


def check_position_ids(function: Callable[[Rows], Rows]) -> bool:
    """Check ``function(mask)``: positions within each row's text, 0 on the padding in front."""
    inputs = {
        "no padding": [[1, 1, 1]],
        "padding in front": [[0, 0, 1, 1, 1]],
        "a batch": [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]],
    }
    cases = [Case(name, (mask,), _positions(mask)) for name, mask in inputs.items()]
    return check(function, cases, _POSITION_MISTAKES)


def _positions(mask: Rows) -> Rows:
    return np.maximum(np.cumsum(mask, axis=1) - 1, 0).tolist()


_POSITION_MISTAKES = [
    Mistake(
        "those are the columns of the batch; count from each row's first token.",
        lambda mask: [list(range(len(row))) for row in mask],
    ),
    Mistake("count from 0, not from 1.", lambda mask: np.cumsum(mask, axis=1).tolist()),
    Mistake(
        "padding has position −1 there, which no table has (or which reads its last row).",
        lambda mask: (np.cumsum(mask, axis=1) - 1).tolist(),
    ),
    Mistake(
        "that counts from the end; the padding is in front.",
        lambda mask: [list(range(sum(row))) + [0] * (len(row) - sum(row)) for row in mask],
    ),
]
