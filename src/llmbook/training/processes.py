"""Several processes, one run: who this is, what all of them add up to, and the group that torchrun started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch


def ranks() -> tuple[int, int]:
    """This process's number and how many there are (0, 1 without torchrun)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def sum_over_processes(value: float, device: torch.device) -> float:
    """The sum of all processes' values, the same in each."""
    if ranks()[1] == 1:
        return value
    total = torch.tensor(value, device=device, dtype=torch.float64)
    torch.distributed.all_reduce(total)
    return float(total)


@contextlib.contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did; each CUDA process gets a card of its own."""
    if "LOCAL_RANK" not in os.environ:
        yield torch.device(device)
        return
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield torch.device(device, int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    finally:
        torch.distributed.destroy_process_group()
