"""Chapter 08's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch08 import check_noise_scale, check_wsd
from llmbook.training import TrainingArguments, learning_rate


@pytest.mark.parametrize("checker", [check_wsd, check_noise_scale])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def by_the_library(step, steps, warmup, decay, peak):
    args = TrainingArguments(
        max_steps=steps, warmup_steps=warmup, learning_rate=peak, lr_scheduler_type="wsd", min_lr_ratio=0.0,
        decay_fraction=decay / (steps - warmup),
    )  # fmt: skip
    return learning_rate(step, args)


def wsd(step, steps, warmup, decay, peak):
    return peak * min((step + 1) / warmup if warmup else 1, 1, (steps - step) / decay)


@pytest.mark.parametrize("answer", [wsd, by_the_library])
def test_right_schedules(answer, capsys):
    assert_right(check_wsd, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda t, n, w, d, p: p * min(t / w if w else 1, 1, (n - t) / d), "begins at a rate of zero"),
        (lambda t, n, w, d, p: p * min((t + 1) / w if w else 1, 1, (n - t - 1) / d), "one step too early"),
        (lambda t, n, w, d, p: p * ((t + 1) / w if t < w else (n - t) / (n - w)), "a linear schedule"),
        (lambda t, n, w, d, p: p * min((t + 1) / w if w else 1, 1), "the decay is missing"),
        (lambda t, n, w, d, p: p * min(1, (n - t) / d), "the warm-up is missing"),
        (lambda t, n, w, d, p: wsd(t, n, w, d, 1), "taken to be 1"),
    ],
)
def test_nearly_right_schedules(answer, hint, capsys):
    assert_nearly(check_wsd, answer, hint, capsys)


def noise_scale(b, c, n, m):
    return (n - m) * b * c / (c * m - b * n)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda b, c, n, m: (n - m) / (1 / b - 1 / c) / m, "holds noise as well"),
        (lambda b, c, n, m: (n - m) * (c - b) / (c * m - b * n), "1/B₁ − 1/B₂ is missing"),
        (lambda b, c, n, m: (n - m) / (1 / b - 1 / c), "you give the variance"),
        (lambda b, c, n, m: (c * m - b * n) / (c - b), "you give |G|²"),
        (lambda b, c, n, m: 1 / noise_scale(b, c, n, m), "upside down"),
        (lambda b, c, n, m: noise_scale(b, c, n**2, m**2), "square them again"),
    ],
)
def test_nearly_right_noise_scales(answer, hint, capsys):
    assert_right(check_noise_scale, noise_scale, capsys)
    assert_nearly(check_noise_scale, answer, hint, capsys)


@pytest.mark.parametrize("checker", [check_wsd, check_noise_scale])
def test_wrong_answers_get_no_hint(checker, capsys):
    assert "your answer was" in assert_wrong(checker, lambda *args: 17.0, capsys)
