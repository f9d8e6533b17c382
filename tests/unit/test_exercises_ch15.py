"""Chapter 15's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import numpy as np
import pytest
import torch
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch15 import check_low_rank, check_selectivity, check_soft_loss


@pytest.mark.parametrize("checker", [check_soft_loss, check_low_rank, check_selectivity])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def soft_loss(student, teacher, t, factor=2, reverse=False, teacher_t=None):
    """By torch, in double precision."""
    q = (torch.tensor(student).double() / t).log_softmax(-1)
    p = (torch.tensor(teacher).double() / (teacher_t or t)).log_softmax(-1)
    p, q = (q, p) if reverse else (p, q)
    return t**factor * torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True).item()


def test_soft_loss(capsys):
    assert_right(check_soft_loss, soft_loss, capsys)
    assert_nearly(check_soft_loss, lambda s, v, t: soft_loss(s, v, t, factor=0), "T² is missing", capsys)
    assert_nearly(check_soft_loss, lambda s, v, t: soft_loss(s, v, t, factor=1), "not T:", capsys)
    assert_nearly(check_soft_loss, lambda s, v, t: soft_loss(s, v, t, reverse=True), "reverse", capsys)
    assert_nearly(check_soft_loss, lambda s, v, t: soft_loss(s, v, t, teacher_t=1), "too", capsys)
    assert_wrong(check_soft_loss, lambda s, v, t: float(np.square(np.subtract(s, v)).mean()), capsys)


def test_soft_loss_that_is_a_cross_entropy(capsys):
    def cross_entropy(s, v, t):
        p = (torch.tensor(v).double() / t).softmax(-1)
        return -(t**2) * float((p * (torch.tensor(s).double() / t).log_softmax(-1)).sum())

    assert_nearly(check_soft_loss, cross_entropy, "own entropy", capsys)


def whitened(w, h, r):
    """SVD-LLM's way: another road to the same matrix."""
    root = np.linalg.cholesky(h)
    u, s, v = np.linalg.svd(w @ root, full_matrices=False)
    return u[:, :r] * s[:r] @ v[:r] @ np.linalg.inv(root)


def by_weights(w, h, r):
    u, s, v = np.linalg.svd(w)
    return u[:, :r] @ np.diag(s[:r]) @ v[:r]


def test_low_rank(capsys):
    assert_right(check_low_rank, whitened, capsys)
    assert_nearly(check_low_rank, by_weights, "H is not used", capsys)
    assert_wrong(check_low_rank, lambda w, h, r: w, capsys)


@pytest.mark.parametrize(("part", "hint"), [(slice(None, 1), "upwards"), (slice(-1, None), "")])
def test_low_rank_of_the_wrong_end(part, hint, capsys):
    def answer(w, h, r):
        u = np.linalg.eigh(w @ h @ w.T)[1]
        u = u[:, :r] if part.stop else u[:, -r:]
        return u @ u.T @ w

    if hint:
        assert_nearly(check_low_rank, answer, hint, capsys)
    else:
        assert_right(check_low_rank, answer, capsys)


def test_low_rank_of_the_inputs(capsys):
    def answer(w, h, r):
        v = np.linalg.svd(h)[0][:, :r]
        return w @ v @ v.T

    assert_nearly(check_low_rank, answer, "inputs' main directions", capsys)


def test_selectivity(capsys):
    def mean(a, b):
        return float(np.mean(np.array(a) == np.array(b)))

    assert_right(check_selectivity, lambda a, b, c, d: mean(a, b) - mean(c, d), capsys)
    assert_nearly(check_selectivity, lambda a, b, c, d: mean(a, b), "accuracy alone", capsys)
    assert_nearly(check_selectivity, lambda a, b, c, d: mean(c, d) - mean(a, b), "other way round", capsys)
    assert_wrong(check_selectivity, lambda a, b, c, d: 0.5, capsys)
