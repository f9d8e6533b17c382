"""Folders of a model as transformers writes them: ``config.json`` beside ``model.safetensors``. Never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from llmbook.files import write_whole
from llmbook.weights.names import State, from_gpt2, from_llama, to_gpt2, to_llama

CONFIG, WEIGHTS = "config.json", "model.safetensors"
Options = Mapping[str, Any]

# ------------------------------------------------------------ a folder


def read_pretrained(name_or_path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """(``config.json``, ``model.safetensors``, where they lie) from a folder or, by name, from the hub.

    Raises FileNotFoundError where there is none, and ValueError that names the file for what cannot be read.
    """
    folder = _folder(name_or_path)
    return _read_json(folder / CONFIG), _read_tensors(folder / WEIGHTS), folder


def write_pretrained(path: str | Path, config: Any, state: State) -> None:
    """The two files, each under a temporary name first: a GPT-2's, a Llama's, or ones that only we can read."""
    folder, kind = Path(path), _kind(config)
    folder.mkdir(parents=True, exist_ok=True)
    to_theirs = to_llama if kind == "llama" else to_gpt2
    tensors = to_theirs(state, tied=config.tie_word_embeddings)
    options = _llama_json(config) if kind == "llama" else _gpt2_json(config, kind)
    write_whole(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_whole(folder / CONFIG, json.dumps(options, indent=2).encode() + b"\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        options = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors put a mark before the text
    except ValueError as error:  # of the encoding too
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"{path} must hold an object with the configuration, got {type(options).__name__}")
    return options


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if file.read(20).startswith(b"version https://git"):
            raise ValueError(f"{path} is a Git LFS pointer, not the weights; fetch them with `git lfs pull`")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or only part of one: {error}") from error


def _folder(name_or_path: str | Path) -> Path:
    folder = Path(name_or_path)
    if not folder.is_dir():
        folder = _download(str(name_or_path))
    if not (folder / WEIGHTS).is_file():
        raise _no_weights(folder)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}")
    return folder


def _no_weights(folder: Path) -> Exception:
    """Why there is no ``model.safetensors``, as far as the folder tells."""
    have = sorted(p.name for p in folder.iterdir())
    one = f"save them as one {WEIGHTS} (transformers' save_pretrained does"
    if any(n.endswith(".safetensors.index.json") or "-of-" in n for n in have):
        return ValueError(f"{folder} holds its weights sharded over several files; {one} if max_shard_size is large)")
    if any(n.endswith((".bin", ".pt", ".pth")) for n in have):
        return ValueError(f"{folder} holds its weights only as a pickle, which can run any code when read; {one})")
    return FileNotFoundError(f"{folder} has no {WEIGHTS}; it holds {have}")


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS, f"{WEIGHTS}.index.json"]))
    except Exception as error:  # no network, offline mode, a bad name: the reader needs one answer
        raise FileNotFoundError(
            f"no folder {name!r}, and the hub gave none by that name ({type(error).__name__}); "
            "offline, give the path of a folder with config.json and model.safetensors"
        ) from error


# ------------------------------------------------------------ their options and ours


def translate(options: Options, state: State) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """``config.json`` and weights of a GPT-2 or a Llama in ``GPTConfig``'s and ``GPT``'s names.

    Raises ValueError for another type of model, and for an option that ours does not have.
    """
    kind = options.get("model_type")
    if kind in ("gpt2", "llmbook_gpt"):
        return _options(options, _GPT2_ALIASES, _GPT2_MEANS, _GPT2_WANTS), from_gpt2(state)
    if kind == "llama":
        return _from_llama_json(options), from_llama(state)
    raise ValueError(f"model_type must be 'gpt2' or 'llama', got {kind!r}")


_GPT2_ALIASES = {  # transformers' GPT2Config takes these as well
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
_GPT2_MEANS = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}  # what an absent entry means
_GPT2_WANTS = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}
_SAME = {"gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new"}  # names of one function

_LLAMA_SIZES = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
_LLAMA_ALIASES = _LLAMA_SIZES | {
    "num_key_value_heads": "n_kv_head",
    "rms_norm_eps": "layer_norm_epsilon",
    "attention_dropout": "attn_pdrop",
}
_LLAMA_MEANS = {"layer_norm_epsilon": 1e-6, "tie_word_embeddings": False}
_LLAMA_WANTS = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
_LLAMA_IS = {"positions": "rotary", "norm": "rmsnorm", "mlp": "swiglu", "bias": False}


def _options(options: Options, aliases: Options, means: Options, wants: Options) -> dict[str, Any]:
    """Options in our names, with the defaults of theirs; refuses values that would need another model."""
    for name, wanted in wants.items():
        if options.get(name, wanted) != wanted:
            raise ValueError(f"{name} must be {wanted}, got {options[name]!r}")
    ours = {name: value for name, value in options.items() if name not in aliases}
    for theirs, name in aliases.items():
        if theirs in options and ours.setdefault(name, options[theirs]) != options[theirs]:
            raise ValueError(f"{theirs} and {name} must agree, got {options[theirs]!r} and {ours[name]!r}")
    activation = ours.get("activation_function")
    same = {"activation_function": _SAME[activation]} if activation in list(_SAME) else {}
    return {**means, **ours, **same}


def _from_llama_json(options: Options) -> dict[str, Any]:
    missing = [name for name in (*_LLAMA_SIZES, "vocab_size") if name not in options]
    if missing:
        raise ValueError(f"a Llama's configuration must have {', '.join(missing)}")
    ours = _options(options, _LLAMA_ALIASES, _LLAMA_MEANS, _LLAMA_WANTS) | _LLAMA_IS
    size = ours.get("head_dim")  # of one head, where the file says it
    if size is not None and size * ours["n_head"] != ours["n_embd"]:
        raise ValueError(f"head_dim must be hidden_size / num_attention_heads, got {size!r}")
    rope = options.get("rope_parameters") or options.get("rope_scaling") or {}  # the newer name first
    if not isinstance(rope, Mapping):
        raise ValueError(f"rope_parameters must be an object, got {rope!r}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"rope_type must be 'default', got {kind!r}")
    ours["rope_theta"] = rope.get("rope_theta", options.get("rope_theta", 10000.0))
    return ours


def _kind(config: Any) -> str:
    """GPT-2 and Llama are two of our configurations; transformers must take no other for one of them."""
    common = config.norm_first and not config.qk_norm and not config.n_expert
    plain = config.positions, config.norm, config.mlp, config.bias
    if common and plain == ("learned", "layernorm", "plain", True) and config.kv_heads == config.n_head:
        return "gpt2"
    llama = common and dict(zip(_LLAMA_IS, plain, strict=True)) == _LLAMA_IS and not config.add_cross_attention
    return "llama" if llama and not config.resid_pdrop and not config.embd_pdrop else "llmbook_gpt"


_OURS = (
    "positions", "norm_first", "norm", "mlp", "n_kv_head", "qk_norm", "bias", "rope_theta", "n_expert", "n_expert_used"
)  # fmt: skip


def _gpt2_json(config: Any, kind: str) -> dict[str, Any]:
    options = asdict(config)
    if kind == "gpt2":
        options = {name: value for name, value in options.items() if name not in _OURS}
        options["architectures"] = ["GPT2LMHeadModel"]
    return {"model_type": kind} | options | {"bos_token_id": config.eos_token_id}  # one token for both ends


def _llama_json(config: Any) -> dict[str, Any]:
    options = asdict(config) | {"n_inner": config.inner, "n_kv_head": config.kv_heads}
    theirs = {name: options[ours] for name, ours in _LLAMA_ALIASES.items()}
    same = ("vocab_size", "initializer_range", "tie_word_embeddings", "eos_token_id")
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    kind = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    ends = {"bos_token_id": config.eos_token_id}
    return kind | theirs | _LLAMA_WANTS | {n: options[n] for n in same} | ends | {"rope_parameters": rope}
