"""llama.cpp's blocks: weights in the bytes in which a GGUF file keeps them (reading is ``pretrained.gguf``'s).

A block is a scale (and what else it needs) followed by the codes of 32 weights, so that a file can be mapped into
memory and used as it lies. In Q4_K, 256 weights make a superblock: the scales of its eight groups of 32 are codes
themselves. Written and read as the reference, the ``gguf`` package, does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from llmbook.pretrained.gguf import KINDS, float16, nibbles

E2M1 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], dtype=np.float32)


def _halves(codes: np.ndarray) -> np.ndarray:
    """(n, 2k) codes of four bits to (n, k) bytes: the first k in the low halves, as ``nibbles`` reads them."""
    low, high = np.split(codes.astype(np.uint8), 2, axis=1)
    return low | high << 4


def _inverse(scale: np.ndarray) -> np.ndarray:
    """1/scale, and 0 for 0."""
    return np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)


def _half(x: np.ndarray) -> np.ndarray:
    """(n, 1) as the two bytes of a float16: (n, 2)."""
    return x.astype("<f2").view(np.uint8)


def write_q8_0(w: np.ndarray) -> np.ndarray:
    """w = d · q, q in −127..127: (n, 32) to (n, 34)."""
    d = np.abs(w).max(1, keepdims=True) / np.float32(127)
    x = w * _inverse(d)
    q = np.sign(x) * np.floor(np.abs(x) + np.float32(0.5))  # halves away from zero, as C rounds
    return np.concatenate([_half(d), q.astype(np.int8).view(np.uint8)], axis=1)


def write_q4_0(w: np.ndarray) -> np.ndarray:
    """w = d · (q − 8): the weight of largest size gets code 0, whatever its sign: (n, 32) to (n, 18)."""
    extreme = np.take_along_axis(w, np.abs(w).argmax(1)[:, None], axis=1)
    d = extreme / np.float32(-8)
    q = np.clip(np.trunc(w * _inverse(d) + np.float32(8.5)), 0, 15)
    return np.concatenate([_half(d), _halves(q)], axis=1)


def write_q4_1(w: np.ndarray) -> np.ndarray:
    """w = d · q + m: from the least to the greatest, zero not among them: (n, 32) to (n, 20)."""
    m = w.min(1, keepdims=True)
    d = (w.max(1, keepdims=True) - m) / np.float32(15)
    q = np.clip(np.trunc((w - m) * _inverse(d) + np.float32(0.5)), 0, 15)
    return np.concatenate([_half(d), _half(m), _halves(q)], axis=1)


def write_mxfp4(w: np.ndarray) -> np.ndarray:
    """w = 2^(e − 127) · level, level e2m1 (Open Compute Project, MX v1.0): (n, 32) to (n, 17)."""
    largest = np.abs(w).max(1, keepdims=True)
    e = np.where(largest > 0, np.floor(np.log2(np.maximum(largest, np.float32(1e-38)))) - 2 + 127, 0).astype(np.uint8)
    levels = np.concatenate([E2M1, -E2M1]) * np.exp2(e.astype(np.float32) - 127)  # (n, 16)
    q = np.abs(levels[:, None, :] - w[:, :, None]).argmin(2)  # (n, 32)
    return np.concatenate([e, _halves(q)], axis=1)


def read_mxfp4(blocks: np.ndarray) -> np.ndarray:
    """(n, 17) bytes to (n, 32) float32."""
    levels = np.concatenate([E2M1, -E2M1])[nibbles(blocks[:, 1:])]
    return levels * np.exp2(blocks[:, :1].astype(np.float32) - 127)


def write_q4_k(w: np.ndarray) -> np.ndarray:
    """w = d · s_g · q − m · t_g, with a group's s and t in six bits: (n, 256) to (n, 144).

    The groups' scales and minima just span them; llama.cpp searches for better ones.
    """
    groups = w.reshape(-1, 8, 32)
    low = groups.min(2).clip(max=0)  # (n, 8)
    span = (groups.max(2).clip(min=0) - low) / np.float32(15)
    d, s = _in_six_bits(span)
    m, t = _in_six_bits(-low)
    step = d.astype(np.float32) * s
    q = np.rint((groups + (m.astype(np.float32) * t)[..., None]) * _inverse(step)[..., None]).clip(0, 15)
    pairs = q.reshape(-1, 4, 2, 32).astype(np.uint8)  # two groups share 32 bytes
    codes = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)
    return np.concatenate([_half(d), _half(m), _twelve_bytes(s, t), codes], axis=1)


def _in_six_bits(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n, 8) ≥ 0 as d (n, 1) float16 times codes (n, 8) in 0..63."""
    d = (x.max(1, keepdims=True) / np.float32(63)).astype(np.float16)
    codes = np.rint(x * _inverse(d.astype(np.float32))).clip(0, 63)
    return d, codes.astype(np.uint8)


def _twelve_bytes(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Sixteen codes of six bits in twelve bytes; the last four of each are split into four bits and two."""
    first = s[:, :4] | s[:, 4:] >> 4 << 6
    second = t[:, :4] | t[:, 4:] >> 4 << 6
    third = s[:, 4:] & 15 | (t[:, 4:] & 15) << 4
    return np.concatenate([first, second, third], axis=1)


def read_q4_k(blocks: np.ndarray) -> np.ndarray:
    """(n, 144) bytes to (n, 256) float32."""
    d, m = (float16(blocks[:, i : i + 2].copy()) for i in (0, 2))  # (n, 1) each
    first, second, third = (blocks[:, i : i + 4] for i in (4, 8, 12))
    s = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)  # (n, 8)
    t = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    pairs = blocks[:, 16:].reshape(-1, 4, 1, 32)
    q = np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32)
    return ((d * s)[..., None] * q - (m * t)[..., None]).reshape(-1, 256)


class Block(NamedTuple):
    """A format: weights and bytes of a block, and how blocks are written and read."""

    weights: int
    bytes: int
    write: Callable[[np.ndarray], np.ndarray]
    read: Callable[[np.ndarray], np.ndarray]

    @property
    def bits(self) -> float:
        """Bits per weight."""
        return 8 * self.bytes / self.weights


_READ = {kind.name: kind.read for kind in KINDS.values()}
BLOCKS = {
    "Q8_0": Block(32, 34, write_q8_0, _READ["Q8_0"]),
    "Q4_1": Block(32, 20, write_q4_1, _READ["Q4_1"]),
    "Q4_0": Block(32, 18, write_q4_0, _READ["Q4_0"]),
    "Q4_K": Block(256, 144, write_q4_k, read_q4_k),
    "MXFP4": Block(32, 17, write_mxfp4, read_mxfp4),
}


def to_blocks(weight: np.ndarray, name: str) -> np.ndarray:
    """A float32 matrix (out, in) as the bytes of a format of :data:`BLOCKS`: (out, bytes of a row).

    Raises ValueError for another name, for weights that are not finite, and where the rows don't divide into blocks.
    """
    block = _block(name)
    if weight.ndim != 2 or not np.isfinite(weight).all():
        raise ValueError(f"weight must be a finite matrix (out, in), got shape {weight.shape}")
    if weight.shape[1] % block.weights:
        raise ValueError(f"rows of {weight.shape[1]} weights don't divide into {name}'s blocks of {block.weights}")
    parts = np.ascontiguousarray(weight, dtype=np.float32).reshape(-1, block.weights)
    return block.write(parts).reshape(len(weight), -1)


def from_blocks(data: np.ndarray, name: str) -> np.ndarray:
    """The bytes of :func:`to_blocks` as a float32 matrix. Raises ValueError where they are no whole blocks."""
    block = _block(name)
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] % block.bytes:
        raise ValueError(f"data must be rows of whole {name} blocks of {block.bytes} bytes, got {data.shape}")
    return block.read(np.ascontiguousarray(data).reshape(-1, block.bytes)).reshape(len(data), -1)


def _block(name: str) -> Block:
    if name not in BLOCKS:
        raise ValueError(f"name must be one of {', '.join(BLOCKS)}, got {name!r}")
    return BLOCKS[name]
