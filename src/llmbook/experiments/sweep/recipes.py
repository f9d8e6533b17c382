"""What the sweep compares: recipes, and the settings by name."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from llmbook.toyworld import ToyWorld
from llmbook.training import TrainingArguments
from llmbook.transformer import GPTConfig

SEEDS = tuple(range(8))
LONGEST = 128  # tokens in a row; no story has more
SECOND_TASKS = ("none", "sum", "uncertainty", "uncertainty from 1")
OPTIMIZERS = ("adamw", "muon")
RETUNED_SEEDS = SEEDS[:3]


@functools.lru_cache(maxsize=1)
def world() -> ToyWorld:
    """The language that every run learns."""
    return ToyWorld("small")


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
    optimizer: str = "adamw"  # or muon: Muon for the blocks' matrices, AdamW for the rest
    learning_rate: float = 6e-3
    schedule: str = "cosine"
    warmup: float = 0.05  # share of the steps
    adam_beta2: float = 0.98
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    second_task: str = "none"  # also tell how many tokens of the story are left: losses in a plain sum, or weighted
    second_unit: float = 1.0  # tokens; what the second task's error is counted in
    ema_decay: float = 0.0  # 0: measure the last weights; else their exponential moving average
    stop_early: int = 0  # 0: the last weights; else the best of every so many steps, on stories kept aside
    held_out: int = 500  # stories to measure on

    def __post_init__(self) -> None:
        for name, choices in {"second_task": SECOND_TASKS, "optimizer": OPTIMIZERS}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        for name in ("warmup", "label_smoothing", "ema_decay", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        for name, least in {"stories": 0, "stop_early": 0, "held_out": 2}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.second_unit > 0:
            raise ValueError(f"second_unit must be positive, got {self.second_unit}")

    @property
    def seen(self) -> int:
        """How many different stories the run trains on."""
        return self.stories or self.steps * self.batch_size

    @property
    def config(self) -> GPTConfig:
        """The model's. The initial spread is GPT-2's, carried over from its width to this one."""
        return GPTConfig(
            len(world().vocabulary),
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
            adam_beta2=self.adam_beta2,
            max_grad_norm=self.max_grad_norm,
            seed=seed,
        )


class Group(NamedTuple):
    """Settings that are compared with each other, and the seeds at which each is run."""

    settings: dict[str, Recipe]
    seeds: tuple[int, ...]


def groups() -> dict[str, Group]:
    """All that is run, each group at its seeds."""
    return {
        "strategies": Group(grid(), SEEDS),
        "retuned": Group(retuned(), RETUNED_SEEDS),
    }


def grid() -> dict[str, Recipe]:
    """The strategies by name: the baseline first, then what differs from it."""
    base = Recipe()
    few = replace(base, stories=100)
    changed: dict[str, dict[str, Any]] = {
        "baseline": {},
        **{f"rate ×{factor:g}": {"learning_rate": base.learning_rate * factor} for factor in (0.25, 0.5, 2, 4)},
        "Muon": {"optimizer": "muon"},
        "AdamW, Muon's compute": {"steps": 954},
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
    settings |= _batches(base)
    settings |= {"few stories": few}
    settings |= {f"few stories, dropout {p}": replace(few, dropout=p) for p in (0.1, 0.2)}
    settings |= {"few stories, weight decay 1": replace(few, weight_decay=1.0)}
    settings |= {"few stories, early stopping": replace(few, stop_early=25)}
    return settings


def _batches(base: Recipe) -> dict[str, Recipe]:
    """Other batch sizes: at the same rate, at one scaled by the root, and with β₂'s half-life kept in stories."""
    settings = {f"batch {b}": _batch(base, b) for b in (4, 16, 32, 64)}
    for b in (2, 4, 16, 32, 64):
        scaled = base.learning_rate * math.sqrt(b / base.batch_size)
        settings[f"batch {b}, rate ×√{b / base.batch_size:g}"] = _batch(base, b, learning_rate=scaled)
    half_life_kept = base.adam_beta2 ** (64 / base.batch_size)
    kept = replace(settings["batch 64, rate ×√8"], adam_beta2=half_life_kept)
    return settings | {"batch 64, rate ×√8, β₂ kept": kept}


def _batch(base: Recipe, size: int, **changes: Any) -> Recipe:
    """The same stories in batches of another size."""
    return replace(base, batch_size=size, steps=round(base.steps * base.batch_size / size), **changes)


def retuned() -> dict[str, Recipe]:
    """Some strategies at half and at twice the baseline's rate."""
    names = ("Muon", "untied embeddings", "constant schedule")
    strategies = grid()
    return {
        f"{name}, rate ×{factor:g}": replace(recipe, learning_rate=recipe.learning_rate * factor)
        for name, recipe in ((name, strategies[name]) for name in names)
        for factor in (0.5, 2)
    }
