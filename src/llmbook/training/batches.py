"""What a step sees: the batch of a step is a function of the seed and the step, and of nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from llmbook.training.arguments import TrainingArguments
from llmbook.transformer import IGNORE

Batch = Mapping[str, Tensor]
GetBatch = Callable[[int], Batch]
POOL = 32  # padded_batches sorts this many batches by length at a time


def pack(documents: Sequence[Sequence[int]], eos: int) -> Tensor:
    """Documents end to end in one row of ids, each closed by ``eos``: no padding, nothing dropped. (N,)"""
    if not documents:
        raise ValueError("documents must not be empty")
    parts = [np.append(np.asarray(document, dtype=np.int64), eos) for document in documents]
    return torch.from_numpy(np.concatenate(parts))


def packed_batches(tokens: Tensor, args: TrainingArguments) -> GetBatch:
    """Batches of ``block_size`` consecutive tokens, every block once per epoch, in an order from the seed.

    ``tokens`` is (N,) int64. Block borders shift from epoch to epoch, so that no token is always a first
    one. The batch of a step depends on nothing but the seed and the step.
    """
    if tokens.ndim != 1 or tokens.dtype != torch.int64:
        raise ValueError(f"tokens must be (N,) int64, got {tuple(tokens.shape)} {tokens.dtype}")
    size = args.block_size
    blocks = (len(tokens) - 1) // size  # less than a block is left for the shift
    if blocks < 1:
        raise ValueError(f"tokens must hold more than one block of {size}, got {len(tokens)}")

    def get_batch(step: int) -> Batch:
        numbers = range(step * args.batch_size, (step + 1) * args.batch_size)
        starts = [_block_start(n, blocks, size, len(tokens), args.seed) for n in numbers]
        input_ids = torch.stack([tokens[s : s + size] for s in starts])  # (B, T)
        return {"input_ids": input_ids, "labels": input_ids}

    return get_batch


def _block_start(number: int, blocks: int, size: int, total: int, seed: int) -> int:
    """Where the ``number``-th block of the whole run begins: epoch ``number // blocks``, shuffled."""
    epoch, place = divmod(number, blocks)
    order, shift = _epoch_order(epoch, blocks, total - blocks * size, seed)
    return shift + size * int(order[place])


_orders: dict[tuple[int, int, int, int], tuple[np.ndarray, int]] = {}


def _epoch_order(epoch: int, blocks: int, slack: int, seed: int) -> tuple[np.ndarray, int]:
    """The permutation and the shift of an epoch; the last few are kept, since every step asks."""
    key = (epoch, blocks, slack, seed)
    if key not in _orders:
        if len(_orders) >= 4:
            _orders.clear()
        rng = np.random.default_rng([seed, epoch])
        _orders[key] = rng.permutation(blocks), int(rng.integers(slack + 1))
    return _orders[key]


def padded_batches(rows: Sequence[Sequence[int]], args: TrainingArguments) -> GetBatch:
    """Batches of whole documents, one in a row, padded on the right to the batch's longest.

    Where a document must be read from its beginning (`pack` cuts it anywhere), and is short. Every row comes
    once per epoch, but for the fewer than ``batch_size`` last ones of its shuffled order. Rows of like length
    go together, so that little is padding; which ones, and when, follows from the seed. Padding has id 0, the
    label −100, and stands behind all that a causal model sees. The batch of a step depends on nothing but the
    seed and the step. Raises ``ValueError`` for too few rows, and for one longer than ``args.block_size``.
    """
    lengths = np.array([len(row) for row in rows])
    if len(rows) < args.batch_size:
        raise ValueError(f"rows must hold at least one batch of {args.batch_size}, got {len(rows)}")
    if not 2 <= lengths.min() <= lengths.max() <= args.block_size:
        raise ValueError(
            f"rows must have 2 to block_size = {args.block_size} tokens, got {lengths.min()} to {lengths.max()}"
        )
    batches = len(rows) // args.batch_size
    tensors = [torch.as_tensor(row, dtype=torch.int64) for row in rows]

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return _order_by_length(lengths, args.batch_size, np.random.default_rng([args.seed, epoch]))

    def get_batch(step: int) -> Batch:
        epoch, place = divmod(step, batches)
        chosen = [tensors[i] for i in order(epoch)[place]]
        labels = nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=IGNORE)  # (B, T)
        return {"input_ids": labels.clamp(min=0), "labels": labels}

    return get_batch


def _order_by_length(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """One epoch: shuffle, sort within each pool, cut into batches, shuffle these. (batches, batch_size)"""
    shuffled = rng.permutation(len(lengths))[: len(lengths) // batch_size * batch_size]
    pools = (shuffled[i : i + POOL * batch_size] for i in range(0, len(shuffled), POOL * batch_size))
    by_length = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
    return rng.permutation(np.concatenate(by_length).reshape(-1, batch_size))
