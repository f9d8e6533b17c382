"""The sweep's rows: a file that can be stopped, resumed and confirmed, and the key of the code that made them."""

from __future__ import annotations

import argparse
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from llmbook import attention, evaluation, optimizers, products, training, transformer
from llmbook.experiments import records
from llmbook.experiments.records import Row
from llmbook.experiments.sweep import recipes, runs
from llmbook.experiments.sweep.recipes import SEEDS, Group, Recipe

DATA = Path(__file__).resolve().parents[4] / "book" / "data" / "sweep.jsonl"

# What makes the numbers. A test traces a run and finds what is missing here.
PARTS = (
    transformer.GPTConfig, transformer.Attention, transformer.MLP, transformer.Block, transformer.GPT.__base__,
    transformer.GPT, transformer.models._length, transformer.layers.make_norm, transformer.layers._one_mlp,
    attention.rotary_embedding, attention.apply_rotary, attention._angles,
    products.FastLayers, products._Linear, products._Gelu, products._plain, products._fits, products.matmul_precision,
    products._keeps_float32,
    optimizers.Muon, optimizers.orthogonalize, optimizers.adjusted_lr, optimizers.Combined,
    optimizers.block_matrices, optimizers.muon_and_adamw,
    training.learning_rate, training.padded_batches, training.batches._order_by_length, training.configure_optimizer,
    training.fit, training.loop._Stepper, training.loop._seed, training.loop._step_seed, training.loop._autocast,
    training.row_logprobs,
    evaluation.paired_excess, evaluation.mean_and_error,
    Recipe.config.fget, Recipe.arguments, Recipe.seen.fget,
    runs.TwoTasks, runs.tokens_left, runs.next_token_loss, runs.build, runs.optimizer_for,
    runs.Keeper, runs.train, runs._loss, runs.held_out, runs.excess, runs.second_error, runs.rows_of,
)  # fmt: skip
CONSTANTS = (
    training.batches.POOL,
    transformer.IGNORE,
    recipes.LONGEST,
    runs.HELD_OUT_SEED,
    runs.KEPT_ASIDE_SEED,
)
FIELDS = {
    "setting": str, "seed": int, "excess": float, "standard_error": float, "parameters": int,
    "tokens": int, "flops": int, "recipe": dict, "code": str,
}  # fmt: skip


@functools.lru_cache(maxsize=1)
def code_key() -> str:
    """A name for what makes the numbers: the code of model, loop and measure, and the world's stories.

    Comments, docstrings and layout don't count, nor does the version of Python.
    """
    digest = hashlib.sha256(repr(CONSTANTS).encode())
    for part in PARTS:
        digest.update(records.outline(textwrap.dedent(inspect.getsource(part))).encode())
    for story in runs.stories(20, runs.HELD_OUT_SEED):
        digest.update(f"{story.text} {story.logprobs.sum():.6f}".encode())
    return digest.hexdigest()[:12]


# ------------------------------------------------------------ the file


def load(path: str | Path = DATA) -> list[Row]:
    """The rows of a file, in its order; none where there is no file. ``ValueError`` that names a line for no row."""
    return records.load(path, FIELDS, ("setting", "seed"), "make sweep")


def save(rows: Iterable[Mapping[str, Any]], path: str | Path = DATA, groups: Mapping[str, Group] | None = None) -> None:
    """Write rows in the order of the groups (default: the sweep's), under a temporary name, then rename."""
    names = [name for group in (groups or recipes.groups()).values() for name in group.settings]
    place = {name: i for i, name in enumerate(names)}
    records.save(rows, path, lambda row: (place.get(row["setting"], len(place)), row["seed"]))


def is_current(row: Mapping[str, Any]) -> bool:
    """Whether today's code made the row, or has been seen to make its like (:func:`confirm`)."""
    return code_key() in (row["code"], row.get("confirmed", {}).get("code"))


def _describes(row: Mapping[str, Any], recipe: Recipe | None) -> bool:
    """Whether a row is of a recipe; one from before a field was added has that field's default."""
    return recipe is not None and set(row["recipe"]) <= set(vars(recipe)) and Recipe(**row["recipe"]) == recipe


def missing(groups: Mapping[str, Group], rows: Iterable[Row]) -> tuple[list[tuple[str, int]], list[Row]]:
    """Which (setting, seed) the rows lack, seed by seed; and the rows that count: of these recipes and this code."""
    recipe_of = {name: recipe for group in groups.values() for name, recipe in group.settings.items()}
    valid = {
        (row["setting"], row["seed"]): row
        for row in rows
        if _describes(row, recipe_of.get(row["setting"])) and is_current(row)
    }
    wanted = [(setting, seed) for group in groups.values() for seed in group.seeds for setting in group.settings]
    return [key for key in wanted if key not in valid], [valid[key] for key in wanted if key in valid]


def sweep(groups: Mapping[str, Group], path: str | Path = DATA, *, progress: bool | None = None) -> list[Row]:
    """Compute what is missing from the file, and write it after each run. Returns all rows that count.

    Rows of older code stay in the file until they are replaced, so that :func:`confirm` finds them. Ctrl-C ends it
    within a step and loses the run in progress only. Raises ``ValueError`` for a damaged file.
    """
    kept = {(row["setting"], row["seed"]): row for row in load(path)}
    todo, rows = missing(groups, kept.values())
    recipe_of = {name: recipe for group in groups.values() for name, recipe in group.settings.items()}
    bar = tqdm(todo, disable=not training.shows_progress(progress), unit="run", dynamic_ncols=True)
    for setting, seed in bar:
        bar.set_description(f"{setting}, seed {seed}")
        row = run(setting, recipe_of[setting], seed)
        bar.set_postfix(excess=f"{row['excess']:.3f}")
        rows.append(row)
        kept[setting, seed] = row
        save(kept.values(), path)
    return rows


def run(setting: str, recipe: Recipe, seed: int) -> Row:
    """A row of the sweep, with the key of the code."""
    return runs.run(setting, recipe, seed) | {"code": code_key()}


CLOSE = 0.1  # standard deviations over seeds: a run again that ends so near has met rounding, not other code


def confirm(groups: Mapping[str, Group], path: str | Path = DATA, *, progress: bool | None = None) -> list[str]:
    """Run again one of the rows of each kind that other code has made; keep the kind's rows if it ends near its own.

    A kind is the recipes that take the same ways through the code. The rows then say so under ``confirmed``:
    today's key, which row was run again, and how far apart the two losses were. Code that moved a number would move
    it by about the spread over seeds. Returns the settings whose rows were not confirmed.
    """
    rows, kinds, refused = load(path), {}, []
    for group in groups.values():
        for name, recipe in group.settings.items():
            stale = [r for r in rows if r["setting"] == name and _describes(r, recipe) and not is_current(r)]
            kinds.setdefault(_kind(recipe), []).extend((row, recipe) for row in stale)
    todo = [kind for kind in kinds.values() if kind]
    for i, kind in enumerate(tqdm(todo, disable=not training.shows_progress(progress), unit="kind")):
        old, recipe = kind[(7 * i) % len(kind)]  # not always the first seed
        apart = run(old["setting"], recipe, old["seed"])["excess"] - old["excess"]
        losses = [row["excess"] for row in rows if row["setting"] == old["setting"]]
        if len(losses) < 2 or abs(apart) > CLOSE * np.std(losses, ddof=1):
            refused += dict.fromkeys(row["setting"] for row, _ in kind)
            continue
        found = {"code": code_key(), "setting": old["setting"], "seed": old["seed"], "apart": round(apart, 6)}
        for row, _ in kind:
            row["confirmed"] = found
        save(rows, path)
    return refused


def _kind(recipe: Recipe) -> tuple[Any, ...]:
    """Words and switches as they are, and of each number whether it is zero."""
    return tuple(v if isinstance(v, str | bool) else v != 0 for v in vars(recipe).values())


# ------------------------------------------------------------ the shell


def main(argv: Sequence[str] | None = None) -> None:
    """The shell's entry; ``--dry-run`` only lists what is missing."""
    parser = argparse.ArgumentParser(prog="python -m llmbook.experiments.sweep", description="Compute missing rows.")
    parser.add_argument("--path", type=Path, default=DATA, help="the file of rows (default: book/data/sweep.jsonl)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only settings whose name contains the text")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="only these seeds")
    parser.add_argument("--dry-run", action="store_true", help="list what would run, and run nothing")
    parser.add_argument("--confirm", action="store_true", help="run one stale row of each kind, to keep the rest")
    options = parser.parse_args(argv)
    with records.from_the_shell("make sweep", ValueError):
        _run(options)


def _run(options: argparse.Namespace) -> None:
    groups = {
        key: Group({n: r for n, r in group.settings.items() if options.only in n}, _chosen(group.seeds, options.seeds))
        for key, group in recipes.groups().items()
    }
    if options.confirm:
        print("not confirmed, to be computed again:", confirm(groups, options.path) or "none")
    todo, rows = missing(groups, load(options.path))
    print(f"{len(rows)} of {len(rows) + len(todo)} rows are there, {len(todo)} to compute")
    if options.dry_run:
        print("".join(f"  {setting}, seed {seed}\n" for setting, seed in todo), end="")
    elif not options.confirm:
        sweep(groups, options.path)


def _chosen(seeds: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    return tuple(seed for seed in seeds if seed in wanted)
