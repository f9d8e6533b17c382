"""Low rank: a matrix as a product of two thin ones, chosen by its weights alone or by what it is fed.

The best matrix of rank r for E‖(W − W')x‖² is W' = U Uᵀ W, with the r first eigenvectors U of W H Wᵀ, H = E[x xᵀ]: the
layer's outputs are put on their own principal directions. With H = 1 that is the truncated singular value
decomposition (Eckart and Young 1936); with H from calibration text, activation-aware low rank (Chen et al. 2021; Wang
et al. 2025, who write it with a whitening matrix and its inverse).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from llmbook.compression.calibration import InputStatistics, block_linears


class LowRankLinear(nn.Module):
    """y = B A x + b with A (rank, in) in ``first`` and B (out, rank) in ``second``."""

    def __init__(self, d_in: int, d_out: int, rank: int, bias: bool = True) -> None:
        super().__init__()
        if not 1 <= rank <= min(d_in, d_out):
            raise ValueError(f"rank must lie in 1..{min(d_in, d_out)}, got {rank}")
        self.first = nn.utils.skip_init(nn.Linear, d_in, rank, bias=False)
        self.second = nn.utils.skip_init(nn.Linear, rank, d_out, bias=bias)
        nn.init.zeros_(self.first.weight)
        nn.init.zeros_(self.second.weight)
        if bias:
            nn.init.zeros_(self.second.bias)

    @property
    def in_features(self) -> int:
        return self.first.in_features

    @property
    def out_features(self) -> int:
        return self.second.out_features

    @property
    def rank(self) -> int:
        return self.first.out_features

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))  # (..., in) → (..., rank) → (..., out)

    def dense(self) -> Tensor:
        """The product B A, (out, in)."""
        return self.second.weight @ self.first.weight


def break_even(d_in: int, d_out: int) -> int:
    """The largest rank at which two thin matrices hold fewer numbers than the whole one: r (in + out) < in · out."""
    return (d_in * d_out - 1) // (d_in + d_out)


@torch.no_grad()
def directions(weight: Tensor, gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What each principal direction of a layer's output carries, largest first, (n,), and the directions, (out, n).

    n is the smaller of in and out. Without ``gram`` (in, in) the first are the squared singular values of W. The
    error of rank r is the sum of those from r on. Raises ValueError for a gram of another size.
    """
    w = weight.double()
    if gram is None:
        u, s, _ = torch.linalg.svd(w, full_matrices=False)
        return s.square(), u
    if gram.shape != (w.shape[1], w.shape[1]):
        raise ValueError(f"gram must be (in, in) for weight {tuple(weight.shape)}, got {tuple(gram.shape)}")
    carried, u = torch.linalg.eigh(w @ gram.double() @ w.T)  # ascending
    n = min(w.shape)
    return carried.flip(0)[:n].clamp(min=0), u.flip(1)[:, :n]


@torch.no_grad()
def factorize(linear: nn.Linear, rank: int, statistics: InputStatistics | None = None) -> LowRankLinear:
    """The layer at a rank, best for its weights, or with ``statistics`` for what it is fed; the bias stays.

    Raises ValueError for a rank outside 1..min(in, out).
    """
    low = LowRankLinear(linear.in_features, linear.out_features, rank, linear.bias is not None)
    _, u = directions(linear.weight, None if statistics is None else statistics.gram)
    u = u[:, :rank]
    low.first.weight.copy_(u.T @ linear.weight.double())
    low.second.weight.copy_(u)
    if linear.bias is not None:
        low.second.bias.copy_(linear.bias)
    return low.to(linear.weight.device)


def factorize_model(
    model: nn.Module,
    share: float,
    statistics: Mapping[str, InputStatistics] | None = None,
    names: Iterable[str] | None = None,
) -> dict[str, int]:
    """Put layers at the rank that leaves ``share`` of their numbers, in place; the ranks, by name.

    ``names`` defaults to the linear layers within blocks. Raises ValueError for a share outside (0, 1), for a layer too
    small for it, for names that are no linear layers in blocks, and for layers that given statistics lack.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    layers = block_linears(model, names)
    ranks = {}
    for name, layer in layers.items():
        if statistics is not None and name not in statistics:
            raise ValueError(f"statistics must be of every layer's inputs, got none for {name}")
        d_out, d_in = layer.weight.shape
        ranks[name] = int(share * d_in * d_out / (d_in + d_out))
        if ranks[name] < 1:
            raise ValueError(f"share must leave rank 1 at least, got {share} for {name} of {d_out} × {d_in}")
    for name, rank in ranks.items():
        parent, _, child = name.rpartition(".")
        low = factorize(layers[name], rank, None if statistics is None else statistics[name])
        setattr(model.get_submodule(parent), child, low)
    return ranks
