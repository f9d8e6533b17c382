"""Grids of few numbers, the rounding of weights onto them, and their codes packed into bytes.

A weight is kept as a code c, and stands for s · (c − z), or s · level[c]; s is a scale that a group of weights
shares, and z the code of zero. Scales are kept in float16, and the codes are chosen for the scales so rounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
NF4 = (  # Dettmers et al. (2023), appendix E: quantiles of a normal distribution, zero among them, scaled to [−1, 1]
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
FP4 = (-6.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # e2m1: MXFP4's and NVFP4's
TABLES = {"ternary": (-1.0, 0.0, 1.0), "nf4": NF4, "fp4": FP4}
BITS = {"ternary": 2, "nf4": 4, "fp4": 4, "fp8": 8}  # of those that have no choice
TRITS = 5  # ternary codes in a byte: 3⁵ = 243 fit


@dataclass(frozen=True)
class Grid:
    """Which numbers a weight may take, and how many weights share a scale.

    ``levels``: "int" (evenly spaced, 2..8 bits), "ternary" (−1, 0, 1; the scale is the mean |w|, as in BitNet b1.58),
    "nf4", "fp4" (e2m1) or "fp8" (e4m3). ``group_size``: so many neighbours in a row, or a whole "row", or the whole
    "tensor". ``symmetric``: zero is the middle code; else the grid spans from the least to the greatest, by a
    zero-point. Raises ValueError for anything else.
    """

    bits: int = 4
    group_size: int | str = 32
    symmetric: bool = False
    levels: str = "int"

    def __post_init__(self) -> None:
        if self.levels not in ("int", *BITS):
            raise ValueError(f"levels must be one of {('int', *BITS)}, got {self.levels!r}")
        if type(self.bits) is not int or not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be a whole number in 2..8, got {self.bits!r}")
        if self.bits != BITS.get(self.levels, self.bits):
            raise ValueError(f"bits must be {BITS[self.levels]} for levels={self.levels!r}, got {self.bits}")
        size = self.group_size
        if size not in ("row", "tensor") and (type(size) is not int or size < 1):
            raise ValueError(f"group_size must be at least 1, or 'row', or 'tensor', got {size!r}")

    @property
    def affine(self) -> bool:
        """Whether groups have a zero-point."""
        return self.levels == "int" and not self.symmetric

    @property
    def most(self) -> int:
        """The largest code."""
        return len(TABLES[self.levels]) - 1 if self.levels in TABLES else 2**self.bits - 1

    @property
    def middle(self) -> int:
        """The code of zero in a symmetric grid, where codes run from 1 to ``most``."""
        return 2 ** (self.bits - 1)


class Quantized(NamedTuple):
    """A matrix (out, in) on a grid: R = out, or 1 where the whole tensor shares one scale; G groups in each."""

    codes: Tensor  # (out, in) uint8
    scale: Tensor  # (R, G) float16
    zero: Tensor | None  # (R, G) uint8, the codes of zero in an affine grid
    grid: Grid

    def dequantize(self) -> Tensor:
        """The numbers that the codes stand for, float32: (out, in)."""
        levels = decode(grouped(self.codes, self.grid), self.zero, self.grid)  # (R, G, g)
        return (self.scale.float()[..., None] * levels).view(self.codes.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of codes (packed), scales and zero-points."""
        zero = 0 if self.zero is None else packed_size(self.zero.numel(), self.grid)
        return self.codes.shape[0] * packed_size(self.codes.shape[1], self.grid) + 2 * self.scale.numel() + zero


def quantize_weight(
    weight: Tensor,
    bits: int = 4,
    group_size: int | str = 32,
    *,
    symmetric: bool = False,
    levels: str = "int",
) -> Quantized:
    """Round a matrix (out, in) to the nearest numbers of a :class:`Grid` whose scales fit its groups.

    Raises ValueError for what is no grid, no finite matrix, or has rows that don't divide into groups.
    """
    return round_to(weight, Grid(bits, group_size, symmetric, levels))


def round_to(weight: Tensor, grid: Grid) -> Quantized:
    """:func:`quantize_weight` with the grid in one piece."""
    scale, zero = scales(weight, grid)
    return Quantized(encode(weight, scale, zero, grid), scale, zero, grid)


def scales(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor | None]:
    """Scales (R, G) float16 that just span each group of a matrix (out, in), and zero-points (R, G) or None."""
    if weight.dim() != 2 or not bool(weight.isfinite().all()):
        raise ValueError(f"weight must be a finite matrix (out, in), got shape {tuple(weight.shape)}")
    groups = grouped(weight.detach().float(), grid)  # (R, G, g)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)  # zero stays on the grid
    if grid.affine:
        scale = _half((high - low) / grid.most)
        return scale, (-low / scale.float()).round().clamp(0, grid.most).to(torch.uint8)
    if grid.levels == "ternary":
        return _half(groups.abs().mean(-1)), None
    return _half(torch.maximum(-low, high) / greatest(grid)), None


def greatest(grid: Grid) -> float:
    """The largest level of a symmetric grid, in units of the scale."""
    if grid.levels == "fp8":
        return torch.finfo(FP8).max
    return TABLES[grid.levels][-1] if grid.levels in TABLES else grid.middle - 1.0


def _half(scale: Tensor) -> Tensor:
    """In float16, and 1 where a group holds nothing but zeros."""
    half = scale.half()
    if bool(half.isinf().any()):
        raise ValueError(f"weight must have scales that float16 holds, got one of {scale.max():.3g}")
    return torch.where(half > 0, half, torch.ones_like(half))


def encode(weight: Tensor, scale: Tensor, zero: Tensor | None, grid: Grid) -> Tensor:
    """The codes (out, in) uint8 of the levels next to each weight, for given scales and zero-points (R, G)."""
    x = grouped(weight.detach().float(), grid) / scale.float()[..., None]  # (R, G, g)
    if grid.levels == "fp8":
        codes = x.clamp(-greatest(grid), greatest(grid)).to(FP8).view(torch.uint8)
    elif grid.levels in TABLES:
        table = torch.tensor(TABLES[grid.levels])
        codes = torch.bucketize(x, (table[1:] + table[:-1]) / 2)
    elif zero is None:
        codes = (x.round() + grid.middle).clamp(1, grid.most)
    else:
        codes = (x.round() + zero[..., None]).clamp(0, grid.most)
    return codes.to(torch.uint8).view(weight.shape)


def decode(codes: Tensor, zero: Tensor | None, grid: Grid) -> Tensor:
    """Codes in groups (R, G, g) to levels in units of the scale, float32. Zero-points are (R, G)."""
    if grid.levels == "fp8":
        return codes.view(FP8).float()
    if grid.levels in TABLES:
        return torch.tensor(TABLES[grid.levels])[codes.int()]
    return codes.float() - (grid.middle if zero is None else zero.float()[..., None])


def grouped(matrix: Tensor, grid: Grid) -> Tensor:
    """(out, in) with the weights that share a scale along the last axis: (R, G, g)."""
    return matrix.reshape(*scale_shape(matrix.shape, grid), -1)


def scale_shape(shape: Sequence[int], grid: Grid) -> tuple[int, int]:
    """(R, G) of a matrix (out, in). Raises ValueError for rows that don't divide into groups."""
    out, columns = shape
    if grid.group_size == "tensor":
        return 1, 1
    size = columns if grid.group_size == "row" else grid.group_size
    if columns % size:
        raise ValueError(f"group_size must divide a row of {columns} weights, got {size}")
    return out, columns // size


# ------------------------------------------------------------ bytes


def packed_size(count: int, grid: Grid) -> int:
    """Bytes that ``count`` codes in a row take: eight codes in ``bits`` bytes, five ternary ones in one."""
    return math.ceil(count / TRITS) if grid.levels == "ternary" else math.ceil(count / 8) * grid.bits


def pack(codes: Tensor, grid: Grid) -> Tensor:
    """Codes (..., n) uint8 to bytes (..., packed_size(n)): at four bits two to a byte, the first in its low half."""
    most = int(codes.max()) if codes.numel() else 0
    if most > grid.most:
        raise ValueError(f"codes must lie in 0..{grid.most}, got {most}")
    if grid.levels == "ternary":
        trits = _runs(codes, TRITS) * 3 ** torch.arange(TRITS)  # (..., bytes, 5)
        return trits.sum(-1).to(torch.uint8)
    words = (_runs(codes, 8) << grid.bits * torch.arange(8)).sum(-1)  # (..., words) of 8 · bits bits
    return (words[..., None] >> 8 * torch.arange(grid.bits) & 255).to(torch.uint8).flatten(-2)


def unpack(packed: Tensor, count: int, grid: Grid) -> Tensor:
    """The ``count`` codes of each row: (..., bytes) to (..., count) uint8. ValueError for another number of bytes."""
    if packed.dtype != torch.uint8 or packed.shape[-1] != packed_size(count, grid):
        got = f"{packed.shape[-1]} of {packed.dtype}"
        raise ValueError(f"packed must have {packed_size(count, grid)} bytes for {count} codes, got {got}")
    if grid.levels == "ternary":
        codes = packed[..., None].int() // 3 ** torch.arange(TRITS, dtype=torch.int32) % 3
    elif 8 % grid.bits == 0:  # no code lies in two bytes
        codes = packed[..., None] >> torch.arange(0, 8, grid.bits, dtype=torch.uint8) & 2**grid.bits - 1
    else:
        codes = _words(packed, grid.bits)[..., None] >> grid.bits * torch.arange(8) & 2**grid.bits - 1
    return codes.flatten(-2)[..., :count].to(torch.uint8)


def _words(packed: Tensor, size: int) -> Tensor:
    """(..., words · size) bytes as numbers, the first byte lowest: (..., words) int64."""
    return (packed.unflatten(-1, (-1, size)).long() << 8 * torch.arange(size)).sum(-1)


def _runs(codes: Tensor, size: int) -> Tensor:
    """(..., n) in runs of ``size``, filled up with zeros: (..., ⌈n / size⌉, size) int64."""
    return torch.nn.functional.pad(codes.long(), (0, -codes.shape[-1] % size)).unflatten(-1, (-1, size))
