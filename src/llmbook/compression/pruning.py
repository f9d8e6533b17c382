"""Pruning: which weights, neurons, heads and layers a model can spare, and how the rest makes good.

A score says what a weight is worth, a mask keeps the best; a mask is (out, in) like its weight, True where it is kept.
Magnitude (Janowsky 1989; Han et al. 2015), gradient (Mozer & Smolensky 1988; Molchanov et al. 2019), Wanda (Sun et al.
2024) and SparseGPT (Frantar & Alistarh 2023). The unstructured masks are those of ``torch.nn.utils.prune``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from llmbook.compression.calibration import InputStatistics, block_linears, by_block, evaluating, hooked
from llmbook.compression.reconstruction import inverse_factor, layer_error, reconstruct
from llmbook.training import Batch, model_loss
from llmbook.transformer import GPT, MLP, Attention, SwiGLU

Masks = Mapping[str, Tensor]
METHODS = ("magnitude", "wanda", "sparsegpt")


# ------------------------------------------------------------ scores: what is a weight worth?


def magnitude(weight: Tensor) -> Tensor:
    """|W|, (out, in)."""
    return weight.detach().abs()


def gradient(weight: Tensor, grad: Tensor) -> Tensor:
    """|W ⊙ G|, (out, in): what the loss would change, to first order, if the weight went to zero.

    With the root mean square of the gradients in the place of their mean, the root of the diagonal-Fisher form of
    Optimal Brain Damage's ½ w² h (LeCun et al. 1990). :func:`gradients` gives both.
    """
    _check_shape("grad", grad, weight.shape)
    return (weight.detach() * grad).abs()


def wanda(weight: Tensor, rms: Tensor) -> Tensor:
    """|W_ij| · rms_j, (out, in): a weight times the size of the input it reads (in,). Compare it within a row."""
    _check_shape("rms", rms, weight.shape[1:])
    return weight.detach().abs() * rms


class Gradients(NamedTuple):
    """Of the loss by one weight matrix, over batches; both (out, in)."""

    mean: Tensor
    rms: Tensor


def gradients(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Gradients]:
    """Mean and root mean square, over batches, of the loss's gradient by each weight inside the blocks.

    A batch is what ``fit`` takes, with labels. Raises ValueError where there are none.
    """
    layers, count = block_linears(model), 0
    weights = [layer.weight for layer in layers.values()]
    sums = [(torch.zeros_like(w), torch.zeros_like(w)) for w in weights]
    with evaluating(model):
        for count, batch in enumerate(batches, start=1):  # noqa: B007
            for (first, second), g in zip(sums, torch.autograd.grad(model_loss(model, batch), weights), strict=True):
                first += g
                second += g * g
    if not count:
        raise ValueError("batches must hold at least one batch, got none")
    return {name: Gradients(a / count, (b / count).sqrt()) for name, (a, b) in zip(layers, sums, strict=True)}


# ------------------------------------------------------------ masks: which are kept?


def mask_of(scores: Tensor, sparsity: float, per: str = "layer") -> Tensor:
    """True for all but the lowest ``sparsity`` of the scores, of the whole layer or of each row: (out, in) bool.

    Of n scores round(sparsity · n) go, of equal ones the first. Over the layer, with |W| for scores, it is the mask of
    ``torch.nn.utils.prune.l1_unstructured``.
    """
    _check_sparsity(sparsity)
    if per not in ("layer", "row"):
        raise ValueError(f"per must be 'layer' or 'row', got {per!r}")
    if scores.isnan().any():
        raise ValueError(f"scores must not hold NaN, got {int(scores.isnan().sum())} of them")
    groups = scores.reshape(1, -1) if per == "layer" else scores  # (groups, n)
    count = round(sparsity * groups.shape[1])
    if count == groups.shape[1]:
        return torch.zeros_like(scores, dtype=torch.bool)
    cut = np.partition(groups.detach().cpu().numpy(), count, axis=1)[:, count : count + 1]  # a tenth of topk's time
    cut = torch.from_numpy(cut).to(groups)  # (groups, 1): the lowest score that stays
    mask, ties = groups >= cut, groups == cut
    too_many = mask.sum(1, keepdim=True) - (groups.shape[1] - count)
    if too_many.any():
        mask &= ~(ties & (ties.cumsum(1) <= too_many))
    return mask.view_as(scores)


def global_masks(scores: Masks, sparsity: float) -> dict[str, Tensor]:
    """One threshold for all layers: a mask for each, of the lowest ``sparsity`` of all scores together.

    The masks of ``torch.nn.utils.prune.global_unstructured``.
    """
    if not scores:
        raise ValueError("scores must hold at least one layer, got none")
    together = mask_of(torch.cat([each.flatten() for each in scores.values()])[None], sparsity)[0]
    parts = together.split([each.numel() for each in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


def n_m_mask(scores: Tensor, n: int = 2, m: int = 4) -> Tensor:
    """True for the best n of each m neighbours in a row, (out, in) bool: 2:4 is what NVIDIA's sparse cores multiply."""
    _check_pattern(n, m, scores.shape[-1])
    groups = scores.unflatten(-1, (-1, m))  # (out, in / m, m)
    best = groups.topk(n, dim=-1).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, best, True).flatten(-2)


def sparsity_of(masks: Masks) -> float:
    """The share of weights that masks remove."""
    kept, total = sum(int(mask.sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values())
    return 1 - kept / total


@torch.no_grad()
def prune_model(model: nn.Module, masks: Masks) -> None:
    """Put zeros where a mask, by its layer's name, is False, in place. ValueError for what does not fit."""
    for name, mask in masks.items():
        weight = _weight(model, name)
        _check_shape(f"masks[{name!r}]", mask, weight.shape)
        weight.mul_(mask)


def keep_zeros(model: nn.Module, masks: Masks) -> Callable[[int, nn.Module], None]:
    """A callback for ``fit`` that puts the zeros back after each step; it also puts them now."""
    prune_model(model, masks)
    return lambda _step, trained: prune_model(trained, masks)


# ------------------------------------------------------------ the rest makes good


def sparsegpt(
    weight: Tensor,
    gram: Tensor,
    sparsity: float | None = None,
    *,
    n: int | None = None,
    m: int | None = None,
    block_size: int = 128,
    damping: float = 0.01,
) -> Tensor:
    """W (out, in) with a share of zeros, or n of each m kept, the other weights moved to make good (SparseGPT).

    ``gram`` (in, in) is E[x xᵀ] of the layer's inputs. In each block of columns those weights go whose loss costs the
    least, w² / [H⁻¹]: Optimal Brain Surgeon's saliency, once the columns to the left are settled. Raises ValueError
    unless it is either ``sparsity`` or both n and m.
    """
    if (sparsity is None) == (n is None) or (n is None) != (m is None):
        raise ValueError(f"give either sparsity, or n and m: got sparsity={sparsity}, n={n}, m={m}")
    if m is not None:
        _check_pattern(n, m, weight.shape[1])
        block_size = m  # each group is chosen when all before it are settled
    else:
        _check_sparsity(sparsity)

    def begin(block: Tensor, curvatures: Tensor):
        cost = block.square() * curvatures  # (out, b)
        mask = mask_of(cost, sparsity) if m is None else n_m_mask(cost, n, m)
        return lambda j, column: column * mask[:, j]

    return reconstruct(weight, gram, begin, block_size=block_size, damping=damping)


def refit(weight: Tensor, gram: Tensor, keep: Tensor, damping: float = 0.01) -> Tensor:
    """What the columns that stay should be, (out, kept), if the others are taken away: least squares over the inputs.

    W' = W H[:, keep] H[keep, keep]⁻¹ minimises E‖W x − W' x_keep‖²; ``keep`` is (in,) bool or the columns' numbers.
    """
    kept = torch.arange(weight.shape[1])[keep]
    factor = inverse_factor(gram[kept][:, kept], damping)  # Uᵀ U = (H_kk + λ I)⁻¹
    drawn = weight.detach().double() @ gram[:, kept].double()  # (out, kept)
    drawn += damping * gram[kept][:, kept].diagonal().mean() * weight.detach()[:, kept]  # towards what they were
    return (drawn @ factor.T @ factor).to(weight.dtype)


@torch.no_grad()
def prune_blocks(
    model: nn.Module,
    method: str,
    sparsity: float | None = None,
    *,
    n: int | None = None,
    m: int | None = None,
    batches: Iterable[Tensor] | None = None,
    statistics: Mapping[str, InputStatistics] | None = None,
) -> None:
    """Prune every linear layer of a model's blocks, in place, to the same share or pattern n:m.

    ``method`` is one of :data:`METHODS`. Wanda and SparseGPT need calibration: ``statistics`` of the dense model, or
    ``batches`` of ids (B, T), which each block sees as the pruned blocks before it leave them.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    if method != "magnitude" and (batches is None) == (statistics is None):
        raise ValueError(f"method {method!r} needs either batches of calibration text or statistics")
    together = dict.fromkeys(block_linears(model)) if statistics is None else statistics
    for seen in [together] if batches is None or method == "magnitude" else by_block(model, batches):
        for name, fed in seen.items():
            weight = _weight(model, name)
            weight.copy_(_pruned(weight, method, fed, sparsity, n, m))


def _pruned(
    weight: Tensor, method: str, seen: InputStatistics | None, sparsity: float | None, n: int | None, m: int | None
) -> Tensor:
    if method == "sparsegpt":
        return sparsegpt(weight, seen.gram, sparsity, n=n, m=m)
    scores = magnitude(weight) if method == "magnitude" else wanda(weight, seen.rms)
    if sparsity is None:
        return weight * n_m_mask(scores, n, m)
    return weight * mask_of(scores, sparsity, per="layer" if method == "magnitude" else "row")


# ------------------------------------------------------------ whole parts


@torch.no_grad()
def neuron_scores(mlp: MLP | SwiGLU, gram: Tensor | None = None) -> Tensor:
    """What each neuron of a feed-forward layer is worth: (inner,).

    With ``gram``, of ``c_proj``'s inputs: the root mean square of what it adds to the stream, √E‖a_j W_:j‖². Without:
    the norm of what it reads with times that of what it writes.
    """
    writes = mlp.c_proj.weight.norm(dim=0)  # (inner,)
    if gram is not None:
        _check_shape("gram", gram, (len(writes), len(writes)))
        return gram.diagonal().sqrt() * writes
    reads = [getattr(mlp, name).weight for name in ("c_fc", "c_gate") if hasattr(mlp, name)]
    return torch.cat(reads, dim=1).norm(dim=1) * writes


@torch.no_grad()
def head_scores(attn: Attention, gram: Tensor | None = None) -> Tensor:
    """What each head (of keys and values, with the queries it serves) is worth: (kv_heads,).

    With ``gram``, of ``c_proj``'s inputs: the root mean square of what it adds to the stream. Without: the norm of what
    it writes with.
    """
    parts = attn.c_proj.weight.chunk(attn.kv_heads, dim=1)  # each (C, served · d)
    if gram is None:
        return torch.stack([part.norm() for part in parts])
    size = parts[0].shape[1]
    _check_shape("gram", gram, (size * len(parts),) * 2)
    own = [gram[i * size : (i + 1) * size, i * size : (i + 1) * size] for i in range(len(parts))]
    return torch.tensor([layer_error(part, g) for part, g in zip(parts, own, strict=True)]).sqrt()


@torch.no_grad()
def block_influence(model: GPT, batches: Iterable[Tensor]) -> Tensor:
    """1 − the mean cosine between what enters a block and what leaves it, over all tokens: (n_layer,).

    ShortGPT's score of a layer (Men et al. 2025): near 0 where it hardly turns the stream. A batch is ids (B, T).
    """
    found: list[list[Tensor]] = [[] for _ in model.h]

    def look(number: int):
        def hook(_module, inputs, output):
            found[number].append(torch.cosine_similarity(inputs[0], output[0], dim=-1).flatten())

        return hook

    handles = [block.register_forward_hook(look(i)) for i, block in enumerate(model.h)]
    with hooked(handles), evaluating(model):
        for ids in batches:
            model(ids)
    if not found[0]:
        raise ValueError("batches must hold at least one batch of ids, got none")
    return torch.stack([1 - torch.cat(each).mean() for each in found])


# ------------------------------------------------------------ checks


def _weight(model: nn.Module, name: str) -> nn.Parameter:
    try:
        weight = model.get_submodule(name).weight
    except AttributeError:
        weight = None
    if not isinstance(weight, nn.Parameter):
        raise ValueError(f"masks must be named after layers of the model, got {name!r}")
    return weight


def _check_shape(name: str, tensor: Tensor, wanted: Iterable[int]) -> None:
    if tuple(tensor.shape) != tuple(wanted):
        raise ValueError(f"{name} must have shape {tuple(wanted)}, got {tuple(tensor.shape)}")


def _check_sparsity(sparsity: float) -> None:
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must lie between 0 and 1, got {sparsity}")


def _check_pattern(n: int, m: int, columns: int) -> None:
    if not 0 < n <= m:
        raise ValueError(f"n must lie between 1 and m, got n={n}, m={m}")
    if columns % m:
        raise ValueError(f"the columns must divide into groups of m={m}, got {columns}")
