"""The report: measure this machine, write it whole, read it back."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llmbook.experiments.gpu_report.ceilings import copy_bandwidth, matmul_flops, precisions
from llmbook.experiments.gpu_report.runs import Row, training_row
from llmbook.files import write_whole
from llmbook.training import shows_progress
from llmbook.transformer import GPTConfig

FOLDER = Path(__file__).resolve().parents[4] / "book" / "data"
KEYS = ("machine", "ceilings", "training")
Report = dict[str, Any]


def shapes(device: str) -> dict[str, tuple[GPTConfig, int, int]]:
    """Models that suit a device, with batch and length: name → (config, B, T)."""
    if device.startswith("cuda"):
        sizes = {"GPT-2": (768, 12, 12), "GPT-2 medium": (1024, 24, 16), "GPT-2 large": (1280, 36, 20)}
        wide = {**sizes, "1.3B": (2048, 24, 16)}
        return {name: (GPTConfig(50304, 1024, c, n, h), 16, 1024) for name, (c, n, h) in wide.items()}
    sizes = {"width 64": (64, 2, 2), "width 128": (128, 4, 4), "width 256": (256, 4, 4), "width 512": (512, 4, 8)}
    return {name: (GPTConfig(2048, 256, c, n, h), 4, 256) for name, (c, n, h) in sizes.items()}


def machine(device: str) -> dict[str, Any]:
    """Which machine this is, and when."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else _processor()
    return {
        "device": device, "name": name, "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "system": platform.system(), "python": platform.python_version(), "torch": torch.__version__,
        "cuda": torch.version.cuda, "capability": torch.backends.cpu.get_cpu_capability(),
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def _processor() -> str:
    """The processor's name, as Linux gives it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure(device: str, at_least: float = 1.0, compile_too: bool = True) -> Report:
    """All of the report. ``at_least`` is the length in seconds of each timing; tests make it short."""
    started = time.perf_counter()
    report: Report = {"machine": machine(device)}
    report["machine"]["load"] = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None  # by others, too
    sizes = (1024, 2048, 4096, 8192) if device.startswith("cuda") else (256, 512, 1024, 2048)
    products = {p: matmul_flops(device, p, sizes, at_least / 4) for p in precisions(device)}
    best = {p: max(found.values()) for p, found in products.items()}
    report["ceilings"] = {
        "flops": best,
        "by_size": products,
        "bandwidth": copy_bandwidth(device, 2**32 if device.startswith("cuda") else 2**28, at_least / 4),
    }
    rows, models = [], shapes(device)
    for name, (config, batch, length) in models.items():
        for p in precisions(device):
            _say(f"{name}, {p}")
            rows.append(training_row(name, config, device, p, batch, length, ceiling=best[p], at_least=at_least))
    name = list(models)[1]
    config, batch, length = models[name]
    compiled = ("float32", "bfloat16") if device.startswith("cuda") else ("float32",)  # a CPU takes long
    variants = [("recompute", p) for p in ("float32", "bfloat16")]
    variants += [("compiled", p) for p in compiled if compile_too]
    for variant, p in variants:
        _say(f"{name}, {p}, {variant}")
        options = {"ceiling": best[p], "at_least": at_least, variant: True}
        rows.append(_or_reason(name, config, device, p, batch, length, options))
    report["training"] = rows
    report["machine"]["took_s"] = round(time.perf_counter() - started, 1)
    return report


def _or_reason(name: str, config: GPTConfig, device: str, p: str, batch: int, length: int, options: dict) -> Row:
    """A row; where the machine has no compiler, the reason in its place."""
    try:
        return training_row(name, config, device, p, batch, length, **options)
    except Exception as error:
        if not options.get("compiled"):
            raise
        return {"model": name, "precision": p, "compiled": True, "failed": f"{type(error).__name__}: {error}"[:200]}


def _say(text: str) -> None:
    if shows_progress():
        print(text, file=sys.stderr)


def load(path: str | Path) -> Report:
    """A report that was written. Raises ``ValueError`` where the file holds something else."""
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must hold a report in JSON, got {error}") from error
    missing = [key for key in KEYS if not isinstance(report, dict) or key not in report]
    if missing:
        raise ValueError(f"{path} must hold a report with {', '.join(KEYS)}; it lacks {', '.join(missing)}")
    return report


def reports(folder: str | Path = FOLDER) -> list[Report]:
    """All committed reports, the CPU's first."""
    return [load(path) for path in sorted(Path(folder).glob("gpu_report_*.json"))]


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m llmbook.experiments.gpu_report``: measure this machine, and write what was found."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(prog="python -m llmbook.experiments.gpu_report", description=main.__doc__)
    parser.add_argument("--device", default=default, help=f"cpu or cuda (here: {default})")
    parser.add_argument("--output", type=Path, help="a file (default: book/data/gpu_report_DEVICE.json)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each timing (default: 1)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args(argv)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    output = options.output or FOLDER / f"gpu_report_{options.device.split(':')[0]}.json"
    report = measure(options.device, options.seconds, not options.no_compile)
    write_whole(output, json.dumps(report, indent=1) + "\n")
    print(f"{output}: {report['machine']['name']}, {report['machine']['took_s']} s")
