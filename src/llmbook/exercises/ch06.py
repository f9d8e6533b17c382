"""Checkers of chapter 06: BERT's masking, and what a token costs in a Markov chain given one side or both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from llmbook.exercises import Case, Mistake, check

Ids = NDArray[np.int64]
Draws = NDArray[np.float64]
IGNORE = -100


def check_masking(function: Callable[[Ids, Draws, Draws, Ids, int], tuple[Ids, Ids]]) -> bool:
    """Check ``function(ids, choice, fate, others, mask_id)`` → (inputs, labels), all (T,) but for the last.

    ``choice`` and ``fate`` are uniform draws from [0, 1): a token is chosen where choice < 0.15; a chosen one is
    hidden where fate < 0.8, exchanged for its ``others`` where 0.8 ≤ fate < 0.9, and else kept. Id 0 is special.
    """
    cases = [Case(f"{length} tokens", (*args, 99), _mask(*args, 99)) for length, args in _texts()]
    return check(function, cases, _MASKING_MISTAKES)


def _texts() -> list[tuple[int, tuple]]:
    rng = np.random.default_rng(6)
    texts = []
    for length in (400, 60):
        ids = np.concatenate([[0], rng.integers(1, 50, length - 1)])
        choice = rng.random(length) / 2  # about three in ten are chosen
        choice[0] = 0.01  # <bos> would be chosen, if it might be
        texts.append((length, (ids, choice, rng.random(length), rng.integers(50, 90, length))))
    return texts


def _mask(
    ids: Ids,
    choice: Draws,
    fate: Draws,
    others: Ids,
    mask_id: int,
    *,
    special: bool = True,
    hidden: float = 0.8,
    exchanged: float = 0.9,
    label_all: bool = False,
    label_hidden: bool = False,
    label_spoiled: bool = False,
) -> tuple[Ids, Ids]:
    """The right masking, or one of its mistakes."""
    chosen = (choice < 0.15) & ((ids != 0) | (not special))
    inputs = np.where(chosen & (fate < hidden), mask_id, ids)
    inputs = np.where(chosen & (fate >= hidden) & (fate < exchanged), others, inputs)
    scored = np.ones_like(chosen) if label_all else chosen & (fate < hidden) if label_hidden else chosen
    return inputs, np.where(scored, inputs if label_spoiled else ids, IGNORE)


def _with(**change: bool | float) -> Callable[..., tuple[Ids, Ids]]:
    return lambda *args: _mask(*args, **change)


_MASKING_MISTAKES = [
    Mistake("every token has a label; only the chosen ones are scored, the others get −100.", _with(label_all=True)),
    Mistake(
        "only hidden tokens have labels. Those that were exchanged or kept were chosen too, and are asked for.",
        _with(label_hidden=True),
    ),
    Mistake("your labels are what the text was spoiled to; they must be what it was.", _with(label_spoiled=True)),
    Mistake("<bos> (id 0) is hidden too. Special tokens are never chosen.", _with(special=False)),
    Mistake("all chosen tokens are hidden; one in ten should be exchanged, and one in ten kept.", _with(hidden=1.0)),
    Mistake("no chosen token is kept: fate at or above 0.9 leaves it as it is.", _with(exchanged=1.0)),
    Mistake("no chosen token is exchanged for another word: that is for fates from 0.8 to 0.9.", _with(exchanged=0.8)),
    Mistake(
        "you return labels and inputs in the wrong order: inputs first.",
        lambda *args: _mask(*args)[::-1],
    ),
]

# ------------------------------------------------------------------------------------------------ two sides


def check_two_sides(function: Callable[[NDArray[np.float64]], tuple[float, float]]) -> bool:
    """Check ``function(P)``: nats per token of a stationary chain, given the token before, and given both neighbours.

    ``P`` (k, k) has row u for p(next | u).
    """
    rng = np.random.default_rng(7)
    chains = {
        "a fair coin": np.full((2, 2), 0.5),
        "a coin that likes to repeat": np.array([[0.9, 0.1], [0.1, 0.9]]),
        "three states, unequal": rng.dirichlet(np.ones(3), 3),
        "a fixed cycle": np.roll(np.eye(4), 1, axis=1),
    }
    cases = [Case(name, (P,), _two_sides(P)) for name, P in chains.items()]
    return check(function, cases, _SIDES_MISTAKES)


def _stationary(P: NDArray) -> NDArray:
    k = len(P)
    return np.linalg.lstsq(np.vstack([P.T - np.eye(k), np.ones(k)]), np.append(np.zeros(k), 1.0), rcond=None)[0]


def _entropy(p: NDArray, weights: NDArray) -> float:
    """Σ weights · (−ln p), where 0 · ln 0 is 0."""
    return float(-(weights * np.log(np.where(p > 0, p, 1.0))).sum())


def _two_sides(P: NDArray, weights: NDArray | None = None, unit: float = 1.0) -> tuple[float, float]:
    pi = _stationary(P) if weights is None else weights
    triple = pi[:, None, None] * P[:, :, None] * P[None, :, :]  # p(u, v, w)
    pair = pi[:, None] * P
    total = triple.sum(axis=1, keepdims=True)
    given_both = np.divide(triple, total, out=np.zeros_like(triple), where=total > 0)  # p(v | u, w)
    return _entropy(P, pair) / unit, _entropy(given_both, triple) / unit


def _unnormalised(P: NDArray) -> tuple[float, float]:
    """P[u, v] · P[v, w], taken for a probability of v as it stands."""
    pi = _stationary(P)
    triple = pi[:, None, None] * P[:, :, None] * P[None, :, :]
    return _two_sides(P)[0], _entropy(P[:, :, None] * P[None, :, :], triple)


_SIDES_MISTAKES = [
    Mistake("these are bits; the book counts in nats (natural logarithms).", lambda P: _two_sides(P, unit=np.log(2))),
    Mistake(
        "every state counts the same in your means. Weigh them by the stationary distribution, π = πP.",
        lambda P: _two_sides(P, weights=np.full(len(P), 1 / len(P))),
    ),
    Mistake(
        "P[u, v] · P[v, w] is the chance of v and w. To be p(v | u, w) it must be divided by its sum over v.",
        _unnormalised,
    ),
    Mistake(
        "with both neighbours you are left with the same number: the right neighbour is not used.",
        lambda P: (_two_sides(P)[0],) * 2,
    ),
]
