"""Layers that multiply whole numbers: inputs and weights as int8, their products summed in int32.

y = s_x s_w (X_int W_intᵀ) + b. The sums are exact; only the two roundings err. A few input features that are far
larger than the rest spoil the inputs' scale: keep them apart (LLM.int8, Dettmers et al. 2022), move their size into
the weights (SmoothQuant, Xiao et al. 2023), or spread it over all by a rotation (QuaRot, Ashkboos et al. 2024).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.compression.calibration import InputStatistics, block_linears
from llmbook.compression.quantization import smoothing

MOST = 127  # of int8, both ways
LEAST = 1e-8  # a scale for inputs that are all zero
CHUNK = 256  # tokens at a time: what is passed over again is still in the cache


class Int8Linear(nn.Module):
    """A linear layer on int8: weights with a scale for each row, inputs with one for each token, or one for all.

    ``input_scale``: a fixed scale, from calibration ("static"); None: each token's own largest |x| ("dynamic").
    ``outliers``: input features that stay in float, with their columns. ``smooth`` (in,): x is divided by it and the
    weights' columns multiplied. ``rotation`` (in, in), orthogonal: both are turned by it.
    """

    def __init__(
        self,
        layer: nn.Linear,
        *,
        input_scale: float | None = None,
        outliers: Iterable[int] = (),
        smooth: Tensor | None = None,
        rotation: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        if input_scale is not None and not input_scale > 0:
            raise ValueError(f"input_scale must be positive, got {input_scale}")
        self.input_scale = input_scale
        weight = layer.weight.detach().float()
        weight = weight if smooth is None else weight * smooth
        weight = weight if rotation is None else weight @ rotation
        apart = _features(outliers, layer.in_features)
        self.register_buffer("apart", apart if len(apart) else None)
        self.register_buffer("apart_weight", weight[:, apart] if len(apart) else None)  # (out, apart)
        weight = weight.index_fill(1, apart, 0.0) if len(apart) else weight
        scale = (weight.abs().amax(1) / MOST).clamp(min=LEAST)  # (out,)
        self.register_buffer("codes", (weight / scale[:, None]).round().to(torch.int8))  # (out, in)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.register_buffer("smooth", smooth)
        self.register_buffer("rotation", rotation)

    @torch.no_grad()  # rounding has no gradient; and memory is used again below
    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out). No gradient passes."""
        rows = x.flatten(0, -2)  # (N, in)
        sums = torch.empty(len(rows), self.out_features, dtype=torch.int32, device=x.device)
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            self._multiply(rows[part], sums[part])
        return sums.view(torch.float32).view(*x.shape[:-1], self.out_features)

    def _multiply(self, rows: Tensor, sums: Tensor) -> None:
        """Rows (n, in) by the weights; the floats of the answer take the place of the whole numbers ``sums``."""
        rows, added = self._prepared(rows), self.bias
        if self.apart is not None:
            added = F.linear(rows[:, self.apart], self.apart_weight, self.bias)  # (n, out), in floats
            rows = rows.index_fill(1, self.apart, 0.0)
        codes, scale = quantize_tokens(rows, self.input_scale)  # (n, in) int8, (n, 1)
        torch._int_mm(codes, self.codes.T, out=sums)  # (n, out)
        y = sums.view(torch.float32)
        y.copy_(sums).mul_(scale)
        if added is None:
            y.mul_(self.scale)
        else:
            torch.addcmul(added, y, self.scale, out=y)

    def _prepared(self, rows: Tensor) -> Tensor:
        rows = rows if self.smooth is None else rows / self.smooth
        return rows if self.rotation is None else rows @ self.rotation

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(b.numel() * b.element_size() for b in self.buffers())


@torch.no_grad()
def quantize_tokens(x: Tensor, scale: float | None = None) -> tuple[Tensor, Tensor | float]:
    """Tokens (N, in) as int8, each by its own scale (N, 1), or all by the one given; what is beyond is cut off."""
    if scale is not None:
        return (x * (1 / scale)).round_().clamp_(-MOST, MOST).to(torch.int8), scale
    room = x.abs()  # (N, in), used twice: memory that is new costs as much as the arithmetic
    scale = room.amax(1, keepdim=True).div_(MOST).clamp_(min=LEAST)
    codes = torch.mul(x, scale.reciprocal(), out=room).round_()  # a product is cheaper than a division
    return codes.to(torch.int8), scale


def int8_model(
    model: nn.Module,
    statistics: Mapping[str, InputStatistics] | None = None,
    *,
    static: bool = False,
    outliers: float | None = None,
    smooth: float | None = None,
    rotate: bool = False,
    names: Iterable[str] | None = None,
) -> list[str]:
    """Replace the linear layers within blocks by :class:`Int8Linear`, in place; their names.

    ``static``: fixed input scales. ``outliers``: features whose largest |x| exceeds this stay in float (LLM.int8
    takes 6). ``smooth``: SmoothQuant's α. ``rotate``: by a Hadamard matrix. The first three need ``statistics``.
    """
    layers, known = block_linears(model, names), statistics or {}
    without = [name for name in layers if name not in known]
    if without and (static or outliers is not None or smooth is not None):
        raise ValueError(f"static, outliers and smooth need every layer's statistics, got none for {without[0]}")
    for name, layer in layers.items():
        largest = known[name].largest if name in known else None
        options: dict[str, object] = {}
        if smooth is not None:
            options["smooth"] = smoothing(largest, smooth, layer.weight.detach())
            largest = largest / options["smooth"]
        if rotate:
            options["rotation"] = hadamard(layer.in_features)
        if outliers is not None:
            options["outliers"] = (largest > outliers).nonzero().flatten().tolist()
            largest = largest[largest <= outliers]
        if static:
            options["input_scale"] = float(largest.max()) / MOST
        model.set_submodule(name, Int8Linear(layer, **options))
    return list(layers)


def _features(outliers: Iterable[int], total: int) -> Tensor:
    found = sorted({int(i) for i in outliers})
    if found and not 0 <= found[0] <= found[-1] < total:
        raise ValueError(f"outliers must be features in 0..{total - 1}, got {found[0]} to {found[-1]}")
    return torch.tensor(found, dtype=torch.long)


# ------------------------------------------------------------ rotations


@functools.lru_cache(maxsize=8)
def hadamard(size: int) -> Tensor:
    """An orthogonal matrix (size, size) whose entries are all ±1/√size: it spreads one large feature over all.

    Kronecker products of the matrices of orders 2 (Sylvester) and 12 (Paley). Raises ValueError for a size that is
    no such product (576 = 12 · 12 · 4 and 1536 = 12 · 128 are).
    """
    matrix, rest = torch.ones(1, 1), size
    while rest > 1 and rest % 12 == 0:
        matrix, rest = torch.kron(matrix, _paley(11)), rest // 12
    while rest > 1 and rest % 2 == 0:
        matrix, rest = torch.kron(matrix, torch.tensor([[1.0, 1.0], [1.0, -1.0]])), rest // 2
    if rest != 1 or size < 1:
        raise ValueError(f"size must be a product of 2s and 12s, got {size}")
    return matrix / size**0.5


def _paley(q: int) -> Tensor:
    """The Hadamard matrix of order q + 1 for a prime q ≡ 3 (mod 4), from its quadratic residues."""
    squares = {i * i % q for i in range(1, q)}
    residue = torch.tensor([0.0] + [1.0 if i in squares else -1.0 for i in range(1, q)])
    index = torch.arange(q)
    inner = residue[(index[None, :] - index[:, None]) % q]  # (q, q), skew-symmetric
    skew = F.pad(inner, (1, 0, 1, 0))
    skew[0, 1:], skew[1:, 0] = 1.0, -1.0
    return skew + torch.eye(q + 1)
