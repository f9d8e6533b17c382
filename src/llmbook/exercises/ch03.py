"""Checkers of chapter 03: subsampling, a word's probability in the Huffman tree, CBOW's gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit, softmax

from llmbook.exercises import Case, Mistake, check

Array = np.ndarray


def check_keep_probability(function: Callable[[int, int, float], float]) -> bool:
    """Check ``function(count, total, threshold)``: the program's chance to keep one occurrence of a word."""
    trials = {
        "a frequent word": (60_000, 1_000_000, 1e-3),
        "a word three times above the threshold": (3_000, 1_000_000, 1e-3),
        "a rare word is always kept": (7, 1_000_000, 1e-3),
        "a word exactly at the threshold": (1_000, 1_000_000, 1e-3),
        "another threshold": (500, 20_000, 1e-4),
    }
    cases = [Case(name, args, _keep(*args)) for name, args in trials.items()]
    return check(function, cases, _KEEP_MISTAKES)


def _keep(count: int, total: int, threshold: float) -> float:
    ratio = threshold * total / count  # t / f
    return min(1.0, ratio**0.5 + ratio)


def _paper(count: int, total: int, threshold: float) -> float:
    return (threshold * total / count) ** 0.5


_KEEP_MISTAKES = [
    Mistake(
        "this is the paper's formula, √(t/f). The programs, ours too, keep more: add t/f.",
        lambda *args: min(1.0, _paper(*args)),
    ),
    Mistake(
        "this is the paper's formula, and for rare words it exceeds 1. Cap it, and add the programs' t/f.",
        _paper,
    ),
    Mistake(
        "right for frequent words, but a probability above 1 is none: cap it.",
        lambda *args: _paper(*args) + _paper(*args) ** 2,
    ),
    Mistake(
        "this is the probability to *drop* an occurrence. Return one minus it.",
        lambda *args: 1 - _keep(*args),
    ),
    Mistake(
        "t is compared with the raw count. It goes with the relative frequency, count / total.",
        lambda count, total, threshold: _keep(count, 1, threshold),
    ),
]


def check_path_probability(function: Callable[[Array, Array, Array], float]) -> bool:
    """Check ``function(h, nodes, codes)``, the probability of a leaf: h (d,), its path's vectors (L, d) and turns (L,).

    A turn 0 goes left, with probability σ(h·u); a turn 1 goes right.
    """
    rng = np.random.default_rng(3)
    turns = {
        "always left": [0, 0, 0],
        "always right": [1, 1],
        "left, right, left": [0, 1, 0],
        "a long path": [1, 0, 0, 1, 1],
    }
    cases = []
    for name, codes in turns.items():
        args = (rng.normal(size=4), rng.normal(size=(len(codes), 4)), np.array(codes))
        cases.append(Case(name, args, _path(*args)))
    cases.append(Case("the root is the leaf", (rng.normal(size=4), np.empty((0, 4)), np.empty(0, int)), 1.0))
    return check(function, cases, _PATH_MISTAKES)


def _path(h: Array, nodes: Array, codes: Array) -> float:
    return float(np.prod(expit((1 - 2 * codes) * (nodes @ h))))


_PATH_MISTAKES = [
    Mistake(
        "the sign never flips. A right turn (code 1) has probability 1 − σ(h·u) = σ(−h·u); "
        "as it is, the leaves' probabilities do not sum to 1.",
        lambda h, nodes, codes: float(np.prod(expit(nodes @ h))),
    ),
    Mistake(
        "left and right are exchanged. Here code 0, a left turn, has probability σ(h·u).",
        lambda h, nodes, codes: float(np.prod(expit((2 * codes - 1) * (nodes @ h)))),
    ),
    Mistake(
        "this is the log-probability. The question asks for the probability.",
        lambda h, nodes, codes: float(np.log(expit((1 - 2 * codes) * (nodes @ h))).sum()),
    ),
    Mistake(
        "the turns' probabilities are added. All of them must happen: multiply.",
        lambda h, nodes, codes: float(expit((1 - 2 * codes) * (nodes @ h)).sum()),
    ),
]


def check_cbow_gradient(function: Callable[[Array, Array, int], Array]) -> bool:
    """Check ``function(context, output, target)``: the gradient of CBOW's loss for each context vector, (C, d).

    ``context`` (C, d) holds the neighbours' vectors, ``output`` (V, d) all words' output vectors; the loss is
    -ln softmax(output @ context.mean(0))[target].
    """
    rng = np.random.default_rng(7)
    shapes = {
        "four neighbours, nine words": (4, 9, 5),
        "two neighbours": (2, 6, 3),
        "one neighbour: the mean is the word": (1, 7, 4),
    }
    cases = []
    for name, (neighbours, words, width) in shapes.items():
        args = (rng.normal(size=(neighbours, width)), rng.normal(size=(words, width)), words - 2)
        cases.append(Case(name, args, _cbow(*args)))
    return check(function, cases, _CBOW_MISTAKES)


def _cbow(
    context: Array,
    output: Array,
    target: int,
    sum_hidden: bool = False,
    divide: bool = True,
    push: float = 1.0,
) -> Array:
    """The right gradient, but for how h is made, whether its share is divided, and the target's push."""
    h = context.sum(axis=0) if sum_hidden else context.mean(axis=0)
    error = softmax(output @ h)
    error[target] -= push
    share = error @ output / (len(context) if divide else 1)
    return np.tile(share, (len(context), 1))


_CBOW_MISTAKES = [
    Mistake(
        "this is the gradient for h. Each neighbour is only 1/C of the mean: divide by the number of neighbours.",
        lambda *args: _cbow(*args, divide=False),
    ),
    Mistake(
        "this is right for the *sum* of the neighbours. Here h is their mean: divide in both places.",
        lambda *args: _cbow(*args, sum_hidden=True, divide=False),
    ),
    Mistake(
        "you divide the gradient by C, but h itself is still the sum of the neighbours, not the mean.",
        lambda *args: _cbow(*args, sum_hidden=True),
    ),
    Mistake(
        "the sign is turned round: this is the direction in which the loss falls. The gradient points uphill.",
        lambda *args: -_cbow(*args),
    ),
    Mistake(
        "the word that came is missing: its error is q − 1, that of all others q.",
        lambda *args: _cbow(*args, push=0.0),
    ),
    Mistake(
        "one row is right; there must be one for each neighbour, all equal: shape (C, d).",
        lambda *args: _cbow(*args)[0],
    ),
]
