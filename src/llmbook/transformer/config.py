"""What a model is: its sizes and choices, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from numbers import Integral, Real
from typing import Any

import torch.nn.functional as F

POSITIONS = ("none", "sinusoidal", "learned", "rotary", "alibi")
NORMS = ("layernorm", "rmsnorm")
MLPS = ("plain", "swiglu")
ACTIVATIONS = {"gelu_new": partial(F.gelu, approximate="tanh"), "gelu": F.gelu, "relu": F.relu}

_KINDS = {"int": Integral, "float": Real, "str": str, "bool": bool}


@dataclass(frozen=True)
class GPTConfig:
    """Sizes and choices of a model; names and defaults are those of ``transformers.GPT2Config``.

    Dropout is 0 unless asked for (GPT-2 used 0.1). From ``positions`` on the choices are ours: as they stand they
    give GPT-2; ``GPTConfig(positions="rotary", norm="rmsnorm", mlp="swiglu", bias=False)`` gives a Llama.
    """

    vocab_size: int = 50257
    n_positions: int = 1024  # the longest input
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # width of the feed-forward layer; None: 4 · n_embd, for SwiGLU two thirds of that
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.0
    embd_pdrop: float = 0.0
    attn_pdrop: float = 0.0
    layer_norm_epsilon: float = 1e-5  # of either norm
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    add_cross_attention: bool = False
    eos_token_id: int | list[int] | None = None
    positions: str = "learned"  # or none, sinusoidal, rotary, alibi
    norm_first: bool = True  # False: after each addition, as in the original Transformer and BERT
    norm: str = "layernorm"  # or rmsnorm
    mlp: str = "plain"  # or swiglu, which has a gate
    n_kv_head: int | None = None  # keys and values for fewer heads than queries; None: n_head; 1: multi-query
    qk_norm: bool = False  # normalise each head's queries and keys before they are rotated
    bias: bool = True  # in linear layers
    rope_theta: float = 10000.0  # base of the rotary wavelengths
    n_expert: int = 0  # feed-forward layers to choose from; 0: one, for every token
    n_expert_used: int = 2  # of them, for each token

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "inner", "kv_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, whole in (("n_head", "n_embd"), ("kv_heads", "n_head")):
            if getattr(self, whole) % getattr(self, name):
                got = f"{getattr(self, whole)} and {getattr(self, name)}"
                raise ValueError(f"{whole} must be a multiple of {name}, got {got}")
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        for name in ("layer_norm_epsilon", "initializer_range"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.positions == "rotary" and (self.head_size % 2 or not self.rope_theta > 1):
            got = f"{self.head_size} and {self.rope_theta}"
            raise ValueError(f"rotary positions want an even head size and rope_theta above 1, got {got}")
        choices = {
            "positions": POSITIONS,
            "norm": NORMS,
            "mlp": MLPS,
            "activation_function": tuple(ACTIVATIONS),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if self.n_expert and not 1 <= self.n_expert_used <= self.n_expert:
            raise ValueError(f"n_expert_used must lie in 1..{self.n_expert}, got {self.n_expert_used}")

    @property
    def inner(self) -> int:
        """Width of the feed-forward layer. SwiGLU has three matrices for two: at 8/3 · n_embd it is as large."""
        if self.n_inner is not None:
            return self.n_inner
        return 8 * self.n_embd // 3 if self.mlp == "swiglu" else 4 * self.n_embd

    @property
    def kv_heads(self) -> int:
        """Heads that have keys and values."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def head_size(self) -> int:
        """Features of one head."""
        return self.n_embd // self.n_head


def _check_types(config: GPTConfig) -> None:
    """A configuration may come from a file: "12" is no number of layers, nor is True."""
    for field in fields(config):
        value, wanted = getattr(config, field.name), field.type.split(" | ")
        if not any(_is_a(value, kind) for kind in wanted):
            raise TypeError(f"{field.name} must be {' or '.join(wanted)}, got {value!r}")


def _is_a(value: Any, kind: str) -> bool:
    if kind == "None":
        return value is None
    if kind == "list[int]":
        return isinstance(value, list) and all(_is_a(each, "int") for each in value)
    return isinstance(value, _KINDS[kind]) and (kind == "bool" or not isinstance(value, bool))
