"""Has a model seen the test? By overlap with its training text, and by a loss that is too low to be honest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from llmbook.evaluation import mean_and_error

Tokens = Sequence[str]


def ngram_index(texts: Iterable[Tokens], n: int) -> frozenset[tuple[str, ...]]:
    """All runs of n tokens of a training text, in which tests are looked up (Brown et al., 2020: n = 13)."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return frozenset(tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1))


def overlap(text: Tokens, index: frozenset[tuple[str, ...]], n: int) -> float:
    """Share of a text's runs of n tokens that the index holds; 0 for a text shorter than n."""
    runs = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    return sum(run in index for run in runs) / len(runs) if runs else 0.0


class TooLow(NamedTuple):
    """By how much a loss lies below what it should not fall below (nats per token), its error, one-sided p-value."""

    gap: float
    se: float
    p: float


def below_floor(model_logprobs: ArrayLike, true_logprobs: ArrayLike, groups: ArrayLike) -> TooLow:
    """Is a model's loss on a text below the truth's own? On new text no model's can be, but for luck.

    Token by token, clustered by text: mean of model − truth. An honest model's expectation is −KL, at most 0, so a gap
    well above 0 says that the model knows the text itself.
    """
    model, truth = np.asarray(model_logprobs, dtype=float), np.asarray(true_logprobs, dtype=float)
    if model.shape != truth.shape:
        raise ValueError(f"true_logprobs must have shape {model.shape}, got {truth.shape}")
    return _one_sided(*mean_and_error(model - truth, groups))


def below_twin(test_losses: ArrayLike, twin_losses: ArrayLike) -> TooLow:
    """Is the loss on the test below that on new texts made in the same way? One mean loss a text, (N,) and (M,).

    Needs no truth, only a twin: a second set that nobody has published (Zhang et al., 2024, wrote one for GSM8k).
    """
    test, twin = mean_and_error(test_losses), mean_and_error(twin_losses)
    return _one_sided(twin.mean - test.mean, math.hypot(test.se, twin.se))


def _one_sided(gap: float, se: float) -> TooLow:
    return TooLow(gap, se, float(scipy.stats.norm.sf(gap / se)) if se else float(gap <= 0))


def text_means(values: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """The mean of the values of each group, in the order of the groups' numbers."""
    _, which = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(which, weights=np.asarray(values, dtype=float)) / np.bincount(which)
