"""Checkers of chapter 10: the loss of a padded batch, the epoch whose weights are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from llmbook.exercises import Case, Mistake, check

LossOfBatch = Callable[[Tensor, Tensor, Tensor], Tensor]


def check_next_token_loss(function: LossOfBatch) -> bool:
    """Check ``function(logits, input_ids, attention_mask)``: mean loss over the real next tokens, in nats.

    ``logits`` (B, T, V), ``input_ids`` (B, T), ``attention_mask`` (B, T) with 1 for a token and 0 for padding.
    """
    lengths = {
        "no padding": [6, 6],
        "one row padded": [7, 4],
        "rows of very different length": [9, 2, 5],
        "a row of one token, which predicts nothing": [5, 1],
    }
    cases = [Case(name, args := _batch(rows), _mean(*args)) for name, rows in lengths.items()]
    return check(function, cases, _LOSS_MISTAKES)


def _batch(lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    B, T, V = len(lengths), max(lengths), 5
    logits = torch.randn(B, T, V, generator=generator, dtype=torch.float64)
    mask = (torch.arange(T) < torch.tensor(lengths)[:, None]).long()  # (B, T)
    return logits, torch.randint(1, V, (B, T), generator=generator) * mask, mask  # padding has id 0


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Of each position: (B, N, V) and (B, N) to (B, N)."""
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


def _mean(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return _masked(_losses(logits[:, :-1], ids[:, 1:]), mask[:, 1:])


def _row_means(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    rows = [_mean(*(t[i : i + 1] for t in (logits, ids, mask))) for i in range(len(ids)) if mask[i].sum() > 1]
    return torch.stack(rows).mean()


def _masked(losses: Tensor, counted: Tensor) -> Tensor:
    return (losses * counted).sum() / counted.sum()


_LOSS_MISTAKES = [
    Mistake(
        "position t is scored against token t, which it has read: shift, so that it is scored against token t + 1.",
        lambda logits, ids, mask: _masked(_losses(logits, ids), mask),
    ),
    Mistake(
        "neither is shifted, nor is padding left out.", lambda logits, ids, mask: _losses(logits, ids).mean()
    ),
    Mistake(
        "the shift goes the wrong way: position t is to predict token t + 1, not t − 1.",
        lambda logits, ids, mask: _masked(_losses(logits[:, 1:], ids[:, :-1]), mask[:, :-1]),
    ),
    Mistake(
        "padding is counted: a target that is padding must not enter the mean.",
        lambda logits, ids, mask: _losses(logits[:, :-1], ids[:, 1:]).mean(),
    ),
    Mistake(
        "the mask must go with the target: the last token of a row has no next one, and still counts here.",
        lambda logits, ids, mask: _masked(_losses(logits[:, :-1], ids[:, 1:]), mask[:, :-1]),
    ),
    Mistake(
        "the sum is divided by all positions, padding among them.",
        lambda logits, ids, mask: (_losses(logits[:, :-1], ids[:, 1:]) * mask[:, 1:]).mean(),
    ),
    Mistake("a mean of the rows' means: a token in a short row counts for more than one in a long row.", _row_means),
    Mistake(
        "that is the sum; divide by the number of targets.",
        lambda logits, ids, mask: (_losses(logits[:, :-1], ids[:, 1:]) * mask[:, 1:]).sum(),
    ),
]  # fmt: skip


def check_best_epoch(function: Callable[[list[float], int], int]) -> bool:
    """Check ``function(losses, patience)``: the epoch, counted from 1, whose weights early stopping keeps.

    Training stops after ``patience`` epochs in a row without a validation loss below the lowest so far.
    """
    inputs = {
        "falls, then rises": ([3.0, 2.5, 2.2, 2.4, 2.6, 2.9], 2),
        "still falling at the end": ([3.0, 2.6, 2.5], 2),
        "a bump that patience outlasts": ([3.0, 2.5, 2.6, 2.3, 2.4, 2.5, 2.6], 2),
        "a lower loss that comes too late": ([3.0, 2.5, 2.6, 2.7, 2.1], 2),
        "a bump of one epoch, without patience": ([3.0, 2.9, 3.1, 2.0], 1),
        "never better than after the first epoch": ([2.0, 2.2, 2.1, 2.3], 3),
    }
    cases = [Case(name, args, _kept(*args)[0]) for name, args in inputs.items()]
    return check(function, cases, _EPOCH_MISTAKES)


def _kept(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """(the epoch to keep, the epoch after which training stops), both from 1."""
    best = 1
    for epoch, loss in enumerate(losses, start=1):
        if loss < losses[best - 1]:
            best = epoch
        if epoch - best == patience:
            return best, epoch
    return best, len(losses)


_EPOCH_MISTAKES = [
    Mistake("that is when training stops; keep the weights of the best epoch before.", lambda x, p: _kept(x, p)[1]),
    Mistake("epochs count from 1 here.", lambda x, p: _kept(x, p)[0] - 1),
    Mistake(
        "a lower loss after training has stopped is never seen: do not take the lowest of the whole list.",
        lambda x, p: x.index(min(x)) + 1,
    ),
    Mistake("that is the last epoch: what early stopping is there to avoid.", lambda x, p: len(x)),
    Mistake(
        "patience: go on until that many epochs in a row brought nothing lower.",
        lambda x, p: next((i for i in range(1, len(x)) if x[i] >= x[i - 1]), len(x)),
    ),
]
