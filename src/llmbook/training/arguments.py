"""How to train: the settings of a run, and the learning rate of each of its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

SCHEDULES = ("constant", "linear", "step", "cosine", "wsd")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class TrainingArguments:
    """How to train; the names are those of ``transformers.TrainingArguments`` where it has them."""

    max_steps: int = 1000
    batch_size: int = 16  # sequences in one step, over all processes and micro-batches
    block_size: int = 128  # tokens in a sequence
    learning_rate: float = 1e-3  # the peak
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 0
    min_lr_ratio: float = 0.1  # where linear, cosine and wsd end, as a share of the peak
    decay_fraction: float = 0.2  # wsd: the share of steps spent decaying; step: the length of a stair
    weight_decay: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    max_grad_norm: float = 1.0  # 0 switches clipping off
    gradient_accumulation_steps: int = 1
    precision: str = "float32"
    save_steps: int = 0  # 0 saves only at the end and on an interruption
    eval_steps: int = 0  # 0 evaluates only at the end
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("max_steps", "batch_size", "block_size", "learning_rate", "gradient_accumulation_steps")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "max_grad_norm", "save_steps", "eval_steps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("min_lr_ratio", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.lr_scheduler_type not in SCHEDULES:
            raise ValueError(f"lr_scheduler_type must be one of {SCHEDULES}, got {self.lr_scheduler_type!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {tuple(PRECISIONS)}, got {self.precision!r}")
        if self.gradient_accumulation_steps > self.batch_size:
            raise ValueError(
                "gradient_accumulation_steps must leave a row to each micro-batch, got "
                f"{self.gradient_accumulation_steps} for a batch_size of {self.batch_size}"
            )


def learning_rate(step: int, args: TrainingArguments) -> float:
    """The learning rate of a step (counted from 0): a linear warm-up, then the schedule.

    ``step`` halves the rate after every ``decay_fraction`` of the run; ``wsd`` (warm-up, stable, decay:
    Hu et al. 2024) holds the peak and falls linearly over the last ``decay_fraction``.
    """
    if step < args.warmup_steps:
        return args.learning_rate * (step + 1) / args.warmup_steps
    done = (step - args.warmup_steps) / max(1, args.max_steps - args.warmup_steps)  # 0 to 1
    low, kind = args.min_lr_ratio, args.lr_scheduler_type
    if kind == "linear":
        scale = 1 - (1 - low) * done
    elif kind == "cosine":
        scale = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))
    elif kind == "step":
        scale = 0.5 ** math.floor(done / args.decay_fraction + 1e-9) if args.decay_fraction else 1.0
    elif kind == "wsd":
        into_decay = max(0.0, done - (1 - args.decay_fraction))
        scale = 1 - (1 - low) * into_decay / args.decay_fraction if args.decay_fraction else 1.0
    else:
        scale = 1.0
    return args.learning_rate * scale
