"""Training speed: tokens per second, and the share of the ceiling that a step reaches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from llmbook.experiments.gpu_report.ceilings import PRECISIONS, finish, seconds
from llmbook.products import matmul_precision
from llmbook.profiling import peak_memory
from llmbook.training import recompute_blocks
from llmbook.transformer import GPT, GPTConfig, forward_flops, parameter_count

Row = dict[str, Any]


def train_flops(config: GPTConfig, batch: int, length: int) -> int:
    """Operations of one step, forward and backward (three forward passes' worth); what is recomputed is not counted."""
    return 3 * batch * forward_flops(config, length)


def make_step(
    config: GPTConfig,
    device: str,
    precision: str,
    batch: int,
    length: int,
    recompute: bool = False,
    compiled: bool = False,
) -> tuple[Callable[[], None], nn.Module]:
    """A training step on one batch of random ids, as a function, and its model.

    Weights and optimiser are float32; for a half precision autocast computes the products in it. float16 would
    also need loss scaling to learn, which costs no time that matters.
    """
    generator = torch.Generator().manual_seed(0)
    model = GPT(config, generator=generator)
    model = (recompute_blocks(model) if recompute else model).to(device)
    ids = torch.randint(config.vocab_size, (batch, length), generator=generator).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    dtype, _ = PRECISIONS[precision]
    context = contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.split(":")[0], dtype)
    trained = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        with context:
            loss = trained(ids, ids).loss
        loss.backward()
        optimizer.step()

    return step, model


def training_row(
    name: str, config: GPTConfig, device: str, precision: str, batch: int, length: int,
    *, ceiling: float, recompute: bool = False, compiled: bool = False, at_least: float = 1.0,
) -> Row:  # fmt: skip
    """One line of the report: speed, MFU against the measured ceiling, and the most bytes alive in a step."""
    with matmul_precision(PRECISIONS[precision][1]):
        step, _ = make_step(config, device, precision, batch, length, recompute, compiled)
        first = None
        if compiled:
            started = time.perf_counter()
            step()
            finish(device)
            first = time.perf_counter() - started
        one = seconds(step, device, at_least, repeats=2)
        peak = None if compiled else _peak_bytes(step, device)
    flops = train_flops(config, batch, length)
    return {
        "model": name, "parameters": parameter_count(config), "precision": precision, "batch": batch,
        "length": length, "recompute": recompute, "compiled": compiled, "first_step_s": _rounded(first),
        "step_s": _rounded(one), "tokens_per_s": _rounded(batch * length / one),
        "flops_per_token": flops // (batch * length), "mfu": _rounded(flops / one / ceiling), "step_bytes": peak,
    }  # fmt: skip


def _peak_bytes(step: Callable[[], None], device: str) -> int:
    """The most bytes that a step needs beside weights and optimiser; gradients count."""
    if not device.startswith("cuda"):
        return peak_memory(step)
    torch.cuda.synchronize()
    start = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - start


def _rounded(x: float | None) -> float | None:
    return None if x is None else float(f"{x:.4g}")
