"""Layers of a small GPT on a CPU, sooner than torch computes them by itself, and rounding no more.

*Linear layers.* torch multiplies float32 matrices on a CPU by MKL; on some processors oneDNN is the faster.
``torch.set_float32_matmul_precision("medium")`` hands the products to oneDNN, and permits it to round their
factors to bfloat16. It does so only on processors with units for that, and then we leave it alone. Attention
must stay out: oneDNN prepares for its many tiny products longer than it computes them.

*GELU.* torch computes a hyperbolic tangent in the forward pass and again in the backward pass, and it is slow at
it. With the logistic function σ(z) = ½ (1 + tanh(z/2)), which it is quick at, one forward pass serves both.

*Memory.* The C library gives what a step has freed back to the system, and the next step has it cleared anew,
page by page (``keep_memory``).

How much it all brings: ``tests/benchmarks/bench_training.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

TANH = {"approximate": "tanh"}
SLOPE = 2 * math.sqrt(2 / math.pi)  # GELU's tanh form is x σ(z) with z = SLOPE (x + CUBE x³)
CUBE = 0.044715


class FastLayers(TorchFunctionMode):
    """``with FastLayers():`` float32 linear layers and GELUs on a CPU take the quicker way, forward and backward."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and not kwargs and _fits(*args):
            return _Linear.apply(*args)
        if func is F.gelu and kwargs == TANH and _plain(args[0]):
            return _Gelu.apply(args[0])[0]
        return func(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    """x Wᵀ + b, with x (..., in), W (out, in) and b (out,) or None."""

    generate_vmap_rule = True  # torch.func may batch it, for gradients per example

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        with matmul_precision("medium"):
            return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows, grad_rows = x.flatten(0, -2), grad.flatten(0, -2)  # (N, in), (N, out)
        for_x, for_weight, for_bias = ctx.needs_input_grad
        with matmul_precision("medium"):
            return (
                grad @ weight if for_x else None,
                grad_rows.mT @ rows if for_weight else None,
                grad_rows.sum(0) if for_bias else None,
            )


class _Gelu(torch.autograd.Function):
    """x σ(z) and, for the backward pass, σ(z); its derivative by x is σ(z) (1 + x (1 − σ(z)) z')."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        share = (x * x).mul_(SLOPE * CUBE).add_(SLOPE).mul_(x).sigmoid_()
        return x * share, share

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # no zeros for what has no gradient

    @staticmethod
    def backward(ctx, grad: Tensor, _: None) -> Tensor:
        x, share = ctx.saved_tensors
        slope = (x * x).mul_(3 * SLOPE * CUBE).add_(SLOPE).mul_(x)  # x z'
        return torch.addcmul(slope, slope, share, value=-1).add_(1).mul_(share).mul_(grad)


@contextmanager
def matmul_precision(setting: str) -> Iterator[None]:
    """``torch.set_float32_matmul_precision`` inside the ``with`` only; "medium" hands products to oneDNN."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _plain(x: Tensor) -> bool:
    """Whether a tensor is ours to work on; what autocast or the compiler handles is not."""
    plain = x.dtype == torch.float32 and x.device.type == "cpu" and x.dim() > 1
    return plain and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def _fits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether this layer is one for oneDNN."""
    return weight.dtype == torch.float32 and _plain(x) and _keeps_float32()


@cache
def _keeps_float32() -> bool:
    """Ask this processor: a third, times one, must come back unrounded."""
    third = torch.full((256, 256), 1 / 3)
    with matmul_precision("medium"):
        return torch.equal(third @ torch.eye(256), third)


@cache
def keep_memory() -> None:
    """Have the C library keep up to 64 MiB that are free, rather than return them to the system at every step.

    glibc returns free memory from twice the size of the largest block that it has mapped and freed so far, but
    never heeds a block above 32 MiB (``man mallopt``, M_MMAP_THRESHOLD). So we allocate one such block, touch
    nothing of it, and free it. Other C libraries have rules of their own and are not disturbed.
    """
    np.empty(2**25 - 2**14, dtype=np.uint8)  # freed at once
