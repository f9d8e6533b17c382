"""Checkers for chapter 01: a text's perplexity, Witten and Bell's smoothing, a Markov chain's entropy rate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llmbook.exercises import Case, Mistake, check


def check_perplexity(function: Callable[[Sequence[float], Sequence[int]], float]) -> bool:
    """`function(log2_probabilities, lengths)`: perplexity of a text, from its sentences' log₂ p and token counts."""
    texts = {
        "one sentence of four equally likely tokens": ([-8.0], [4]),
        "two sentences of one length": ([-6.0, -12.0], [3, 3]),
        "a short sentence and a long one": ([-10.0, -10.0], [1, 9]),
        "a long text, whose probability is too small for a float": ([-900.0] * 3, [300, 250, 200]),
    }
    cases = [Case(name, args, _perplexity(*args)) for name, args in texts.items()]
    mistakes = [
        Mistake(
            "the logarithm and the power have different bases: to base 2 goes 2**, not exp.",
            lambda bits, lengths: np.exp(-sum(bits) / sum(lengths)),
        ),
        Mistake("that is the cross-entropy in bits; perplexity is 2 to that power.", _bits_per_token),
        Mistake(
            "you divided by the number of sentences. Perplexity is per token.",
            lambda bits, lengths: 2.0 ** (-sum(bits) / len(lengths)),
        ),
        Mistake(
            "this is 2 to the *sum* of surprises. Perplexity is per token: divide by their number.",
            lambda bits, lengths: 2.0 ** -sum(bits),
        ),
        Mistake(
            "you averaged the sentences' perplexities. Average surprise, over tokens, and take the power last.",
            lambda bits, lengths: np.mean([2.0 ** (-b / n) for b, n in zip(bits, lengths, strict=True)]),
        ),
        Mistake(
            "each sentence counts the same here, whatever its length. Each *token* must.",
            lambda bits, lengths: 2.0 ** np.mean([-b / n for b, n in zip(bits, lengths, strict=True)]),
        ),
        Mistake("the sign is the wrong way round: this is at most 1.", lambda b, n: 2.0 ** (sum(b) / sum(n))),
        Mistake(
            "right until the text's probability becomes 0 in floating point: stay with the logarithms.",
            lambda bits, lengths: np.prod(2.0 ** np.array(bits)) ** (-1 / np.float64(sum(lengths))),
        ),
    ]
    return check(_infinite_not_raising(function), cases, [_quiet(mistake) for mistake in mistakes])


def _bits_per_token(bits: Sequence[float], lengths: Sequence[int]) -> float:
    return -sum(bits) / sum(lengths)


def _perplexity(bits: Sequence[float], lengths: Sequence[int]) -> float:
    return 2.0 ** _bits_per_token(bits, lengths)


def _infinite_not_raising(function: Callable[..., float]) -> Callable[..., float]:
    """The same function, but ∞ where it overflows or divides by zero, so that mistakes can be compared."""

    @functools.wraps(function)
    def wrapped(*args: Any) -> float:
        try:
            with np.errstate(all="ignore"):
                return function(*args)
        except (OverflowError, ZeroDivisionError):
            return np.inf

    return wrapped


def _quiet(mistake: Mistake) -> Mistake:
    return Mistake(mistake.hint, _infinite_not_raising(mistake.function))


def check_witten_bell(function: Callable[[dict[str, int], str, float], float]) -> bool:
    """`function(followers, word, shorter)`: Witten and Bell's estimate of a word after a context.

    `followers` says how often each word followed the context, `shorter` is the word's probability after the
    shorter context.
    """
    followers = {"cat": 5, "dog": 1, "cow": 1}
    asked = {
        "a word that was seen often": (followers, "cat", 0.1),
        "a word that was seen once": (followers, "dog", 0.2),
        "a word that was not": (followers, "fish", 0.05),
        "a word that nothing speaks for": (followers, "unicorn", 0.0),
        "a context with one follower": ({"francisco": 9}, "francisco", 0.01),
        "a context that was never seen: the shorter one decides": ({}, "cat", 0.3),
    }
    cases = [Case(name, args, _witten_bell(*args)) for name, args in asked.items()]
    mistakes = [
        Mistake(
            "the shorter context's share is there, but nothing was taken from the seen words for it: the "
            "probabilities add up to more than 1. Count the new-word events among all events.",
            lambda f, w, shorter: f.get(w, 0) / sum(f.values()) + len(f) / (sum(f.values()) + len(f)) * shorter,
        ),
        Mistake(
            "the room for new words is given to each of them whole. Share it out: multiply by `shorter`.",
            lambda f, w, shorter: (f.get(w, 0) + len(f)) / (sum(f.values()) + len(f)),
        ),
        Mistake(
            "a seen word gets nothing from the shorter context here, so the sum falls short of 1. The words that "
            "were seen take part in it as well.",
            lambda f, w, shorter: (f[w] if w in f else len(f) * shorter) / (sum(f.values()) + len(f)),
        ),
        Mistake(
            "you counted words that occurred once. *Every* different word was new once, whatever came later.",
            lambda f, w, shorter: _mixed(f, w, shorter, sum(c == 1 for c in f.values())),
        ),
        Mistake(
            "you took every occurrence for a new word. Only the first of each word was.",
            lambda f, w, shorter: _mixed(f, w, shorter, sum(f.values())),
        ),
        Mistake(
            "new words are one event here, however many there were. Count one for each different word.",
            lambda f, w, shorter: _mixed(f, w, shorter, 1),
        ),
        Mistake(
            "right, except for a context that was never seen: there the shorter one decides alone.",
            lambda f, w, shorter: _witten_bell(f, w, shorter) if f else 0.0,
        ),
        Mistake(
            "right, except for a context that was never seen: 0/0. There the shorter one decides alone.",
            lambda f, w, shorter: (f.get(w, 0) + len(f) * shorter) / (sum(f.values()) + len(f)),
        ),
    ]
    return check(_infinite_not_raising(function), cases, [_quiet(mistake) for mistake in mistakes])


def _mixed(followers: dict[str, int], word: str, shorter: float, novelties: int) -> float:
    """Frequency and shorter context, the second with the weight of so many events."""
    total = sum(followers.values()) + novelties
    return (followers.get(word, 0) + novelties * shorter) / total if total else shorter


def _witten_bell(followers: dict[str, int], word: str, shorter: float) -> float:
    return _mixed(followers, word, shorter, len(followers))


def check_entropy_rate(function: Callable[[np.ndarray], float]) -> bool:
    """`function(P)`: entropy rate, in nats, of the stationary Markov chain with transition matrix P (rows from)."""
    chains = {
        "Markov's vowels and consonants": [[0.128, 0.872], [0.663, 0.337]],
        "a fair coin": [[0.5, 0.5], [0.5, 0.5]],
        "three states, one of them rare": [[0.9, 0.08, 0.02], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]],
        "a strict alternation: no surprise at all": [[0.0, 1.0], [1.0, 0.0]],
    }
    cases = [Case(name, (np.array(P),), _entropy_rate(np.array(P))) for name, P in chains.items()]
    mistakes = [
        Mistake("right, but in bits. The question was in nats.", lambda P: _entropy_rate(P) / np.log(2)),
        Mistake(
            "you averaged the rows' entropies with equal weights. Weight each by how often the chain is there.",
            lambda P: float(np.mean(_row_entropies(P))),
        ),
        Mistake(
            "that is the entropy of the stationary distribution: it forgets that the chain remembers.",
            lambda P: float(_entropies(_stationary(P)[None])[0]),
        ),
        Mistake("you added the rows' entropies up without weights.", lambda P: float(np.sum(_row_entropies(P)))),
    ]
    return check(function, cases, mistakes)


def _entropies(rows: np.ndarray) -> np.ndarray:
    """Entropy of each row, with 0 · ln 0 = 0."""
    return -(rows * np.log(np.where(rows > 0, rows, 1))).sum(axis=1)


def _row_entropies(P: np.ndarray) -> np.ndarray:
    return _entropies(np.asarray(P, dtype=float))


def _stationary(P: np.ndarray) -> np.ndarray:
    """π with πP = π and Σπ = 1, by least squares."""
    size = len(P)
    equations = np.vstack([P.T - np.eye(size), np.ones(size)])
    return np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0]


def _entropy_rate(P: np.ndarray) -> float:
    return float(_stationary(P) @ _row_entropies(P))
