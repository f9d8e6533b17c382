"""Texts that repeat, and the scores of heads that copy: induction heads (Elhage et al., 2021; Olsson et al., 2022)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def periodic_rows(
    rng: np.random.Generator, rows: int, length: int, vocab_size: int, periods: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Random tokens that repeat: ids (B, T) and each row's period (B,), drawn from ``periods`` (both ends included).

    Within a period no token occurs twice. With one fixed period a model can count back instead of looking up: then
    positions alone give a perfect score, and no induction is needed.
    """
    low, high = periods
    if not 2 <= low <= high <= vocab_size:
        raise ValueError(f"periods must lie in 2..vocab_size = {vocab_size}, got {periods}")
    period = rng.integers(low, high + 1, rows)
    once = rng.permuted(np.tile(np.arange(vocab_size), (rows, 1)), axis=1)  # (B, V)
    where = np.arange(length)[None] % period[:, None]
    return torch.as_tensor(np.take_along_axis(once, where, axis=1)), torch.as_tensor(period)


def repeated(period: Tensor, length: int) -> Tensor:
    """(B, T): whether this token can be copied, its predecessor having occurred a period ago."""
    return torch.arange(length)[None] > period[:, None]


def copy_losses(logits: Tensor, ids: Tensor, period: Tensor) -> tuple[float, float]:
    """Mean loss in nats on tokens of the first copy and on those that can be copied, from logits (B, T, V)."""
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")  # (B, T−1)
    again = repeated(period, ids.shape[1])[:, 1:]
    first = torch.arange(1, ids.shape[1])[None] < period[:, None]
    return float(losses[first].mean()), float(losses[again].mean())


def induction_scores(attention: Mapping[str, Tensor] | Mapping[int, Tensor], period: Tensor) -> Tensor:
    """(L, H): mean weight on the token *after* the earlier occurrence of the present one; weights are (B, H, T, T)."""
    return _scores(attention, lambda t: t - period[:, None] + 1, period)


def previous_scores(attention: Mapping[str, Tensor] | Mapping[int, Tensor], period: Tensor) -> Tensor:
    """(L, H): the mean weight on the token before the present one, over the same places."""
    return _scores(attention, lambda t: (t - 1).expand(len(period), -1), period)


def _scores(attention: Mapping, target, period: Tensor) -> Tensor:
    layers = []
    for weights in attention.values():
        length = weights.shape[-1]
        t = torch.arange(length)[None]
        key = target(t).clamp(min=0)[:, None, :, None].expand(-1, weights.shape[1], -1, 1)
        at = weights.gather(3, key)[..., 0]  # (B, H, T)
        seen = (t >= period[:, None])[:, None].expand_as(at)
        layers.append((at * seen).sum((0, 2)) / seen.sum((0, 2)))
    return torch.stack(layers)
