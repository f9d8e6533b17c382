"""Weights of other libraries in our names and back: GPT-2 folders, BERT, torch.nn.Transformer's layers.

All work on state dicts (name → tensor), and none unpickles: a folder is read through safetensors and JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

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
    _replace(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    _replace(folder / CONFIG, json.dumps(_gpt2_json(config), indent=2).encode() + b"\n")


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


def _replace(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename: a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
