"""The loop itself: forward and backward over the micro-batches, clip, step, record."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from llmbook.products import FastLayers, keep_memory
from llmbook.training.arguments import PRECISIONS, TrainingArguments, learning_rate
from llmbook.training.batches import Batch, GetBatch
from llmbook.training.checkpoints import History, Run, describe, held
from llmbook.training.measures import model_loss
from llmbook.training.processes import ranks, sum_over_processes
from llmbook.training.watching import interrupts, progress_bar
from llmbook.transformer import IGNORE

LossFunction = Callable[[nn.Module, Batch], Tensor]
CountTargets = Callable[[Batch], int]


class NonFiniteLoss(FloatingPointError):
    """The loss, or its gradient, became NaN or infinite; the message names the step and the batch."""


def configure_optimizer(model: nn.Module, args: TrainingArguments) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves biases, gains and other vectors alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": args.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (args.adam_beta1, args.adam_beta2)
    return torch.optim.AdamW(groups, lr=args.learning_rate, betas=betas, fused=True)


def next_token_targets(batch: Batch) -> int:
    """How many labels a model scores that shifts them itself, as GPTs do: all but the first of each row, and −100.

    Labels of one dimension, a class for each row, are not shifted; a batch without labels counts its rows.
    """
    labels = batch.get("labels")
    if labels is None:
        return len(next(iter(batch.values())))
    scored = labels != IGNORE
    return int((scored[:, 1:] if labels.ndim == 2 else scored).sum())


def fit(
    model: nn.Module,
    get_batch: GetBatch,
    args: TrainingArguments,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    loss_function: LossFunction = model_loss,
    count_targets: CountTargets = next_token_targets,
    evaluate: Callable[[nn.Module], float] | None = None,
    callback: Callable[[int, nn.Module], None] | None = None,
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> History:
    """Train ``model`` in place for ``args.max_steps`` and return what was recorded.

    ``get_batch(step)`` gives the whole step's batch, (B, T) tensors by keyword; under ``torchrun`` each process
    takes its rows. ``loss_function(model, batch)`` is a mean over as many targets as ``count_targets(batch)``
    says: micro-batches weigh by it, and those without targets are left out. ``evaluate(model)`` returns a loss
    in nats. ``progress`` None shows a bar only in a terminal or in JupyterLab. Ctrl-C finishes the step, saves,
    and raises ``KeyboardInterrupt``. A run resumes only with the same settings, model, data and ``about``.

    Raises :class:`NonFiniteLoss`; ``ValueError`` for a checkpoint of another run; ``FileExistsError`` for one
    that would be overwritten; ``BlockingIOError`` where another process trains in ``checkpoint_dir``.
    """
    optimizer = optimizer or configure_optimizer(model, args)
    device = next(model.parameters()).device
    first = ranks()[0] == 0  # one process writes
    stepper = _Stepper(model, optimizer, args, loss_function, count_targets, device)
    configuration = {} if checkpoint_dir is None else describe(model, optimizer, args, get_batch, about or {})
    run = Run(model, optimizer, stepper.scaler, configuration, checkpoint_dir)
    keep_memory()
    with (
        held(checkpoint_dir if first else None),
        interrupts() as interrupted,
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        history = run.start(resume)
        _evaluate_if_due(history, args, evaluate, model)  # where an evaluation failed after the step was saved
        bar = progress_bar(range(len(history.steps), args.max_steps), progress if first else False)
        for step in bar:
            started = time.perf_counter()
            batch = get_batch(step)
            history.steps.append(stepper.step(batch, step))
            _show(bar, history, batch, started)
            if callback is not None:
                callback(step, model)
            stop = sum_over_processes(float(bool(interrupted)), device) > 0  # all processes or none
            last = step + 1 == args.max_steps
            if first and (last or stop or _due(step, args.save_steps)):
                run.save(history)
            if stop:
                raise KeyboardInterrupt(f"stopped after step {step + 1}{run.advice()}")
            if _evaluate_if_due(history, args, evaluate, model) and first:
                run.note(history)
    return history


class _Stepper:
    """One update after another: forward and backward over the micro-batches, clip, step."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        args: TrainingArguments,
        loss_function: LossFunction,
        count_targets: CountTargets,
        device: torch.device,
    ) -> None:
        self.rank, self.world = ranks()
        self.model = DistributedDataParallel(model) if self.world > 1 else model
        self.optimizer, self.args, self.device = optimizer, args, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=args.precision == "float16")
        self.loss_function, self.count_targets = loss_function, count_targets
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step(self, batch: Batch, step: int) -> dict[str, float]:
        """Train on one batch and return the row for the history."""
        _seed(self.device, _step_seed(self.args.seed, step, self.rank))  # dropout, too, is a function of the step
        self.model.train()
        rate = learning_rate(step, self.args)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(batch, step)
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.args.max_grad_norm or math.inf))
        if not (math.isfinite(norm) or self.scaler.is_enabled()):  # a scaler skips such a step by itself
            raise NonFiniteLoss(f"the gradient's norm is {norm} at step {step}, {_name_batch(batch)}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {"step": step, "loss": loss, "lr": rate, "grad_norm": norm}

    def _backward(self, batch: Batch, step: int) -> float:
        """Accumulate the gradient of the step's mean loss per target; return that loss."""
        loss_sum = 0.0
        mine = self._shares(batch, step)
        for i, (micro, share) in enumerate(mine):
            micro = {name: value.to(self.device, non_blocking=True) for name, value in micro.items()}
            # Processes exchange gradients once a step, with the last micro-batch.
            quiet = self.model.no_sync() if self.world > 1 and i + 1 < len(mine) else contextlib.nullcontext()
            with quiet:
                with _autocast(self.device, self.args.precision):
                    loss = self.loss_function(self.model, micro) * share
                if not math.isfinite(value := float(loss.detach())):
                    where = f"micro-batch {i} of process {self.rank}, {_name_batch(micro)}"
                    raise NonFiniteLoss(f"the loss is {value} at step {step}, {where}")
                self.scaler.scale(loss * self.world).backward()  # DDP divides the sum of gradients by world
            loss_sum += value
        return sum_over_processes(loss_sum, self.device)

    def _shares(self, batch: Batch, step: int) -> list[tuple[Batch, float]]:
        """This process's micro-batches, each with its share of the step's targets; those without any are left out."""
        parts = self.args.gradient_accumulation_steps * self.world
        if parts == 1:
            return [(batch, 1.0)]
        rows = len(next(iter(batch.values())))
        if rows < parts:
            raise ValueError(
                f"get_batch must give at least a row to each of gradient_accumulation_steps × processes = {parts} "
                f"micro-batches, got {rows} at step {step}"
            )
        micros = [{k: v.tensor_split(parts)[i] for k, v in batch.items()} for i in range(parts)]
        counts = [self.count_targets(micro) for micro in micros]
        if not (total := sum(counts)):
            raise ValueError(f"get_batch must give something to predict, got no target at step {step}")
        shares = list(zip(micros, counts, strict=True))[self.rank :: self.world]
        mine = [(micro, count / total) for micro, count in shares if count]
        return mine or [(_stand_in(shares[0][0]), 0.0)]


def _stand_in(batch: Batch) -> Batch:
    """A batch with every label readable, for a process that has nothing to score but must exchange gradients."""
    return {name: value.clamp(min=0) if name == "labels" else value for name, value in batch.items()}


def _name_batch(batch: Batch) -> str:
    name, first = next(iter(batch.items()))
    return f"whose {name} begin {first.flatten()[:8].tolist()}"


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    if precision == "float32":
        return FastLayers()  # the same numbers, sooner
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


def _evaluate_if_due(
    history: History, args: TrainingArguments, evaluate: Callable[[nn.Module], float] | None, model: nn.Module
) -> bool:
    """Evaluate after the last step recorded, if that is due and not done; whether it was."""
    done = len(history.steps)
    due = done > 0 and (done == args.max_steps or _due(done - 1, args.eval_steps))
    if evaluate is None or not due or any(row["step"] == done for row in history.evaluations):
        return False
    model.eval()
    with torch.no_grad():
        history.evaluations.append({"step": done, "loss": float(evaluate(model))})
    return True


def _due(step: int, every: int) -> bool:
    return every > 0 and (step + 1) % every == 0


def _show(bar: tqdm, history: History, batch: Batch, started: float) -> None:
    if not bar.disable:
        rate = next(iter(batch.values())).numel() / (time.perf_counter() - started)
        bar.set_postfix(loss=f"{history.steps[-1]['loss']:.3f}", tokens_per_s=f"{rate:,.0f}")


def _seed(device: torch.device, seed: int) -> None:
    """Seed what draws on this device. ``torch.manual_seed`` seeds all, and notes a stack for each that sleeps."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint32)[0])
