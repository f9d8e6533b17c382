"""All-reduce around a ring: what DistributedDataParallel asks of the network, written out."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from llmbook.training.processes import ranks


def ring_all_reduce(x: Tensor) -> int:
    """Add up ``x`` over all processes, in place; return how many numbers this process sent.

    ``x`` is contiguous, of any shape, the same in all processes. Each of the n processes sends one n-th of it to
    its right neighbour, 2 (n − 1) times: in the first half what arrives is added (then each process knows one
    part of the sum), in the second half it is copied. So it sends 2 (n − 1)/n of the numbers, which is the least
    possible, however many processes there are (Patarasuk & Yuan, 2009).
    """
    rank, n = ranks()
    if not x.is_contiguous() or x.numel() < n:
        raise ValueError(f"x must be contiguous, with a number for each of {n} processes, got {tuple(x.shape)}")
    parts, sent = x.view(-1).tensor_split(n), 0
    for step in range(2 * (n - 1)):
        going, coming = parts[(rank - step) % n], parts[(rank - step - 1) % n]
        arrived = torch.empty_like(coming)
        sending = dist.isend(going, (rank + 1) % n)
        dist.recv(arrived, (rank - 1) % n)
        sending.wait()
        coming.copy_(coming + arrived if step < n - 1 else arrived)
        sent += going.numel()
    return sent


def average_gradients(parameters: list[torch.nn.Parameter]) -> int:
    """Replace each gradient by its mean over the processes, in one all-reduce; return the numbers sent."""
    gradients = [p.grad for p in parameters]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    sent = ring_all_reduce(flat)
    flat /= ranks()[1]
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
    return sent
