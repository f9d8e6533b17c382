"""Chapter 04's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import math

import pytest
import torch
import torch.nn.functional as F
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong, said

from llmbook.exercises.ch04 import check_grouped_query, check_merge, check_window_mask


@pytest.mark.parametrize("checker", [check_window_mask, check_grouped_query, check_merge])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def distance(n):
    """i − j, for query i and key j."""
    return torch.arange(n)[:, None] - torch.arange(n)


RIGHT_MASKS = [
    lambda n, w: torch.ones(n, n).tril().triu(1 - w).bool(),
    lambda n, w: torch.ones(n, n).tril() - torch.ones(n, n).tril(-w),
    lambda n, w: (distance(n) >= 0) & (distance(n) < w),
]


@pytest.mark.parametrize("answer", RIGHT_MASKS)
def test_right_masks(answer, capsys):
    assert_right(check_window_mask, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n, w: (distance(n) >= 0) & (distance(n) <= w), "one key too many"),
        (lambda n, w: (distance(n) > 0) & (distance(n) <= w), "no longer sees itself"),
        (lambda n, w: distance(n).abs() < w, "reaches forwards"),
        (lambda n, w: (distance(n) <= 0) & (distance(n) > -w), "turned over"),
        (lambda n, w: distance(n) >= 0, "the causal mask alone"),
        (lambda n, w: (distance(n) < 0) | (distance(n) >= w), "means “hidden”"),
    ],
)
def test_nearly_right_masks(answer, hint, capsys):
    assert_nearly(check_window_mask, answer, hint, capsys)


def test_wrong_masks(capsys):
    assert "your answer was" in assert_wrong(check_window_mask, lambda n, w: torch.ones(n, n), capsys)
    assert "shape (3,)" in said(check_window_mask, lambda n, w: torch.ones(3), capsys)[1]


def by_groups(q, k, v):
    """Nothing copied: the query's heads get an axis for their group."""
    q = q.unflatten(-3, (k.shape[-3], -1))  # (..., G, H/G, T, d)
    weights = torch.softmax(q @ k.mT[..., None, :, :] / math.sqrt(q.shape[-1]), dim=-1)
    return (weights @ v[..., None, :, :]).flatten(-4, -3)


def grouped(share, scale=lambda q: q.shape[-1] ** -0.5):
    def answer(q, k, v):
        k, v = (share(x, q.shape[-3]) for x in (k, v))
        return torch.softmax(q @ k.mT * scale(q), -1) @ v

    return answer


def neighbours(x, heads):
    return x.repeat_interleave(heads // x.shape[-3], dim=-3)


def tiled(x, heads):
    return x.repeat(*[1] * (x.dim() - 3), heads // x.shape[-3], 1, 1)


@pytest.mark.parametrize(
    "answer", [by_groups, grouped(neighbours), lambda *x: F.scaled_dot_product_attention(*x, enable_gqa=True)]
)
def test_right_groups(answer, capsys):
    assert_right(check_grouped_query, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (grouped(tiled), "`repeat_interleave`, not `repeat`"),
        (grouped(lambda x, heads: x[..., :1, :, :]), "reads the first key head"),
        (grouped(lambda x, heads: x.mean(-3, keepdim=True)), "averaged"),
        (grouped(neighbours, lambda q: 1.0), "not divided by √d"),
        (grouped(neighbours, lambda q: (q.shape[-1] * q.shape[-3]) ** -0.5), "all heads together"),
    ],
)
def test_nearly_right_groups(answer, hint, capsys):
    assert_nearly(check_grouped_query, answer, hint, capsys)


def test_wrong_groups(capsys):
    assert "your answer has shape" in assert_wrong(check_grouped_query, lambda q, k, v: v, capsys)
    _, words = said(check_grouped_query, lambda q, k, v: q @ k.mT @ v, capsys)
    assert "raised RuntimeError" in words


def merge(first, second, factor=torch.exp):
    (m1, l1, o1), (m2, l2, o2) = first, second
    m = torch.maximum(m1, m2)
    a, b = l1 * factor(m1 - m), l2 * factor(m2 - m)
    return m, a + b, (a * o1 + b * o2) / (a + b)


def test_right_merge(capsys):
    assert_right(check_merge, merge, capsys)


def one_comparison_for_all_rows(first, second):
    m = first[0] if first[0].max() >= second[0].max() else second[0]
    return relative_to(m, first, second)


def one_number_for_all_rows(first, second):
    return relative_to(torch.cat([first[0], second[0]]).max().expand_as(first[0]), first, second)


def relative_to(m, first, second):
    (m1, l1, o1), (m2, l2, o2) = first, second
    a, b = l1 * (m1 - m).exp(), l2 * (m2 - m).exp()
    return m, a + b, (a * o1 + b * o2) / (a + b)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda a, b: merge(a, b, torch.ones_like), "not rescaled"),
        (lambda a, b: merge(a, b, lambda x: torch.exp(-x)), "sign is the other way round"),
        (lambda a, b: (*merge(a, b)[:2], merge(a, b)[1] * merge(a, b)[2]), "divide it by the new l"),
        (lambda a, b: (*merge(a, b)[:2], (a[2] + b[2]) / 2), "plain mean"),
        (lambda a, b: relative_to(b[0], a, b), "the new maximum is the larger"),
        (one_comparison_for_all_rows, "one block's maxima serve for all"),
        (one_number_for_all_rows, "one maximum serves for all"),
    ],
)
def test_nearly_right_merge(answer, hint, capsys):
    assert_nearly(check_merge, answer, hint, capsys)


def test_wrong_merge(capsys):
    assert_wrong(check_merge, lambda a, b: a, capsys)
