"""The sweep of chapter 08: each optimisation strategy against one baseline, at several seeds.

A run is a :class:`Recipe` and a seed, and gives one row: nats above ToyWorld's floor, on stories that no
run trains on. The rows are kept in ``book/data/sweep.jsonl``, one JSON object a line. ``make sweep``
computes those that are missing, or that other code has made; it can be stopped and started at any time.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import datetime
import functools
import hashlib
import inspect
import json
import math
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from llmbook import training
from llmbook.evaluation import Estimate, paired_excess
from llmbook.files import write_whole
from llmbook.toyworld import Story, ToyWorld
from llmbook.training import Batch, TrainingArguments
from llmbook.transformer import GPT, IGNORE, MLP, Attention, Block, GPTConfig, forward_flops

DATA = Path(__file__).resolve().parents[3] / "book" / "data" / "sweep.jsonl"
SEEDS = tuple(range(8))
LONGEST = 128  # tokens in a row; no story has more
HELD_OUT_SEED = 10**6  # of the stories that every run is measured on, and none trains on
SECOND_TASKS = ("none", "sum", "uncertainty", "uncertainty from 1")


@dataclass(frozen=True)
class Recipe:
    """All that a run depends on besides its seed. The defaults are the baseline."""

    steps: int = 800
    batch_size: int = 8  # stories
    stories: int = 0  # different stories to train on; 0: as many as the run reads, none twice
    n_layer: int = 2
    n_embd: int = 48
    n_inner: int = 96
    n_head: int = 4
    tie_word_embeddings: bool = True
    share_layers: bool = False  # one block's weights in every layer (Lan et al. 2020)
    dropout: float = 0.0
    learning_rate: float = 6e-3
    schedule: str = "cosine"
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    second_task: str = "none"  # also tell how many tokens of the story are left: losses in a plain sum, or weighted
    second_unit: float = 1.0  # tokens; what the second task's error is counted in
    ema_decay: float = 0.0  # 0: measure the last weights; else their exponential moving average
    held_out: int = 500  # stories to measure on

    def __post_init__(self) -> None:
        if self.second_task not in SECOND_TASKS:
            raise ValueError(f"second_task must be one of {SECOND_TASKS}, got {self.second_task!r}")
        for name in ("warmup", "label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.stories < 0 or self.held_out < 2 or not self.second_unit > 0:
            raise ValueError(
                "stories must not be negative, held_out be at least 2 and second_unit positive, "
                f"got {self.stories}, {self.held_out} and {self.second_unit}"
            )

    @property
    def config(self) -> GPTConfig:
        """The model's. The initial spread is GPT-2's, carried over from its width to this one."""
        return GPTConfig(
            len(_world().vocabulary),
            LONGEST,
            n_embd=self.n_embd,
            n_inner=self.n_inner,
            n_layer=self.n_layer,
            n_head=self.n_head,
            tie_word_embeddings=self.tie_word_embeddings,
            initializer_range=0.02 * math.sqrt(768 / self.n_embd),
            positions="rotary",
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), self.dropout),
        )

    def arguments(self, seed: int) -> TrainingArguments:
        """The training loop's; the rate ends at zero where a schedule lowers it."""
        return TrainingArguments(
            max_steps=self.steps,
            batch_size=self.batch_size,
            block_size=LONGEST,
            learning_rate=self.learning_rate,
            lr_scheduler_type=self.schedule,
            warmup_steps=round(self.warmup * self.steps),
            min_lr_ratio=0.0,
            weight_decay=self.weight_decay,
            adam_beta2=0.98,
            max_grad_norm=self.max_grad_norm,
            seed=seed,
        )


def grid() -> dict[str, Recipe]:
    """All settings by name: the baseline first, then what differs from it."""
    base = Recipe()
    few = replace(base, stories=100)
    changed: dict[str, dict[str, Any]] = {
        "baseline": {},
        **{f"rate ×{factor:g}": {"learning_rate": base.learning_rate * factor} for factor in (0.25, 0.5, 2, 4)},
        "untied embeddings": {"tie_word_embeddings": False},
        "shared layers": {"share_layers": True},
        "one layer, equal compute": {"n_layer": 1, "steps": 1400},
        **{f"{name} schedule": {"schedule": name} for name in ("constant", "step", "linear", "wsd")},
        "no warm-up": {"warmup": 0.0},
        "rate ×4, no warm-up": {"learning_rate": base.learning_rate * 4, "warmup": 0.0},
        **{f"dropout {p}": {"dropout": p} for p in (0.1, 0.2)},
        "label smoothing 0.1": {"label_smoothing": 0.1},
        "sum of losses, tokens": {"second_task": "sum"},
        "sum of losses, hundreds": {"second_task": "sum", "second_unit": 100.0},
        "weighted losses, tokens": {"second_task": "uncertainty"},
        "weighted losses, hundreds": {"second_task": "uncertainty", "second_unit": 100.0},
        "weighted losses, hundreds, from σ = 1": {"second_task": "uncertainty from 1", "second_unit": 100.0},
        **{f"weight decay {decay:g}": {"weight_decay": decay} for decay in (0, 0.1, 1)},
        "no clipping": {"max_grad_norm": 0.0},
        "EMA": {"ema_decay": 0.98},
        "constant schedule, EMA": {"schedule": "constant", "ema_decay": 0.98},
    }
    settings = {name: replace(base, **changes) for name, changes in changed.items()}
    settings |= {f"batch {b}": _batch(base, b) for b in (4, 32, 64)}
    settings |= {f"batch {b}, rate ×√{b / base.batch_size:g}": _batch(base, b, scaled=True) for b in (2, 4, 16, 32, 64)}
    settings |= {"few stories": few}
    settings |= {f"few stories, dropout {p}": replace(few, dropout=p) for p in (0.1, 0.2)}
    settings |= {"few stories, weight decay 1": replace(few, weight_decay=1.0)}
    return settings


def _batch(base: Recipe, size: int, scaled: bool = False) -> Recipe:
    """The same stories in batches of another size; on request with the rate scaled by the square root."""
    factor = size / base.batch_size
    rate = base.learning_rate * (math.sqrt(factor) if scaled else 1.0)
    return replace(base, batch_size=size, steps=round(base.steps / factor), learning_rate=rate)


# ------------------------------------------------------------------------------------------------ one run


@functools.lru_cache(maxsize=1)
def _world() -> ToyWorld:
    return ToyWorld("small")


@functools.lru_cache(maxsize=4)
def _stories(n: int, seed: int) -> list[Story]:
    return _world().stories(n, seed)


def rows_of(stories: Iterable[Story]) -> list[np.ndarray]:
    """Each story as token ids, opened by ``<bos>``: a list of (T,) int64."""
    return [_world().encode(["<bos>", *story.tokens]) for story in stories]


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


def train(recipe: Recipe, seed: int, callback: Any = None) -> tuple[nn.Module, training.History]:
    """Train by the recipe; the model as it is to be measured, and the loop's history.

    A :class:`TwoTasks` where there is a second task, otherwise the language model. ``callback`` as in ``fit``.
    """
    model: nn.Module = build(recipe, seed)
    if recipe.second_task != "none":
        weighted = recipe.second_task != "sum"
        model = TwoTasks(model, recipe.second_unit, weighted, torch.Generator().manual_seed(seed + 1))
    args = recipe.arguments(seed)
    stories = _stories(recipe.stories or recipe.steps * recipe.batch_size, seed)
    batches = training.padded_batches(rows_of(stories), args)
    if recipe.second_task == "uncertainty":
        model.start_from(batches(0))
    average = None
    if recipe.ema_decay:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))

    def after_step(step: int, model: nn.Module) -> None:
        if average is not None:
            average.update_parameters(model)
        if callback is not None:
            callback(step, model)

    loss = functools.partial(_loss, label_smoothing=recipe.label_smoothing)
    history = training.fit(model, batches, args, loss_function=loss, callback=after_step, progress=False)
    return (model if average is None else average.module), history


def _loss(model: nn.Module, batch: Batch, label_smoothing: float) -> Tensor:
    if isinstance(model, TwoTasks):
        return model.combine(model.losses(batch, label_smoothing))
    return next_token_loss(model(batch["input_ids"]).logits, batch["labels"], label_smoothing)


def held_out(n: int) -> tuple[list[Story], list[np.ndarray], np.ndarray, np.ndarray]:
    """What every run is measured on: n stories, their rows, true log-probabilities (N,) and story numbers (N,)."""
    stories = _stories(n, HELD_OUT_SEED)
    truth = np.concatenate([story.logprobs for story in stories])
    groups = np.repeat(np.arange(n), [len(story.tokens) for story in stories])
    return stories, rows_of(stories), truth, groups


def excess(model: nn.Module, n: int) -> Estimate:
    """Nats per token above the floor on the n held-out stories, paired, with its standard error over stories."""
    _, rows, truth, groups = held_out(n)
    language_model = model.model if isinstance(model, TwoTasks) else model
    return paired_excess(training.row_logprobs(language_model, rows), truth, groups)


@torch.no_grad()
def second_error(model: TwoTasks, n: int) -> float:
    """Root mean squared error of the second task on the n held-out stories, in tokens."""
    args = TrainingArguments(batch_size=n, block_size=LONGEST)
    batch = training.padded_batches(held_out(n)[1], args)(0)
    return model.unit * math.sqrt(float(model.eval().losses(batch)[1]))


def run(setting: str, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train and measure: one row of the sweep."""
    started = time.perf_counter()
    model, _ = train(recipe, seed)
    mean, error = excess(model, recipe.held_out)
    stories = _stories(recipe.stories or recipe.steps * recipe.batch_size, seed)
    epochs = recipe.steps * recipe.batch_size / len(stories)
    lengths = [len(story.tokens) for story in stories]
    return {
        "setting": setting,
        "seed": seed,
        "excess": round(mean, 6),
        "standard_error": round(error, 6),
        "second_error": round(second_error(model, recipe.held_out), 4) if isinstance(model, TwoTasks) else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": round(epochs * sum(lengths)),
        "flops": round(epochs * 3 * sum(forward_flops(recipe.config, length) for length in lengths)),
        "seconds": round(time.perf_counter() - started, 1),
        "recipe": dataclasses.asdict(recipe),
        "code": code_key(),
        "torch": torch.__version__.split("+")[0],
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "date": datetime.date.today().isoformat(),
    }


# ------------------------------------------------------------------------------------------------ the rows

PARTS = (
    GPTConfig, Attention, MLP, Block, GPT.__base__, GPT,
    TrainingArguments, training.learning_rate, training.padded_batches, training._order_by_length,
    training.configure_optimizer, training._train_step, training._backward, training.row_logprobs,
    Recipe, TwoTasks, tokens_left, next_token_loss, build, train, _loss, held_out, excess,
)  # fmt: skip
FIELDS = {
    "setting": str, "seed": int, "excess": float, "standard_error": float, "parameters": int,
    "tokens": int, "flops": int, "recipe": dict, "code": str,
}  # fmt: skip


@functools.lru_cache(maxsize=1)
def code_key() -> str:
    """A name for what makes the numbers: the code of model, loop and measure, and the world's stories.

    Comments, docstrings and layout don't count.
    """
    digest = hashlib.sha256()
    for part in PARTS:
        tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        digest.update(ast.dump(tree).encode())
    for story in _stories(20, HELD_OUT_SEED):
        digest.update(f"{story.text} {story.logprobs.sum():.6f}".encode())
    return digest.hexdigest()[:12]


def load(path: str | Path = DATA) -> list[dict[str, Any]]:
    """The rows of a file, in its order; none where there is no file.

    Raises ``ValueError`` that names the line for what is no row: bad JSON, a field that is missing, of
    another type or not finite, or a setting and seed that occur twice.
    """
    path = Path(path)
    if not path.exists():
        return []
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = _parse(line, f"{path.name}, line {number}")
        if (key := (row["setting"], row["seed"])) in rows:
            raise ValueError(f"{path.name}, line {number}: {key} is there already; delete one of the two lines")
        rows[key] = row
    return list(rows.values())


def _parse(line: str, where: str) -> dict[str, Any]:
    advice = "; delete the line, and `make sweep` computes it again"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: no JSON ({error}){advice}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a row must be an object, got {type(row).__name__}{advice}")
    for name, kind in FIELDS.items():
        value = row.get(name)
        good = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if not good or (kind is float and not math.isfinite(value)):
            raise ValueError(f"{where}: {name} must be a {kind.__name__}, got {value!r}{advice}")
    return row


def save(rows: Sequence[Mapping[str, Any]], path: str | Path = DATA) -> None:
    """Write rows under a temporary name beside the file, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def missing(
    settings: Mapping[str, Recipe], seeds: Sequence[int], rows: Iterable[Mapping[str, Any]]
) -> tuple[list[tuple[str, int]], list[dict[str, Any]]]:
    """Which (setting, seed) the rows lack, seed by seed; and the rows that count: of this grid and this code."""
    valid = {
        (row["setting"], row["seed"]): dict(row)
        for row in rows
        if row["setting"] in settings
        and row["recipe"] == dataclasses.asdict(settings[row["setting"]])
        and row["code"] == code_key()
    }
    wanted = [(setting, seed) for seed in seeds for setting in settings]
    return [key for key in wanted if key not in valid], [valid[key] for key in wanted if key in valid]


def sweep(
    settings: Mapping[str, Recipe],
    seeds: Sequence[int],
    path: str | Path = DATA,
    *,
    progress: bool | None = None,
) -> list[dict[str, Any]]:
    """Compute what is missing from the file, and write it after each run. Returns all rows of the grid.

    Ctrl-C ends it within a step and loses the run in progress only. Raises ``ValueError`` for a damaged file.
    """
    todo, rows = missing(settings, seeds, load(path))
    bar = tqdm(todo, disable=not training.shows_progress(progress), unit="run", dynamic_ncols=True)
    order = {key: i for i, key in enumerate((setting, seed) for setting in settings for seed in seeds)}
    for setting, seed in bar:
        bar.set_description(f"{setting}, seed {seed}")
        row = run(setting, settings[setting], seed)
        bar.set_postfix(excess=f"{row['excess']:.3f}")
        rows.append(row)
        save(sorted(rows, key=lambda row: order[row["setting"], row["seed"]]), path)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """The shell's entry; ``--dry-run`` only lists what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m llmbook.experiments.sweep", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--path", type=Path, default=DATA, help="the file of rows (default: book/data/sweep.jsonl)")
    parser.add_argument("--dry-run", action="store_true", help="list what would run, and run nothing")
    options = parser.parse_args(argv)
    settings = grid()
    try:
        todo, rows = missing(settings, SEEDS, load(options.path))
        print(f"{len(rows)} of {len(settings) * len(SEEDS)} rows are there, {len(todo)} to compute")
        if options.dry_run:
            for setting, seed in todo:
                print(f"  {setting}, seed {seed}")
            return
        sweep(settings, SEEDS, options.path)
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept, `make sweep` goes on from there", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
