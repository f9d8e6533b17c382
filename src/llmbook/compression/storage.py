"""Compressed models on disk: ``compressed.json`` says what each layer is, ``compressed.safetensors`` holds its bytes.

A layer's *kind* says how it becomes options (JSON) and tensors, and how it is built from them; a new kind is one
entry of :data:`KINDS`. Sparse is not a type of layer but a way to write a dense one: where most weights are zero, a
bit for each weight and the values of the rest are fewer bytes. Never a pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from llmbook.compression import structure
from llmbook.compression.grids import Grid
from llmbook.compression.lowrank import LowRankLinear
from llmbook.compression.quantization import QuantizedEmbedding, QuantizedLinear, tied_head
from llmbook.files import write_whole
from llmbook.transformer import GPT, GPTConfig

CONFIG, WEIGHTS = "compressed.json", "compressed.safetensors"
FORMAT = "llmbook-compressed-1"
FLOATS = {"float32": torch.float32, "float16": torch.float16}
Options = dict[str, Any]
Tensors = dict[str, Tensor]


# ------------------------------------------------------------ kinds of layers


class Kind(NamedTuple):
    """How a type of layer is written and read."""

    type: type[nn.Module]
    write: Callable[[Any, torch.dtype], tuple[Options, Tensors]]
    read: Callable[[Options, Tensors], nn.Module]
    whole: bool = True  # False: its linear layers are kinds of their own, and follow by themselves


def _write_linear(layer: nn.Linear, dtype: torch.dtype) -> tuple[Options, Tensors]:
    """Dense, or, where that takes fewer bytes, a bitmap of what is not zero and the values."""
    weight = layer.weight.detach().to(dtype)
    tensors = {} if layer.bias is None else {"bias": layer.bias.detach().to(dtype)}
    kept = weight != 0
    mask = _bits(kept.flatten())
    if mask.numel() + int(kept.sum()) * weight.element_size() < weight.numel() * weight.element_size():
        tensors |= {"mask": mask, "values": weight[kept]}
    else:
        tensors["weight"] = weight
    return {"shape": list(weight.shape)}, tensors


def _read_linear(options: Options, tensors: Tensors) -> nn.Linear:
    out, columns = options["shape"]
    if "mask" in tensors:
        kept = _from_bits(tensors["mask"], out * columns)
        weight = torch.zeros(out * columns)
        weight[kept] = tensors["values"].float()
    else:
        weight = tensors["weight"].float()
    bias = tensors.get("bias")
    return structure.linear_of(weight.view(out, columns), None if bias is None else bias.float())


def _bits(flags: Tensor) -> Tensor:
    """(n,) bool to ⌈n/8⌉ bytes, the first flag lowest."""
    flags = torch.nn.functional.pad(flags.to(torch.uint8), (0, -len(flags) % 8)).view(-1, 8)
    return (flags << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8)


def _from_bits(packed: Tensor, count: int) -> Tensor:
    return (packed[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).flatten()[:count].bool()


def _write_quantized(layer: QuantizedLinear | QuantizedEmbedding, dtype: torch.dtype) -> tuple[Options, Tensors]:
    tensors = {name: t for name, t in layer.named_buffers() if t is not None}
    if "bias" in tensors:
        tensors["bias"] = tensors["bias"].to(dtype)
    return {"shape": list(layer.shape), "grid": asdict(layer.grid)}, tensors


def _read_quantized(options: Options, tensors: Tensors) -> QuantizedLinear:
    layer = QuantizedLinear.from_buffers(Grid(**options["grid"]), options["shape"], tensors)
    bias = tensors.get("bias")
    return layer.add(None if bias is None else bias.float(), tensors.get("input_scale"))


def _read_quantized_embedding(options: Options, tensors: Tensors) -> QuantizedEmbedding:
    return QuantizedEmbedding.from_buffers(Grid(**options["grid"]), options["shape"], tensors)


def _write_embedding(layer: nn.Embedding, dtype: torch.dtype) -> tuple[Options, Tensors]:
    return {}, {"weight": layer.weight.detach().to(dtype)}


def _read_embedding(options: Options, tensors: Tensors) -> nn.Embedding:
    return nn.Embedding.from_pretrained(tensors["weight"].float(), freeze=False)


def _write_low_rank(layer: LowRankLinear, _dtype: torch.dtype) -> tuple[Options, Tensors]:
    sizes = {"d_in": layer.in_features, "d_out": layer.out_features, "rank": layer.rank}
    return sizes | {"bias": layer.second.bias is not None}, {}


def _read_low_rank(options: Options, _tensors: Tensors) -> LowRankLinear:
    return LowRankLinear(*(options[name] for name in ("d_in", "d_out", "rank", "bias")))


KINDS: dict[str, Kind] = {
    "linear": Kind(nn.Linear, _write_linear, _read_linear),
    "embedding": Kind(nn.Embedding, _write_embedding, _read_embedding),
    "quantized": Kind(QuantizedLinear, _write_quantized, _read_quantized),
    "low rank": Kind(LowRankLinear, _write_low_rank, _read_low_rank, whole=False),
    "quantized embedding": Kind(QuantizedEmbedding, _write_quantized, _read_quantized_embedding),
}


# ------------------------------------------------------------ a model


def save(model: GPT, folder: str | Path, *, dtype: str = "float32") -> int:
    """Write a GPT, whatever its layers are and however many it has left; the bytes of both files.

    ``dtype`` "float16" halves what is kept in floats, rounding it: what is read back has the rounded weights. Raises
    ValueError for a layer of a kind that :data:`KINDS` does not have.
    """
    if dtype not in FLOATS:
        raise ValueError(f"dtype must be one of {', '.join(FLOATS)}, got {dtype!r}")
    if model.config.n_expert:
        raise ValueError("model must have one feed-forward layer in each block, got a mixture of experts")
    layers: dict[str, Options] = {}
    tensors: Tensors = {}
    for name, module, kind in _layers(model):
        options, parts = KINDS[kind].write(module, FLOATS[dtype])
        layers[name] = {"kind": kind} | options
        tensors |= {f"{name}.{part}": tensor.detach().contiguous() for part, tensor in parts.items()}
    inside = {part for name, module, kind in _layers(model) if KINDS[kind].whole for part in _parts(name, module)}
    rest = {name: p for name, p in model.state_dict().items() if name not in inside}
    tensors |= {name: p.detach().to(FLOATS[dtype]).contiguous() for name, p in rest.items()}
    if _tied(model):
        layers.pop("lm_head", None)
        tensors = {name: t for name, t in tensors.items() if not name.startswith("lm_head.")}
    content = save_bytes(tensors)
    about = {
        "format": FORMAT, "sha256": hashlib.sha256(content).hexdigest(), "config": asdict(model.config),
        "structure": structure.structure(model), "tied": _tied(model), "layers": layers,
    }  # fmt: skip
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS, content)
    write_whole(folder / CONFIG, json.dumps(about, indent=1) + "\n")
    return size(folder)


def load(folder: str | Path) -> GPT:
    """The model that :func:`save` wrote, in evaluation mode.

    Raises FileNotFoundError where a file is missing, and ValueError, with the file's name, for one that is damaged,
    cut off, or of another format.
    """
    folder = Path(folder)
    about, content = _read_config(folder / CONFIG), (folder / WEIGHTS).read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != about["sha256"]:
        whole = f"SHA-256 {found[:12]}…, wanted {str(about['sha256'])[:12]}…"
        raise ValueError(f"{folder / WEIGHTS} is damaged or cut off ({len(content)} bytes): {whole}")
    try:
        return _build(about, load_bytes(content)).eval()
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, SafetensorError) as error:
        raise ValueError(f"{folder} does not hold the model that its {CONFIG} describes: {error}") from error


def size(folder: str | Path) -> int:
    """Bytes of a saved model: both files."""
    return sum((Path(folder) / name).stat().st_size for name in (CONFIG, WEIGHTS))


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(name, layer, kind) of all layers that have a kind, outer ones first."""
    done: tuple[str, ...] = ()
    for name, module in model.named_modules(remove_duplicate=False):
        kind = next((k for k, each in KINDS.items() if isinstance(module, each.type)), None)
        if kind is None or name.startswith(done or ("\0",)):
            continue
        if KINDS[kind].whole:
            done = (*done, f"{name}.")
        yield name, module, kind


def _parts(name: str, module: nn.Module) -> list[str]:
    return [f"{name}.{part}" for part in module.state_dict()]


def _tied(model: GPT) -> bool:
    """Whether the head is the embedding."""
    for part in ("packed", "weight"):
        if hasattr(model.wte, part) and hasattr(model.lm_head, part):
            return getattr(model.wte, part) is getattr(model.lm_head, part)
    return False


def _read_config(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON, or only part of one: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        got = about.get("format") if isinstance(about, dict) else type(about).__name__
        raise ValueError(f"{path} must have format {FORMAT!r}, got {got!r}")
    if missing := [key for key in ("sha256", "config", "structure", "tied", "layers") if key not in about]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    return about


def _build(about: Mapping[str, Any], tensors: Tensors) -> GPT:
    known = {f.name for f in fields(GPTConfig)}
    with torch.device("meta"):  # no memory, no random numbers: the weights follow
        model = GPT(GPTConfig(**{name: value for name, value in about["config"].items() if name in known}))
    structure.restructure(model, about["structure"])
    tied = about["tied"]
    if tied:
        model.lm_head = nn.Identity()
    for name, options in about["layers"].items():
        if (kind := options.get("kind")) not in KINDS:
            raise ValueError(f"{name} is of kind {kind!r}; known are {', '.join(KINDS)}")
        model.set_submodule(name, KINDS[kind].read(options, _own(name, tensors) if KINDS[kind].whole else {}))
    if tied:
        model.lm_head = _head(model.wte)
    model.load_state_dict({n: t.float() for n, t in tensors.items()}, strict=False, assign=True)
    for name, p in (*model.named_parameters(), *model.named_buffers()):
        if p.is_meta:
            raise ValueError(f"{name} is missing")
    return model


def _own(name: str, tensors: Tensors) -> Tensors:
    """The layer's tensors, taken out."""
    found = [part for part in tensors if part.startswith(f"{name}.")]
    return {part.removeprefix(f"{name}."): tensors.pop(part) for part in found}


def _head(embedding: nn.Embedding | QuantizedEmbedding) -> nn.Module:
    if isinstance(embedding, QuantizedEmbedding):
        return tied_head(embedding)
    head = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False, device="meta")
    head.weight = embedding.weight
    return head
