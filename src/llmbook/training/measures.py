"""What a trained model is worth: its loss on held-out tokens, and its opinion of each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from llmbook.training.batches import Batch


def model_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The loss that the model itself computes, as in transformers. ()"""
    return model(**batch).loss


@torch.no_grad()
def evaluate_loss(model: nn.Module, tokens: Tensor, block_size: int, batch_size: int = 32) -> float:
    """Mean loss in nats per predicted token over all whole blocks of ``tokens`` (N,)."""
    count = check_blocks(tokens, block_size)
    device = next(model.parameters()).device
    rows = tokens[: count * block_size].view(count, block_size).split(batch_size)
    losses = [(float(model_loss(model, {"input_ids": r.to(device), "labels": r.to(device)})), len(r)) for r in rows]
    return sum(loss * n for loss, n in losses) / count


def check_blocks(tokens: Tensor, block_size: int, name: str = "tokens") -> int:
    """How many whole blocks there are in (N,) tokens; ValueError where there is none."""
    count = len(tokens) // block_size
    if count < 1:
        raise ValueError(f"{name} must hold at least one block of {block_size}, got {len(tokens)}")
    return count


@torch.no_grad()
def row_logprobs(model: nn.Module, rows: Sequence[Sequence[int]], batch_size: int = 64) -> np.ndarray:
    """What a causal model thought of each token of each row but the first: ln q(token | those before it), (N,).

    Puts the model into evaluation mode. With `<bos>` in front of each story, the result stands beside the
    stories' own ``logprobs``, token for token, for :func:`llmbook.evaluation.paired_excess`.
    """
    if not rows or min(map(len, rows)) < 2:
        raise ValueError("rows must hold at least one row, each of at least 2 tokens")
    model.eval()
    device, order = next(model.parameters()).device, sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: list[np.ndarray] = [np.empty(0)] * len(rows)
    for some in (order[i : i + batch_size] for i in range(0, len(rows), batch_size)):
        tensors = [torch.as_tensor(rows[i], dtype=torch.int64) for i in some]
        ids = nn.utils.rnn.pad_sequence(tensors, batch_first=True).to(device)  # (B, T)
        logits = model(ids).logits[:, :-1].transpose(1, 2)  # (B, V, T − 1)
        losses = nn.functional.cross_entropy(logits, ids[:, 1:], reduction="none").double().cpu()  # (B, T − 1)
        for i, row in zip(some, losses, strict=True):
            found[i] = -row[: len(rows[i]) - 1].numpy()
    return np.concatenate(found)
