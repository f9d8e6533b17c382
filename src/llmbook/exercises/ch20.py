"""Checkers of chapter 20: which tokens are scored, the loss of a pair, a group's advantages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llmbook.exercises import Case, Mistake, check

Ids, Roles = Sequence[int], Sequence[str]


def check_labels(function: Callable[[Ids, Roles], Ids]) -> bool:
    """Check ``function(ids, roles)``: the labels of the masked loss, -100 where a token is only read."""
    inputs = {
        "a question and an answer": ([5, 6, 7, 8], ["user", "user", "clerk", "clerk"]),
        "two turns": ([3, 4, 5, 6, 3], ["user", "clerk", "clerk", "user", "clerk"]),
        "a call with its result": ([9, 2, 4, 4, 7], ["system", "user", "clerk", "tool", "clerk"]),
        "nothing to learn": ([1, 2], ["system", "user"]),
    }
    cases = [Case(name, args, _labels(*args)) for name, args in inputs.items()]
    return check(function, cases, _LABELS_MISTAKES)


def _labels(ids: Ids, roles: Roles, *, learn: Sequence[str] = ("clerk",), other: int = -100) -> list[int]:
    return [i if role in learn else other for i, role in zip(ids, roles, strict=True)]


_LABELS_MISTAKES = [
    Mistake(
        "what a tool returns is read, not written, although it stands in the clerk's turn.",
        lambda ids, roles: _labels(ids, roles, learn=("clerk", "tool")),
    ),
    Mistake(
        "the other way round: −100 marks what is *not* scored.",
        lambda ids, roles: _labels(ids, roles, learn=("system", "user", "tool")),
    ),
    Mistake(
        "0 is a token like any other; what is not scored has the label −100.",
        lambda ids, roles: _labels(ids, roles, other=0),
    ),
    Mistake(
        "don't leave tokens out: labels are as many as ids, with −100 in the gaps.",
        lambda ids, roles: [i for i, role in zip(ids, roles, strict=True) if role == "clerk"],
    ),
    Mistake(
        "don't shift them: the model shifts its labels itself.",
        lambda ids, roles: [*_labels(ids, roles)[1:], -100],
    ),
]


def check_dpo(function: Callable[[float, float, float, float, float], float]) -> bool:
    """Check ``function(chosen, rejected, chosen_ref, rejected_ref, beta)``: DPO's loss of one pair."""
    inputs = {
        "still the reference": (-12.0, -9.0, -12.0, -9.0, 0.1),
        "the chosen is likelier than it was": (-10.0, -9.5, -12.0, -9.0, 0.5),
        "the rejected is": (-12.5, -7.0, -12.0, -9.0, 0.5),
        "a very large margin against": (-900.0, -100.0, -100.0, -100.0, 1.0),
    }
    cases = [Case(name, args, _dpo(*args)) for name, args in inputs.items()]
    return check(function, cases, _DPO_MISTAKES)


def _margin(chosen: float, rejected: float, chosen_ref: float, rejected_ref: float) -> float:
    return (chosen - chosen_ref) - (rejected - rejected_ref)


def _dpo(c: float, r: float, c0: float, r0: float, beta: float) -> float:
    return float(np.logaddexp(0, -beta * _margin(c, r, c0, r0)))


def _overflows(c: float, r: float, c0: float, r0: float, beta: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.log(1 + np.exp(np.float64(-beta * _margin(c, r, c0, r0)))))


_DPO_MISTAKES = [
    Mistake(
        "the sign: the loss must fall when the chosen reply becomes likelier.",
        lambda c, r, c0, r0, b: float(np.logaddexp(0, b * _margin(c, r, c0, r0))),
    ),
    Mistake(
        "the reference is missing: what counts is how far the policy has moved from it.",
        lambda c, r, c0, r0, b: float(np.logaddexp(0, -b * (c - r))),
    ),
    Mistake("β is missing.", lambda c, r, c0, r0, b: _dpo(c, r, c0, r0, 1.0)),
    Mistake(
        "that is the probability of the rater's choice; the loss is −ln of it.",
        lambda c, r, c0, r0, b: float(np.exp(-_dpo(c, r, c0, r0, b))),
    ),
    Mistake(
        "the sign in front of the logarithm: ln σ is negative, and a loss is −ln σ.",
        lambda c, r, c0, r0, b: -_dpo(c, r, c0, r0, b),
    ),
    Mistake(
        "right for small margins; for large ones e^z overflows. Use np.logaddexp(0, −z), or −z itself.", _overflows
    ),
]


def check_advantages(function: Callable[[Sequence[float]], Sequence[float]]) -> bool:
    """Check ``function(rewards)``: the advantages of one group, 0 for all where all earn the same."""
    inputs = {
        "two of four": [1.0, 0.0, 0.0, 1.0],
        "one of eight": [0.0] * 7 + [1.0],
        "rewards of any size": [2.0, -1.0, 0.5],
        "all the same": [1.0, 1.0, 1.0],
    }
    cases = [Case(name, (rewards,), _advantages(rewards)) for name, rewards in inputs.items()]
    return check(function, cases, _ADVANTAGES_MISTAKES)


def _advantages(rewards: Sequence[float], ddof: int = 1) -> np.ndarray:
    r = np.asarray(rewards, dtype=float)
    spread = r.std(ddof=ddof)
    return (r - r.mean()) / spread if spread else np.zeros_like(r)


def _divided(rewards: Sequence[float]) -> np.ndarray:
    r = np.asarray(rewards, dtype=float)
    return _advantages(r) if r.std() else np.full_like(r, np.nan)


_ADVANTAGES_MISTAKES = [
    Mistake("divide by the standard deviation, too.", lambda r: np.asarray(r) - np.mean(r)),
    Mistake(
        "the mean is to be taken off, and not only the scale.",
        lambda r: np.asarray(r) / (np.std(r, ddof=1) or 1),
    ),
    Mistake("a sample's standard deviation divides by n − 1 (ddof=1).", lambda r: _advantages(r, ddof=0)),
    Mistake("where all earn the same, nothing is to be learned: 0, and not 0/0.", _divided),
]
