"""Running: the rows that are missing, one by one, each written when it is there."""

from __future__ import annotations

import argparse
import datetime
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tqdm.auto import tqdm

import llmbook
from llmbook import training
from llmbook.experiments import records
from llmbook.experiments.compression.cases import CASES, Case, Toy, stored
from llmbook.experiments.compression.methods import METHODS, Method
from llmbook.experiments.records import Row
from llmbook.experiments.sweep import rows as sweep_rows
from llmbook.pretrained import ModelError

DATA = sweep_rows.DATA.with_name("compression.jsonl")
SEEDS = {"toyworld-gpt": (0, 1, 2), "smollm2": (0, 1)}
FIELDS = {
    "model": str, "family": str, "method": str, "seed": int, "bytes": int, "cost": float, "standard_error": float,
    "code": str,
}  # fmt: skip
KEY = ("model", "method", "seed")
CLOSE = 0.25  # standard errors of a row: run again, it ends so near, or other code has made it
Wanted = Mapping[str, Mapping[str, Method]]


@functools.lru_cache(maxsize=1)
def code_key() -> str:
    """A name for what makes the numbers: what the modules of compression and of this run do, docstrings apart."""
    root = Path(llmbook.__file__).parent
    paths = sorted([*(root / "compression").glob("*.py"), *Path(__file__).parent.glob("*.py")])
    outlines = [records.outline(path.read_text(encoding="utf-8")) for path in paths]
    return hashlib.sha256("\n".join(outlines).encode()).hexdigest()[:12]


def load(path: str | Path = DATA) -> list[Row]:
    """The rows of a file; none where there is no file. ``ValueError`` that names a line for no row."""
    return records.load(path, FIELDS, KEY, "make compression")


def is_current(row: Mapping[str, object]) -> bool:
    """Whether today's code made the row, or made its like when it was run again (``confirmed``)."""
    return code_key() in (row["code"], row.get("confirmed"))


def missing(rows: Iterable[Row], wanted: Wanted = METHODS) -> list[tuple[str, str, int]]:
    """Which (model, method, seed) the rows lack, model by model and seed by seed."""
    there = {tuple(row[field] for field in KEY) for row in rows if is_current(row)}
    keys = [
        (model, name, seed)
        for model in wanted
        for seed in SEEDS[model]
        for name, method in wanted[model].items()
        if seed == SEEDS[model][0] or method.calibrated or model == Toy.model
    ]
    return [key for key in keys if key not in there]


def measure(case: Case, name: str, method: Method) -> Row:
    """Compress a case's model by a method: one row."""
    size, model = stored(method.apply(case), method.dtype)
    cost = case.cost(model)
    return {
        "model": case.model, "family": method.family, "method": name, "seed": case.seed, "bytes": size,
        "cost": round(cost.mean, 6), "standard_error": round(cost.se, 6),
        "date": datetime.date.today().isoformat(), "code": code_key(),
    }  # fmt: skip


def compress(path: str | Path = DATA, wanted: Wanted = METHODS, *, progress: bool | None = None) -> list[Row]:
    """Compute what is missing from the file, and write it after each row. Returns all rows that are wanted.

    Ctrl-C loses the row in progress only. Raises ``ValueError`` for a damaged file, and ``ModelError`` where the real
    model is wanted and is not here.
    """
    kept = {tuple(row[field] for field in KEY): row for row in load(path)}
    bar = tqdm(missing(kept.values(), wanted), disable=not training.shows_progress(progress), unit="row")
    case = None
    for model, method, seed in bar:
        bar.set_description(f"{model}, {method}, seed {seed}")
        if case is None or (case.model, case.seed) != (model, seed):
            case = CASES[model](seed)  # keeps what its methods share: the statistics of the whole model
        kept[model, method, seed] = measure(case, method, wanted[model][method])
        _save(kept.values(), path)
    return [kept[key] for key in missing([], wanted)]


def confirm(path: str | Path = DATA, wanted: Wanted = METHODS, *, progress: bool | None = None) -> list[str]:
    """Run again one row of each kind that other code has made; keep the kind's rows if it ends where it did.

    A kind is the methods of a model that take the same way through the code. Where it did: as many bytes to 1 %, and
    a cost within :data:`CLOSE` of its standard error. The rows then carry today's key under ``confirmed``. Returns the
    rows that ended elsewhere.
    """
    rows, kinds, refused = load(path), {}, []
    for row in rows:
        method = wanted.get(row["model"], {}).get(row["method"])
        if method is not None and not is_current(row):
            kinds.setdefault((row["model"], *method.kind), []).append(row)
    bar = tqdm(kinds.values(), disable=not training.shows_progress(progress), unit="kind")
    for number, some in enumerate(bar):
        old = some[(7 * number) % len(some)]  # not always the first
        if not _ends_where_it_did(old, wanted):
            refused.append(", ".join(str(old[field]) for field in KEY))
            continue
        for row in some:
            row["confirmed"] = code_key()
        _save(rows, path)
    return refused


def _ends_where_it_did(old: Row, wanted: Wanted) -> bool:
    new = measure(CASES[old["model"]](old["seed"]), old["method"], wanted[old["model"]][old["method"]])
    near = abs(new["cost"] - old["cost"]) <= CLOSE * old["standard_error"] + 1e-6
    return near and abs(new["bytes"] - old["bytes"]) <= 0.01 * old["bytes"]


def _save(rows: Iterable[Row], path: str | Path) -> None:
    """In the order in which they are computed."""
    place = {key: i for i, key in enumerate(missing([]))}
    records.save(rows, path, lambda row: place.get(tuple(row[field] for field in KEY), len(place)))


def main(argv: Sequence[str] | None = None) -> None:
    """The shell's entry; ``--dry-run`` only lists what is missing."""
    parser = argparse.ArgumentParser(prog="python -m llmbook.experiments.compression", description=compress.__doc__)
    parser.add_argument(
        "--path", type=Path, default=DATA, help="the file of rows (default: book/data/compression.jsonl)"
    )
    parser.add_argument("--model", choices=list(METHODS), help="only this model")
    parser.add_argument("--only", default="", metavar="TEXT", help="only methods whose name contains the text")
    parser.add_argument("--confirm", action="store_true", help="run one stale row of each kind, to keep the rest")
    parser.add_argument("--dry-run", action="store_true", help="list what would run, and run nothing")
    options = parser.parse_args(argv)
    wanted = {
        model: {name: method for name, method in methods.items() if options.only in name}
        for model, methods in METHODS.items()
        if options.model in (None, model)
    }
    with records.from_the_shell("make compression", ValueError, ModelError):
        if options.confirm:
            print("not confirmed, to be computed again:", confirm(options.path, wanted) or "none")
        todo = missing(load(options.path), wanted)
        print(f"{len(todo)} of {len(missing([], wanted))} rows to compute")
        if options.dry_run:
            print("".join(f"  {model}, {method}, seed {seed}\n" for model, method, seed in todo), end="")
        elif not options.confirm:
            compress(options.path, wanted)
