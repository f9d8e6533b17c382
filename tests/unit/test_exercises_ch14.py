"""Chapter 14's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import math

import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch14 import check_packed, check_rounded, check_second_weight


@pytest.mark.parametrize("checker", [check_rounded, check_packed, check_second_weight])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def rounded(weights, bits, most=None, largest=None, whole=round, back=True):
    """Weight by weight."""
    most = 2 ** (bits - 1) - 1 if most is None else most(bits)
    step = max(map(abs, weights)) if largest is None else largest(weights)
    step = step / most or 1.0
    return [whole(w / step) * (step if back else 1) for w in weights]


def test_right_rounding(capsys):
    assert_right(check_rounded, rounded, capsys)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"largest": max}, "absolute value"),
        ({"back": False}, "those are the codes"),
        ({"whole": math.trunc}, "cuts digits off"),
        ({"whole": math.floor}, "rounds down"),
        ({"most": lambda bits: 2 ** (bits - 1)}, "one code too wide"),
        ({"most": lambda bits: 2**bits - 1}, "both signs together"),
        ({"most": lambda bits: 2 ** (bits - 1), "largest": max}, "two faults"),
    ],
)
def test_nearly_right_rounding(change, hint, capsys):
    assert_nearly(check_rounded, lambda w, b: rounded(w, b, **change), hint, capsys)


def test_rounding_that_divides_by_zero(capsys):
    def divides(weights, bits):
        return rounded(weights, bits) if any(weights) else [float("nan")] * len(weights)

    assert_nearly(check_rounded, divides, "divide by something else", capsys)
    assert_wrong(check_rounded, lambda w, b: [round(x, 1) for x in w], capsys)


def packed(codes):
    codes = [*codes, 0] if len(codes) % 2 else list(codes)
    return [codes[i] | codes[i + 1] << 4 for i in range(0, len(codes), 2)]


def test_packing(capsys):
    assert_right(check_packed, packed, capsys)
    assert_nearly(check_packed, lambda c: [b >> 4 | (b & 15) << 4 for b in packed(c)], "low half", capsys)
    assert_nearly(check_packed, lambda c: packed(c[: len(c) // 2 * 2]), "is lost", capsys)
    assert_nearly(check_packed, list, "one byte for each code", capsys)
    assert_wrong(check_packed, lambda c: [0] * ((len(c) + 1) // 2), capsys)


def test_the_second_weight(capsys):
    assert_right(check_second_weight, lambda w, H, q: (w[1] * H[1][1] + (w[0] - q) * H[1][0]) / H[1][1], capsys)
    for answer, hint in (
        (lambda w, H, q: w[1] - (w[0] - q) * H[0][1] / H[1][1], "the sign"),
        (lambda w, H, q: w[1] + (w[0] - q) * H[0][1] / H[0][0], "it is the second weight that moves"),
        (lambda w, H, q: w[1] + (w[0] - q) * H[0][1], "size of the second input"),
        (lambda w, H, q: w[1] + w[0] - q, "the whole error"),
        (lambda w, H, q: (w[0] - q) * H[0][1] / H[1][1], "by how much it moves"),
        (lambda w, H, q: round(w[1] + (w[0] - q) * H[0][1] / H[1][1]), "don't round it yet"),
    ):
        assert_nearly(check_second_weight, answer, hint, capsys)
    assert_wrong(check_second_weight, lambda w, H, q: w[1], capsys)
