"""Checkers of chapter 07: the memory of training, a batch in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmbook.exercises import Case, Mistake, check

Shares = list[float | None]


def check_training_bytes(function: Callable[[int, int], int]) -> bool:
    """Check ``function(n_params, size)``: bytes of weights, gradients and AdamW's two means."""
    inputs = {"GPT-2 small, single precision": (124_439_808, 4), "half precision": (1000, 2), "one weight": (1, 8)}
    cases = [Case(name, args, 4 * args[0] * args[1]) for name, args in inputs.items()]
    return check(function, cases, _MEMORY_MISTAKES)


_MEMORY_MISTAKES = [
    Mistake("that is what inference needs: the weights alone.", lambda n, size: n * size),
    Mistake("weights and gradients; AdamW also keeps two means for each weight.", lambda n, size: 2 * n * size),
    Mistake("AdamW keeps *two* means for each weight, m and v.", lambda n, size: 3 * n * size),
    Mistake("that counts numbers, not bytes.", lambda n, size: 4 * n),
    Mistake("size is in bytes, not in bits.", lambda n, size: n * size // 2),
]


def check_shares(function: Callable[[list[int]], Shares]) -> bool:
    """Check ``function(counts)``: by what each micro-batch's mean loss counts; None where it scores no label."""
    inputs = {
        "equal pieces": [60, 60],
        "pieces of different size": [70, 20, 10],
        "a piece without labels": [30, 0, 50],
        "one piece": [12],
    }
    cases = [Case(name, (counts,), _shares(counts)) for name, counts in inputs.items()]
    return check(function, cases, _SHARES_MISTAKES)


def _shares(counts: Sequence[int]) -> Shares:
    return [count / sum(counts) if count else None for count in counts]


_SHARES_MISTAKES = [
    Mistake(
        "equal shares: a label in a small piece then counts for more than others.", lambda c: [1 / len(c)] * len(c)
    ),
    Mistake(
        "equal shares among the pieces that have labels: one in a small piece then counts for more than others.",
        lambda c: [1 / sum(n > 0 for n in c) if n else None for n in c],
    ),
    Mistake("the means are added up: two pieces give a gradient twice too large.", lambda c: [1.0] * len(c)),
    Mistake("that gives the sum over the labels, not their mean.", lambda c: [n or None for n in c]),
    Mistake(
        "a piece without labels has a NaN for a loss, and zero times NaN is NaN.", lambda c: [n / sum(c) for n in c]
    ),
    Mistake(
        "upside down: the more labels, the larger the share.",
        lambda c: [sum(c) / n if n else None for n in c],
    ),
]
