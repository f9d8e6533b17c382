"""Chapter 20's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import math

import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch20 import check_advantages, check_dpo, check_labels


@pytest.mark.parametrize("checker", [check_labels, check_dpo, check_advantages])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def test_labels(capsys):
    def right(ids, roles):
        out = list(ids)
        for k, role in enumerate(roles):
            if role != "clerk":
                out[k] = -100
        return out

    assert_right(check_labels, right, capsys)
    for answer, hint in (
        (lambda i, r: [x if y in ("clerk", "tool") else -100 for x, y in zip(i, r, strict=True)], "read, not written"),
        (lambda i, r: [-100 if y == "clerk" else x for x, y in zip(i, r, strict=True)], "other way round"),
        (lambda i, r: [x if y == "clerk" else 0 for x, y in zip(i, r, strict=True)], "a token like any other"),
        (lambda i, r: [x for x, y in zip(i, r, strict=True) if y == "clerk"], "leave tokens out"),
        (lambda i, r: [*right(i, r)[1:], -100], "don't shift"),
    ):
        assert_nearly(check_labels, answer, hint, capsys)
    assert_wrong(check_labels, lambda i, r: [7] * len(i), capsys)


def test_the_loss_of_a_pair(capsys):
    def right(c, r, c0, r0, beta):
        z = beta * (c - c0 - r + r0)
        return math.log1p(math.exp(-z)) if z > -30 else -z

    def overflows(c, r, c0, r0, beta):
        z = beta * (c - c0 - r + r0)
        return math.log(1 + math.exp(-z)) if z > -700 else math.inf

    assert_right(check_dpo, right, capsys)
    for answer, hint in (
        (lambda c, r, c0, r0, b: right(r, c, r0, c0, b), "the sign"),
        (lambda c, r, c0, r0, b: right(c, r, 0, 0, b), "the reference is missing"),
        (lambda c, r, c0, r0, b: right(c, r, c0, r0, 1.0), "β is missing"),
        (lambda c, r, c0, r0, b: math.exp(-right(c, r, c0, r0, b)), "−ln of it"),
        (lambda c, r, c0, r0, b: -right(c, r, c0, r0, b), "in front of the logarithm"),
        (overflows, "overflows"),
    ):
        assert_nearly(check_dpo, answer, hint, capsys)
    assert_wrong(check_dpo, lambda c, r, c0, r0, b: c - r, capsys)


def test_advantages(capsys):
    def right(rewards, off=1, floor=1e-12):
        n, mean = len(rewards), sum(rewards) / len(rewards)
        spread = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (n - off))
        return [(r - mean) / max(spread, floor) for r in rewards]

    assert_right(check_advantages, right, capsys)
    assert_nearly(check_advantages, lambda r: [x - sum(r) / len(r) for x in r], "standard deviation, too", capsys)
    assert_nearly(check_advantages, lambda r: right(r, off=0), "n − 1", capsys)
    assert_nearly(
        check_advantages, lambda r: right(r) if len(set(r)) > 1 else [math.nan] * len(r), "and not 0/0", capsys
    )
    assert_wrong(check_advantages, lambda r: [0.5] * len(r), capsys)
