"""Counting right and wrong answers: the confusion matrix, precision, recall, F1 and its two means, and pass@k."""

from __future__ import annotations

import numbers
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def confusion_matrix(
    true: Sequence[Hashable], predicted: Sequence[Hashable], classes: Sequence[Hashable]
) -> NDArray[np.int64]:
    """How often class i (row) was called class j (column): (K, K) counts, rows and columns in the order of classes."""
    if len(true) != len(predicted) or not len(true):
        raise ValueError(f"predicted must have as many labels as true, at least 1, got {len(predicted)}, {len(true)}")
    place = {label: i for i, label in enumerate(classes)}
    if len(place) != len(classes):
        raise ValueError(f"classes must differ from each other, got {list(classes)}")
    strange = {label for label in (*true, *predicted) if label not in place}
    if strange:
        raise ValueError(f"classes must hold every label, got none for {sorted(map(str, strange))}")
    counts = np.zeros((len(place), len(place)), dtype=np.int64)
    np.add.at(counts, ([place[label] for label in true], [place[label] for label in predicted]), 1)
    return counts


class ClassScores(NamedTuple):
    """Precision, recall and F1 of each class, (K,) each; 0 where the denominator is."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def class_scores(confusion: ArrayLike) -> ClassScores:
    """Each class against all others, from a confusion matrix (K, K), rows the truth.

    Precision: of what was called class k, the share that is. Recall: of what is, the share that was called so.
    """
    counts = _counts(confusion)
    right, said, there = np.diag(counts), counts.sum(0), counts.sum(1)
    return ClassScores(_ratio(right, said), _ratio(right, there), _ratio(2 * right, said + there))


def accuracy(confusion: ArrayLike) -> float:
    """Share of labels on the diagonal of a confusion matrix (K, K). Where each text has one label, the micro-F1."""
    counts = _counts(confusion)
    return float(np.trace(counts) / counts.sum())


def macro_f1(confusion: ArrayLike) -> float:
    """The plain mean of the classes' F1: a rare class weighs as much as a frequent one."""
    return float(class_scores(confusion).f1.mean())


def micro_f1(confusion: ArrayLike, of: Sequence[int] | None = None) -> float:
    """F1 of the summed counts of some classes (all unless ``of`` names rows): a frequent class weighs more.

    Over all classes it is the accuracy, since each false positive is another class's false negative.
    """
    counts = _counts(confusion)
    rows = list(range(len(counts)) if of is None else of)
    right, said, there = np.diag(counts)[rows], counts.sum(0)[rows], counts.sum(1)[rows]
    return float(_ratio(2 * right.sum(), said.sum() + there.sum()))


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> NDArray[np.float64]:
    """Chance that at least one of k programs passes, from n written of which c passed: 1 − C(n−c, k)/C(n, k).

    Unbiased for 1 − (1 − p)^k (Chen et al., 2021): the share of all choices of k among the n that hold a passing one.
    n and c may be arrays, one entry a task.
    """
    if not isinstance(k, numbers.Integral) or k < 1:
        raise ValueError(f"k must be a whole number of at least 1, got {k!r}")
    written, passed = np.broadcast_arrays(np.asarray(n), np.asarray(c))
    if written.dtype.kind not in "iu" or passed.dtype.kind not in "iu":
        raise ValueError(f"n and c must be whole numbers, got {written.dtype} and {passed.dtype}")
    if (passed < 0).any() or (passed > written).any() or (written < k).any():
        raise ValueError(f"c must lie between 0 and n, and n be at least k = {k}, got n = {n}, c = {c}")
    steps = np.arange(k)  # C(n−c, k)/C(n, k) = Π (n−c−i)/(n−i); a factor of 0 where fewer than k failed
    left = np.maximum(written[..., None] - passed[..., None] - steps, 0) / (written[..., None] - steps)
    return 1 - left.prod(-1)


def _counts(confusion: ArrayLike) -> NDArray[np.int64]:
    counts = np.asarray(confusion)
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1]
    if not square or (counts < 0).any() or not counts.sum():
        raise ValueError(f"confusion must be a (K, K) matrix of counts, not all 0, got shape {counts.shape}")
    return counts


def _ratio(top: ArrayLike, bottom: ArrayLike) -> NDArray[np.float64]:
    top, bottom = np.asarray(top, dtype=float), np.asarray(bottom, dtype=float)
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
