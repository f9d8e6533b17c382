"""A GGUF file of the Llama family as a ``transformers`` model and as our own, with its tokeniser.

llama.cpp stores the rows of the query and key matrices in another order than transformers (its rotary embedding
turns neighbouring pairs, theirs turns halves), so these two are put back; all else is a change of names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from llmbook.pretrained.gguf import GGUF, GGUFError, read_gguf
from llmbook.transformer import GPT

LAYER = {  # llama.cpp's names within a block, and those of transformers
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
CONTROL = 3  # tokenizer.ggml.token_type of a token that text never contains


def llama_options(gguf: GGUF) -> dict[str, Any]:
    """The file's settings as keywords of ``transformers.LlamaConfig``. Raises :class:`GGUFError` for another family."""
    s = gguf.settings
    if s.get("general.architecture") != "llama":
        raise GGUFError(f"{gguf.path} holds a model of family {s.get('general.architecture')!r}, wanted 'llama'")
    names = {
        "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count", "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv", "max_position_embeddings": "context_length",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    }  # fmt: skip
    missing = [f"llama.{name}" for name in names.values() if f"llama.{name}" not in s]
    if missing:
        raise GGUFError(f"{gguf.path} lacks the settings {', '.join(missing)}")
    return {
        **{theirs: s[f"llama.{name}"] for theirs, name in names.items()},
        "vocab_size": gguf.entries["token_embd.weight"].shape[0],
        "rope_parameters": {"rope_type": "default", "rope_theta": s.get("llama.rope.freq_base", 10_000.0)},
        "tie_word_embeddings": "output.weight" not in gguf.entries,
        "bos_token_id": s.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": s.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": s.get("tokenizer.ggml.padding_token_id"),
    }


def llama_state(gguf: GGUF) -> dict[str, Tensor]:
    """The file's tensors in float32, by the names of ``LlamaForCausalLM``."""
    heads = {"attn_q": gguf.settings["llama.attention.head_count"],
             "attn_k": gguf.settings["llama.attention.head_count_kv"]}  # fmt: skip
    state = {}
    for name in gguf.entries:
        tensor = gguf.tensor(name)
        part = name.removesuffix(".weight").split(".")[-1]
        if part in heads:
            tensor = halves_from_pairs(tensor, heads[part])
        state[_their_name(name)] = torch.from_numpy(np.ascontiguousarray(tensor))
    if "output.weight" not in gguf.entries:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def halves_from_pairs(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows (heads · d, in) from llama.cpp's order, 0, d/2, 1, d/2 + 1, …, to 0, 1, 2, … within each head."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _their_name(name: str) -> str:
    whole = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    if name in whole:
        return whole[name]
    block, number, part, *rest = name.split(".")
    if block != "blk" or part not in LAYER or rest != ["weight"]:
        raise GGUFError(f"tensor {name!r} has no counterpart in a Llama model")
    return f"model.layers.{number}.{LAYER[part]}.weight"


def to_transformers(path: str | Path) -> Any:
    """``transformers.LlamaForCausalLM`` with the file's weights, float32, in evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM  # takes seconds to import

    gguf = read_gguf(path)
    config = LlamaConfig(**llama_options(gguf))
    with torch.device("meta"):
        model = LlamaForCausalLM(config)  # no memory, no random start: every weight comes from the file
    model.load_state_dict(llama_state(gguf), strict=True, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its buffers are no weights, and were not made
    model.tie_weights()
    return model.eval()


def to_gpt(path: str | Path) -> GPT:
    """The book's own ``GPT`` with the file's weights, float32, in evaluation mode: logits as of transformers."""
    gguf = read_gguf(path)
    return GPT.from_state(llama_options(gguf) | {"model_type": "llama"}, llama_state(gguf)).eval()


def to_tokenizer(path: str | Path) -> Tokenizer:
    """The file's byte-level BPE as a ``tokenizers.Tokenizer``, digits split one by one (the "smollm" rule).

    Raises :class:`GGUFError` for another kind of tokeniser.
    """
    gguf = read_gguf(path)
    s = gguf.settings
    kind = s.get("tokenizer.ggml.model"), s.get("tokenizer.ggml.pre")
    if kind != ("gpt2", "smollm"):
        raise GGUFError(f"{gguf.path} has a tokeniser of kind {kind}, wanted ('gpt2', 'smollm')")
    tokens = s["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in s["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, s["tokenizer.ggml.token_type"], strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    return tokenizer


def to_fast_tokenizer(path: str | Path) -> Any:
    """``transformers.PreTrainedTokenizerFast`` with the file's special tokens and chat template."""
    from transformers import PreTrainedTokenizerFast

    settings = read_gguf(path).settings
    tokens = settings["tokenizer.ggml.tokens"]
    special = {
        f"{ours}_token": tokens[settings[f"tokenizer.ggml.{theirs}_token_id"]]
        for ours, theirs in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items()
        if f"tokenizer.ggml.{theirs}_token_id" in settings
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=to_tokenizer(path), clean_up_tokenization_spaces=False, **special
    )
    tokenizer.chat_template = settings.get("tokenizer.chat_template")
    return tokenizer
