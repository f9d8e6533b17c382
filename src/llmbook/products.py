"""Linear layers by oneDNN, where it is faster than torch's own choice and rounds no more.

torch multiplies float32 matrices on a CPU by MKL, which on an AMD processor (Zen 5) made a small GPT's training
step take half as long again as oneDNN does (``tests/benchmarks/bench_training.py``).
``torch.set_float32_matmul_precision("medium")`` hands the products to oneDNN, and permits it to round their
factors to bfloat16. It does so only on processors with units for that, and then we leave it alone. Attention
must stay out: oneDNN prepares for its many tiny products longer than it computes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FastLinear(TorchFunctionMode):
    """``with FastLinear():`` every float32 linear layer on a CPU multiplies by oneDNN, forward and backward."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and not kwargs and _fits(*args):
            return _Linear.apply(*args)
        return func(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    """x Wᵀ + b, with x (..., in), W (out, in) and b (out,) or None."""

    generate_vmap_rule = True  # torch.func may batch it, for gradients per example

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        with _onednn():
            return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows, grad_rows = x.flatten(0, -2), grad.flatten(0, -2)  # (N, in), (N, out)
        for_x, for_weight, for_bias = ctx.needs_input_grad
        with _onednn():
            return (
                grad @ weight if for_x else None,
                grad_rows.mT @ rows if for_weight else None,
                grad_rows.sum(0) if for_bias else None,
            )


@contextmanager
def _onednn() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _fits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether this layer is one for oneDNN; what autocast or the compiler handles is not."""
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and x.dim() > 1
    return plain and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling() and _keeps_float32()


@cache
def _keeps_float32() -> bool:
    """Ask this processor: a third, times one, must come back unrounded."""
    third = torch.full((256, 256), 1 / 3)
    with _onednn():
        return torch.equal(third @ torch.eye(256), third)
