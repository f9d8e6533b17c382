"""Models whose weights lie on a grid: layers that keep packed codes, and ways to choose the codes.

Rounding to nearest (RTN), GPTQ (Frantar et al. 2023), AWQ (Lin et al. 2024), and training with the rounding in the
forward pass (Jacob et al. 2018). The grids themselves are in ``grids``, layers that multiply whole numbers in
``integers``, llama.cpp's blocks in ``blocks``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.compression.calibration import InputStatistics, block_linears
from llmbook.compression.grids import (
    Grid,
    Quantized,
    encode,
    pack,
    packed_size,
    quantize_weight,
    round_to,
    scale_shape,
    scales,
    unpack,
)
from llmbook.compression.reconstruction import layer_error, reconstruct
from llmbook.compression.structure import linear_of

__all__ = [
    "Grid", "Quantized", "QuantizedEmbedding", "QuantizedLinear", "awq", "dequantize_model", "fake_quantize", "gptq",
    "prepare_qat", "quantize_embedding", "quantize_model", "quantize_weight", "smoothing",
]  # fmt: skip
METHODS = ("rtn", "gptq", "awq")
Statistics = Mapping[str, InputStatistics]


# ------------------------------------------------------------ layers with packed codes


class _Packed(nn.Module):
    """A matrix (out, in) as buffers: packed codes (out, bytes), scales (R, G), packed zero-points or None."""

    def __init__(self, matrix: Quantized) -> None:
        super().__init__()
        zero = None if matrix.zero is None else pack(matrix.zero.flatten(), matrix.grid)
        self._keep(matrix.grid, matrix.codes.shape, pack(matrix.codes, matrix.grid), matrix.scale, zero)

    @classmethod
    def from_buffers(cls, grid: Grid, shape: tuple[int, int], buffers: Mapping[str, Tensor]) -> Self:
        """A layer from what ``named_buffers`` held. Raises ValueError for what is missing or does not fit the grid."""
        groups = scale_shape(shape, grid)
        wanted = {"packed": (shape[0], packed_size(shape[1], grid)), "scale": groups}
        wanted |= {"zero": (packed_size(math.prod(groups), grid),)} if grid.affine else {}
        for name, size in wanted.items():
            found, dtype = buffers.get(name), torch.float16 if name == "scale" else torch.uint8
            if found is None or tuple(found.shape) != size or found.dtype != dtype:
                got = None if found is None else f"{tuple(found.shape)} {found.dtype}"
                raise ValueError(f"{name} must be {size} {dtype} for {grid}, got {got}")
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._keep(grid, shape, buffers["packed"], buffers["scale"], buffers["zero"] if grid.affine else None)
        return layer

    def _keep(self, grid: Grid, shape: Sequence[int], packed: Tensor, scale: Tensor, zero: Tensor | None) -> None:
        self.grid, self.shape = grid, tuple(shape)
        for name, tensor in (("packed", packed), ("scale", scale), ("zero", zero)):
            self.register_buffer(name, tensor)

    def zeros(self) -> Tensor | None:
        """The zero-points, unpacked: (R, G)."""
        if self.zero is None:
            return None
        return unpack(self.zero, self.scale.numel(), self.grid).view(self.scale.shape)

    def quantized(self) -> Quantized:
        """The whole matrix, unpacked."""
        return Quantized(unpack(self.packed, self.shape[1], self.grid), self.scale, self.zeros(), self.grid)

    @property
    def weight(self) -> Tensor:
        """The numbers that it stands for, float32: (out, in)."""
        return self.quantized().dequantize()

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(b.numel() * b.element_size() for b in self.buffers())


class QuantizedLinear(_Packed):
    """y = W (x / t) + b with W (out, in) kept as packed codes and put back into floats at each call.

    t (in,), float16, is for weights that were scaled by column before they were rounded (AWQ, SmoothQuant).
    Saves memory, not arithmetic.
    """

    def __init__(self, matrix: Quantized, bias: Tensor | None = None, input_scale: Tensor | None = None) -> None:
        super().__init__(matrix)
        self.add(bias, input_scale)

    def add(self, bias: Tensor | None, input_scale: Tensor | None) -> Self:
        """Give it a bias (out,) and scales of its inputs (in,), or None; returns the layer."""
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.register_buffer("input_scale", None if input_scale is None else input_scale.half())
        return self

    @property
    def in_features(self) -> int:
        return self.shape[1]

    @property
    def out_features(self) -> int:
        return self.shape[0]

    @property
    def weight(self) -> Tensor:
        """What the layer multiplies by, float32: (out, in)."""
        weight = super().weight
        return weight if self.input_scale is None else weight / self.input_scale.float()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)  # (..., in) → (..., out)


class QuantizedEmbedding(_Packed):
    """An embedding whose rows are packed codes; only the rows that are looked up are put back into floats."""

    def __init__(self, matrix: Quantized) -> None:
        if matrix.grid.group_size == "tensor":
            raise ValueError("an embedding's rows need scales of their own, got group_size='tensor'")
        super().__init__(matrix)

    @property
    def num_embeddings(self) -> int:
        return self.shape[0]

    @property
    def embedding_dim(self) -> int:
        return self.shape[1]

    def forward(self, ids: Tensor) -> Tensor:
        rows, zeros = ids.flatten(), self.zeros()
        codes = unpack(self.packed[rows], self.embedding_dim, self.grid)
        zeros = None if zeros is None else zeros[rows]
        return Quantized(codes, self.scale[rows], zeros, self.grid).dequantize().view(*ids.shape, -1)


# ------------------------------------------------------------ choosing the codes


@torch.no_grad()
def gptq(weight: Tensor, gram: Tensor, grid: Grid, *, damping: float = 0.01) -> Quantized:
    """Round column by column, and let the columns not yet rounded make good each error (Frantar et al. 2023).

    weight (out, in), gram (in, in) of the inputs. A group's scale is fitted when its first column is reached; with
    one scale for a row or the tensor, before the first. Raises ValueError as :func:`quantize_weight` and
    ``reconstruct`` do.
    """
    whole = scales(weight, grid)
    by_group, kept = isinstance(grid.group_size, int), []

    def begin(block: Tensor, _curvatures: Tensor):
        found = scales(block, grid) if by_group else whole
        kept.append(found)
        one = Grid(grid.bits, "tensor" if grid.group_size == "tensor" else "row", grid.symmetric, grid.levels)

        def rule(_j: int, column: Tensor) -> Tensor:
            codes = encode(column[:, None], *found, one)
            return Quantized(codes, *found, one).dequantize()[:, 0].to(column.dtype)

        return rule

    rounded = reconstruct(weight.float(), gram, begin, block_size=grid.group_size if by_group else 128, damping=damping)
    scale, zero = whole
    if by_group:
        scale = torch.cat([s for s, _ in kept], 1)
        zero = torch.cat([z for _, z in kept], 1) if grid.affine else None
    return Quantized(encode(rounded, scale, zero, grid), scale, zero, grid)


@torch.no_grad()
def awq(weight: Tensor, statistics: InputStatistics, grid: Grid, *, steps: int = 20) -> tuple[Quantized, Tensor]:
    """Scale columns by how large their inputs are before rounding (Lin et al. 2024): codes of W · t, and t (in,).

    t = rms^α, its geometric middle 1, with the α in 0, 1/steps, …, 1 that errs least in the outputs. (The paper takes
    the mean |x|; here the root mean square, which the gram matrix holds.) At α = 0 it is rounding to nearest.
    """
    best, found = float("inf"), None
    for step in range(steps + 1):
        t = smoothing(statistics.rms, step / steps)
        matrix = round_to(weight * t, grid)
        error = layer_error(matrix.dequantize() / t - weight, statistics.gram)
        if error < best:
            best, found = error, (matrix, t)
    if found is None:
        raise ValueError("statistics must be finite, got a gram matrix that gives no error")
    return found


def smoothing(size: Tensor, alpha: float, weight: Tensor | None = None) -> Tensor:
    """Column scales t = size^α, over the columns' largest |w|^(1−α) if ``weight`` is given (SmoothQuant): (in,).

    Scaled so that √(largest · smallest) is 1, and rounded to float16, as they are kept.
    """
    t = size.clamp(min=1e-5).float() ** alpha
    if weight is not None:
        t = t / weight.abs().amax(0).clamp(min=1e-5) ** (1 - alpha)
    return (t / (t.max() * t.min()).sqrt()).clamp(min=1e-4).half().float()


def quantize_linear(
    layer: nn.Linear, grid: Grid, method: str = "rtn", statistics: InputStatistics | None = None
) -> QuantizedLinear:
    """One layer with packed codes, by "rtn", "gptq" or "awq" (these need its :class:`InputStatistics`)."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    if method == "rtn":
        return QuantizedLinear(round_to(layer.weight, grid), layer.bias)
    if statistics is None:
        raise ValueError(f"method {method!r} needs the statistics of the layer's inputs, got None")
    if method == "gptq":
        return QuantizedLinear(gptq(layer.weight, statistics.gram, grid), layer.bias)
    matrix, t = awq(layer.weight, statistics, grid)
    return QuantizedLinear(matrix, layer.bias, t)


def quantize_model(
    model: nn.Module,
    bits: int = 4,
    group_size: int | str = 32,
    *,
    method: str = "rtn",
    statistics: Statistics | None = None,
    symmetric: bool = False,
    levels: str = "int",
    names: Iterable[str] | None = None,
) -> list[str]:
    """Replace linear layers by :class:`QuantizedLinear`, in place; their names.

    ``names``: those of ``block_linears`` (the default) or some of them. ``statistics`` by name, from
    ``input_statistics``, for "gptq" and "awq". Raises ValueError, before anything is changed, for what is no grid or
    method, for a layer whose rows don't divide into groups, and for missing statistics.
    """
    grid, layers = Grid(bits, group_size, symmetric, levels), block_linears(model, names)
    _check_layers(layers, grid, method, statistics)
    for name, layer in layers.items():
        model.set_submodule(name, quantize_linear(layer, grid, method, (statistics or {}).get(name)))
    return list(layers)


def _check_layers(layers: Mapping[str, nn.Linear], grid: Grid, method: str, statistics: Statistics | None) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    for name, layer in layers.items():
        if isinstance(grid.group_size, int) and layer.in_features % grid.group_size:
            raise ValueError(f"group_size must divide the {layer.in_features} inputs of {name}, got {grid.group_size}")
        if method != "rtn" and name not in (statistics or {}):
            raise ValueError(f"method {method!r} needs statistics of every layer's inputs, got none for {name}")


def quantize_embedding(model: nn.Module, bits: int = 8, group_size: int | str = "row", **grid: object) -> None:
    """Replace a GPT's embedding by a :class:`QuantizedEmbedding`, in place, and a tied head by a layer that shares it.

    ``symmetric`` and ``levels`` as in :func:`quantize_weight`. A head of its own is left as it is.
    """
    tied = model.lm_head.weight is model.wte.weight
    model.wte = QuantizedEmbedding(quantize_weight(model.wte.weight, bits, group_size, **grid))
    if tied:
        model.lm_head = tied_head(model.wte)


def tied_head(embedding: QuantizedEmbedding) -> QuantizedLinear:
    """A head that reads the embedding's own buffers."""
    buffers = dict(embedding.named_buffers())
    return QuantizedLinear.from_buffers(embedding.grid, embedding.shape, buffers).add(None, None)


def dequantize_model(model: nn.Module) -> nn.Module:
    """Ordinary layers with the rounded weights in the place of packed ones, in place; quicker to run. Returns it."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedLinear):
            model.set_submodule(name, linear_of(module.weight, module.bias))
        elif isinstance(module, QuantizedEmbedding):
            model.set_submodule(name, nn.Embedding.from_pretrained(module.weight, freeze=False))
    return model


# ------------------------------------------------------------ rounding that learns


def fake_quantize(x: Tensor, grid: Grid) -> Tensor:
    """A matrix (out, in) rounded onto its grid, with the gradient of a matrix that wasn't: straight through.

    The rounding has derivative 0 almost everywhere; Bengio et al. (2013) let the gradient pass as if it were 1.
    """
    return x + (round_to(x, grid).dequantize() - x).detach()


class FakeQuantizedLinear(nn.Linear):
    """A linear layer that computes with rounded weights and trains the ones behind them."""

    grid: Grid

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, fake_quantize(self.weight, self.grid), self.bias)


def prepare_qat(model: nn.Module, grid: Grid) -> nn.Module:
    """Let all linear layers within blocks compute with rounded weights from now on, in place; returns the model.

    After training, ``quantize_model`` with the same grid keeps exactly what the model computed with.
    """
    for layer in block_linears(model).values():
        grouped_width = grid.group_size if isinstance(grid.group_size, int) else 1
        if layer.in_features % grouped_width:
            raise ValueError(f"group_size must divide {layer.in_features} inputs, got {grid.group_size}")
        layer.__class__, layer.grid = FakeQuantizedLinear, grid
    return model
