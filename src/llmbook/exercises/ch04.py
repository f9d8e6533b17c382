"""Checkers of chapter 04: a sliding window's mask, grouped-query attention, the merge of two blocks' softmaxes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from llmbook.attention import causal_mask, scaled_dot_product_attention
from llmbook.exercises import Case, Mistake, check


def _window(length: int, window: int) -> Tensor:
    """True where query i may look at key j: itself and the ``window`` − 1 positions before; (T, T)."""
    return causal_mask(length).triu(1 - window)


def check_window_mask(function: Callable[[int, int], Tensor]) -> bool:
    """Check ``function(length, window)``: (T, T), True where query i may look at key j, the last ``window`` keys."""
    sizes = [(5, 2), (4, 1), (7, 3), (3, 8)]
    cases = [Case(f"{n} tokens, a window of {w}", (n, w), _window(n, w)) for n, w in sizes]
    return check(lambda n, w: _as_boolean(function(n, w)), cases, _MASK_MISTAKES)


def _as_boolean(answer: object) -> object:
    """Zeros and ones say the same as False and True; anything else stays as it is."""
    is_binary = isinstance(answer, Tensor) and bool(((answer == 0) | (answer == 1)).all())
    return answer.bool() if is_binary else answer


_MASK_MISTAKES = [
    Mistake(
        "the window holds one key too many. With a window of 1 a position sees itself and nothing else.",
        lambda n, w: _window(n, w + 1),
    ),
    Mistake(
        "the mask is shifted by one: position i no longer sees itself, and the first position sees nothing. "
        "Position i has read token i; what it must not see is i + 1.",
        lambda n, w: causal_mask(n).tril(-1).triu(-w),
    ),
    Mistake(
        "the window reaches forwards as well: position i also sees what it will have to predict.",
        lambda n, w: torch.ones(n, n).tril(w - 1).triu(1 - w).bool(),
    ),
    Mistake(
        "this is the mask turned over: each position sees itself and its future. Rows are queries, columns keys.",
        lambda n, w: _window(n, w).T,
    ),
    Mistake(
        "this is the causal mask alone: nothing far back is hidden yet.",
        lambda n, w: causal_mask(n),
    ),
    Mistake(
        "your True means “hidden”. Here, as in `F.scaled_dot_product_attention`, True means “may look”.",
        lambda n, w: ~_window(n, w),
    ),
]


def check_grouped_query(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """Check ``function(query, key, value)``, (..., H, T, d), (..., G, S, d), (..., G, S, d_v) → (..., H, T, d_v)."""
    inputs = {
        "4 query heads, 2 key heads": _random((4, 2, 4), (2, 3, 4), (2, 3, 5)),
        "6 query heads, 2 key heads, a batch of 2": _random((2, 6, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)),
        "one key head for all": _random((4, 3, 4), (1, 5, 4), (1, 5, 2)),
        "a key head for each query head": _random((3, 2, 4), (3, 4, 4), (3, 4, 4)),
    }
    cases = [Case(name, args, scaled_dot_product_attention(*args, enable_gqa=True)) for name, args in inputs.items()]
    return check(function, cases, _GROUPING_MISTAKES)


def _random(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(4)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def _grouped(share: Callable[[Tensor, int], Tensor], scale: Callable[[Tensor], float] = lambda q: q.shape[-1] ** -0.5):
    """Grouped-query attention with another rule of who reads which head, or another scale."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        key, value = (share(x, query.shape[-3]) for x in (key, value))
        return torch.softmax(query @ key.mT * scale(query), -1) @ value

    return attention


def _neighbours(x: Tensor, heads: int) -> Tensor:
    return x.repeat_interleave(heads // x.shape[-3], dim=-3)


def _in_turn(x: Tensor, heads: int) -> Tensor:
    return torch.cat([x] * (heads // x.shape[-3]), dim=-3)


_GROUPING_MISTAKES = [
    Mistake(
        "the key heads are dealt out in turn (0, 1, 0, 1). A group is made of *neighbours* (0, 0, 1, 1): "
        "`repeat_interleave`, not `repeat`.",
        _grouped(_in_turn),
    ),
    Mistake(
        "every query head reads the first key head; the others are never used.",
        _grouped(lambda x, heads: x[..., :1, :, :].expand(*x.shape[:-3], heads, *x.shape[-2:])),
    ),
    Mistake(
        "the key heads are averaged; each group of query heads has one of its own.",
        _grouped(lambda x, heads: x.mean(-3, keepdim=True).expand(*x.shape[:-3], heads, *x.shape[-2:])),
    ),
    Mistake("the scores are not divided by √d.", _grouped(_neighbours, lambda q: 1.0)),
    Mistake(
        "the scale is that of all heads together, √(H·d); each head divides by the root of its own width.",
        _grouped(_neighbours, lambda q: 1 / math.sqrt(q.shape[-1] * q.shape[-3])),
    ),
]

Block = tuple[Tensor, Tensor, Tensor]  # (m, l, o): row maximum (T, 1), Σ exp(s − m) (T, 1), weighted mean (T, d)


def summarise(scores: Tensor, value: Tensor) -> Block:
    """What the online softmax keeps of one block of keys: scores (T, S), value (S, d) → (m, l, o)."""
    peak = scores.amax(-1, keepdim=True)
    powers = (scores - peak).exp()
    total = powers.sum(-1, keepdim=True)
    return peak, total, powers @ value / total


def check_merge(function: Callable[[Block, Block], Block]) -> bool:
    """Check ``function(first, second)``: the (m, l, o) of two blocks of keys become that of their union."""
    offsets = {  # of the second block's scores, one per query
        "the maximum is in the first block": (-3.0, -3.0),
        "the maximum is in the second block": (3.0, 3.0),
        "the first query's maximum is in the first block, the second's in the second": (-3.0, 3.0),
    }
    cases = []
    for name, offset in offsets.items():
        scores, more, value, more_value = _random((2, 3), (2, 4), (3, 5), (4, 5))
        scores, more = scores.clamp(-1, 1), more.clamp(-1, 1) + torch.tensor(offset, dtype=scores.dtype)[:, None]
        whole = summarise(torch.cat([scores, more], dim=-1), torch.cat([value, more_value]))
        cases.append(Case(name, (summarise(scores, value), summarise(more, more_value)), whole))
    return check(function, cases, _MERGE_MISTAKES)


def _merge(first: Block, second: Block, rescale: Callable[[Tensor], Tensor], normalise: bool = True) -> Block:
    """The right merge, but for how a block's sum is brought to the new maximum."""
    (m1, l1, o1), (m2, l2, o2) = first, second
    peak = torch.maximum(m1, m2)
    l1, l2 = l1 * rescale(m1 - peak), l2 * rescale(m2 - peak)
    total = l1 + l2
    return peak, total, (l1 * o1 + l2 * o2) / (total if normalise else 1.0)


def _plain_mean(first: Block, second: Block) -> Block:
    peak, total, _ = _merge(first, second, torch.exp)
    return peak, total, (first[2] + second[2]) / 2


def _relative_to(peak: Tensor, first: Block, second: Block) -> Block:
    """Everything relative to the given maximum, whether or not it is the larger in every row."""
    (m1, l1, o1), (m2, l2, o2) = first, second
    l1, l2 = l1 * (m1 - peak).exp(), l2 * (m2 - peak).exp()
    return peak, l1 + l2, (l1 * o1 + l2 * o2) / (l1 + l2)


def _last_maximum(first: Block, second: Block) -> Block:
    return _relative_to(second[0], first, second)


def _one_blocks_maximum(first: Block, second: Block) -> Block:
    """One comparison for all rows: the maximum of whichever block holds the largest score of all."""
    return _relative_to(first[0] if first[0].max() > second[0].max() else second[0], first, second)


def _one_number(first: Block, second: Block) -> Block:
    """One maximum for all rows: right in exact arithmetic once divided, but a far lower row underflows."""
    peak = torch.maximum(first[0].max(), second[0].max())
    return _relative_to(peak.expand_as(first[0]), first, second)


_MERGE_MISTAKES = [
    Mistake(
        "the sums are not rescaled. Each l is relative to its own block's maximum: multiply by exp(m_old − m_new).",
        lambda a, b: _merge(a, b, torch.ones_like),
    ),
    Mistake(
        "you rescale by exp(m_new − m_old); the sign is the other way round, the factor is never above 1.",
        lambda a, b: _merge(a, b, lambda x: (-x).exp()),
    ),
    Mistake(
        "l·o is a sum; divide it by the new l to get back a mean.",
        lambda a, b: _merge(a, b, torch.exp, normalise=False),
    ),
    Mistake(
        "o is the plain mean of the two; the block that holds more of the weight must count for more (l₁ and l₂).",
        _plain_mean,
    ),
    Mistake(
        "the numbers are right relative to m₂, but the new maximum is the larger of m₁ and m₂ (else exp can overflow).",
        _last_maximum,
    ),
    Mistake(
        "one block's maxima serve for all queries. Compare row by row: each query has a maximum of its own "
        "(`torch.maximum`).",
        _one_blocks_maximum,
    ),
    Mistake(
        "one maximum serves for all queries. Each row has its own; far below a common one, exp underflows to zero.",
        _one_number,
    ),
]
