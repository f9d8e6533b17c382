"""Chapter 05's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import pytest
import torch
import torch.nn.functional as F
from checking import assert_not_attempted

from llmbook.exercises import ch05
from llmbook.exercises.ch05 import check_cache_bytes, check_layer_norm


@pytest.mark.parametrize("checker", [check_layer_norm, check_cache_bytes])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def test_right_answers_pass(capsys):
    def layer_norm(x, gain, bias, eps):
        centred = x - x.mean(-1, keepdim=True)
        return gain * centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() + bias

    assert check_layer_norm(layer_norm)
    assert check_layer_norm(lambda x, gain, bias, eps: F.layer_norm(x, x.shape[-1:], gain, bias, eps))
    assert check_cache_bytes(lambda n, h, g, c, t, b, size: n * b * 2 * t * (c // h) * g * size)
    assert capsys.readouterr().out.count("All right.") == 3


@pytest.mark.parametrize(
    ("checker", "mistakes"),
    [
        (check_layer_norm, ch05._NORM_MISTAKES),
        (check_cache_bytes, ch05._CACHE_MISTAKES),
    ],
)
def test_every_known_mistake_gets_its_own_words(checker, mistakes, capsys):
    for mistake in mistakes:
        assert checker(mistake.function) is False
        assert f"Nearly: {mistake.hint}" in capsys.readouterr().out


def test_an_answer_written_otherwise_is_still_recognised(capsys):
    def unbiased(x, gain, bias, eps):
        return gain * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) ** 2 + eps) ** 0.5 + bias

    check_layer_norm(unbiased)
    assert "divides by C − 1" in capsys.readouterr().out
    pasted = lambda x, gain, bias, eps: gain * (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + eps) + bias  # noqa: E731
    check_layer_norm(pasted)
    told = capsys.readouterr().out
    assert "under the root" in told
    assert "divides by C − 1" in told


def test_answers_of_another_kind_are_described(capsys):
    check_layer_norm(lambda x, gain, bias, eps: x.sum(-1))
    assert "has shape" in capsys.readouterr().out
    check_layer_norm(lambda x, gain, bias, eps: torch.zeros_like(x))
    assert "the right one is" in capsys.readouterr().out
    check_cache_bytes(lambda n, c, t: n * c * t)
    assert "raised TypeError" in capsys.readouterr().out
