"""Climbing: the rungs that are missing, several at once, on one machine or on a cluster."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from joblib import Parallel, delayed, parallel_config
from tqdm.auto import tqdm

from llmbook import training
from llmbook.experiments import records, sweep
from llmbook.experiments.ladder.rungs import SEEDS, groups
from llmbook.experiments.sweep import Group, Recipe
from llmbook.experiments.sweep import rows as sweep_rows

DATA = sweep_rows.DATA.with_name("ladder.jsonl")


def climb(
    wanted: Mapping[str, Group],
    path: str | Path = DATA,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    progress: bool | None = None,
) -> list[sweep_rows.Row]:
    """Compute what is missing from the file, ``jobs`` runs at once, and write each row when it is there.

    ``scheduler`` is the address of a Dask cluster, which then runs them. Returns all rows that count. Ctrl-C loses
    the runs in progress only. Raises ``ValueError`` for a damaged file, ``ModuleNotFoundError`` without Dask.
    """
    kept = {(row["setting"], row["seed"]): row for row in sweep.load(path)}
    todo, rows = sweep.missing(wanted, kept.values())
    recipe_of = {name: recipe for group in wanted.values() for name, recipe in group.settings.items()}
    calls = (delayed(one)(setting, recipe_of[setting], seed) for setting, seed in todo)
    with workers(jobs, scheduler):
        found = Parallel(return_as="generator_unordered")(calls)
        for row in tqdm(found, total=len(todo), disable=not training.shows_progress(progress), unit="run"):
            rows.append(row)
            kept[row["setting"], row["seed"]] = row
            sweep.save(kept.values(), path, groups())
    return rows


def one(setting: str, recipe: Recipe, seed: int) -> sweep_rows.Row:
    """A row, on one thread: runs at once share the cores."""
    torch.set_num_threads(1)
    return sweep_rows.run(setting, recipe, seed)


@contextlib.contextmanager
def workers(jobs: int, scheduler: str | None) -> Iterator[None]:
    """Where joblib runs its calls: in processes of this machine, or on a Dask cluster."""
    if scheduler is None:
        with parallel_config("loky", n_jobs=jobs):
            yield
        return
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise ModuleNotFoundError("scheduler needs Dask: pip install distributed") from None
    with Client(scheduler), parallel_config("dask"):
        yield


def main(argv: Sequence[str] | None = None) -> None:
    """The shell's entry; ``--dry-run`` only says how much is missing."""
    parser = argparse.ArgumentParser(prog="python -m llmbook.experiments.ladder", description="Compute missing rungs.")
    parser.add_argument("--path", type=Path, default=DATA, help="the file of rows (default: book/data/ladder.jsonl)")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="only these seeds")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; -1: one for each core")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster that is to run them")
    parser.add_argument("--dry-run", action="store_true", help="say what is missing, and run nothing")
    options = parser.parse_args(argv)
    wanted = {key: Group(g.settings, tuple(options.seeds)) for key, g in groups().items()}
    with records.from_the_shell("make ladder", ValueError, ModuleNotFoundError):
        todo, rows = sweep.missing(wanted, sweep.load(options.path))
        print(f"{len(rows)} of {len(rows) + len(todo)} rows are there, {len(todo)} to compute")
        if not options.dry_run:
            climb(wanted, options.path, jobs=options.jobs, scheduler=options.scheduler)
