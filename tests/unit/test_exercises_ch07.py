"""Chapter 07's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import numpy as np
import pytest
import torch
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch07 import check_adamw, check_training_bytes


@pytest.mark.parametrize("checker", [check_adamw, check_training_bytes])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def adamw(p, g, m, v, t, lr, b1, b2, eps, decay, *, hats=(True, True), l2=False, shrink="before"):
    """An answer as a reader would write it, with three of the usual mistakes."""
    g = g + decay * p if l2 else g
    if shrink == "before" and not l2:
        p = p - lr * decay * p
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    m_hat = m / (1 - b1**t) if hats[0] else m
    v_hat = v / (1 - b2**t) if hats[1] else v
    p = p - lr * m_hat / (np.sqrt(v_hat) + eps)
    return (p * (1 - lr * decay) if shrink == "after" else p), m, v


def torchs_adamw(p, g, m, v, t, lr, b1, b2, eps, decay):
    weight = torch.from_numpy(p.copy()).requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
    weight.grad = torch.from_numpy(g.copy())
    state = {"step": torch.tensor(t - 1.0), "exp_avg": torch.from_numpy(m.copy())}
    optimizer.state[weight] = state | {"exp_avg_sq": torch.from_numpy(v.copy())}
    optimizer.step()
    return weight, optimizer.state[weight]["exp_avg"], optimizer.state[weight]["exp_avg_sq"]


@pytest.mark.parametrize("answer", [adamw, torchs_adamw])
def test_right_adamw(answer, capsys):
    assert_right(check_adamw, answer, capsys)


def changed(**options):
    return lambda *args: adamw(*args, **options)


def late(p, g, m, v, t, *rest):
    new = adamw(p, g, m, v, max(t - 1, 1), *rest)
    return new if t > 1 else adamw(p, g, m, v, t, *rest, hats=(False, False))


def inside(p, g, m, v, t, lr, b1, b2, eps, decay):
    _, m, v = adamw(p, g, m, v, t, lr, b1, b2, eps, decay)
    step = m / (1 - b1**t) / np.sqrt(v / (1 - b2**t) + eps)
    return p * (1 - lr * decay) - lr * step, m, v


def exchanged(p, g, m, v, t, lr, b1, b2, eps, decay):
    m, v = (1 - b1) * m + b1 * g, (1 - b2) * v + b2 * g * g
    return p * (1 - lr * decay) - lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def corrected(p, g, m, v, t, lr, b1, b2, eps, decay):
    p, m, v = adamw(p, g, m, v, t, lr, b1, b2, eps, decay)
    return p, m / (1 - b1**t), v / (1 - b2**t)


def in_each_others_place(*args):
    p, m, v = adamw(*args)
    return p, v, m


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (corrected, "corrected means"),
        (in_each_others_place, "each other's place"),
        (changed(hats=(False, False)), "bias correction is missing"),
        (changed(hats=(False, True)), "m is not corrected"),
        (changed(hats=(True, False)), "v is not corrected"),
        (changed(l2=True), "added to the gradient"),
        (changed(shrink="never"), "decay is missing"),
        (changed(shrink="after"), "before"),
        (late, "counted from 0"),
        (inside, "under the root"),
        (exchanged, "exchanged"),
    ],
)
def test_nearly_right_adamw(answer, hint, capsys):
    assert_nearly(check_adamw, answer, hint, capsys)


def test_wrong_adamw(capsys):
    assert_wrong(check_adamw, lambda p, g, m, v, *rest: (p - g, m, v), capsys)


def test_training_bytes(capsys):
    assert check_training_bytes(lambda n, size: n * size * 4)
    assert_nearly(check_training_bytes, lambda n, size: n * size, "weights alone", capsys)
    assert_nearly(check_training_bytes, lambda n, size: 3 * n * size, "two* means", capsys)
    assert_nearly(check_training_bytes, lambda n, size: 4 * n, "not bytes", capsys)
    assert_wrong(check_training_bytes, lambda n, size: n, capsys)
