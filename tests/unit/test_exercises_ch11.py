"""Chapter 11's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import numpy as np
import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch11 import check_careless_law, check_nucleus, check_position_ids


@pytest.mark.parametrize("checker", [check_nucleus, check_careless_law, check_position_ids])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def nucleus(probs, p, scale=True, crossing=True, in_order=True):
    """Token by token, from the likeliest down."""
    order = sorted(range(len(probs)), key=lambda i: -probs[i]) if in_order else range(len(probs))
    out, total = [0.0] * len(probs), 0.0
    for i in order:
        if total >= p - 1e-12 or (not crossing and total + probs[i] > p):
            break
        out[i], total = probs[i], total + probs[i]
    return [x / total for x in out] if scale and total else out


def test_right_nucleus(capsys):
    assert_right(check_nucleus, nucleus, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda probs, p: nucleus(probs, p, scale=False), "must sum to 1"),
        (lambda probs, p: nucleus(probs, p, crossing=False), "across p belongs"),
        (lambda probs, p: nucleus(probs, p, scale=False, crossing=False), "and what is left must sum to 1"),
        (lambda probs, p: nucleus(probs, p, in_order=False), "sort first"),
    ],
)
def test_nearly_right_nucleus(answer, hint, capsys):
    assert_nearly(check_nucleus, answer, hint, capsys)


def test_wrong_nucleus(capsys):
    assert_wrong(check_nucleus, lambda probs, p: [1 / len(probs)] * len(probs), capsys)


def careless(p, q):
    refused = sum(max(0.0, b - a) for a, b in zip(p, q, strict=True))
    return [min(a, b) + refused * a for a, b in zip(p, q, strict=True)]


def test_careless_law(capsys):
    assert_right(check_careless_law, careless, capsys)
    assert_nearly(check_careless_law, lambda p, q: p, "right replacement", capsys)
    assert_nearly(check_careless_law, lambda p, q: np.minimum(p, q), "sum to 1", capsys)
    assert_wrong(check_careless_law, lambda p, q: (np.array(p) + q) / 2, capsys)


def test_position_ids(capsys):
    assert_right(check_position_ids, lambda mask: [[max(sum(r[:i]), 0) for i in range(len(r))] for r in mask], capsys)
    assert_nearly(check_position_ids, lambda mask: [list(range(len(r))) for r in mask], "columns", capsys)
    assert_nearly(check_position_ids, lambda mask: np.cumsum(mask, 1).tolist(), "from 0", capsys)
    assert_nearly(check_position_ids, lambda mask: (np.cumsum(mask, 1) - 1).tolist(), "−1", capsys)
    assert_wrong(check_position_ids, lambda mask: [[0] * len(r) for r in mask], capsys)
