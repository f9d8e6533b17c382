"""What a block is made of: attention, a feed-forward layer or a choice of several, norms, and the block itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.attention import apply_rotary, attention_weights
from llmbook.transformer.config import ACTIVATIONS, GPTConfig

KeysAndValues = tuple[Tensor, Tensor]  # of one layer, each (B, H, S, C/H); fewer heads if they share


def make_norm(config: GPTConfig, size: int | None = None) -> nn.Module:
    """The configuration's norm over ``size`` features (default: the stream's)."""
    kind = nn.RMSNorm if config.norm == "rmsnorm" else nn.LayerNorm
    return kind(config.n_embd if size is None else size, eps=config.layer_norm_epsilon)


class Cache:
    """One layer's keys and values with room for more, so that a new token moves none of those before it.

    ``length`` tokens are kept, and may be made fewer; ``tensors`` are they, ``append`` writes behind them.
    """

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.length, self.room = k.shape[2], (k, v)  # each (B, H, capacity, C/H)

    @property
    def tensors(self) -> KeysAndValues:
        k, v = self.room
        return k[:, :, : self.length], v[:, :, : self.length]

    def before(self, count: int) -> KeysAndValues:
        """All that is kept but the last ``count`` tokens."""
        k, v = self.tensors
        return k[:, :, : self.length - count], v[:, :, : self.length - count]

    def append(self, k: Tensor, v: Tensor) -> KeysAndValues:
        """Keep (B, H, T, C/H) more of each; all that is kept. Twice the room where it is too small."""
        end = self.length + k.shape[2]
        if end > self.room[0].shape[2]:
            self.room = tuple(F.pad(t, (0, 0, 0, 2 * end - self.length)) for t in self.tensors)
        for room, new in zip(self.room, (k, v), strict=True):
            room[:, :, self.length : end] = new
        self.length = end
        return self.tensors


class Attention(nn.Module):
    """Multi-head attention; queries, keys and values come from one matrix, in one product where they can.

    With ``n_kv_head`` below ``n_head``, several query heads share one head's keys and values: grouped-query
    attention (Ainslie et al., 2023), or multi-query where there is one (Shazeer, 2019).
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, self.kv_heads, self.dropout = config.n_head, config.kv_heads, config.attn_pdrop
        self.head_size, self.qk_norm = config.head_size, config.qk_norm
        kv_size = config.kv_heads * config.head_size
        self.sizes = (config.n_embd, kv_size, kv_size)  # of W_Q, W_K, W_V, stacked in c_attn
        self.c_attn = nn.Linear(config.n_embd, sum(self.sizes), bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.q_norm = nn.RMSNorm(config.head_size, config.layer_norm_epsilon) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(config.head_size, config.layer_norm_epsilon) if config.qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        is_causal: bool = False,
        rotary: tuple[Tensor, Tensor] | None = None,
        past: KeysAndValues | Cache | None = None,
    ) -> tuple[Tensor, KeysAndValues]:
        """Output (B, T, C), and all keys and values; attends to ``x`` itself, or to ``memory`` (B, S, C)."""
        q, k, v = self._project(x, memory, rotary, past)
        dropout_p = self.dropout if self.training else 0.0
        grouped = {"enable_gqa": True} if self.kv_heads < self.n_head else {}
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, is_causal, **grouped)  # (B, H, T, C/H)
        return self.c_proj(y.transpose(1, 2).flatten(2)), (k, v)

    def weights(self, x, memory=None, mask=None, is_causal=False, rotary=None, past=None) -> Tensor:
        """The weights that ``forward`` uses, which its fused kernel never shows: (B, H, T, S)."""
        q, k, _ = self._project(x, memory, rotary, past)
        return attention_weights(q, k.repeat_interleave(self.n_head // self.kv_heads, dim=1), mask, is_causal)

    def _project(
        self,
        x: Tensor,
        memory: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None,
        past: KeysAndValues | Cache | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, C/H), keys and values (B, H_kv, S, C/H), rotated and with the past in front."""
        q, k, v = self._products(x, memory)
        q, k, v = (t.view(*t.shape[:-1], -1, self.head_size).transpose(1, 2) for t in (q, k, v))
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = apply_rotary(q, *rotary), apply_rotary(k, *rotary)
        if isinstance(past, Cache):
            k, v = past.append(k, v)
        elif past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        return q, k, v

    def _products(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x W_Q (B, T, C), and W_K and W_V with x or, in cross-attention, with the memory (B, S, C_kv)."""
        if memory is None:
            return self.c_attn(x).split(self.sizes, dim=-1)
        C, weight, bias = self.sizes[0], self.c_attn.weight, self.c_attn.bias
        of_q, of_kv = (None, None) if bias is None else (bias[:C], bias[C:])
        k, v = F.linear(memory, weight[C:], of_kv).split(self.sizes[1:], dim=-1)
        return F.linear(x, weight[:C], of_q), k, v


class MLP(nn.Module):
    """The feed-forward layer: each position by itself, out to ``inner`` features and back."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.inner, bias=config.bias)
        self.c_proj = nn.Linear(config.inner, config.n_embd, bias=config.bias)
        self.act = ACTIVATIONS[config.activation_function]

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x)))  # (B, T, C) → (B, T, inner) → (B, T, C)


class SwiGLU(nn.Module):
    """A feed-forward layer with a gate: one product, through SiLU, scales the other (Shazeer, 2020)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_gate = nn.Linear(config.n_embd, config.inner, bias=config.bias)  # Llama's gate_proj
        self.c_fc = nn.Linear(config.n_embd, config.inner, bias=config.bias)  # its up_proj
        self.c_proj = nn.Linear(config.inner, config.n_embd, bias=config.bias)  # its down_proj

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.silu(self.c_gate(x)) * self.c_fc(x))  # (B, T, C) → (B, T, inner) → (B, T, C)


class Experts(nn.Module):
    """A mixture of experts: of several feed-forward layers, each token passes the few that its router scores highest.

    Their outputs are added with weights, the softmax over the chosen scores (Shazeer et al., 2017; Mixtral). If a
    token passes one only, its weight is 1, and the router learns from ``balance_loss`` alone.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.used = config.n_expert_used
        self.router = nn.Linear(config.n_embd, config.n_expert, bias=False)
        self.experts = nn.ModuleList(_one_mlp(config) for _ in range(config.n_expert))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, -2)  # (N, C)
        best, chosen = self.router(tokens).topk(self.used, dim=-1)  # (N, K) each
        share, output = best.softmax(-1), torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            row, rank = (chosen == number).nonzero(as_tuple=True)  # the tokens that chose it
            output = output.index_add(0, row, share[row, rank, None] * expert(tokens[row]))
        return output.view_as(x)


def balance_loss(scores: Tensor, used: int) -> Tensor:
    """E · Σ fₑ pₑ of router scores (..., E): 1 if the load is even, more where few experts get most.

    fₑ is the share of choices that fell on expert e, pₑ its mean probability (Fedus et al., 2022, eq. 4; they
    choose one expert, ``used`` = 1). Only pₑ has a gradient.
    """
    scores = scores.flatten(0, -2)  # (N, E)
    experts = scores.shape[-1]
    chosen = scores.topk(used, dim=-1).indices.flatten()
    load = torch.bincount(chosen, minlength=experts) / chosen.numel()  # (E,)
    return experts * (load * scores.softmax(-1).mean(0)).sum()


def _one_mlp(config: GPTConfig) -> nn.Module:
    return SwiGLU(config) if config.mlp == "swiglu" else MLP(config)


class Block(nn.Module):
    """Attention, (cross-attention,) feed-forward: each reads the residual stream and adds to it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.ln_1, self.attn = make_norm(config), Attention(config)
        if config.add_cross_attention:
            self.ln_cross_attn, self.crossattention = make_norm(config), Attention(config)
        self.ln_2, self.mlp = make_norm(config), Experts(config) if config.n_expert else _one_mlp(config)
        self.drop = nn.Dropout(config.resid_pdrop)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        **self_attention: Tensor | bool | None,
    ) -> tuple[Tensor, KeysAndValues]:
        """The stream (B, T, C) after this block, and its self-attention's keys and values."""
        update, present = self.attn(self._read(x, self.ln_1), **self_attention)
        x = self._add(x, update, self.ln_1)
        if memory is not None:
            update, _ = self.crossattention(self._read(x, self.ln_cross_attn), memory, memory_mask)
            x = self._add(x, update, self.ln_cross_attn)
        x = self._add(x, self.mlp(self._read(x, self.ln_2)), self.ln_2)
        return x, present

    def _read(self, x: Tensor, norm: nn.Module) -> Tensor:
        return norm(x) if self.norm_first else x

    def _add(self, x: Tensor, update: Tensor, norm: nn.Module) -> Tensor:
        x = x + (self.drop(update) if self.training else update)
        return x if self.norm_first else norm(x)
