"""Weights of other libraries in our names and back: GPT-2 folders, BERT, torch.nn.Transformer's layers.

All work on state dicts (name → tensor), and none unpickles: a folder is read through safetensors and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from llmbook.files import write_whole

State = Mapping[str, Tensor]
Table = Sequence[tuple[str, str]]  # (their part of a name, ours)

CONFIG, WEIGHTS = "config.json", "model.safetensors"
OURS = ("positions", "norm_first")  # options that GPT-2 doesn't have
GPT2_DROPOUT = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}  # what an absent entry means

# ------------------------------------------------------------ GPT-2


def read_pretrained(name_or_path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(``config.json``, state for ``GPT``) from a folder or, by name, from the hub."""
    folder = _folder(name_or_path)
    options = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    _refuse_other_models(options, folder)
    return GPT2_DROPOUT | options, from_gpt2(load_file(folder / WEIGHTS))


def write_pretrained(path: str | Path, config: Any, state: State) -> None:
    """The two files of a GPT-2 folder, each under a temporary name first."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = to_gpt2(state, tied=config.tie_word_embeddings)
    write_whole(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_whole(folder / CONFIG, json.dumps(_gpt2_json(config), indent=2).encode() + b"\n")


def from_gpt2(state: State) -> dict[str, Tensor]:
    """GPT-2's tensors in our names: prefix and mask buffers off, Conv1D matrices (in, out) turned, float32."""
    named = {name.removeprefix("transformer."): tensor.float() for name, tensor in state.items()}
    kept = {n: t for n, t in named.items() if not n.endswith((".attn.bias", ".attn.masked_bias"))}
    return {n: t.T.contiguous() if _is_conv1d(n, t) else t for n, t in kept.items()}


def to_gpt2(state: State, tied: bool) -> dict[str, Tensor]:
    """Our tensors in GPT-2's names; a tied head is left out, since the file format has no shared tensors."""
    turned = {n: t.T.contiguous() if _is_conv1d(n, t) else t.contiguous() for n, t in state.items()}
    return {
        n if n == "lm_head.weight" else f"transformer.{n}": t.detach().cpu()
        for n, t in turned.items()
        if not (tied and n == "lm_head.weight")
    }


def _is_conv1d(name: str, tensor: Tensor) -> bool:
    return name.startswith("h.") and tensor.dim() == 2


def _refuse_other_models(options: dict[str, Any], folder: Path) -> None:
    if options.get("model_type") not in ("gpt2", "llmbook_gpt"):
        raise ValueError(f"{folder} holds a model of type {options.get('model_type')!r}, wanted 'gpt2'")
    for name, wanted in {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}.items():
        if options.get(name, wanted) != wanted:
            raise ValueError(f"{folder}: {name} must be {wanted}, got {options[name]}")


def _gpt2_json(config: Any) -> dict[str, Any]:
    options = asdict(config)
    if options["positions"] == "learned" and options["norm_first"]:
        options = {name: value for name, value in options.items() if name not in OURS}
        kind = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    else:
        kind = {"model_type": "llmbook_gpt"}  # transformers must not take it for a GPT-2
    return kind | options | {"bos_token_id": config.eos_token_id}  # GPT-2 has one token for both ends


def _folder(name_or_path: str | Path) -> Path:
    folder = Path(name_or_path)
    if not folder.is_dir():
        folder = _download(str(name_or_path))
    if not (folder / WEIGHTS).is_file():
        have = sorted(p.name for p in folder.iterdir())
        if any(n.endswith((".bin", ".pt", ".pth")) for n in have):
            raise ValueError(
                f"{folder} holds its weights only as a pickle, which can run any code when it is read; "
                f"save them as {WEIGHTS} (transformers' save_pretrained does)"
            )
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}; it holds {have}")
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}")
    return folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # no network, offline mode, a bad name: the reader needs one answer
        raise FileNotFoundError(
            f"no folder {name!r}, and the hub gave none by that name ({type(error).__name__}); "
            "offline, give the path of a folder with config.json and model.safetensors"
        ) from error


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
