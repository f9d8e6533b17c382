"""Weights of other libraries in our names and back: GPT-2, Llama, BERT, torch.nn.Transformer's layers.

All work on state dicts (name → tensor).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Table = Sequence[tuple[str, str]]  # (their part of a name, ours)

# ------------------------------------------------------------ GPT-2

_BUFFERS = (".attn.bias", ".attn.masked_bias", ".crossattention.bias", ".crossattention.masked_bias")
_CROSS = ".crossattention.c_attn."  # ours holds W_Q, W_K, W_V; theirs W_K, W_V, and has W_Q apart, as q_attn


def from_gpt2(state: State) -> dict[str, Tensor]:
    """GPT-2's tensors in our names: prefix and mask buffers off, Conv1D matrices (in, out) turned, float32."""
    named = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    kept = {n: t for n, t in named.items() if not n.endswith(_BUFFERS)}
    ours = {n: t.T.contiguous() if _is_conv1d(n, t) else t for n, t in _floats(kept).items()}
    for name in [n for n in ours if ".crossattention.q_attn." in n]:
        query, joined = ours.pop(name), name.replace("q_attn", "c_attn")
        _demand(ours, [joined])
        ours[joined] = torch.cat([query, ours[joined]])
    return ours


def to_gpt2(state: State, tied: bool) -> dict[str, Tensor]:
    """Our tensors in GPT-2's names; a tied head is left out, since the file format has no shared tensors."""
    apart: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if _CROSS in name:
            width = state["wte.weight"].shape[1]
            apart[name.replace("c_attn", "q_attn")], apart[name] = tensor[:width], tensor[width:]
        elif not (tied and name == "lm_head.weight"):
            apart[name] = tensor
    turned = {n: t.T.contiguous() if _is_conv1d(n, t) else t.contiguous() for n, t in apart.items()}
    return {n if n == "lm_head.weight" else f"transformer.{n}": t.detach().cpu() for n, t in turned.items()}


def _is_conv1d(name: str, tensor: Tensor) -> bool:
    return name.startswith("h.") and tensor.dim() == 2


# ------------------------------------------------------------ Llama

_LLAMA: Table = (
    ("embed_tokens.", "wte."),
    ("layers.", "h."),
    (".self_attn.qkv_proj.", ".attn.c_attn."),  # a name of our own for the three, stacked
    (".self_attn.o_proj.", ".attn.c_proj."),
    (".self_attn.", ".attn."),  # q_norm and k_norm, which Qwen 3 has
    (".mlp.gate_proj.", ".mlp.c_gate."),
    (".mlp.up_proj.", ".mlp.c_fc."),
    (".mlp.down_proj.", ".mlp.c_proj."),
    (".input_layernorm.", ".ln_1."),
    (".post_attention_layernorm.", ".ln_2."),
)


def from_llama(state: State) -> dict[str, Tensor]:
    """The tensors of a ``LlamaForCausalLM`` (or ``Qwen3ForCausalLM``) in our names, queries, keys and values stacked.

    The head stays out if it is the embedding itself. Raises ValueError for a layer that lacks one of the three.
    """
    kept = {n.removeprefix("model."): t for n, t in state.items() if not n.endswith("rotary_emb.inv_freq")}
    joined = _floats(kept)
    for name in [n for n in joined if ".q_proj." in n]:
        names = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        _demand(joined, names)
        joined[name.replace(".q_proj.", ".qkv_proj.")] = torch.cat([joined.pop(each) for each in names])
    ours = _rename(joined, _LLAMA)
    return {"ln_f.weight" if n == "norm.weight" else n: t for n, t in ours.items()}


def to_llama(state: State, tied: bool) -> dict[str, Tensor]:
    """Our tensors in ``LlamaForCausalLM``'s names; a tied head is left out."""
    width = state["wte.weight"].shape[1]
    theirs = _rename({n: t for n, t in state.items() if n != "ln_f.weight"}, _LLAMA, back=True)
    for name in [n for n in theirs if ".qkv_proj." in n]:
        stacked = theirs.pop(name)
        shared = (stacked.shape[0] - width) // 2
        parts = zip("qkv", stacked.split([width, shared, shared]), strict=True)
        theirs |= {name.replace("qkv", part): tensor for part, tensor in parts}
    theirs["norm.weight"] = state["ln_f.weight"]
    head = {} if tied else {"lm_head.weight": theirs["lm_head.weight"]}
    named = {f"model.{n}": t for n, t in theirs.items() if n != "lm_head.weight"} | head
    return {n: t.detach().cpu().contiguous() for n, t in named.items()}


def _floats(state: State) -> dict[str, Tensor]:
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must hold floating-point numbers, got {tensor.dtype}")
    return {name: tensor.float() for name, tensor in state.items()}


def _demand(state: State, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"the weights lack {', '.join(missing)}")


# ------------------------------------------------------------ torch.nn.Transformer's layers

_TORCH: Table = (
    ("layers.", "h."),
    ("norm.", "ln_f."),
    (".self_attn.in_proj_", ".attn.c_attn."),
    (".self_attn.out_proj.", ".attn.c_proj."),
    (".multihead_attn.in_proj_", ".crossattention.c_attn."),
    (".multihead_attn.out_proj.", ".crossattention.c_proj."),
    (".linear1.", ".mlp.c_fc."),
    (".linear2.", ".mlp.c_proj."),
    (".norm1.", ".ln_1."),
)
_TORCH_ENCODER: Table = (*_TORCH, (".norm2.", ".ln_2."))
_TORCH_DECODER: Table = (*_TORCH, (".norm2.", ".ln_cross_attn."), (".norm3.", ".ln_2."))


def from_torch(state: State) -> dict[str, Tensor]:
    """The state of a ``torch.nn.TransformerEncoder`` or ``TransformerDecoder`` in our names.

    Torch has no embeddings there: load it into an ``Encoder`` or ``GPT`` with ``strict=False`` and compare
    with ``blocks(x)``. A last norm (``norm=``) belongs with ``norm_first=True``.
    """
    decoder = any(".multihead_attn." in name for name in state)
    return _rename(state, _TORCH_DECODER if decoder else _TORCH_ENCODER)


def to_torch(state: State) -> dict[str, Tensor]:
    """The other way round, for torch's ``load_state_dict``; embeddings and head are left out."""
    layers = {n: t for n, t in state.items() if n.startswith(("h.", "ln_f."))}
    decoder = any(".crossattention." in name for name in layers)
    return _rename(layers, _TORCH_DECODER if decoder else _TORCH_ENCODER, back=True)


# ------------------------------------------------------------ BERT

_BERT: Table = (
    ("embeddings.word_embeddings.", "wte."),
    ("embeddings.position_embeddings.", "wpe."),
    ("embeddings.LayerNorm.", "ln_e."),
    ("encoder.layer.", "h."),
    (".attention.self.qkv.", ".attn.c_attn."),
    (".attention.output.dense.", ".attn.c_proj."),
    (".attention.output.LayerNorm.", ".ln_1."),
    (".intermediate.dense.", ".mlp.c_fc."),
    (".output.dense.", ".mlp.c_proj."),
    (".output.LayerNorm.", ".ln_2."),
)
_SEGMENTS = "embeddings.token_type_embeddings.weight"


def from_bert(state: State) -> dict[str, Tensor]:
    """A ``transformers.BertModel``'s state for ``Encoder``; its pooler, which we don't have, is left out.

    We have one segment: its embedding is added to every position's, which gives the same sums.
    """
    extras = ("pooler.", "embeddings.position_ids", "cls.")
    state = {n.removeprefix("bert."): t for n, t in state.items()}
    joined = {n: t for n, t in state.items() if not n.startswith(extras)}
    segments = joined.pop(_SEGMENTS)  # (segments, C)
    for name in [n for n in joined if ".self.query." in n]:
        parts = [joined.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        joined[name.replace("query", "qkv")] = torch.cat(parts)
    ours = _rename(joined, _BERT)
    return ours | {"wpe.weight": ours["wpe.weight"] + segments[0]}


def to_bert(state: State, segments: int = 2) -> dict[str, Tensor]:
    """An ``Encoder``'s state for ``BertModel(config, add_pooling_layer=False)``; segment embeddings are 0."""
    theirs = _rename(state, _BERT, back=True)
    for name in [n for n in theirs if ".qkv." in n]:
        parts = zip(("query", "key", "value"), theirs.pop(name).chunk(3), strict=True)
        theirs |= {name.replace("qkv", part): tensor for part, tensor in parts}
    return theirs | {_SEGMENTS: state["wte.weight"].new_zeros(segments, state["wte.weight"].shape[1])}


def _rename(state: State, table: Table, back: bool = False) -> dict[str, Tensor]:
    def translate(name: str) -> str:
        for theirs, ours in table:
            name = name.replace(ours, theirs) if back else name.replace(theirs, ours)
        return name

    return {translate(name): tensor for name, tensor in state.items()}
