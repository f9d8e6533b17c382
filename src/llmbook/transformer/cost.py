"""What a model costs, from its configuration alone: parameters and floating-point operations."""

from __future__ import annotations

from llmbook.transformer.config import GPTConfig


def parameter_count(config: GPTConfig) -> int:
    """Parameters of ``GPT(config)`` in closed form; tied embeddings count once."""
    C, bias, norm = config.n_embd, int(config.bias), config.n_embd * (1 if config.norm == "rmsnorm" else 2)
    keys_and_values = 2 * config.kv_heads * config.head_size
    attention = C * (C + keys_and_values) + C * C + bias * (2 * C + keys_and_values)
    attention += 2 * config.head_size if config.qk_norm else 0
    one_mlp = _mlp_matrices(config) * C * config.inner + bias * (C + (_mlp_matrices(config) - 1) * config.inner)
    mlp = config.n_expert * (one_mlp + C) if config.n_expert else one_mlp  # an expert has a row in the router
    block = attention + norm + mlp + norm
    if config.add_cross_attention:
        block += attention + norm
    tables = config.vocab_size * (1 if config.tie_word_embeddings else 2)
    tables += config.n_positions if config.positions == "learned" else 0
    return tables * C + config.n_layer * block + norm


def forward_flops(config: GPTConfig, length: int) -> int:
    """Floating-point operations of ``GPT(config)`` on one sequence of ``length`` tokens.

    Matrix products only, two operations per multiply-add; attention over the full square, since a kernel may
    or may not skip the masked half. Of experts only those that a token uses. Backward costs twice as much again
    (chapter 5). Cross-attention, whose memory has a length of its own, is left out.
    """
    C, T = config.n_embd, length
    mlps = config.n_expert_used if config.n_expert else 1
    projections = 2 * C * C + 2 * C * config.kv_heads * config.head_size
    block = projections + mlps * _mlp_matrices(config) * C * config.inner + C * config.n_expert
    per_token = config.n_layer * block + C * config.vocab_size
    attention = config.n_layer * 2 * T * T * C  # QKᵀ and the weighted sum of V
    return 2 * (T * per_token + attention)


def cache_numbers(config: GPTConfig, length: int) -> int:
    """Numbers that ``GPT(config)`` keeps of one text of ``length`` tokens: keys and values, in every layer."""
    return 2 * config.n_layer * config.kv_heads * config.head_size * length


def activation_numbers(config: GPTConfig, batch: int, length: int, recompute: bool = False) -> tuple[int, int]:
    """Numbers that the forward pass keeps for the backward pass: (those of all blocks, those behind them).

    For fused attention and no dropout. In a block: what each linear layer, norm, activation and the attention
    read, each once, and a few per position; exact for GPT-2's block, and by the same count for other choices.
    Korthikanti et al. (2023) have 34 bytes a feature in half precision, 2 of them dropout's masks: 16 numbers.
    ``recompute`` keeps each block's input only, and one block's all while it is computed again. Behind the
    blocks: the last norm and the softmax. Raises ``ValueError`` for a batch or length below 1.
    """
    if batch < 1 or length < 1:
        raise ValueError(f"batch and length must be at least 1, got {batch} and {length}")
    C, N, norm = config.n_embd, batch * length, 2 if config.norm == "layernorm" else 1
    kv = config.kv_heads * config.head_size
    attention = C + (C + 2 * kv) + C + config.n_head  # its input, q k v, what the heads give, log of the sums
    mlp = C + (4 if config.mlp == "swiglu" else 2) * config.inner
    block = N * (attention + mlp + 2 * (C + norm))  # each norm reads the stream
    blocks = config.n_layer * block if not recompute else config.n_layer * N * C + block
    return blocks, N * (2 * C + norm + config.vocab_size)


def _mlp_matrices(config: GPTConfig) -> int:
    return 3 if config.mlp == "swiglu" else 2
