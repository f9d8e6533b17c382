"""Checkers for the exercises: they say *what* is wrong with a reader's function, not only that it is.

A checker holds cases and, beside them, the mistakes that readers make, each as a function of its own.
An answer that fails is compared with every mistake; the one that it agrees with on all cases is named.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One trial of a reader's function: what it shows, its arguments, and the right answer."""

    name: str
    args: tuple[Any, ...]
    want: Any


@dataclass(frozen=True)
class Mistake:
    """A known wrong answer, and the words that help whoever gives it."""

    hint: str
    function: Callable[..., Any]


def check(
    function: Callable[..., Any],
    cases: Sequence[Case],
    mistakes: Sequence[Mistake] = (),
    tol: float = 1e-6,
) -> bool:
    """Try ``function`` on the cases, print what was found, and return whether all are right.

    Numbers agree within ``tol`` (relative, or absolute below 1). A stub, which returns ``None`` or ``...``
    or raises ``NotImplementedError``, is reported as not attempted. Raises ``ValueError`` without cases.
    """
    if not cases:
        raise ValueError("cases must hold at least one Case, got none")
    got = [_call(function, case) for case in cases]
    if all(answer is None or answer is ... or isinstance(answer, NotImplementedError) for answer in got):
        print("○ Not attempted yet.")
        return False
    wrong = [(case, answer) for case, answer in zip(cases, got, strict=True) if not _same(answer, case.want, tol)]
    for case in cases:
        print(f"{'✗' if any(case is c for c, _ in wrong) else '✓'} {case.name}")
    if not wrong:
        print("All right.")
        return True
    print(_explain(wrong[0], _diagnose(got, cases, mistakes, tol)))
    return False


def _call(function: Callable[..., Any], case: Case) -> Any:
    """The answer on a copy of the arguments (an answer may change them), or the error it raised."""
    try:
        return function(*copy.deepcopy(case.args))
    except Exception as error:  # a reader's function may fail in any way: the report names it
        return error


def _same(a: Any, b: Any, tol: float) -> bool:
    """Whether two answers agree: numbers within ``tol``, words exactly, containers entry by entry."""
    a, b = _detach(a), _detach(b)
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(_same(a[k], b[k], tol) for k in b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y, tol) for x, y in zip(a, b, strict=True))
    try:
        x, y = np.asarray(a), np.asarray(b)
    except (TypeError, ValueError, RuntimeError):  # a ragged list
        return False
    if x.dtype.kind in "biufc" and y.dtype.kind in "biufc":
        return x.shape == y.shape and np.allclose(x, y, rtol=tol, atol=tol, equal_nan=True)
    return np.array_equal(x, y)


def _detach(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _diagnose(got: list[Any], cases: Sequence[Case], mistakes: Sequence[Mistake], tol: float) -> str | None:
    for mistake in mistakes:
        theirs = [_call(mistake.function, case) for case in cases]
        if all(_same(a, b, tol) for a, b in zip(got, theirs, strict=True)):
            return mistake.hint
    return None


def _explain(first: tuple[Case, Any], hint: str | None) -> str:
    case, answer = first
    if hint:
        return f"Nearly: {hint}"
    if isinstance(answer, Exception):
        return f"On “{case.name}” your function raised {type(answer).__name__}: {answer}"
    if answer is None:
        return f"On “{case.name}” your function returned None: is a `return` missing on some path?"
    want, have = _shape(case.want), _shape(answer)
    if want != have and have is not None:
        return f"On “{case.name}” your answer has shape {have}; the right one has {want}."
    return f"On “{case.name}” your answer was {_brief(answer)}; the right one is {_brief(case.want)}."


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of numbers; nothing for words and for lists of unequal length."""
    try:
        array = np.asarray(_detach(value))
    except (TypeError, ValueError, RuntimeError):
        return None
    return array.shape if array.dtype.kind in "biufc" else None


def _brief(value: Any) -> str:
    """An answer in one line, or few: six digits, and the middle of what is long left out."""
    value = _detach(value)
    if isinstance(value, list | tuple) and _shape(value) is None:
        entries = [_brief(entry) for entry in value[:6]] + ["…"] * (len(value) > 6)
        return f"({', '.join(entries)})"
    if isinstance(value, float | np.floating) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return f"{value:.6g}" if np.asarray(value).dtype.kind == "f" else str(value)  # 4, where an array has 4.
    if isinstance(value, np.ndarray | list | tuple):
        return np.array2string(np.asarray(value), precision=6, threshold=12)
    return str(value)
