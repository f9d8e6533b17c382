"""The sweep of chapter 08: each optimisation strategy against one baseline, at several seeds.

A run is a :class:`Recipe` and a seed, and gives one row: nats above ToyWorld's floor, on stories that no
run trains on. The rows are kept in ``book/data/sweep.jsonl``, one JSON object a line. ``make sweep``
computes those that are missing, or that other code has made; it can be stopped and started at any time.
"""

from llmbook.experiments.sweep.recipes import (
    LONGEST,
    RETUNED_SEEDS,
    SEEDS,
    Group,
    Recipe,
    grid,
    groups,
    retuned,
)
from llmbook.experiments.sweep.rows import code_key, confirm, is_current, load, main, missing, save, sweep
from llmbook.experiments.sweep.runs import (
    HELD_OUT_SEED,
    KEPT_ASIDE_SEED,
    TwoTasks,
    build,
    excess,
    held_out,
    next_token_loss,
    optimizer_for,
    rows_of,
    run,
    stories,
    tokens_left,
    train,
)

__all__ = [
    "HELD_OUT_SEED", "KEPT_ASIDE_SEED", "LONGEST", "RETUNED_SEEDS", "SEEDS", "Group", "Recipe", "TwoTasks", "build",
    "code_key", "confirm", "excess", "grid", "groups", "held_out", "is_current", "load", "main", "missing",
    "next_token_loss", "optimizer_for", "retuned", "rows_of", "run", "save", "stories", "sweep", "tokens_left", "train",
]  # fmt: skip
