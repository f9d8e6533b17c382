"""Chapter 04's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import math

import pytest
import torch
import torch.nn.functional as F
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong, said

from llmbook.exercises.ch04 import check_attention, check_causal_mask, check_merge


@pytest.mark.parametrize("checker", [check_attention, check_causal_mask, check_merge])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


RIGHT_MASKS = [
    lambda n: torch.ones(n, n).tril().bool(),
    lambda n: torch.ones(n, n).tril(),
    lambda n: torch.arange(n)[:, None] >= torch.arange(n),
]


@pytest.mark.parametrize("answer", RIGHT_MASKS)
def test_right_masks(answer, capsys):
    assert_right(check_causal_mask, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n: torch.ones(n, n).tril(-1).bool(), "no longer sees itself"),
        (lambda n: torch.arange(n)[:, None] > torch.arange(n), "no longer sees itself"),
        (lambda n: torch.ones(n, n).tril(1), "also sees i + 1"),
        (lambda n: torch.ones(n, n).triu().bool(), "turned over"),
        (lambda n: torch.ones(n, n).triu(1).bool(), "means “hidden”"),
    ],
)
def test_nearly_right_masks(answer, hint, capsys):
    assert_nearly(check_causal_mask, answer, hint, capsys)


def test_wrong_masks(capsys):
    assert "your answer was" in assert_wrong(check_causal_mask, lambda n: torch.ones(n, n), capsys)
    assert "shape (3,)" in said(check_causal_mask, lambda n: torch.ones(3), capsys)[1]


def right_attention(q, k, v):
    scores = torch.einsum("...td,...sd->...ts", q, k) / math.sqrt(q.shape[-1])
    return torch.softmax(scores, dim=-1) @ v


@pytest.mark.parametrize("answer", [right_attention, F.scaled_dot_product_attention])
def test_right_attention(answer, capsys):
    assert_right(check_attention, answer, capsys)


def softmaxed(scale=lambda d: 1 / math.sqrt(d), dim=-1, after=1.0):
    return lambda q, k, v: torch.softmax(q @ k.mT * scale(q.shape[-1]), dim) @ v * after


def overflowing(q, k, v):
    p = torch.exp(q @ k.mT / math.sqrt(q.shape[-1]))
    return p @ v / p.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (softmaxed(lambda d: 1), "not divided by √d_k"),
        (softmaxed(lambda d: 1 / d), "you divide by d_k"),
        (softmaxed(math.sqrt), "you multiply by √d_k"),
        (softmaxed(dim=-2), "runs over the queries"),
        (lambda q, k, v: softmaxed(lambda d: 1)(q, k, v) / math.sqrt(q.shape[-1]), "after the softmax"),
        (overflowing, "exp overflows"),
    ],
)
def test_nearly_right_attention(answer, hint, capsys):
    assert_nearly(check_attention, answer, hint, capsys)


def test_wrong_attention(capsys):
    assert "your answer has shape (1, 5); the right one has (2, 5)" in assert_wrong(
        check_attention, lambda q, k, v: v.mean(-2, keepdim=True), capsys
    )
    _, words = said(check_attention, lambda q, k, v: q @ k @ v, capsys)
    assert "raised RuntimeError" in words


def merge(first, second, factor=torch.exp):
    (m1, l1, o1), (m2, l2, o2) = first, second
    m = torch.maximum(m1, m2)
    a, b = l1 * factor(m1 - m), l2 * factor(m2 - m)
    return m, a + b, (a * o1 + b * o2) / (a + b)


def test_right_merge(capsys):
    assert_right(check_merge, merge, capsys)


def relative_to_the_second(first, second):
    (m1, l1, o1), (m2, l2, o2) = first, second
    a = l1 * (m1 - m2).exp()
    return m2, a + l2, (a * o1 + l2 * o2) / (a + l2)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda a, b: merge(a, b, torch.ones_like), "not rescaled"),
        (lambda a, b: merge(a, b, lambda x: torch.exp(-x)), "sign is the other way round"),
        (lambda a, b: (*merge(a, b)[:2], merge(a, b)[1] * merge(a, b)[2]), "divide it by the new l"),
        (lambda a, b: (*merge(a, b)[:2], (a[2] + b[2]) / 2), "plain mean"),
        (relative_to_the_second, "the new maximum is the larger"),
    ],
)
def test_nearly_right_merge(answer, hint, capsys):
    assert_nearly(check_merge, answer, hint, capsys)


def test_wrong_merge(capsys):
    assert_wrong(check_merge, lambda a, b: a, capsys)
