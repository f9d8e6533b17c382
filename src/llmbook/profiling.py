"""What a computation holds in memory, counted exactly and alike on every machine."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory(function: Callable[[], Any]) -> int:
    """The most bytes that tensors created inside ``function()`` occupied at one time.

    Every storage that an operation returns is counted from its birth to its release, gradients included.
    Not seen: what existed before, and scratch space inside one fused operation.
    """
    return max(memory_timeline(function), default=0)


def memory_timeline(function: Callable[[], Any]) -> list[int]:
    """The bytes that tensors created inside ``function()`` occupy after each of its operations, in order."""
    with _StorageCounter() as counter:
        function()
    return counter.history


class _StorageCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}  # storage's identity → bytes
        self.history: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {_identity(x) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and _identity(tensor) not in given | self.alive.keys():
                self._born(tensor.untyped_storage())
        self.history.append(sum(self.alive.values()))
        return result

    def _born(self, storage: torch.UntypedStorage) -> None:
        identity = storage._cdata
        self.alive[identity] = storage.nbytes()
        weakref.finalize(storage, self.alive.pop, identity, None)


def _identity(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
