"""The Transformer: encoder, decoder and both, out of one block; the GPT that the later chapters train.

Shapes: B batch, T tokens, S tokens attended to, C features (``n_embd``), H heads, V vocabulary.
Parameters are named as in transformers' GPT-2 (``h.0.attn.c_attn.weight``); linear layers are stored as
torch stores them, (out, in), where GPT-2's files hold the transpose. ``llmbook.weights`` translates.

``config`` says what a model is, ``layers`` holds the parts of a block, ``models`` the stacks of blocks, and
``cost`` counts parameters and work.
"""

from llmbook.transformer.config import ACTIVATIONS, MLPS, NORMS, POSITIONS, GPTConfig
from llmbook.transformer.cost import activation_numbers, cache_numbers, forward_flops, parameter_count
from llmbook.transformer.layers import MLP, Attention, Block, Cache, Experts, KeysAndValues, SwiGLU, balance_loss
from llmbook.transformer.models import (
    GPT,
    IGNORE,
    Encoder,
    EncoderDecoder,
    Output,
    record_attention,
    record_routing,
)

__all__ = [
    "ACTIVATIONS",
    "GPT",
    "IGNORE",
    "MLP",
    "MLPS",
    "NORMS",
    "POSITIONS",
    "Attention",
    "Block",
    "Cache",
    "Encoder",
    "EncoderDecoder",
    "Experts",
    "GPTConfig",
    "KeysAndValues",
    "Output",
    "SwiGLU",
    "activation_numbers",
    "balance_loss",
    "cache_numbers",
    "forward_flops",
    "parameter_count",
    "record_attention",
    "record_routing",
]
