"""Checkers for chapter 01: perplexity, add-k, continuation counts, and the entropy rate of a Markov chain."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llmbook.exercises import Case, Mistake, check


def check_perplexity(function: Callable[[Sequence[float]], float]) -> bool:
    """`function(probabilities)`: perplexity of a text to whose tokens a model gave these probabilities."""
    texts = {
        "four equally likely tokens each time": [0.25] * 6,
        "a sure token and an unlikely one": [1.0, 0.01],
        "a text of one token": [0.2],
        "a long text, whose probability is too small for a float": [0.1] * 400,
    }
    cases = [Case(name, (p,), float(np.exp(-np.mean(np.log(p))))) for name, p in texts.items()]
    mistakes = [
        Mistake(
            "the logarithm and the power have different bases: exp goes with the natural logarithm, 2** with log2.",
            lambda p: 2.0 ** -np.mean(np.log(p)),
        ),
        Mistake(
            "the logarithm and the power have different bases: exp goes with the natural logarithm, 2** with log2.",
            lambda p: np.exp(-np.mean(np.log2(p))),
        ),
        Mistake("that is the cross-entropy; perplexity is exp of it.", lambda p: -np.mean(np.log(p))),
        Mistake(
            "this is exp of the *sum* of surprises. Perplexity is per token: take the mean.",
            lambda p: np.exp(-np.sum(np.log(p))),
        ),
        Mistake("this averages 1/p itself. Average the logarithms, then take exp.", lambda p: np.mean(1 / np.array(p))),
        Mistake("the sign is the wrong way round: this is at most 1.", lambda p: np.exp(np.mean(np.log(p)))),
        Mistake(
            "right until the product of all probabilities becomes 0 in floating point: add logarithms instead.",
            lambda p: np.prod(p) ** np.float64(-1 / len(p)),
        ),
    ]
    return check(_infinite_not_raising(function), cases, [_quiet(mistake) for mistake in mistakes])


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


def check_add_k(function: Callable[[dict[str, int], str, float, int], float]) -> bool:
    """`function(followers, word, k, V)`: add-k probability of a word after a context with these followers."""
    followers = {"cat": 3, "dog": 1}
    asked = {
        "a word that was seen": (followers, "cat", 0.5, 10),
        "a word that was not": (followers, "fish", 0.5, 10),
        "k = 1, Laplace's rule": (followers, "dog", 1.0, 10),
        "a context that was never seen: uniform": ({}, "cat", 0.5, 10),
    }
    cases = [Case(name, args, _add_k(*args)) for name, args in asked.items()]
    mistakes = [
        Mistake(
            "the denominator lacks k·V. Every word of the vocabulary got k more, so the probabilities of all "
            "V words add up to more than 1.",
            lambda followers, word, k, V: (followers.get(word, 0) + k) / sum(followers.values()),
        ),
        Mistake(
            "the denominator grows by k once. It must grow by k for each of the V words, or the sum exceeds 1.",
            lambda followers, word, k, V: (followers.get(word, 0) + k) / (sum(followers.values()) + k),
        ),
        Mistake(
            "the denominator grows by V. That is right for k = 1 only: each of V words got k more.",
            lambda followers, word, k, V: (followers.get(word, 0) + k) / (sum(followers.values()) + V),
        ),
        Mistake(
            "k·(the number of words *seen* after this context) is too little: unseen words get k as well.",
            lambda followers, word, k, V: (followers.get(word, 0) + k) / (sum(followers.values()) + k * len(followers)),
        ),
        Mistake(
            "the numerator lacks k, so an unseen word still has probability 0.",
            lambda followers, word, k, V: followers.get(word, 0) / (sum(followers.values()) + k * V),
        ),
    ]
    return check(_infinite_not_raising(function), cases, [_quiet(mistake) for mistake in mistakes])


def _add_k(followers: dict[str, int], word: str, k: float, V: int) -> float:
    return (followers.get(word, 0) + k) / (sum(followers.values()) + k * V)


def check_continuation(function: Callable[[list[tuple[str, str]], str], float]) -> bool:
    """`function(bigrams, word)`: Kneser and Ney's unigram, the share of bigram types that end in the word."""
    bigrams = [("san", "francisco")] * 6 + [
        ("a", "cup"),
        ("the", "cup"),
        ("the", "cat"),
        ("cup", "the"),
        ("cat", "the"),
    ]
    words = {
        "a frequent word with one predecessor": "francisco",
        "a rarer word with two": "cup",
        "a word with one predecessor and many followers": "cat",
        "a word that never came second": "san",
    }
    cases = [Case(f"{name} ({word})", (bigrams, word), _continuation(bigrams, word)) for name, word in words.items()]
    mistakes = [
        Mistake(
            "you counted *how often* the word came second. Count after how many *different* words it came.",
            lambda bigrams, word: sum(second == word for _, second in bigrams) / len(bigrams),
        ),
        Mistake(
            "the numerator counts types, but the denominator counts tokens. Divide by the number of different bigrams.",
            lambda bigrams, word: _preceding(bigrams, word) / len(bigrams),
        ),
        Mistake(
            "you divided by the number of words. The sum over all words of the numerators is the number of "
            "different bigrams.",
            lambda bigrams, word: _preceding(bigrams, word) / len({w for pair in bigrams for w in pair}),
        ),
        Mistake(
            "you counted the words that *follow* it. Continuation asks after how many different words it comes.",
            lambda bigrams, word: sum(first == word for first, _ in set(bigrams)) / len(set(bigrams)),
        ),
        Mistake(
            "that is the number of predecessors, not yet a probability.",
            lambda bigrams, word: _preceding(bigrams, word),
        ),
    ]
    return check(function, cases, mistakes)


def _preceding(bigrams: list[tuple[str, str]], word: str) -> int:
    return sum(second == word for _, second in set(bigrams))


def _continuation(bigrams: list[tuple[str, str]], word: str) -> float:
    return _preceding(bigrams, word) / len(set(bigrams))


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
