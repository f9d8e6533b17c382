"""Checkers of chapter 13: two of every four, compressed rows, the surgeon's formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llmbook.exercises import Case, Mistake, check

Row = Sequence[float]
Matrix = Sequence[Row]
Compressed = tuple[list[float], list[int], list[int]]


def check_two_of_four(function: Callable[[Row], Row]) -> bool:
    """Check ``function(row)``: of each four neighbours the two of smallest magnitude become zero."""
    rows = {
        "one group": [0.1, 0.9, 0.3, 0.5],
        "signs": [-3.0, 0.2, 0.1, 2.0],
        "a group with four good ones": [5.0, 6.0, 7.0, 8.0, 0.1, 0.2, 0.3, 0.4],
        "equal ones": [1.0, 1.0, -1.0, 1.0],
        "zeros already": [0.0, 0.0, 0.0, 2.0],
    }
    cases = [Case(name, (row,), _groups(row)) for name, row in rows.items()]
    return check(function, cases, _GROUP_MISTAKES)


def _groups(row: Row, size: Callable[[np.ndarray], np.ndarray] = np.abs, keep: int = 2, m: int = 4) -> np.ndarray:
    """The best ``keep`` of each m by a size; of equal ones the first."""
    groups = np.asarray(row, dtype=float).reshape(-1, m)
    best = np.argsort(-size(groups), axis=1, kind="stable")[:, :keep]
    kept = np.zeros_like(groups)
    np.put_along_axis(kept, best, np.take_along_axis(groups, best, 1), 1)
    return kept.ravel()


def _from_the_end(row: Row) -> np.ndarray:
    """Of equal ones the last stays."""
    return _groups(np.asarray(row)[::-1])[::-1]


_GROUP_MISTAKES = [
    Mistake(
        "it is the magnitude that counts: −3 is not small. Of equal ones the later goes.",
        lambda row: _groups(row, lambda g: np.where(np.argsort(np.argsort(g, axis=1), axis=1) >= 2, 1.0, 0.0)),
    ),
    Mistake("it is the magnitude that counts: −3 is not small.", lambda row: _groups(row, lambda g: g)),
    Mistake("that keeps the smallest; the largest should stay.", lambda row: _groups(row, lambda g: -np.abs(g))),
    Mistake("of equal ones the later goes.", _from_the_end),
    Mistake(
        "choose within each group of four, not among all.",
        lambda row: _groups(row, keep=len(row) // 2, m=len(row)),
    ),
    Mistake("give the weights that stay, not the mask.", lambda row: (_groups(row) != 0).astype(float)),
]


def check_csr(function: Callable[[Matrix], Compressed]) -> bool:
    """Check ``function(matrix)``: (values, columns, starts) of compressed sparse rows."""
    matrices = {
        "one row": [[0.0, 2.0, 0.0, 3.0]],
        "two rows": [[1.0, 0.0], [0.0, 4.0]],
        "a row without values": [[5.0, 0.0, 6.0], [0.0, 0.0, 0.0], [0.0, 7.0, 0.0]],
        "the last row without values": [[1.0, 2.0], [0.0, 0.0]],
    }
    cases = [Case(name, (matrix,), _csr(matrix)) for name, matrix in matrices.items()]
    return check(function, cases, _CSR_MISTAKES)


def _csr(matrix: Matrix) -> Compressed:
    dense = np.asarray(matrix)
    rows, columns = dense.nonzero()
    starts = np.concatenate([[0], np.bincount(rows, minlength=len(dense)).cumsum()])
    return dense[rows, columns].tolist(), columns.tolist(), starts.tolist()


def _with_starts(matrix: Matrix, change: Callable[[list[int], Matrix], list[int]]) -> Compressed:
    values, columns, starts = _csr(matrix)
    return values, columns, change(starts, matrix)


_CSR_MISTAKES = [
    Mistake(
        "the last list also says, at its end, how many values there are.",
        lambda matrix: _with_starts(matrix, lambda starts, _: starts[:-1]),
    ),
    Mistake(
        "the first row begins at 0; that list is one longer than there are rows.",
        lambda matrix: _with_starts(matrix, lambda starts, _: starts[1:]),
    ),
    Mistake(
        "the last list holds running sums, not how many values each row has.",
        lambda matrix: _with_starts(matrix, lambda starts, _: np.diff(starts).tolist()),
    ),
    Mistake(
        "that gives the row of each value: it needs as many numbers as there are values, and not one per row.",
        lambda matrix: _with_starts(matrix, lambda _, rows: np.asarray(rows).nonzero()[0].tolist()),
    ),
    Mistake(
        "columns count from 0.",
        lambda matrix: (_csr(matrix)[0], [c + 1 for c in _csr(matrix)[1]], _csr(matrix)[2]),
    ),
    Mistake("go row by row, not column by column.", lambda matrix: _csr(np.asarray(matrix).T)),
]


def check_surgeon(function: Callable[[Row, Matrix, Sequence[int]], Row]) -> bool:
    """Check ``function(w, H, gone)``: all weights after those of these numbers are removed and the others moved."""
    inputs = {
        "nothing in common": ([0.3, 0.5, -0.4], np.diag([1.0, 2.0, 3.0]), [1]),
        "nearly the same input": ([0.3, 0.5], np.array([[1.0, 0.99], [0.99, 1.0]]), [0]),
        "three inputs": ([1.0, -2.0, 0.5], np.array([[2.0, 0.5, 0.1], [0.5, 1.0, -0.3], [0.1, -0.3, 1.5]]), [1]),
        "two at once": ([1.0, 2.0, 3.0], np.array([[1.0, 0.2, 0.4], [0.2, 1.0, 0.3], [0.4, 0.3, 1.0]]), [0, 2]),
    }
    cases = [Case(name, args, _surgeon(*args)) for name, args in inputs.items()]
    return check(function, cases, _SURGEON_MISTAKES)


def _surgeon(w: Row, H: np.ndarray, gone: Sequence[int]) -> np.ndarray:
    """The free weights solve H_ff δ_f = H_fg w_g, by the condition that the gradient vanishes."""
    w, free = np.array(w, dtype=float), ~np.isin(np.arange(len(w)), gone)
    w[free] += np.linalg.solve(H[np.ix_(free, free)], H[np.ix_(free, gone)] @ w[gone])
    w[gone] = 0
    return w


def _only_dropped(w: Row, H: np.ndarray, gone: Sequence[int]) -> np.ndarray:
    return np.where(np.isin(np.arange(len(w)), gone), 0.0, np.asarray(w, dtype=float))


def _one_by_one(w: Row, H: np.ndarray, gone: Sequence[int]) -> np.ndarray:
    """Each removed by the formula for one, as if the others that go were free."""
    w, inverse = np.array(w, dtype=float), np.linalg.inv(H)
    return w - sum(w[q] / inverse[q, q] * inverse[:, q] for q in gone)


_SURGEON_MISTAKES = [
    Mistake("those weights are gone, but the others have not moved.", _only_dropped),
    Mistake(
        "that is the change δ; add it to w.",
        lambda w, H, gone: _surgeon(w, H, gone) - np.asarray(w, dtype=float),
    ),
    Mistake(
        "the others move the wrong way: mind the sign.",
        lambda w, H, gone: 2 * _only_dropped(w, H, gone) - _surgeon(w, H, gone),
    ),
    Mistake(
        "use columns of the inverse of H, not of H itself.",
        lambda w, H, gone: w - H[:, gone] @ np.linalg.solve(H[np.ix_(gone, gone)], np.asarray(w, dtype=float)[gone]),
    ),
    Mistake(
        "divide by [H⁻¹]_QQ: those weights must come out as zero.",
        lambda w, H, gone: w - np.linalg.inv(H)[:, gone] @ np.asarray(w, dtype=float)[gone],
    ),
    Mistake("of two that go at once, neither may make good for the other: both must come out as zero.", _one_by_one),
]
