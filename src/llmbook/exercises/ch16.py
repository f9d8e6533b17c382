"""Checkers of chapter 16: ROUGE-1 with clipped counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from llmbook.exercises import Case, Mistake, check

Words = Sequence[str]


def check_rouge1(function: Callable[[Words, Words], float]) -> bool:
    """Check ``function(candidate, reference)``: the F1 of shared words, each counted as often as in the rarer text."""
    inputs = {
        "different lengths": ("Anna gives the ball to Tom", "Anna gives the red ball to Kim today"),
        "a word said again": ("the the the the cat", "the cat sees the dog now"),
        "a word that the reference has twice": ("the cat", "the cat and the dog"),
        "nothing shared": ("a b", "c d e"),
    }
    cases = [Case(name, (a.split(), b.split()), _f1(a.split(), b.split())) for name, (a, b) in inputs.items()]
    return check(function, cases, _MISTAKES)


def _clipped(a: Words, b: Words) -> int:
    return (Counter(a) & Counter(b)).total()


def _f1(a: Words, b: Words, shared: Callable[[Words, Words], int] = _clipped) -> float:
    return 2 * shared(a, b) / max(1, len(a) + len(b))


def _unclipped(a: Words, b: Words) -> int:
    return sum(word in b for word in a)


_MISTAKES = [
    Mistake(
        "a word may count only as often as in the text that has it less often: take the minimum of both counts.",
        lambda a, b: _f1(a, b, _unclipped),
    ),
    Mistake(
        "a set forgets how often a word occurs; count them.", lambda a, b: _f1(a, b, lambda a, b: len({*a} & {*b}))
    ),
    Mistake("that is the recall; F1 has both lengths below.", lambda a, b: _clipped(a, b) / max(1, len(b))),
    Mistake("that is the precision; F1 has both lengths below.", lambda a, b: _clipped(a, b) / max(1, len(a))),
    Mistake("twice the shared words stand above: 2m.", lambda a, b: _f1(a, b) / 2),
]
