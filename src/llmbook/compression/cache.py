"""Keys and values in few bits: what a long text costs while it is read."""

from __future__ import annotations

import torch
from torch import Tensor

from llmbook.compression.grids import Grid, Quantized, round_to
from llmbook.transformer import Cache, KeysAndValues

ALONG = ("channel", "token")


class QuantizedCache(Cache):
    """A layer's :class:`Cache` whose full chunks of tokens are codes; the newest tokens wait in floats.

    A value vector's D numbers share a scale. So do those of a key for ``keys="token"``; for "channel", a scale is
    shared by one feature of the chunk's tokens instead, since keys have a few features that are always large (KIVI,
    Liu et al. 2024). Keys are kept after their rotation. Raises ValueError for no such choice.
    """

    def __init__(self, bits: int = 4, *, keys: str = "channel", chunk: int = 32) -> None:
        if keys not in ALONG:
            raise ValueError(f"keys must be one of {ALONG}, got {keys!r}")
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        self.grid, self.keys, self.chunk = Grid(bits, "row"), keys, chunk
        self.length, self.size = 0, (0, 0, 0)  # B, H, D
        self.full: list[tuple[Quantized, Quantized]] = []
        self.newest: KeysAndValues | None = None

    def append(self, k: Tensor, v: Tensor) -> KeysAndValues:
        """Keep (B, H, T, D) more of each; all that is kept, as attention will see it."""
        if self.newest is not None:
            k, v = (torch.cat(pair, dim=2) for pair in zip(self.newest, (k, v), strict=True))
        self.size, start = (k.shape[0], k.shape[1], k.shape[3]), 0
        while start + self.chunk <= k.shape[2]:
            part = slice(start, start + self.chunk)
            of_keys = k[:, :, part].transpose(2, 3) if self.keys == "channel" else k[:, :, part]
            rows = (t.reshape(-1, t.shape[-1]) for t in (of_keys, v[:, :, part]))
            self.full.append(tuple(round_to(each, self.grid) for each in rows))
            start += self.chunk
        self.newest = k[:, :, start:], v[:, :, start:]
        self.length = len(self.full) * self.chunk + k.shape[2] - start
        return self.tensors

    @property
    def tensors(self) -> KeysAndValues:
        """All that is kept, in floats: two of (B, H, length, D)."""
        parts = [self._floats(*chunk) for chunk in self.full]
        whole = [*parts, self.newest] if self.newest is not None else parts
        k, v = (torch.cat(each, dim=2) for each in zip(*whole, strict=True))
        return k, v

    def _floats(self, keys: Quantized, values: Quantized) -> KeysAndValues:
        batch, heads, features = self.size
        v = values.dequantize().view(batch, heads, self.chunk, features)
        k = keys.dequantize()
        if self.keys == "channel":
            return k.view(batch, heads, features, self.chunk).transpose(2, 3), v
        return k.view(batch, heads, self.chunk, features), v

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales, and of what still waits, at four a number."""
        waiting = 0 if self.newest is None else sum(4 * t.numel() for t in self.newest)
        return waiting + sum(k.nbytes + v.nbytes for k, v in self.full)
