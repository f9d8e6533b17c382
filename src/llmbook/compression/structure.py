"""Whole parts taken out of a model, so that what is left is dense, small and quick: neurons, heads, layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmbook.transformer import GPT, MLP, Attention, SwiGLU


@torch.no_grad()
def remove_neurons(mlp: MLP | SwiGLU, keep: Iterable[int]) -> None:
    """Keep only these neurons of a feed-forward layer, in place: rows of what goes out, columns of what comes back.

    Raises ValueError for numbers that are no neurons, or none at all.
    """
    kept = _kept("keep", keep, mlp.c_fc.out_features, "neurons")
    for name in ("c_fc", "c_gate"):
        if hasattr(mlp, name):
            setattr(mlp, name, _rows(getattr(mlp, name), kept))
    mlp.c_proj = _columns(mlp.c_proj, kept)


@torch.no_grad()
def remove_heads(attn: Attention, keep: Iterable[int]) -> None:
    """Keep only these heads of an attention layer, in place; counted by keys and values, with the queries they serve.

    Raises ValueError for numbers that are no heads, or none at all.
    """
    kept = _kept("keep", keep, attn.kv_heads, "heads")
    served, d = attn.n_head // attn.kv_heads, attn.head_size
    queries = (kept[:, None] * served + torch.arange(served)).flatten()
    q, k = _features(queries, d), _features(kept, d)
    first_k, first_v = attn.sizes[0], attn.sizes[0] + attn.sizes[1]
    attn.c_attn = _rows(attn.c_attn, torch.cat([q, first_k + k, first_v + k]))
    attn.c_proj = _columns(attn.c_proj, q)
    attn.n_head, attn.kv_heads, attn.sizes = len(queries), len(kept), (len(q), len(k), len(k))


def remove_layers(model: GPT, keep: Iterable[int]) -> None:
    """Keep only these blocks of a model, in place and in their order. Raises ValueError as :func:`remove_heads`."""
    model.h = nn.ModuleList(model.h[i] for i in _kept("keep", keep, len(model.h), "layers"))


def structure(model: GPT) -> dict[str, list[int]]:
    """How many heads (of keys and values) and neurons each block has: what :func:`restructure` needs."""
    return {"heads": [b.attn.kv_heads for b in model.h], "neurons": [b.mlp.c_fc.out_features for b in model.h]}


def restructure(model: GPT, sizes: dict[str, Sequence[int]]) -> None:
    """Give a fresh model the sizes of one that has lost parts, in place; its weights mean nothing until loaded.

    Raises ValueError for sizes that are no lists of as many numbers, or that exceed the model's.
    """
    heads, neurons = (_sizes(sizes, name) for name in ("heads", "neurons"))
    if len(heads) != len(neurons):
        raise ValueError(f"sizes must have one entry for each layer, got {len(heads)} heads and {len(neurons)} neurons")
    remove_layers(model, range(len(heads)))
    for block, n_heads, n_neurons in zip(model.h, heads, neurons, strict=True):
        remove_heads(block.attn, range(n_heads))
        remove_neurons(block.mlp, range(n_neurons))


def _sizes(sizes: Any, name: str) -> list[int]:
    found = sizes.get(name) if isinstance(sizes, dict) else None
    if not isinstance(found, list | tuple) or not all(type(n) is int for n in found):
        raise ValueError(f"sizes must have a list of whole numbers {name!r}, got {found!r}")
    return list(found)


def _kept(name: str, keep: Iterable[int], total: int, parts: str) -> Tensor:
    """Sorted, each once, checked: (n,)."""
    kept = sorted({int(i) for i in keep})
    if not kept or kept[0] < 0 or kept[-1] >= total:
        raise ValueError(f"{name} must hold some of the {total} {parts} 0..{total - 1}, got {kept}")
    return torch.tensor(kept)


def _features(heads: Tensor, size: int) -> Tensor:
    """The features of heads, one head after the other: (n · size,)."""
    return (heads[:, None] * size + torch.arange(size)).flatten()


def _rows(layer: nn.Linear, kept: Tensor) -> nn.Linear:
    return linear_of(layer.weight[kept], None if layer.bias is None else layer.bias[kept])


def _columns(layer: nn.Linear, kept: Tensor) -> nn.Linear:
    return linear_of(layer.weight[:, kept], None if layer.bias is None else layer.bias.clone())


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of these very tensors, (out, in) and (out,) or None, contiguous and trainable."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach())
    return layer
