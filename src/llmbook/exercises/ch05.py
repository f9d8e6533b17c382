"""Checkers of chapter 05: layer normalisation and the memory of a cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from llmbook.exercises import Case, Mistake, check


def check_layer_norm(function: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> bool:
    """Check ``function(x, gain, bias, eps)``: (..., C), (C,), (C,) → (..., C)."""
    inputs = {
        "one vector": _random(6),
        "a batch of sequences": _random(2, 5, 6),
        "as many positions as features": _random(4, 4),
        "a vector with hardly any spread": 1e-3 * _random(3, 6),
    }
    cases = []
    for name, x in inputs.items():
        gain, bias = _random(x.shape[-1]) + 1, _random(x.shape[-1])
        cases.append(Case(name, (x, gain, bias, 1e-5), F.layer_norm(x, x.shape[-1:], gain, bias, 1e-5)))
    return check(function, cases, _NORM_MISTAKES)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _norm(
    axes: Callable[[Tensor], tuple[int, ...]] = lambda x: (-1,),
    divisor: Callable[[Tensor, float], Tensor] = lambda variance, eps: (variance + eps).sqrt(),
    centre: bool = True,
    affine: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda y, gain, bias: y * gain + bias,
    correction: int = 0,
):
    """Layer normalisation with one of its parts changed."""

    def layer_norm(x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
        kept = {"dim": axes(x), "keepdim": True}
        variance = x.var(correction=correction, **kept) if centre else x.square().mean(**kept)
        return affine((x - x.mean(**kept) if centre else x) / divisor(variance, eps), gain, bias)

    return layer_norm


_NORM_MISTAKES = [
    Mistake(
        "two things at once. ε is added to the standard deviation; it belongs under the root, beside the variance. And "
        "the variance divides by C − 1 (torch's default for `std`); layer normalisation divides by C: `correction=0`.",
        _norm(divisor=lambda variance, eps: variance.sqrt() + eps, correction=1),
    ),
    Mistake(
        "the variance divides by C − 1 (torch's default). Layer normalisation divides by C: `correction=0`.",
        _norm(correction=1),
    ),
    Mistake(
        "you normalise over all axes at once, so that positions and texts mix. Each vector has its own mean and "
        "variance: the last axis only.",
        _norm(axes=lambda x: tuple(range(x.dim()))),
    ),
    Mistake(
        "you normalise each feature over the positions, as batch normalisation does. The mean runs over the "
        "features of one position: the last axis.",
        _norm(axes=lambda x: (max(-2, -x.dim()),)),
    ),
    Mistake("right, but for gain and bias.", _norm(affine=lambda y, gain, bias: y)),
    Mistake(
        "the bias is scaled by the gain too: multiply first, then add.",
        _norm(affine=lambda y, gain, bias: (y + bias) * gain),
    ),
    Mistake(
        "ε is added to the standard deviation. It belongs under the root, beside the variance; on a vector with "
        "hardly any spread it matters.",
        _norm(divisor=lambda variance, eps: variance.sqrt() + eps),
    ),
    Mistake("ε is missing: a constant vector would give 0/0.", _norm(divisor=lambda variance, eps: variance.sqrt())),
    Mistake("you divide by the variance; the spread is its root.", _norm(divisor=lambda variance, eps: variance + eps)),
    Mistake("the mean is not taken away: that is RMSNorm, with a bias.", _norm(centre=False)),
]


def check_cache_bytes(function: Callable[..., int]) -> bool:
    """Check ``function(n_layer, n_head, n_kv_head, n_embd, length, batch, size)``: bytes of keys and values kept."""
    inputs = {
        "GPT-2 small, 1,024 tokens, single precision": (12, 12, 12, 768, 1024, 1, 4),
        "the same in half precision": (12, 12, 12, 768, 1024, 1, 2),
        "a batch of 8": (12, 12, 12, 768, 1024, 8, 2),
        "SmolLM2 135M: three heads' keys for nine heads' queries": (30, 9, 3, 576, 1024, 1, 2),
        "one head's keys for all 71 (multi-query)": (32, 71, 1, 4544, 100, 1, 2),
        "one layer, one token": (1, 2, 2, 64, 1, 1, 4),
    }
    cases = [Case(name, args, 2 * _once(*args)) for name, args in inputs.items()]
    return check(function, cases, _CACHE_MISTAKES)


def _once(n_layer: int, n_head: int, n_kv_head: int, n_embd: int, length: int, batch: int, size: int) -> int:
    return n_layer * n_kv_head * (n_embd // n_head) * length * batch * size


_CACHE_MISTAKES = [
    Mistake("half of it: there are keys *and* values.", _once),
    Mistake("queries are not kept: only the newest token asks.", lambda *args: 3 * _once(*args)),
    Mistake(
        "right if every head had keys of its own. Where heads share them, only n_kv_head heads are kept, each of "
        "n_embd / n_head features.",
        lambda n, h, g, c, t, b, size: 2 * n * c * t * b * size,
    ),
    Mistake(
        "a head's width is n_embd / n_head, also where there are fewer heads of keys: the heads are fewer, not wider.",
        lambda n, h, g, c, t, b, size: 2 * n * g * c * t * b * size,
    ),
    Mistake("that counts numbers, not bytes.", lambda *args: 2 * _once(*args[:-1], 1)),
    Mistake(
        "every text in the batch has a cache of its own.",
        lambda n, h, g, c, t, b, size: 2 * _once(n, h, g, c, t, 1, size),
    ),
    Mistake(
        "every layer has keys and values of its own.", lambda n, h, g, c, t, b, size: 2 * _once(1, h, g, c, t, b, size)
    ),
    Mistake(
        "length squared is the size of the attention *weights*; the cache holds one key and one value per token.",
        lambda n, h, g, c, t, b, size: 2 * _once(n, h, g, c, t * t, b, size),
    ),
]
