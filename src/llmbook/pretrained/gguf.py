"""Read a GGUF file: its settings, and its tensors put back from their quantised blocks into float32.

GGUF is llama.cpp's format for models: a header of typed settings, a table of tensors, then their bytes.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian). Nothing of it is
executed, and sizes are checked against the file before anything is read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAGIC, VERSIONS = b"GGUF", (2, 3)
STRING, ARRAY, BOOL = 8, 9, 7
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # struct's codes
MOST = 10_000_000  # entries of an array or bytes of a string: more is damage


class GGUFError(ValueError):
    """The file is no GGUF file, is cut off, or holds what this reader does not know; the message says which."""


# ------------------------------------------------------------------------------------------------ blocks
# Each function takes (n, bytes of a block) uint8 and gives (n, weights of a block) float32.


def _float32(blocks: np.ndarray) -> np.ndarray:
    return blocks.view("<f4").astype(np.float32)


def float16(blocks: np.ndarray) -> np.ndarray:
    """(n, 2k) bytes as (n, k) float32: numbers of 16 bits, the low byte first."""
    return blocks.view("<f2").astype(np.float32)


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    """w = scale · q: a float16 scale, then 32 signed bytes."""
    scale = float16(blocks[:, :2].copy())  # (n, 1)
    return scale * blocks[:, 2:].view(np.int8)  # (n, 32)


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    """w = scale · (q − 8): a float16 scale, then 32 nibbles in 16 bytes."""
    scale = float16(blocks[:, :2].copy())
    return scale * (nibbles(blocks[:, 2:]) - np.float32(8))


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    """w = scale · q + minimum: two float16, then 32 nibbles in 16 bytes."""
    scale, minimum = float16(blocks[:, :2].copy()), float16(blocks[:, 2:4].copy())
    return scale * nibbles(blocks[:, 4:]) + minimum


def nibbles(packed: np.ndarray) -> np.ndarray:
    """(n, k) bytes as (n, 2k) numbers 0 to 15: first the low halves of all bytes, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


class Kind(NamedTuple):
    """How a tensor is stored: its name, weights and bytes of a block, and how a block is read."""

    name: str
    weights: int
    bytes: int
    read: Callable[[np.ndarray], np.ndarray]


KINDS = {
    0: Kind("F32", 1, 4, _float32),
    1: Kind("F16", 1, 2, float16),
    2: Kind("Q4_0", 32, 18, _q4_0),
    3: Kind("Q4_1", 32, 20, _q4_1),
    8: Kind("Q8_0", 32, 34, _q8_0),
}


# ------------------------------------------------------------------------------------------------ the file


class Entry(NamedTuple):
    """Where a tensor lies: its shape as torch has it (rows first), its kind and its first byte."""

    shape: tuple[int, ...]
    kind: Kind
    offset: int

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) // self.kind.weights * self.kind.bytes


@dataclass(frozen=True)
class GGUF:
    """An opened file: ``settings`` by name, ``entries`` by tensor; ``tensor(name)`` reads one."""

    path: Path
    settings: dict[str, Any]
    entries: dict[str, Entry]

    def tensor(self, name: str) -> np.ndarray:
        """A tensor in float32, in torch's shape. Raises ``KeyError`` for a name that the file lacks."""
        if name not in self.entries:
            raise KeyError(f"{self.path.name} has no tensor {name!r}")
        entry = self.entries[name]
        with self.path.open("rb") as file:
            file.seek(entry.offset)
            raw = np.frombuffer(file.read(entry.size), dtype=np.uint8)
        return entry.kind.read(raw.reshape(-1, entry.kind.bytes)).reshape(entry.shape)


class _Reader:
    """Takes typed values off the front of a file."""

    def __init__(self, data: memoryview, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise GGUFError(f"{self.path} ends at byte {len(self.data)}, in the middle of its header")
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def length(self) -> int:
        if (size := self.number("Q")) > MOST:
            raise GGUFError(f"{self.path}: a length of {size} at byte {self.at - 8}: the file is damaged")
        return size

    def string(self) -> str:
        try:
            return self.take(self.length()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise GGUFError(f"{self.path}: text that is not UTF-8 before byte {self.at}: {error}") from None

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            inner, size = self.number("I"), self.length()
            return [self.value(inner) for _ in range(size)]
        if kind not in SCALARS:
            raise GGUFError(f"{self.path}: a setting of unknown type {kind} at byte {self.at}")
        return self.number(SCALARS[kind])


def read_gguf(path: str | Path) -> GGUF:
    """Open a GGUF file: read its header, check that every tensor lies inside it. Tensors are read when asked for.

    Raises :class:`GGUFError` (a ``ValueError``) for another format or version, a file that is cut off, and a
    tensor type that this reader does not know (F32, F16, Q4_0, Q4_1 and Q8_0 it does).
    """
    path = Path(path)
    data = memoryview(np.memmap(path, dtype=np.uint8, mode="r")) if path.stat().st_size else memoryview(b"")
    reader = _Reader(data, path)
    if len(data) < 4 or reader.take(4) != MAGIC:
        raise GGUFError(f"{path} is no GGUF file: it does not begin with {MAGIC!r}")
    if (version := reader.number("I")) not in VERSIONS:
        raise GGUFError(f"{path} has GGUF version {version}, wanted one of {VERSIONS}")
    tensors, settings = reader.length(), reader.length()
    read = {reader.string(): reader.value(reader.number("I")) for _ in range(settings)}
    found = dict(_entry(reader) for _ in range(tensors))
    alignment = read.get("general.alignment", 32)
    start = -(-reader.at // alignment) * alignment
    entries = {name: entry._replace(offset=start + entry.offset) for name, entry in found.items()}
    for name, entry in entries.items():
        if entry.offset + entry.size > len(data):
            raise GGUFError(f"{path} ends at byte {len(data)}, before tensor {name!r} does: the file is cut off")
    return GGUF(path, read, entries)


def _entry(reader: _Reader) -> tuple[str, Entry]:
    """One line of the table of tensors. The file counts dimensions from the last to the first."""
    name = reader.string()
    shape = tuple(reader.length() for _ in range(min(reader.number("I"), 8)))[::-1]
    kind, offset = reader.number("I"), reader.number("Q")
    if kind not in KINDS:
        known = ", ".join(k.name for k in KINDS.values())
        raise GGUFError(f"{reader.path}: tensor {name!r} is of type {kind}; this reader knows {known}")
    if shape and shape[-1] % KINDS[kind].weights:
        raise GGUFError(f"{reader.path}: rows of {name!r} have {shape[-1]} weights, no multiple of a block")
    return name, Entry(shape, KINDS[kind], offset)
