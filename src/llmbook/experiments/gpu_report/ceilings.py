"""A machine's two ceilings, measured: operations per second, and bytes per second; and what makers publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llmbook.products import matmul_precision

# How products are computed: the factors' type, and torch's setting for float32 ("high" permits TF32 on a GPU)
PRECISIONS = {
    "float32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "bfloat16": (torch.bfloat16, "highest"),
    "float16": (torch.float16, "highest"),
}


@dataclass(frozen=True)
class Published:
    """What a maker states of a device, without sparsity: operations per second, bytes per second, bytes."""

    flops: dict[str, float]
    bandwidth: float  # of its memory
    memory: float
    link: float  # to its neighbours, one way


PUBLISHED = {  # NVIDIA's data sheets, SXM modules; the chapter cites them
    "A100": Published({"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12}, 2.039e12, 80e9, 300e9),
    "H100": Published({"float32": 67e12, "tf32": 494.7e12, "bfloat16": 989.4e12, "fp8": 1979e12}, 3.35e12, 80e9, 450e9),
    "H200": Published({"float32": 67e12, "tf32": 494.7e12, "bfloat16": 989.4e12, "fp8": 1979e12}, 4.8e12, 141e9, 450e9),
    "B200": Published({"float32": 80e12, "tf32": 1100e12, "bfloat16": 2250e12, "fp8": 4500e12}, 8e12, 180e9, 900e9),
}


def precisions(device: str) -> tuple[str, ...]:
    """Those worth measuring: a CPU has no TF32, and computes float16 by detours."""
    return tuple(PRECISIONS) if device.startswith("cuda") else ("float32", "bfloat16")


def finish(device: str) -> None:
    """Wait until the device has done what it was asked: a GPU answers before it has begun."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(function: Callable[[], Any], device: str = "cpu", at_least: float = 0.2, repeats: int = 3) -> float:
    """Seconds of one call: after a warm-up, the best of ``repeats`` means over calls that last ``at_least`` seconds."""
    if not at_least > 0 or repeats < 1:
        raise ValueError(f"at_least must be positive and repeats at least 1, got {at_least} and {repeats}")
    function()
    best, calls = float("inf"), 1
    while repeats:
        finish(device)
        started = time.perf_counter()
        for _ in range(calls):
            function()
        finish(device)
        took = time.perf_counter() - started
        if took < at_least / 2:
            calls *= max(2, round(at_least / max(took, 1e-6) / 2))
            continue
        best, repeats = min(best, took / calls), repeats - 1
    return best


def matmul_flops(device: str, precision: str, sizes: Sequence[int], at_least: float = 0.2) -> dict[int, float]:
    """Operations per second of a product of two square matrices, by their size."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {tuple(PRECISIONS)}, got {precision!r}")
    dtype, setting = PRECISIONS[precision]
    found = {}
    with matmul_precision(setting):
        for n in sizes:
            a, b, c = (torch.full((n, n), value, dtype=dtype, device=device) for value in (0.5, 0.25, 0.0))
            found[n] = 2 * n**3 / seconds(lambda: torch.mm(a, b, out=c), device, at_least)  # noqa: B023
    return found


def copy_bandwidth(device: str, size: int, at_least: float = 0.2) -> float:
    """Bytes per second to and from memory, copying ``size`` bytes (each read once and written once)."""
    a = torch.ones(size // 4, device=device)
    b = torch.empty_like(a)
    return 2 * 4 * len(a) / seconds(lambda: b.copy_(a), device, at_least)
