"""What a machine can do, and what training makes of it: ceilings, tokens per second, MFU, memory.

``python -m llmbook.experiments.gpu_report`` measures (under three minutes on a CPU) and writes
``book/data/gpu_report_cpu.json`` or ``…_cuda.json``, which chapter 09 plots.
"""

from llmbook.experiments.gpu_report.ceilings import (
    PRECISIONS,
    PUBLISHED,
    Published,
    copy_bandwidth,
    finish,
    matmul_flops,
    seconds,
)
from llmbook.experiments.gpu_report.report import load, main, measure, reports
from llmbook.experiments.gpu_report.runs import make_step, train_flops, training_row

__all__ = [
    "PRECISIONS", "PUBLISHED", "Published", "copy_bandwidth", "finish", "load", "main", "make_step", "matmul_flops",
    "measure", "reports", "seconds", "train_flops", "training_row",
]  # fmt: skip
