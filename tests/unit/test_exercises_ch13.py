"""Chapter 13's checkers tell a right, a nearly right and a wrong answer apart, in words."""

from itertools import pairwise

import numpy as np
import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch13 import check_csr, check_surgeon, check_two_of_four


@pytest.mark.parametrize("checker", [check_two_of_four, check_csr, check_surgeon])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def two_of_four(row, key=lambda x, i: (-abs(x), i)):
    """Group by group, the two that come first in an order stay."""
    out = [0.0] * len(row)
    for start in range(0, len(row), 4):
        group = sorted(range(start, start + 4), key=lambda i: key(row[i], i))
        for i in group[:2]:
            out[i] = row[i]
    return out


def printed_in_the_chapter(row):
    row = np.array(row, dtype=float)
    for start in range(0, len(row), 4):
        lowest = np.argsort(row[start : start + 4])[:2]
        row[start + lowest] = 0
    return row


def over_all(row):
    best = sorted(range(len(row)), key=lambda i: (-abs(row[i]), i))[: len(row) // 2]
    return [x if i in best else 0.0 for i, x in enumerate(row)]


def test_right_two_of_four(capsys):
    assert_right(check_two_of_four, two_of_four, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (printed_in_the_chapter, "it is the magnitude that counts"),
        (lambda row: two_of_four(row, lambda x, i: (-x, i)), "it is the magnitude that counts"),
        (lambda row: two_of_four(row, lambda x, i: (abs(x), i)), "keeps the smallest"),
        (lambda row: two_of_four(row, lambda x, i: (-abs(x), -i)), "of equal ones the later goes"),
        (over_all, "within each group"),
        (lambda row: [float(x != 0) for x in two_of_four(row)], "not the mask"),
    ],
)
def test_nearly_right_two_of_four(answer, hint, capsys):
    assert_nearly(check_two_of_four, answer, hint, capsys)


def test_wrong_two_of_four(capsys):
    assert_wrong(check_two_of_four, lambda row: [x / 2 for x in row], capsys)


def csr(matrix):
    values = [x for row in matrix for x in row if x]
    columns = [j for row in matrix for j, x in enumerate(row) if x]
    starts = [sum(bool(x) for row in matrix[:i] for x in row) for i in range(len(matrix) + 1)]
    return values, columns, starts


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda v, c, s: (v, c, s[:-1]), "at its end, how many values"),
        (lambda v, c, s: (v, c, s[1:]), "the first row begins at 0"),
        (lambda v, c, s: (v, c, [b - a for a, b in pairwise(s)]), "running sums"),
        (lambda v, c, s: (v, [x + 1 for x in c], s), "columns count from 0"),
    ],
)
def test_csr(change, hint, capsys):
    assert_right(check_csr, csr, capsys)
    assert_nearly(check_csr, lambda matrix: change(*csr(matrix)), hint, capsys)


def test_csr_in_other_orders(capsys):
    assert_nearly(check_csr, lambda m: csr(np.array(m).T.tolist()), "row by row", capsys)
    rows = lambda m: [i for i, row in enumerate(m) for x in row if x]  # noqa: E731
    assert_nearly(check_csr, lambda m: (*csr(m)[:2], rows(m)), "the row of each value", capsys)
    assert_wrong(check_csr, lambda m: ([], [], [0]), capsys)


def surgeon(w, H, gone):
    inverse = np.linalg.inv(H)
    return np.array(w) - inverse[:, gone] @ np.linalg.inv(inverse[np.ix_(gone, gone)]) @ np.array(w)[gone]


def zeroed(w, gone):
    return np.where(np.isin(np.arange(len(w)), gone), 0.0, w)


def one_by_one(w, H, gone):
    inverse = np.linalg.inv(H)
    return w - sum(w[q] / inverse[q, q] * inverse[:, q] for q in gone)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda w, H, gone: zeroed(w, gone), "have not moved"),
        (lambda w, H, gone: surgeon(w, H, gone) - w, "add it to w"),
        (
            lambda w, H, gone: w - H[:, gone] @ np.linalg.inv(H[np.ix_(gone, gone)]) @ np.array(w)[gone],
            "not of H itself",
        ),
        (lambda w, H, gone: w - np.linalg.inv(H)[:, gone] @ np.array(w)[gone], "come out as zero"),
        (lambda w, H, gone: 2 * zeroed(w, gone) - surgeon(w, H, gone), "mind the sign"),
        (one_by_one, "at once"),
    ],
)
def test_surgeon(answer, hint, capsys):
    assert_right(check_surgeon, surgeon, capsys)
    assert_nearly(check_surgeon, answer, hint, capsys)


def test_wrong_surgeon(capsys):
    assert_wrong(check_surgeon, lambda w, H, gone: np.ones(len(w)), capsys)
