"""One run of the sweep: the model of a recipe, its training, and its measure."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import functools
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from llmbook import training
from llmbook.evaluation import Estimate, paired_excess
from llmbook.experiments.sweep.recipes import LONGEST, Recipe, world
from llmbook.optimizers import block_matrices, muon_and_adamw, newton_schulz_flops
from llmbook.toyworld import Story
from llmbook.training import Batch, TrainingArguments
from llmbook.transformer import GPT, IGNORE, forward_flops

HELD_OUT_SEED = 10**6  # of the stories that every run is measured on, and none trains on
KEPT_ASIDE_SEED = 2 * 10**6  # of those that tell a run when to stop


@functools.lru_cache(maxsize=8)
def stories(n: int, seed: int) -> list[Story]:
    """n stories of the world; the same objects for the same arguments."""
    return world().stories(n, seed)


def rows_of(told: Iterable[Story]) -> list[np.ndarray]:
    """Each story as token ids, opened by ``<bos>``: a list of (T,) int64."""
    return [world().encode(["<bos>", *story.tokens]) for story in told]


class TwoTasks(nn.Module):
    r"""A language model that also tells how many tokens of the story are left, at each position.

    Its head answers in hundreds of tokens, a number of size 1, whatever unit the loss is counted in. Two
    losses, the next token's cross-entropy :math:`L_1` and the squared error :math:`L_2`, are added, or weighted
    by learned uncertainties (Kendall, Gal & Cipolla 2018) with
    :math:`s_i = \ln \sigma_i^2`: :math:`e^{-s_1} L_1 + \tfrac12 e^{-s_2} L_2 + \tfrac12 (s_1 + s_2)`.
    """

    HUNDRED = 100.0
    SPEED = 10.0  # how much faster than a weight the log-variances move: they may have far to go

    def __init__(self, model: GPT, unit: float, weighted: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.model, self.unit, self.weighted = model, unit, weighted
        self.head = nn.Linear(model.config.n_embd, 1)
        nn.init.normal_(self.head.weight, 0.0, model.config.initializer_range, generator=generator)
        nn.init.zeros_(self.head.bias)
        self.moved = nn.Parameter(torch.zeros(2))
        self.register_buffer("start", torch.zeros(2))

    @property
    def log_variances(self) -> Tensor:
        """ln σ² of both tasks, (2,)."""
        return self.start + self.SPEED * self.moved

    @torch.no_grad()
    def start_from(self, batch: Batch) -> None:
        """Begin with the variances that are best for the losses of this batch: σ₁² = 2 L₁ and σ₂² = L₂."""
        self.start.copy_((self.losses(batch) * torch.tensor([2.0, 1.0])).log())

    def losses(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy (nats) and squared error (units²), both per predicted token: (2,)."""
        output = self.model(batch["input_ids"])
        guess = self.head(output.last_hidden_state).squeeze(-1)[:, :-1]  # (B, T − 1)
        scored = batch["labels"][:, 1:] != IGNORE  # (B, T − 1)
        left = tokens_left(batch["labels"])[:, :-1]
        off = (self.HUNDRED * guess - left)[scored] / self.unit
        first = next_token_loss(output.logits, batch["labels"], label_smoothing)
        return torch.stack([first, off.square().mean()])

    def combine(self, losses: Tensor) -> Tensor:
        """The two losses (2,) as one ()."""
        if not self.weighted:
            return losses.sum()
        s = self.log_variances
        return (losses * (-s).exp() * losses.new_tensor([1.0, 0.5])).sum() + s.sum() / 2


def tokens_left(labels: Tensor) -> Tensor:
    """How many tokens follow each position of its story: (B, T) of int64."""
    return (labels != IGNORE).flip(1).cumsum(1).flip(1) - 1


def next_token_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in nats of (B, T, V) logits with the next labels (B, T), smoothed on request."""
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE, label_smoothing=label_smoothing
    )


def build(recipe: Recipe, seed: int) -> GPT:
    """The recipe's model, with initial weights drawn from the seed."""
    model = GPT(recipe.config, generator=torch.Generator().manual_seed(seed))
    if recipe.share_layers:
        model.h = nn.ModuleList([model.h[0]] * recipe.n_layer)
    return model


def optimizer_for(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer | None:
    """The recipe's optimiser; None where it is the loop's own."""
    if recipe.optimizer == "adamw":
        return None
    args = recipe.arguments(0)
    return muon_and_adamw(model, args.learning_rate, args.weight_decay, (args.adam_beta1, args.adam_beta2))


class Keeper:
    """A callback that keeps what is to be measured: the last weights, their average, or the best so far."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.every, self.best, self.kept = recipe.stop_early, math.inf, None
        self.average = None
        if recipe.ema_decay:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))

    def __call__(self, step: int, model: nn.Module) -> None:
        if self.average is not None:
            self.average.update_parameters(model)
        if (
            self.every
            and (step + 1) % self.every == 0
            and (found := excess(model, 100, KEPT_ASIDE_SEED).mean) < self.best
        ):
            self.best, self.kept = found, copy.deepcopy(model)

    def of(self, model: nn.Module) -> nn.Module:
        """What to measure of a model at the end of its run."""
        return self.average.module if self.average is not None else self.kept or model


def train(
    recipe: Recipe, seed: int, callback: Callable[[int, nn.Module], None] | None = None
) -> tuple[nn.Module, training.History]:
    """Train by the recipe; the model as it is to be measured, and the loop's history.

    A :class:`TwoTasks` where there is a second task, otherwise the language model. ``callback`` as in ``fit``.
    """
    model: nn.Module = build(recipe, seed)
    if recipe.second_task != "none":
        weighted = recipe.second_task != "sum"
        model = TwoTasks(model, recipe.second_unit, weighted, torch.Generator().manual_seed(seed + 1))
    args = recipe.arguments(seed)
    batches = training.padded_batches(rows_of(stories(recipe.seen, seed)), args)
    if recipe.second_task == "uncertainty":
        model.start_from(batches(0))
    keeper = Keeper(model, recipe)

    def after_step(step: int, model: nn.Module) -> None:
        keeper(step, model)
        if callback is not None:
            callback(step, model)

    loss = functools.partial(_loss, label_smoothing=recipe.label_smoothing)
    optimizer = optimizer_for(model, recipe)
    history = training.fit(
        model, batches, args, optimizer=optimizer, loss_function=loss, callback=after_step, progress=False
    )
    return keeper.of(model), history


def _loss(model: nn.Module, batch: Batch, label_smoothing: float) -> Tensor:
    if isinstance(model, TwoTasks):
        return model.combine(model.losses(batch, label_smoothing))
    return next_token_loss(model(batch["input_ids"]).logits, batch["labels"], label_smoothing)


@functools.lru_cache(maxsize=4)
def held_out(n: int, seed: int = HELD_OUT_SEED) -> tuple[list[Story], list[np.ndarray], np.ndarray, np.ndarray]:
    """What every run is measured on: n stories, their rows, true log-probabilities (N,) and story numbers (N,)."""
    told = stories(n, seed)
    truth = np.concatenate([story.logprobs for story in told])
    numbers = np.repeat(np.arange(n), [len(story.tokens) for story in told])
    return told, rows_of(told), truth, numbers


def excess(model: nn.Module, n: int, seed: int = HELD_OUT_SEED) -> Estimate:
    """Nats per token above the floor on the n held-out stories, paired, with its standard error over stories."""
    _, rows, truth, numbers = held_out(n, seed)
    language_model = model.model if isinstance(model, TwoTasks) else model
    return paired_excess(training.row_logprobs(language_model, rows), truth, numbers)


@torch.no_grad()
def second_error(model: TwoTasks, n: int) -> float:
    """Root mean squared error of the second task on the n held-out stories, in tokens."""
    args = TrainingArguments(batch_size=n, block_size=LONGEST)
    batch = training.padded_batches(held_out(n)[1], args)(0)
    return model.unit * math.sqrt(float(model.eval().losses(batch)[1]))


def flops(model: nn.Module, recipe: Recipe, lengths: list[int]) -> int:
    """Operations of the run, in matrix products: forward, backward, and Muon's where it is used."""
    once = 3 * sum(forward_flops(recipe.config, length) for length in lengths)
    total = once * recipe.steps * recipe.batch_size / recipe.seen
    if recipe.optimizer == "muon":
        total += recipe.steps * sum(newton_schulz_flops(p.shape) for p in block_matrices(model))
    return round(total)


def run(setting: str, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train and measure: one row of the sweep, but for the key of the code."""
    started = time.perf_counter()
    model, _ = train(recipe, seed)
    mean, error = excess(model, recipe.held_out)
    lengths = [len(story.tokens) for story in stories(recipe.seen, seed)]
    return {
        "setting": setting,
        "seed": seed,
        "excess": round(mean, 6),
        "standard_error": round(error, 6),
        "second_error": round(second_error(model, recipe.held_out), 4) if isinstance(model, TwoTasks) else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": round(recipe.steps * recipe.batch_size / recipe.seen * sum(lengths)),
        "flops": flops(model, recipe, lengths),
        "seconds": round(time.perf_counter() - started, 1),
        "recipe": dataclasses.asdict(recipe),
        "torch": torch.__version__.split("+")[0],
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "date": datetime.date.today().isoformat(),
    }
