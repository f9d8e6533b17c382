"""Checkers of chapter 04: the causal mask, attention itself, and the merge of two blocks' softmaxes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from llmbook.attention import causal_mask, scaled_dot_product_attention
from llmbook.exercises import Case, Mistake, check


def check_causal_mask(function: Callable[[int], Tensor]) -> bool:
    """Check ``function(length)``: a boolean (T, T) tensor, True where query i may look at key j."""
    cases = [Case(f"{n} token{'s' * (n > 1)}", (n,), causal_mask(n)) for n in (4, 1, 7)]
    return check(lambda n: _as_boolean(function(n)), cases, _MASK_MISTAKES)


def _as_boolean(answer: object) -> object:
    """Zeros and ones say the same as False and True; anything else stays as it is."""
    is_binary = isinstance(answer, Tensor) and bool(((answer == 0) | (answer == 1)).all())
    return answer.bool() if is_binary else answer


_MASK_MISTAKES = [
    Mistake(
        "the mask is shifted by one: position i no longer sees itself, and the first position sees nothing. "
        "Position i has read token i; what it must not see is i + 1.",
        lambda n: causal_mask(n).tril(-1),
    ),
    Mistake(
        "the mask is shifted by one: position i also sees i + 1, the very token that it will have to predict.",
        lambda n: torch.ones(n, n).tril(1).bool(),
    ),
    Mistake(
        "this is the mask turned over: each position sees itself and its future. Rows are queries, columns keys.",
        lambda n: causal_mask(n).T,
    ),
    Mistake(
        "your True means “hidden”. Here, as in `F.scaled_dot_product_attention`, True means “may look”.",
        lambda n: ~causal_mask(n),
    ),
]


def check_attention(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """Check ``function(query, key, value)``, (T, d), (S, d), (S, d_v) → (T, d_v), without a mask."""
    inputs = {
        "2 queries, 3 keys": _random((2, 4), (3, 4), (3, 5)),
        "as many queries as keys": _random((4, 6), (4, 6), (4, 6)),
        "one key: the output is its value": _random((3, 4), (1, 4), (1, 2)),
        "a batch of 2": _random((2, 3, 4), (2, 5, 4), (2, 5, 4)),
        "scores in the thousands": tuple(60 * x for x in _random((2, 4), (3, 4), (3, 5))),
    }
    cases = [Case(name, args, scaled_dot_product_attention(*args)) for name, args in inputs.items()]
    return check(function, cases, _ATTENTION_MISTAKES)


def _random(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(4)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def _attend(scale: Callable[[int], float], axis: int = -1, after: Callable[[int], float] = lambda d: 1.0):
    """Attention with its scale or its softmax changed."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        d = query.shape[-1]
        return torch.softmax(query @ key.mT * scale(d), axis) * after(d) @ value

    return attention


def _overflowing(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    powers = (query @ key.mT / math.sqrt(query.shape[-1])).exp()
    return powers / powers.sum(-1, keepdim=True) @ value


_ATTENTION_MISTAKES = [
    Mistake(
        "the scores are not divided by √d_k. With more features the softmax would harden.",
        _attend(lambda d: 1.0),
    ),
    Mistake(
        "you divide by d_k; it is the standard deviation of q·k that grows, and that is √d_k.",
        _attend(lambda d: 1 / d),
    ),
    Mistake("you multiply by √d_k where you should divide.", _attend(math.sqrt)),
    Mistake(
        "the softmax runs over the queries. Each query's weights over the *keys* must sum to 1: the last axis.",
        _attend(lambda d: d**-0.5, axis=-2),
    ),
    Mistake(
        "you divide by √d_k after the softmax; then the weights no longer sum to 1.",
        _attend(lambda d: 1.0, after=lambda d: d**-0.5),
    ),
    Mistake(
        "right on small scores, but exp overflows on large ones. Subtract each row's maximum first: it cancels.",
        _overflowing,
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
    cases = []
    for name, offset in (("the maximum is in the first block", -3.0), ("the maximum is in the second block", 3.0)):
        scores, more, value, more_value = _random((2, 3), (2, 4), (3, 5), (4, 5))
        scores, more = scores.clamp(-1, 1), more.clamp(-1, 1) + offset
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


def _last_maximum(first: Block, second: Block) -> Block:
    """Everything relative to the second block's maximum, even where the first's is larger."""
    (m1, l1, o1), (m2, l2, o2) = first, second
    l1 = l1 * (m1 - m2).exp()
    return m2, l1 + l2, (l1 * o1 + l2 * o2) / (l1 + l2)


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
]
