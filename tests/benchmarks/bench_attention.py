"""`blockwise_attention` beside torch's fused kernel: time and peak memory, one thread, causal, float32.

Run it: ``python tests/benchmarks/bench_attention.py`` (one to two minutes; Linux for the memory column).
Times: both run in this process, in turn, on the process's CPU time; the median of the rounds' ratios counts,
and where the bound lies within what the rounds allow (in brackets), the line says "not decided".
Memory: each run has a process of its own; after a warm-up on a short sequence and with the inputs made, the
kernel's high-water mark is reset and read again after the call. It counts every page, scratch space inside
the fused kernel included, which a counter of tensors would miss.
Exits with 1 when a bound is missed, with 0 when it is met or nothing is decided.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from racing import Ratio, compare, in_turn

from llmbook.attention import blockwise_attention

HEADS, FEATURES = 8, 64
KERNELS = {"fused": F.scaled_dot_product_attention, "blockwise": blockwise_attention}
BOUNDS = {"time forward": 1.5, "time backward": 3.0, "memory forward": 3.0, "memory backward": 3.0}
EXACT = 1e-5  # largest difference allowed in the output, and in the gradients relative to their largest entry


def make_inputs(length: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    *inputs, grad = (torch.randn(1, HEADS, length, FEATURES, generator=generator) for _ in range(4))
    return [x.requires_grad_() for x in inputs], grad


def run(kernel: str, inputs: list[torch.Tensor], grad: torch.Tensor) -> tuple[float, float, list[torch.Tensor]]:
    """CPU seconds forward, CPU seconds backward, and the output followed by the three gradients."""
    start = time.process_time()
    output = KERNELS[kernel](*inputs, is_causal=True)
    middle = time.process_time()
    gradients = torch.autograd.grad(output, inputs, grad)
    return middle - start, time.process_time() - middle, [output.detach(), *gradients]


def compare_times(length: int, rounds: int) -> tuple[dict[str, list[float]], float]:
    """CPU seconds of every round under 'fused forward' and so on, and the largest difference of the results."""
    inputs, grad = make_inputs(length)
    seconds: dict[str, list[float]] = {f"{k} {p}": [] for k in KERNELS for p in ("forward", "backward")}
    results = {}
    for kernel in KERNELS:
        run(kernel, *make_inputs(256))
    for number in range(rounds):
        for kernel in in_turn(list(KERNELS), number):
            forward, backward, results[kernel] = run(kernel, inputs, grad)
            seconds[f"{kernel} forward"].append(forward)
            seconds[f"{kernel} backward"].append(backward)
    pairs = zip(results["fused"], results["blockwise"], strict=True)
    difference = max(((a - b).abs().max() / max(1.0, a.abs().max())).item() for a, b in pairs)
    return seconds, difference


def measure_memory(kernel: str, passes: str, length: int) -> float:
    """Peak MiB of one call, in a process of its own."""
    # A fixed threshold gives each large tensor pages of its own, returned when it is freed.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--memory-of", kernel, passes, str(length)]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def report_memory(kernel: str, passes: str, length: int) -> None:
    """What a child process does: print the peak MiB above what was resident before the call."""

    def call(inputs, grad):
        if passes == "backward":
            run(kernel, inputs, grad)
        else:
            KERNELS[kernel](*inputs, is_causal=True)

    call(*make_inputs(512))
    inputs, grad = make_inputs(length)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark is now what is resident
    before = read_status("VmRSS")
    call(inputs, grad)
    print((read_status("VmHWM") - before) / 1024)


def read_status(field: str) -> int:
    """A line of /proc/self/status, in KiB."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192], help="bounds hold for the last")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-of", nargs=3, metavar=("KERNEL", "PASSES", "LENGTH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory_of:
        report_memory(args.memory_of[0], args.memory_of[1], int(args.memory_of[2]))
        return 0
    print(f"causal, B = 1, H = {HEADS}, d = {FEATURES}, float32, 1 thread, torch {torch.__version__}")
    print(f"{'T':>6} {'':16} {'fused':>10} {'blockwise':>10} {'ratio (of rounds)':>20} {'bound':>6}")
    failures = [f for length in args.lengths for f in bench(length, args.rounds, length == args.lengths[-1])]
    print("\n".join(failures) or "no bound is missed")
    return 1 if failures else 0


def bench(length: int, rounds: int, bounded: bool) -> list[str]:
    """Print one length's rows; return what breaks a bound."""
    seconds, difference = compare_times(length, rounds)
    failures = [f"T = {length}: results differ by {difference:.1e}"] if difference > EXACT else []
    for name, bound in BOUNDS.items():
        quantity, passes = name.split()
        if quantity == "time":
            fused, ours = (seconds[f"{kernel} {passes}"] for kernel in KERNELS)
            ratio = compare(ours, fused)
            shown = f"{1e3 * statistics.median(fused):7.0f} ms {1e3 * statistics.median(ours):7.0f} ms"
        else:
            fused, ours = (measure_memory(kernel, passes, length) for kernel in KERNELS)
            ratio = Ratio(*[ours / fused] * 3)  # pages are counted: there is no spread
            shown = f"{fused:6.1f} MiB {ours:6.1f} MiB"
        verdict = f"{bound:>6} {ratio.verdict(bound)}" if bounded else f"{'-':>6}"
        print(f"{length:6} {name:16} {shown} {ratio!s:>20} {verdict}", flush=True)
        if bounded and ratio.verdict(bound) == "missed":
            failures.append(f"T = {length}: {name} is {ratio} times the fused kernel's, bound {bound}")
    print(f"{length:6} {'difference':16} {difference:28.1e} {EXACT:>6}")
    return failures


if __name__ == "__main__":
    sys.exit(main())
