"""Chapter 03's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import pytest
import torch
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong, said
from torch.nn.functional import logsigmoid

from llmbook.exercises.ch03 import check_negative_gradient, check_softmax_gradient


@pytest.mark.parametrize("checker", [check_softmax_gradient, check_negative_gradient])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def softmax_loss(scores, pair, dim=1):
    return -(pair * torch.log_softmax(scores, dim)).sum()


def negative_loss(scores, pair, k, by=0):
    chance = pair.sum(1)[:, None] * pair.sum(by)
    return -(pair * logsigmoid(scores) + k * chance * logsigmoid(-scores)).sum()


def by_autograd(loss):
    """A right answer, if the loss is right."""

    def gradients(w_in, w_out, pair, *k):
        tables = [torch.tensor(w, requires_grad=True) for w in (w_in, w_out)]
        value = loss(tables[0] @ tables[1].T, torch.tensor(pair), *k)
        return tuple(g.numpy() for g in torch.autograd.grad(value, tables))

    return gradients


def with_slope(slope):
    """An answer from the gradient of the scores."""

    def gradients(w_in, w_out, pair, *k):
        g = slope(torch.tensor(w_in @ w_out.T), torch.tensor(pair), *k).numpy()
        return g @ w_out, g.T @ w_in

    return gradients


def softmax_slope(x, pair):
    return pair.sum(1, keepdim=True) * torch.softmax(x, 1) - pair


def negative_slope(x, pair, k):
    return k * pair.sum(1)[:, None] * pair.sum(0) * torch.sigmoid(x) - pair * torch.sigmoid(-x)


RIGHT = {check_softmax_gradient: softmax_slope, check_negative_gradient: negative_slope}


@pytest.mark.parametrize(
    ("checker", "answer"),
    [
        (check_softmax_gradient, by_autograd(softmax_loss)),
        (check_negative_gradient, by_autograd(negative_loss)),
        *((checker, with_slope(slope)) for checker, slope in RIGHT.items()),
    ],
)
def test_right_gradients(checker, answer, capsys):
    assert_right(checker, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (with_slope(lambda x, p: torch.softmax(x, 1) - p / p.sum(1, keepdim=True)), "every word counts alike"),
        (with_slope(lambda x, p: p.sum(1, keepdim=True) * torch.softmax(x, 1)), "the true pairs are missing"),
        (
            with_slope(lambda x, p: p.sum(1, keepdim=True) * torch.softmax(x, 0) - p),
            "sums to 1 over the words that are given",
        ),
    ],
)
def test_nearly_right_softmax(answer, hint, capsys):
    assert_nearly(check_softmax_gradient, answer, hint, capsys)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (with_slope(lambda x, p, k: negative_slope(x, p, 1)), "the noise counts once"),
        (with_slope(lambda x, p, k: negative_slope(x, p, k) - p * torch.sigmoid(x)), "with full force for ever"),
        (with_slope(lambda x, p, k: -p * torch.sigmoid(-x)), "the noise is missing"),
        (by_autograd(lambda x, p, k: negative_loss(x, p, k, by=1)), "shares of the *given* words"),
    ],
)
def test_nearly_right_negative(answer, hint, capsys):
    assert_nearly(check_negative_gradient, answer, hint, capsys)


@pytest.mark.parametrize("checker", RIGHT)
def test_nearly_right_after_the_slope(checker, capsys):
    right = with_slope(RIGHT[checker])

    def untransposed(w_in, w_out, pair, *k):
        slope = RIGHT[checker](torch.tensor(w_in @ w_out.T), torch.tensor(pair), *k).numpy()
        return slope @ w_out, slope @ w_in

    for answer, hint in (
        (lambda *args: tuple(-g for g in right(*args)), "points uphill"),
        (lambda *args: right(*args)[::-1], "are exchanged"),
        (untransposed, "along a *column*"),
        (lambda *args: right(*args)[0], "only one gradient came"),
    ):
        assert_nearly(checker, answer, hint, capsys)


@pytest.mark.parametrize("checker", RIGHT)
def test_wrong_gradients(checker, capsys):
    assert "your answer was" in assert_wrong(checker, lambda w_in, w_out, *rest: (w_in, w_out), capsys)
    assert "raised" in said(checker, lambda w_in, w_out, *rest: w_in @ w_out, capsys)[1]
