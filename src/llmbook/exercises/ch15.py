"""Checkers of chapter 15: the loss with its temperature, low rank by what a layer is fed, a probe's selectivity."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llmbook.exercises import Case, Mistake, check

Numbers = Sequence[float]


def check_soft_loss(function: Callable[[Numbers, Numbers, float], float]) -> bool:
    """Check ``function(student, teacher, temperature)``: T² KL(teacher ‖ student) of softened logits, in nats."""
    inputs = {
        "temperature 1": ([1.0, 0.0, -1.0], [2.0, 1.0, 0.0], 1.0),
        "nothing to learn": ([3.0, 1.0, 1.0, 0.0], [3.0, 1.0, 1.0, 0.0], 2.0),
        "temperature 2": ([1.0, 0.0, 0.0, 2.0], [4.0, 1.0, 0.5, 0.0], 2.0),
        "a high temperature": ([0.0, 0.0, 3.0], [5.0, -1.0, 0.0], 8.0),
        "a low one": ([0.5, 0.0, 0.2], [1.0, 0.3, 0.0], 0.5),
    }
    cases = [Case(name, args, _soft_loss(*args)) for name, args in inputs.items()]
    return check(function, cases, _LOSS_MISTAKES)


def _softened(logits: Numbers, temperature: float) -> np.ndarray:
    z = np.asarray(logits, dtype=float) / temperature
    e = np.exp(z - z.max())
    return e / e.sum()


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * (np.log(p) - np.log(q))).sum())


def _soft_loss(student: Numbers, teacher: Numbers, t: float) -> float:
    return t**2 * _kl(_softened(teacher, t), _softened(student, t))


_LOSS_MISTAKES = [
    Mistake("the factor T² is missing.", lambda s, v, t: _kl(_softened(v, t), _softened(s, t))),
    Mistake("the factor is T², not T: the gradient shrinks twice.", lambda s, v, t: _soft_loss(s, v, t) / t),
    Mistake(
        "that is the reverse divergence, of the student from the teacher.",
        lambda s, v, t: t**2 * _kl(_softened(s, t), _softened(v, t)),
    ),
    Mistake(
        "that is the cross-entropy: the teacher's own entropy is still in it.",
        lambda s, v, t: -(t**2) * float((_softened(v, t) * np.log(_softened(s, t))).sum()),
    ),
    Mistake(
        "the teacher's logits are divided by T, too.",
        lambda s, v, t: t**2 * _kl(_softened(v, 1.0), _softened(s, t)),
    ),
    Mistake(
        "divide the logits by T, not the probabilities after the softmax.",
        lambda s, v, t: t**2 * _kl(_softened(v, 1.0), _softened(s, 1.0)),
    ),
]


def check_low_rank(function: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> bool:
    """Check ``function(W, H, r)``: of all matrices of rank r the best for inputs with E[x xᵀ] = H."""
    rng = np.random.default_rng(15)
    cases = []
    for name, (out, inside, rank) in {
        "square, rank 1": (3, 3, 1),
        "wide": (3, 5, 2),
        "tall": (6, 4, 2),
        "nearly whole": (4, 4, 3),
    }.items():
        w, x = rng.normal(size=(out, inside)), rng.normal(size=(50, inside)) * np.geomspace(0.2, 5, inside)
        args = (w, x.T @ x / 50, rank)
        cases.append(Case(name, args, _low_rank(*args)))
    return check(function, cases, _RANK_MISTAKES)


def _low_rank(w: np.ndarray, h: np.ndarray, r: int) -> np.ndarray:
    u = np.linalg.eigh(w @ h @ w.T)[1][:, ::-1][:, :r]
    return u @ u.T @ w


def _by_weights(w: np.ndarray, h: np.ndarray, r: int) -> np.ndarray:
    u, s, v = np.linalg.svd(w, full_matrices=False)
    return u[:, :r] * s[:r] @ v[:r]


def _smallest(w: np.ndarray, h: np.ndarray, r: int) -> np.ndarray:
    u = np.linalg.eigh(w @ h @ w.T)[1][:, :r]
    return u @ u.T @ w


def _by_inputs(w: np.ndarray, h: np.ndarray, r: int) -> np.ndarray:
    u = np.linalg.eigh(h)[1][:, ::-1][:, :r]
    return w @ u @ u.T


_RANK_MISTAKES = [
    Mistake("that is best for the weights: H is not used.", _by_weights),
    Mistake("`eigh` sorts upwards: those are the directions that carry least.", _smallest),
    Mistake(
        "that keeps the inputs' main directions, as PCA of x would; what matters is what W makes of them.", _by_inputs
    ),
]


def check_selectivity(function: Callable[[Sequence, Sequence, Sequence, Sequence], float]) -> bool:
    """Check ``function(said, labels, said_control, control)``: a probe's accuracy less that on its control task."""
    inputs = {
        "knows": (list("abca"), list("abca"), list("xyxy"), list("yyxx")),
        "remembers": (list("abab"), list("aabb"), list("xxyy"), list("xxyy")),
        "both by half": (list("aabb"), list("abab"), list("xxyy"), list("xyxy")),
        "other numbers of examples": (list("aaa"), list("aab"), list("xyxyx"), list("xyxyy")),
    }
    cases = [Case(name, args, _selectivity(*args)) for name, args in inputs.items()]
    return check(function, cases, _SELECTIVITY_MISTAKES)


def _share(said: Sequence, labels: Sequence) -> float:
    return sum(a == b for a, b in zip(said, labels, strict=True)) / len(labels)


def _selectivity(said: Sequence, labels: Sequence, said_control: Sequence, control: Sequence) -> float:
    return _share(said, labels) - _share(said_control, control)


_SELECTIVITY_MISTAKES = [
    Mistake("that is the accuracy alone.", lambda a, b, c, d: _share(a, b)),
    Mistake("the other way round: the control's is taken off.", lambda a, b, c, d: _share(c, d) - _share(a, b)),
    Mistake("it is a difference, not a quotient.", lambda a, b, c, d: _share(a, b) / max(_share(c, d), 1e-12)),
]
