"""Chapter 17's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch17 import check_fused, check_mrr, check_risk


@pytest.mark.parametrize("checker", [check_mrr, check_fused, check_risk])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def mrr(rankings, right, first=1, missing=True):
    total, n = 0.0, 0
    for row, wanted in zip(rankings, right, strict=True):
        if wanted in row:
            total += 1 / (row.index(wanted) + first)
        n += missing or wanted in row
    return total / n


def test_mrr(capsys):
    assert_right(check_mrr, mrr, capsys)
    assert_nearly(check_mrr, lambda r, w: mrr(r, w, first=2), "places begin at 1", capsys)
    assert_nearly(check_mrr, lambda r, w: mrr(r, w, missing=False), "counts too, with 0", capsys)
    assert_nearly(
        check_mrr, lambda r, w: sum(a[0] == b for a, b in zip(r, w, strict=True)) / len(w), "recall at 1", capsys
    )
    assert_nearly(
        check_mrr,
        lambda r, w: (
            sum(x in a for a, x in zip(r, w, strict=True))
            / sum(a.index(x) + 1 for a, x in zip(r, w, strict=True) if x in a)
        ),
        "one over the mean place",
        capsys,
    )
    assert_wrong(check_mrr, lambda r, w: 0.5, capsys)


def fused(one, two, gain=lambda place: 1 / (60 + place)):
    total = {w: gain(1 + one.index(w)) + gain(1 + two.index(w)) for w in one}
    return [w for _, w in sorted((-round(total[w], 12), w) for w in one)]


def test_fusion(capsys):
    assert_right(check_fused, fused, capsys)
    assert_nearly(check_fused, lambda a, b: fused(a, b, lambda p: 1 / p), "add 60", capsys)
    assert_nearly(check_fused, lambda a, b: fused(a, b, lambda p: -1 / (60 + p)), "highest is the best", capsys)
    assert_nearly(check_fused, lambda a, b: fused(a, b, lambda p: -p), "adds places", capsys)
    assert_nearly(check_fused, lambda a, b: list(a), "the second counts as much", capsys)
    assert_wrong(check_fused, lambda a, b: list(b), capsys)


def risk(sure, right, share):
    order = sorted(range(len(sure)), key=lambda i: -sure[i])[: round(share * len(sure))]
    return sum(1 - right[i] for i in order) / len(order)


def test_risk(capsys):
    assert_right(check_risk, risk, capsys)
    assert_nearly(check_risk, lambda s, r, c: 1 - risk(s, r, c), "right answers", capsys)
    assert_nearly(check_risk, lambda s, r, c: risk([-x for x in s], r, c), "least sure", capsys)
    assert_nearly(check_risk, lambda s, r, c: c * risk(s, r, c), "not by all", capsys)
    assert_nearly(
        check_risk, lambda s, r, c: 1 - sum(r[: round(c * len(r))]) / round(c * len(r)), "sort by confidence", capsys
    )
    assert_wrong(check_risk, lambda s, r, c: 0.1, capsys)
