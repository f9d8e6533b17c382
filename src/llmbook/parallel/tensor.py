"""A feed-forward layer that several processes hold together: tensor parallelism (Shoeybi et al., 2019)."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.training.processes import ranks
from llmbook.transformer import MLP


class _EnterParts(torch.autograd.Function):
    """Forward nothing; backward add up what the parts say about their common input (Megatron's f)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


class _LeaveParts(torch.autograd.Function):
    """Forward add up what the parts have computed; backward nothing (Megatron's g)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad


class ParallelMLP(nn.Module):
    """This process's share of an :class:`MLP`: some of its hidden features, whole.

    The first matrix is cut by its outputs and the second by its inputs, so that the nonlinearity, which works on
    each hidden feature by itself, needs nothing from the other processes. One all-reduce of (B, T, C) forward,
    one backward. Raises ``ValueError`` where the hidden features cannot be shared out evenly.
    """

    def __init__(self, whole: MLP) -> None:
        super().__init__()
        rank, n = ranks()
        inner = whole.c_fc.out_features
        if inner % n:
            raise ValueError(f"whole must have hidden features that {n} processes share evenly, got {inner}")
        self.act = whole.act
        self.fc_weight = nn.Parameter(whole.c_fc.weight.detach().chunk(n, 0)[rank].clone())  # (inner/n, C)
        self.fc_bias = nn.Parameter(whole.c_fc.bias.detach().chunk(n)[rank].clone())  # (inner/n)
        self.proj_weight = nn.Parameter(whole.c_proj.weight.detach().chunk(n, 1)[rank].clone())  # (C, inner/n)
        self.proj_bias = nn.Parameter(whole.c_proj.bias.detach().clone())  # (C), the same everywhere

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(F.linear(_EnterParts.apply(x), self.fc_weight, self.fc_bias))  # (B, T, inner/n)
        return _LeaveParts.apply(F.linear(hidden, self.proj_weight)) + self.proj_bias  # (B, T, C)
