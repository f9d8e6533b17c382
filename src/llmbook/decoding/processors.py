"""What stands between the logits and the choice: each processor turns (ids so far, scores) into new scores.

All have transformers' interface, ``processor(input_ids (B, T), scores (B, V)) -> scores (B, V)``, so theirs can be
used with our ``generate`` and ours with theirs. What may not be chosen has the score −∞.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

Processor = Callable[[Tensor, Tensor], Tensor]
Allowed = Callable[[int, Tensor], Iterable[int]]  # (row of the batch, its ids (T,)) -> ids that may follow


@dataclass(frozen=True)
class Temperature:
    """Scores over τ: below 1 sharper, above 1 flatter. transformers: ``TemperatureLogitsWarper``."""

    temperature: float

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0 < self.temperature < math.inf, "above 0")

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores / self.temperature


@dataclass(frozen=True)
class TopK:
    """Only the k best (Fan et al., 2018), and what ties with the last of them. ``TopKLogitsWarper``."""

    top_k: int

    def __post_init__(self) -> None:
        _check("top_k", self.top_k, isinstance(self.top_k, int) and self.top_k >= 1, "a whole number of at least 1")

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        worst = scores.topk(min(self.top_k, scores.shape[-1])).values[:, -1:]  # (B, 1)
        return scores.masked_fill(scores < worst, -math.inf)


@dataclass(frozen=True)
class TopP:
    """The nucleus: the fewest tokens that have p of the probability together (Holtzman et al., 2020).

    transformers: ``TopPLogitsWarper``. Going up from the unlikeliest, tokens go while they sum to at most 1 − p; the
    likeliest always stays.
    """

    top_p: float

    def __post_init__(self) -> None:
        _check("top_p", self.top_p, 0 <= self.top_p <= 1, "in [0, 1]")

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ascending, order = scores.sort(dim=-1)
        gone = ascending.softmax(-1).cumsum(-1) <= 1 - self.top_p  # (B, V)
        gone[:, -1] = False
        return scores.masked_fill(gone.scatter(1, order, gone), -math.inf)


@dataclass(frozen=True)
class MinP:
    """Tokens at least ``min_p`` times as likely as the likeliest (Nguyen et al., 2025). ``MinPLogitsWarper``."""

    min_p: float

    def __post_init__(self) -> None:
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "in [0, 1]")

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        probs = scores.softmax(-1)
        best = probs.amax(-1, keepdim=True)
        return scores.masked_fill(probs < self.min_p * best, -math.inf)


@dataclass(frozen=True)
class Typical:
    """Tokens whose surprise is nearest to the entropy, until they reach the mass (Meister et al., 2023).

    transformers: ``TypicalLogitsWarper``.
    """

    mass: float

    def __post_init__(self) -> None:
        _check("typical_p", self.mass, 0 < self.mass < 1, "between 0 and 1")

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logs = scores.log_softmax(-1)
        entropy = -(logs.exp() * logs).nansum(-1, keepdim=True)  # (B, 1), nats
        strange, order = (-logs - entropy).abs().sort(dim=-1)  # (B, V)
        reached = scores.gather(1, order).softmax(-1).cumsum(-1)
        last = (reached < self.mass).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
        gone = strange > strange.gather(1, last)
        gone[:, 0] = False
        return scores.masked_fill(gone.scatter(1, order, gone), -math.inf)


@dataclass(frozen=True)
class RepetitionPenalty:
    """Tokens that the text holds already: positive scores divided by the penalty, negative ones multiplied.

    Keskar et al. (2019); ``RepetitionPenaltyLogitsProcessor``. Not invariant to a shift of all scores, which
    leaves the probabilities where they are.
    """

    penalty: float
    looks_back: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check("repetition_penalty", self.penalty, 0 < self.penalty < math.inf, "above 0")

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        seen = scores.gather(1, input_ids)
        seen = torch.where(seen < 0, seen * self.penalty, seen / self.penalty)
        return scores.scatter(1, input_ids, seen)


@dataclass(frozen=True)
class NoRepeatNGram:
    """No run of n tokens twice in a text. ``NoRepeatNGramLogitsProcessor``."""

    size: int
    looks_back: ClassVar[bool] = True

    def __post_init__(self) -> None:
        wanted = "a whole number of at least 1"
        _check("no_repeat_ngram_size", self.size, isinstance(self.size, int) and self.size >= 1, wanted)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] < self.size:
            return scores
        runs = input_ids.unfold(1, self.size, 1)  # (B, runs, n)
        begun = input_ids[:, input_ids.shape[1] - self.size + 1 :]  # (B, n − 1), the run that the next token ends
        again = (runs[..., :-1] == begun[:, None]).all(-1)  # (B, runs)
        row, number = again.nonzero(as_tuple=True)
        scores = scores.clone()
        scores[row, runs[row, number, -1]] = -math.inf
        return scores


@dataclass(frozen=True)
class MinNewTokens:
    """No end before so many new tokens. ``MinNewTokensLengthLogitsProcessor``."""

    prompt_length: int
    least: int
    eos: tuple[int, ...]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] >= self.prompt_length + self.least:
            return scores
        return scores.index_fill(1, torch.tensor(self.eos, device=scores.device), -math.inf)


@dataclass(frozen=True)
class OnlyAllowed:
    """Only what a function allows after each row's ids. ``PrefixConstrainedLogitsProcessor`` (without beams)."""

    allowed: Allowed

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        mask = torch.full_like(scores, -math.inf)
        for row, ids in enumerate(input_ids):
            chosen = list(self.allowed(row, ids))
            if not chosen:
                raise ValueError(f"prefix_allowed_tokens_fn allows no token after the {len(ids)} ids of row {row}")
            mask[row, chosen] = 0.0
        return scores + mask


def process(
    processors: Sequence[Processor], input_ids: Tensor, scores: Tensor, padding: Tensor | None = None
) -> Tensor:
    """All processors in their order. The first ``padding`` (B,) ids of a row are hidden from those that look back."""
    for processor in processors:
        if padding is not None and getattr(processor, "looks_back", False):
            rows = zip(input_ids, scores, padding.tolist(), strict=True)
            scores = torch.cat([processor(ids[None, front:], score[None]) for ids, score, front in rows])
        else:
            scores = processor(input_ids, scores)
    return scores


def ends(tokens: Tensor, eos: Sequence[int]) -> Tensor:
    """Which of the tokens, of any shape, end a text."""
    return torch.isin(tokens, torch.tensor(eos, dtype=tokens.dtype, device=tokens.device))


def _check(name: str, value: float, holds: bool, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
