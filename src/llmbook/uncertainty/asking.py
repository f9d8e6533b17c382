"""Many answers to many questions at once: each question is read once, however many answers are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmbook.decoding import Reader
from llmbook.transformer import GPT


class Drawn(NamedTuple):
    """``samples`` answers to each of N questions. Sums run over an answer's tokens, its end included."""

    ids: list[list[list[int]]]  # N lists of answers, without the token that ended them
    logprobs: NDArray[np.float64]  # (N, samples) ln q(answer | question), at the temperature it was drawn at
    entropies: NDArray[np.float64]  # (N, samples) sum of the entropies of the distributions drawn from, nats
    lengths: NDArray[np.int64]  # (N, samples) tokens scored


@torch.inference_mode()
def draw(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    samples: int = 1,
    max_new_tokens: int = 8,
    *,
    ends: Sequence[int],
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
) -> Drawn:
    """Draw answers to the prompts' ids; without a generator the likeliest token is taken, one answer each.

    Raises ValueError for no or empty prompts, for more than one greedy answer, and for a temperature of 0 or below.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError("prompts must hold at least one prompt, and none that is empty")
    if samples < 1 or (samples > 1 and generator is None):
        raise ValueError(f"samples must be at least 1, and 1 without a generator, got {samples}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    ids, mask = left_padded(prompts)
    reader = Reader(model, mask)
    logits = reader.read(ids)[:, -1]  # (N, V)
    if samples > 1:
        rows = torch.arange(len(prompts)).repeat_interleave(samples)
        reader.select(rows)
        logits = logits[rows]
    ended, tokens, sums = torch.zeros(len(logits), dtype=torch.bool), [], torch.zeros(3, len(logits))
    for step in range(max_new_tokens):
        logs = (logits / temperature).log_softmax(-1)  # (N · samples, V)
        token = _choose(logs, generator)
        of_token = torch.gather(logs, 1, token[:, None])[:, 0]
        spread = -(logs.exp() * logs.clamp(min=-1e4)).sum(-1)
        sums += torch.stack([of_token, spread, torch.ones_like(spread)]) * ~ended
        tokens.append(token.masked_fill(ended, -1))
        ended = ended | torch.isin(token, torch.tensor(list(ends)))
        if step + 1 == max_new_tokens or bool(ended.all()):
            break
        logits = reader.read(token[:, None])[:, -1]
    found = torch.stack(tokens, 1).view(len(prompts), samples, -1).tolist()
    stop = {-1, *ends}
    texts = [[[t for t in row if t not in stop] for row in rows] for rows in found]
    logprobs, entropies, lengths = (s.view(len(prompts), samples).double().numpy() for s in sums)
    return Drawn(texts, logprobs, entropies, lengths.astype(np.int64))


def _choose(logs: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return logs.argmax(-1)
    return torch.multinomial(logs.exp(), 1, generator=generator)[:, 0]


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask, (N, T) each: short prompts are padded in front."""
    longest = max(map(len, prompts))
    ids, mask = torch.zeros(2, len(prompts), longest, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.as_tensor(prompt)
        mask[i, longest - len(prompt) :] = 1
    return ids, mask


@torch.inference_mode()
def row_probs(model: GPT, rows: Sequence[Sequence[int]], batch_size: int = 50) -> NDArray[np.float32]:
    """The model's distribution of each token of each row but the first, (N, V), in the order of the rows.

    The whole distributions of which :func:`llmbook.training.row_logprobs` gives one entry. In evaluation mode,
    unless the caller has switched dropout on.
    """
    if not rows or min(map(len, rows)) < 2:
        raise ValueError("rows must hold at least one row, each of at least 2 tokens")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)] * len(rows)
    for some in (order[i : i + batch_size] for i in range(0, len(rows), batch_size)):
        tensors = [torch.as_tensor(rows[i][:-1], dtype=torch.long) for i in some]
        ids = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)  # (B, T − 1)
        for i, row in zip(some, model(ids).logits.softmax(-1).numpy(), strict=True):
            found[i] = row[: len(rows[i]) - 1]
    return np.concatenate(found)
