"""Chapter 09's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch09 import check_ring_step, check_state_bytes


@pytest.mark.parametrize("checker", [check_state_bytes, check_ring_step])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def state_bytes(n, devices, stage):
    weights, gradients, optimiser = 2 * n, 2 * n, 12 * n
    return (
        (weights / devices if stage == 3 else weights)
        + (gradients / devices if stage >= 2 else gradients)
        + (optimiser / devices if stage >= 1 else optimiser)
    )


def test_right_state_bytes(capsys):
    assert_right(check_state_bytes, state_bytes, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n, d, s: (2 + 2 + 12) * n, "stage 0"),
        (lambda n, d, s: 16 * n / d, "only stage 3"),
        (lambda n, d, s: 16 * n / d if s else 16 * n, "from stage 1 on"),
        (lambda n, d, s: n * (2 / (d if s > 0 else 1) + 2 / (d if s > 1 else 1) + 12 / (d if s > 2 else 1)), "order"),
        (lambda n, d, s: state_bytes(n, d, s) - 4 * n / (d if s else 1), "float32 weights"),
        (lambda n, d, s: state_bytes(n, d, s) + 2 * n / (d if s > 1 else 1), "gradients have 2 bytes"),
        (lambda n, d, s: d * state_bytes(n, d, s), "over all devices"),
    ],
)
def test_nearly_right_state_bytes(answer, hint, capsys):
    assert_nearly(check_state_bytes, answer, hint, capsys)


def test_wrong_state_bytes(capsys):
    assert_wrong(check_state_bytes, lambda n, d, s: n * s, capsys)


def ring_step(rank, step, n):
    return (rank - step) % n, (rank - 1 - step) % n, step <= n - 2


def test_right_ring_step(capsys):
    assert_right(check_ring_step, ring_step, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda r, s, n: (r - s, r - s - 1, s < n - 1), "negative"),
        (lambda r, s, n: (r, (r - 1) % n, s < n - 1), "ever passed on"),
        (lambda r, s, n: ((r + s) % n, (r + s + 1) % n, s < n - 1), "other way round"),
        (lambda r, s, n: ((r - s) % n, (r - s + 1) % n, s < n - 1), "*left* neighbour"),
        (lambda r, s, n: (*ring_step(r, s, n)[:2], s <= n - 1), "too often"),
        (lambda r, s, n: (*ring_step(r, s, n)[:2], True), "every round"),
        (lambda r, s, n: (*ring_step(r, s, n)[:2], s < n - 2), "too seldom"),
    ],
)
def test_nearly_right_ring_step(answer, hint, capsys):
    assert_nearly(check_ring_step, answer, hint, capsys)


def test_wrong_ring_step(capsys):
    assert_wrong(check_ring_step, lambda r, s, n: (0, 0, False), capsys)
