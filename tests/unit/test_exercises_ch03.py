"""Chapter 03's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import math

import numpy as np
import pytest
import torch
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong, said

from llmbook.exercises.ch03 import check_cbow_gradient, check_keep_probability, check_path_probability
from llmbook.word2vec import keep_probability


@pytest.mark.parametrize("checker", [check_keep_probability, check_path_probability, check_cbow_gradient])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def kept(count, total, threshold, capped=True):
    x = threshold / (count / total)
    return min(1, math.sqrt(x) + x) if capped else math.sqrt(x) + x


def library_kept(count, total, threshold):
    """The library's own formula, on a corpus of this word and one other."""
    return keep_probability(np.array([count, total - count]), threshold)[0]


@pytest.mark.parametrize("answer", [kept, library_kept])
def test_right_keep_probability(answer, capsys):
    assert_right(check_keep_probability, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda c, n, t: min(1, math.sqrt(t * n / c)), "this is the paper's formula, √(t/f). The programs"),
        (lambda c, n, t: math.sqrt(t / (c / n)), "Cap it, and add"),
        (lambda c, n, t: kept(c, n, t, capped=False), "a probability above 1 is none"),
        (lambda c, n, t: 1 - kept(c, n, t), "to *drop*"),
        (lambda c, n, t: min(1, math.sqrt(t / c) + t / c), "raw count"),
    ],
)
def test_nearly_right_keep_probability(answer, hint, capsys):
    assert_nearly(check_keep_probability, answer, hint, capsys)


def test_wrong_keep_probability(capsys):
    assert "your answer was" in assert_wrong(check_keep_probability, lambda c, n, t: t, capsys)


def walked(h, nodes, codes, flip=True):
    """Step by step, as a student would."""
    probability = 1.0
    for u, code in zip(nodes, codes, strict=True):
        left = 1 / (1 + math.exp(-(u @ h)))
        probability *= 1 - left if code and flip else left
    return probability


def test_right_path_probability(capsys):
    assert_right(check_path_probability, walked, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda *args: walked(*args, flip=False), "sign never flips"),
        (lambda h, nodes, codes: walked(h, nodes, 1 - codes), "left and right are exchanged"),
        (lambda *args: math.log(walked(*args)), "log-probability"),
        (
            lambda h, nodes, codes: sum(walked(h, nodes[i : i + 1], codes[i : i + 1]) for i in range(len(codes))),
            "added",
        ),
    ],
)
def test_nearly_right_path_probability(answer, hint, capsys):
    assert_nearly(check_path_probability, answer, hint, capsys)


def test_wrong_path_probability(capsys):
    assert "your answer was" in assert_wrong(check_path_probability, lambda h, nodes, codes: 0.5 ** len(codes), capsys)


def by_autograd(context, output, target, pool=torch.mean):
    vectors = torch.tensor(context, requires_grad=True)
    scores = torch.tensor(output) @ pool(vectors, dim=0)
    torch.nn.functional.cross_entropy(scores[None], torch.tensor([target])).backward()
    return vectors.grad.numpy()


def by_hand(context, output, target):
    powers = np.exp(output @ context.mean(axis=0))
    error = powers / powers.sum()
    error[target] -= 1
    return np.ones((len(context), 1)) * (error @ output) / len(context)


@pytest.mark.parametrize("answer", [by_autograd, by_hand])
def test_right_cbow_gradient(answer, capsys):
    assert_right(check_cbow_gradient, answer, capsys)


def summed_then_divided(context, output, target):
    return by_autograd(context, output, target, torch.sum) / len(context)


def no_target(context, output, target):
    return by_hand(context, output, target) + output[target] / len(context)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda *args: by_hand(*args) * len(args[0]), "only 1/C of the mean"),
        (lambda *args: by_autograd(*args, torch.sum), "right for the *sum*"),
        (summed_then_divided, "h itself is still the sum"),
        (lambda *args: -by_hand(*args), "points uphill"),
        (no_target, "the word that came is missing"),
        (lambda *args: by_hand(*args)[0], "one for each neighbour"),
    ],
)
def test_nearly_right_cbow_gradient(answer, hint, capsys):
    assert_nearly(check_cbow_gradient, answer, hint, capsys)


def test_wrong_cbow_gradient(capsys):
    assert "the right one has (4, 5)" in assert_wrong(
        check_cbow_gradient, lambda context, output, target: output, capsys
    )
    assert "raised" in said(check_cbow_gradient, lambda c, o, t: c @ o, capsys)[1]
