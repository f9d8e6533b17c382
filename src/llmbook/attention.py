"""Attention and positions: the plain version, one in linear memory, many heads, four ways to say *where*.

Shapes: B batch, H heads, T queries, S keys, d features per head. Every function takes any leading dimensions.
Masks follow ``torch.nn.functional.scaled_dot_product_attention``: a boolean mask is **True where a query may
look**, a float mask is added to the scores. A query that may look nowhere gets zeros, not NaN.
A NaN in a query, or in a key or value that it may look at, makes that query's output NaN: never hidden.
"""

from __future__ import annotations

import math
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# ------------------------------------------------------------ plain attention


def attention_scores(query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    """Scaled dot products scale · q·k, before mask and softmax: (..., T, d), (..., S, d) → (..., T, S).

    ``scale`` is 1/√d_k unless given.
    """
    scores = query @ key.transpose(-2, -1)
    return scores / math.sqrt(query.shape[-1]) if scale is None else scores * scale


def attention_weights(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention's weights, softmax(QKᵀ/√d_k) over the keys that the masks leave; (..., T, S).

    A row sums to 1, or is all zeros where every key is masked. ``is_causal`` lets query i see keys 0..i;
    ``scale`` and ``enable_gqa`` are those of ``scaled_dot_product_attention``.
    """
    _check_scale(scale)
    (key,) = _share_heads(query, enable_gqa, key=key)
    _check_inputs(query, key)
    mask = _merge_masks(query, key, attn_mask, is_causal)
    scores = attention_scores(query, key, scale)  # (..., T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    # −inf − (−inf) is NaN, in the gradient too: a row with no key left is softmaxed over zeros, then erased.
    nothing_left = (scores == -math.inf).all(dim=-1, keepdim=True)  # (..., T, 1)
    weights = torch.softmax(scores.masked_fill(nothing_left, 0.0), dim=-1)
    return weights.masked_fill(nothing_left, 0.0)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(QKᵀ/√d_k)·V (Vaswani et al., 2017, eq. 1), with torch's signature and meaning.

    Shapes: query (..., T, d), key (..., S, d), value (..., S, d_v) → (..., T, d_v); ``attn_mask`` broadcasts
    to (..., T, S). ``dropout_p`` drops weights (always, as torch's does: pass 0 in evaluation) with torch's
    global generator. ``scale`` takes the place of 1/√d_k. With ``enable_gqa`` the axis before the length
    counts heads, and query may have a multiple of key's and value's: each of these serves a group of
    neighbouring query heads (Ainslie et al., 2023). Raises TypeError for dtypes and ValueError for shapes,
    devices, a NaN or +inf in a float mask, a ``scale`` that is not finite, and ``dropout_p`` outside [0, 1].
    """
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"dropout_p must lie in [0, 1], got {dropout_p}")
    key, value = _share_heads(query, enable_gqa, key=key, value=value)
    _check_inputs(query, key, value)
    weights = attention_weights(query, key, attn_mask, is_causal, scale=scale)  # (..., T, S)
    return F.dropout(weights, dropout_p) @ value  # (..., T, d_v)


def causal_mask(query_len: int, key_len: int | None = None, device: torch.device | None = None) -> Tensor:
    """True where query i may look at key j, j ≤ i; (T, S). Where T ≠ S both count from 0, as in torch."""
    key_len = query_len if key_len is None else key_len
    return torch.ones(query_len, key_len, dtype=torch.bool, device=device).tril()


# ------------------------------------------------------------ blockwise attention


def blockwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    block_size: int = 160,
) -> Tensor:
    """The same values and gradients in memory linear in length: the (T, S) matrix is never stored.

    The softmax is built up block by block (Milakov and Gimelshein, 2018; Rabe and Staats, 2021; Dao et al.,
    2022) and the backward pass recomputes each block from the saved row normalisers.
    Shapes and errors as ``scaled_dot_product_attention``; ``block_size`` (at least 1) changes speed only.
    """
    _check_scale(scale)
    key, value = _share_heads(query, enable_gqa, key=key, value=value)
    _check_inputs(query, key, value)
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    flat = [x.flatten(0, -3) if x.dim() > 2 else x.unsqueeze(0) for x in (query, key, value)]
    block_size = min(block_size, max(1, query.shape[-2], key.shape[-2]))
    output = _Blockwise.apply(*flat, is_causal, scale, block_size)  # (N, T, d_v), N = B·H
    return output.view(*query.shape[:-1], value.shape[-1])


class _Blockwise(torch.autograd.Function):
    """Online softmax forward, recomputing backward, on (N, T, d) tensors."""

    @staticmethod
    def forward(ctx, query, key, value, is_causal, scale, block_size):
        count, length, _ = query.shape
        output = query.new_zeros(count, length, value.shape[-1])
        log_total = query.new_full((count, length, 1), -math.inf)  # log Σ_j exp(score_ij), for backward
        scratch = query.new_empty(count * block_size * block_size)
        for rows in _blocks(length, block_size):
            scaled = query[:, rows] * scale
            # What a row must remember of the keys seen so far: maximum, Σ exp, Σ exp · value.
            peak = query.new_full((*scaled.shape[:2], 1), -math.inf)
            total = torch.zeros_like(peak)
            weighted = query.new_zeros(*scaled.shape[:2], value.shape[-1])
            for cols in _blocks(_reach(rows, key, is_causal), block_size):
                block = _block_scores(scaled, key[:, cols], rows, cols, is_causal, scratch)
                new_peak = torch.maximum(peak, block.amax(-1, keepdim=True))
                block.sub_(new_peak).exp_()
                shrink = peak.sub_(new_peak).exp_()  # old sums were relative to the old maximum
                total.mul_(shrink).add_(block.sum(-1, keepdim=True))
                weighted.mul_(shrink).baddbmm_(block, value[:, cols])
                peak = new_peak
            if key.shape[1]:  # without keys the output stays zero
                torch.div(weighted, total, out=output[:, rows])
                torch.add(peak, total.log_(), out=log_total[:, rows])
        ctx.save_for_backward(query, key, value, output, log_total)
        ctx.is_causal, ctx.scale, ctx.block_size = is_causal, scale, block_size
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        query, key, value, output, log_total = ctx.saved_tensors
        size, scale = ctx.block_size, ctx.scale
        # The softmax's Jacobian, diag(p) − ppᵀ, needs Σ_j p_ij dp_ij per row: grad_output · output.
        inner = (grad_output * output).sum(-1, keepdim=True)  # (N, T, 1)
        grad_query, grad_key, grad_value = (torch.zeros_like(x) for x in (query, key, value))
        scratch, scratch2 = query.new_empty(2, query.shape[0] * size * size)
        for rows in _blocks(query.shape[1], size):
            scaled, grad_rows = query[:, rows] * scale, grad_output[:, rows]
            for cols in _blocks(_reach(rows, key, ctx.is_causal), size):
                p = _block_scores(scaled, key[:, cols], rows, cols, ctx.is_causal, scratch)
                p.sub_(log_total[:, rows]).exp_()  # the weights again
                grad_value[:, cols].baddbmm_(p.mT, grad_rows)
                ds = torch.bmm(grad_rows, value[:, cols].mT, out=scratch2[: p.numel()].view_as(p))
                ds.sub_(inner[:, rows]).mul_(p)
                grad_query[:, rows].baddbmm_(ds, key[:, cols], alpha=scale)
                grad_key[:, cols].baddbmm_(ds.mT, scaled)
        return grad_query, grad_key, grad_value, None, None, None


def _blocks(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _reach(rows: slice, key: Tensor, is_causal: bool) -> int:
    """How many keys the last of these rows may see: blocks beyond are skipped, half of all when causal."""
    return min(rows.stop, key.shape[1]) if is_causal else key.shape[1]


def _block_scores(scaled: Tensor, key: Tensor, rows: slice, cols: slice, is_causal: bool, scratch: Tensor) -> Tensor:
    """One block of masked scores from queries already multiplied by the scale, in ``scratch``: (N, rows, cols)."""
    shape = (*scaled.shape[:2], key.shape[1])
    block = torch.bmm(scaled, key.mT, out=scratch[: math.prod(shape)].view(shape))
    if is_causal and cols.stop > rows.start + 1:  # this block crosses the diagonal
        # As rows and columns come in blocks of one size, it begins on the diagonal.
        future = torch.ones(shape[1:], dtype=torch.bool, device=key.device).triu_(1)
        block.masked_fill_(future, -math.inf)
    return block


# ------------------------------------------------------------ many heads


class MultiHeadAttention(nn.Module):
    """Multi-head attention (Vaswani et al., 2017, §3.2.2); parameters named and shaped as torch's.

    ``load_state_dict`` takes a ``torch.nn.MultiheadAttention``'s ``state_dict()`` and the other way round.
    What differs from torch's: batch comes first; masks are True where a query **may** look (torch's module
    means the opposite, its function does not); weights are returned per head; a query that may look nowhere
    gets ``out_proj.bias``, not NaN.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim must be a multiple of num_heads, got {embed_dim} and {num_heads}")
        if not 0.0 <= dropout <= 1.0:
            raise ValueError(f"dropout must lie in [0, 1], got {dropout}")
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))  # W_Q, W_K, W_V stacked
        self.register_parameter("in_proj_bias", nn.Parameter(torch.zeros(3 * embed_dim)) if bias else None)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        nn.init.xavier_uniform_(self.in_proj_weight)
        if bias:
            nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Output (B, T, D) and, if asked for, weights (B, H, T, S).

        Query (B, T, D); ``key`` (B, S, D) defaults to ``query`` (self-attention), ``value`` to ``key``.
        ``attn_mask`` broadcasts to (B, H, T, S): a padding mask (B, S) goes in as ``m[:, None, None]``.
        """
        key = query if key is None else key
        value = key if value is None else value
        self._check(query, key, value)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            self._split(F.linear(x, weight, b))
            for x, weight, b in zip((query, key, value), self.in_proj_weight.chunk(3), biases, strict=True)
        )  # (B, H, T or S, D/H)
        dropout_p = self.dropout if self.training else 0.0
        if need_weights:
            weights = attention_weights(q, k, attn_mask, is_causal)
            heads = F.dropout(weights, dropout_p) @ v  # (B, H, T, D/H)
        else:  # torch's fused kernel: the same numbers as ours (tests, chapter 4), faster
            weights, mask = None, _merge_masks(q, k, attn_mask, is_causal and attn_mask is not None)
            heads = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal and mask is None)
        merged = heads.transpose(1, 2).flatten(2)  # (B, T, D)
        return self.out_proj(merged), weights

    def _split(self, x: Tensor) -> Tensor:
        """The feature axis in num_heads parts: (B, T, D) → (B, H, T, D/H). The sequence stays whole."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        _check_inputs(query, key, value)
        if query.dim() != 3 or query.shape[-1] != self.embed_dim or value.shape[-1] != self.embed_dim:
            raise ValueError(
                f"query, key and value must be (batch, length, {self.embed_dim}), "
                f"got {tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
            )


# ------------------------------------------------------------ positions


def sinusoidal_positions(length: int, dim: int, base: float = 10000.0) -> Tensor:
    """Sines and cosines of falling frequency (Vaswani et al., 2017, §3.5); (T, D).

    Columns 2i and 2i+1 hold sin and cos of position · base^(−2i/D).
    """
    angles = _angles(torch.arange(_at_least("length", length, 0)), dim, base)  # (T, D/2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def rotary_embedding(positions: Tensor, dim: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """RoPE's cos and sin for ``apply_rotary``: positions (T,) → two tensors (T, dim).

    Su et al. (2024) rotate features (2i, 2i+1) together; like transformers' Llama, we pair i with i + dim/2,
    which is the same up to a fixed order of features.
    """
    if positions.dim() != 1:
        raise ValueError(f"positions must have one dimension, got shape {tuple(positions.shape)}")
    angles = _angles(positions, dim, base).repeat(1, 2)  # (T, dim)
    return angles.cos().float(), angles.sin().float()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the feature pairs (i, i + d/2) of x (..., T, d) by each position's angles (Su et al., 2024).

    ``cos`` and ``sin`` are (T, d), or have dimensions in front that broadcast to x's.
    """
    if x.shape[-2:] != cos.shape[-2:] or cos.shape != sin.shape:
        raise ValueError(
            f"cos and sin must be x's (T, d) = {tuple(x.shape[-2:])}, got {tuple(cos.shape)} and {tuple(sin.shape)}"
        )
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)  # x, every pair a quarter turn on
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


def alibi_slopes(num_heads: int) -> Tensor:
    """ALiBi's slope per head (Press et al., 2022): 2^(−8/H), 2^(−16/H), …, 2^(−8); (H,).

    Where H is no power of two, the paper's code takes the slopes of the next smaller power, then every second
    of the next larger.
    """
    power = 2 ** int(math.log2(_at_least("num_heads", num_heads, 1)))
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    slopes += [2 ** (-4 * (h + 1) / power) for h in range(0, 2 * (num_heads - power), 2)]
    return torch.tensor(slopes)


def alibi_bias(num_heads: int, query_len: int, key_len: int | None = None) -> Tensor:
    """−slope · |i − j|, to be passed as a float ``attn_mask``; (H, T, S). Adds no causal mask."""
    key_len = query_len if key_len is None else key_len
    distance = (torch.arange(query_len)[:, None] - torch.arange(key_len)).abs()  # (T, S)
    return -alibi_slopes(num_heads)[:, None, None] * distance


def _angles(positions: Tensor, dim: int, base: float) -> Tensor:
    """position · base^(−2i/dim) for i = 0 … dim/2 − 1, in radians and double precision; (T, dim/2)."""
    if dim < 2 or dim % 2:
        raise ValueError(f"dim must be even and at least 2, got {dim}")
    if base <= 1:
        raise ValueError(f"base must be above 1, got {base}")
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
    return torch.outer(positions.double(), base**-exponents)


# ------------------------------------------------------------ checks


def _at_least(name: str, number: int, least: int) -> int:
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def _check_scale(scale: float | None) -> None:
    if scale is not None and not isinstance(scale, Real):
        raise TypeError(f"scale must be a number or None, got {type(scale).__name__}")
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")


def _share_heads(query: Tensor, enable_gqa: bool, **fewer: Tensor) -> list[Tensor]:
    """Each key or value head, (..., G, S, d), once for every query head of its group: (..., H, S, d)."""
    given = {"query": query} | fewer
    if not enable_gqa or not all(isinstance(x, Tensor) for x in given.values()):  # the latter is refused later
        return list(fewer.values())
    for name, x in given.items():
        if x.dim() < 3:
            raise ValueError(f"{name} must be (..., heads, length, features) with enable_gqa, got {tuple(x.shape)}")
    heads = query.shape[-3]
    for name, x in fewer.items():
        if x.shape[-3] == 0 or heads % x.shape[-3]:
            raise ValueError(f"{name} must have a divisor of query's {heads} heads, got {x.shape[-3]}")
    return [x.repeat_interleave(heads // x.shape[-3], dim=-3) for x in fewer.values()]


def _check_inputs(query: Tensor, key: Tensor, value: Tensor | None = None) -> None:
    """Shapes, dtypes and devices that belong together, or an error that names the odd one out."""
    given = {"query": query, "key": key} | ({} if value is None else {"value": value})
    for name, x in given.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name} must be a floating-point tensor, got {kind}")
        if x.dtype != query.dtype:
            raise TypeError(f"{name} must have query's dtype {query.dtype}, got {x.dtype}")
        if x.device != query.device:
            raise ValueError(f"{name} must be on query's device {query.device}, got {x.device}")
        if x.dim() < 2 or x.shape[:-2] != query.shape[:-2]:
            raise ValueError(
                f"{name} must be (..., length, features) with query's leading dimensions, "
                f"got {tuple(x.shape)} beside query {tuple(query.shape)}"
            )
    if key.shape[-1] != query.shape[-1] or query.shape[-1] == 0:
        raise ValueError(
            f"query and key must have equally many features (not 0), got {query.shape[-1]}, {key.shape[-1]}"
        )
    if value is not None and value.shape[-2] != key.shape[-2]:
        raise ValueError(f"value must be as long as key, {key.shape[-2]}, got {value.shape[-2]}")


def _merge_masks(query: Tensor, key: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """The given mask, checked, and the causal one in one tensor; None where every query sees every key."""
    if attn_mask is not None:
        _check_mask(attn_mask, query, (*query.shape[:-1], key.shape[-2]))
    if not is_causal:
        return attn_mask
    causal = causal_mask(query.shape[-2], key.shape[-2], query.device)  # (T, S)
    if attn_mask is None:
        return causal
    if attn_mask.dtype == torch.bool:
        return attn_mask & causal
    return attn_mask.masked_fill(~causal, -math.inf)


def _check_mask(attn_mask: Tensor, query: Tensor, shape: tuple[int, ...]) -> None:
    if attn_mask.dtype not in (torch.bool, query.dtype):
        raise TypeError(f"attn_mask must be bool or {query.dtype}, got {attn_mask.dtype}")
    if attn_mask.device != query.device:
        raise ValueError(f"attn_mask must be on query's device {query.device}, got {attn_mask.device}")
    try:
        fits = torch.broadcast_shapes(attn_mask.shape, shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"attn_mask must broadcast to {tuple(shape)}, got {tuple(attn_mask.shape)}")
    if attn_mask.dtype != torch.bool and not bool((attn_mask < math.inf).all()):
        raise ValueError("attn_mask must not hold NaN or +inf; use -inf where a query may not look")
