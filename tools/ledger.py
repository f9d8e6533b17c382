"""The claims ledger: what every claim of the book measured at ten seeds (`make ledger`).

Runs each chapter at seeds 0 to 9 and writes book/data/claims.json (the values) and book/claims.md (the page).
Given chapters (`make ledger CH=03`), it runs those and keeps the others' values. A run is kept in .cache/ledger/
under a key of the chapter's code, what that imports and the pinned packages, so that a second call is quick and
an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import html
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import chapters as ch
import notebook as nb
from nbformat import NotebookNode

from llmbook.files import write_whole

SEEDS = tuple(range(10))
CACHE = nb.ROOT / ".cache" / "ledger"
VALUES = nb.ROOT / "book" / "data" / "claims.json"
PAGE = nb.ROOT / "book" / "claims.md"

INTRODUCTION = """\
# The claims ledger

Each sentence of this book that rests on a measurement is a *claim*: a statement, a bound and a cell that
computes the value. A chapter that runs makes all its claims again and stops at the first that fails. This
page lists them all. It is written by `make ledger`, which runs every chapter with seeds {seeds}.

A row reads so. **Claim** links to the cell that checks it. **Bound** is what the book commits itself to.
**Measured** is the mean over the seeds ± their standard deviation: for a value that does not depend on the
seed, one number. **Margin** is the distance from the mean to the nearer bound, in standard deviations: below 3
(set in **bold**) another seed may well break the claim; "—" stands where the seeds do not differ, so that
there is no spread to count in. With {count} seeds, a standard deviation is itself a rough estimate. Claims marked †
need corpora or a model that `make data` and `make models` fetch.

The book makes {total} claims in {chapters} chapters: {exact} exact (an equality, without a tolerance) and
{measured} measured.
"""


def key(notebook: NotebookNode, seed: int) -> str:
    """A name for a run: it changes with the chapter's code, what it imports, the pinned packages or the seed."""
    digest = hashlib.sha256(f"seed {seed}\n".encode())
    for cell in nb.code_cells(notebook):
        digest.update(f"{nb.tags(cell)}\n{cell.source}\n".encode())
    code = "\n".join(cell.source for cell in nb.code_cells(notebook))
    for path in [*imported(code), nb.ROOT / "constraints.txt", *sorted((nb.ROOT / "book" / "data").glob("*.jsonl"))]:
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def imported(code: str) -> list[Path]:
    """The library's files that this code imports, directly or not, and the ``__init__`` of their packages."""
    source, found, waiting = nb.ROOT / "src", set(), [code]
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop())):
            for name in _names(node):
                file = source.joinpath(*name.split("."))
                files = {p / "__init__.py" for p in (file, *file.parents) if p.is_relative_to(source / "llmbook")}
                new = {f for f in files | {file.with_suffix(".py")} if f.is_file()} - found
                found |= new
                waiting += [f.read_text(encoding="utf-8") for f in new]
    return sorted(found)


def _names(node: ast.AST) -> list[str]:
    """The modules that an import statement may mean: ``from a import b`` is a or a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def run_cached(path: Path, seed: int) -> ch.Result:
    """The claims of a chapter at a seed, from the cache or from a run."""
    stored = CACHE / f"{path.stem}-{seed}-{key(nb.read(path), seed)}.json"
    if stored.exists():
        return ch.Result(**json.loads(stored.read_text(encoding="utf-8")))
    result = ch.rerun_one(path, {"seed": seed})
    if not result.error:
        stored.parent.mkdir(parents=True, exist_ok=True)
        write_whole(stored, json.dumps(vars(result)))
    result.chapter += f", seed {seed}"
    return result


def entry(cell: NotebookNode, record: dict[str, Any], values: list[Any]) -> dict[str, Any]:
    """One claim as claims.json holds it."""
    bounds = {name: record.get(name) for name in ("at_least", "at_most", "equals", "tol", "bound")}
    return {
        "text": record["text"],
        "cell": cell.id,
        "optional": bool(set(nb.OPTIONAL) & set(nb.tags(cell))),
        **bounds,
        "values": values,
    }


def collect(path: Path, runs: list[ch.Result]) -> dict[str, Any]:
    """One chapter as claims.json holds it: the stored claims, with their values over the runs."""
    notebook = nb.read(path)
    by_text = [{record["text"]: record["value"] for record in run.claims} for run in runs]
    return {
        "chapter": path.stem,
        "title": title(notebook),
        "claims": [
            entry(cell, record, [values[record["text"]] for values in by_text]) for cell, record in nb.claims(notebook)
        ],
    }


def title(notebook: NotebookNode) -> str:
    """The chapter's first heading."""
    found = re.search(r"^# (.+)$", notebook.cells[0].source, re.MULTILINE)
    return found.group(1) if found else "Untitled"


# --- the page ---------------------------------------------------------------------------------------------


def is_exact(claim: dict[str, Any]) -> bool:
    """An equality without a tolerance."""
    return claim["equals"] is not None and claim["tol"] is None


def spread(values: list[Any]) -> tuple[float, float] | None:
    """Mean and standard deviation; nothing for words and truth values."""
    if any(isinstance(v, bool | str) or v is None for v in values):
        return None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def show_measured(values: list[Any]) -> str:
    """``0.412 ± 0.007``, or one value where all agree."""
    if spread(values) is None or len(set(values)) == 1:
        value = values[0]
        return ("yes" if value else "no") if isinstance(value, bool) else _number(value)
    mean, sd = spread(values)
    return f"{mean:.3g} ± {sd:.1g}"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def margin(claim: dict[str, Any]) -> float | None:
    """Standard deviations between the mean and the nearer bound; nothing without a spread."""
    found = spread(claim["values"])
    if found is None or is_exact(claim) or found[1] == 0:
        return None
    low, high = claim["at_least"], claim["at_most"]
    if claim["tol"] is not None:
        low, high = claim["equals"] - claim["tol"], claim["equals"] + claim["tol"]
    distances = [found[0] - low] if low is not None else []
    distances += [high - found[0]] if high is not None else []
    return min(distances) / found[1]


def show_margin(claim: dict[str, Any]) -> str:
    """Two digits; bold below three standard deviations; capped where the number says no more."""
    value = margin(claim)
    if value is None or not math.isfinite(value):
        return "—"
    text = "> 100" if value > 100 else f"{value:.2g}"
    return f"**{text}**" if value < 3 else text


def escaped(text: str) -> str:
    """Text as MyST shows it letter by letter, inside a table."""
    return re.sub(r"([\\`*_{}\[\]$|#~^])", r"\\\1", html.escape(text, quote=False))


def row(chapter: str, claim: dict[str, Any]) -> str:
    """One line of a chapter's table."""
    link = f'<a href="../notebooks/{chapter}.html#cell-{claim["cell"]}">{escaped(claim["text"])}</a>'
    mark = " †" if claim["optional"] else ""
    cells = link + mark, escaped(claim["bound"]), show_measured(claim["values"]), show_margin(claim)
    return "| " + " | ".join(cells) + " |"


def page(data: dict[str, Any]) -> str:
    """The ledger in MyST Markdown."""
    claims = [claim for chapter in data["chapters"] for claim in chapter["claims"]]
    exact = sum(map(is_exact, claims))
    words = INTRODUCTION.format(
        seeds=listed(map(str, data["seeds"])), count=len(data["seeds"]), total=len(claims),
        chapters=len(data["chapters"]), exact=exact, measured=len(claims) - exact,
    )  # fmt: skip
    parts = [words]
    for chapter in data["chapters"]:
        head = f"## [{chapter['title']}](../notebooks/{chapter['chapter']}.ipynb)\n"
        table = ["| Claim | Bound | Measured | Margin |", "|:--|:--|:--|--:|"]
        parts.append("\n".join([head, *table, *(row(chapter["chapter"], claim) for claim in chapter["claims"])]) + "\n")
    return "\n".join(parts)


def listed(words: Iterable[str]) -> str:
    """``0, 1 and 2``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


# --- checks and the command -------------------------------------------------------------------------------


def out_of_step(data: dict[str, Any], paths: list[Path]) -> list[str]:
    """Claims that the ledger and the stored chapters do not share, cell and bound included."""
    ledger = {(c["chapter"], e["cell"], e["text"], e["bound"]) for c in data["chapters"] for e in c["claims"]}
    stored = {
        (path.stem, cell.id, record["text"], record["bound"])
        for path in paths
        for cell, record in nb.claims(nb.read(path))
    }
    return [
        *(f"not in the ledger: {claim}" for claim in sorted(stored - ledger)),
        *(f"no longer in the chapters: {claim}" for claim in sorted(ledger - stored)),
    ]


def merged(stored: dict[str, Any], new: list[dict[str, Any]]) -> dict[str, Any]:
    """The ledger with these chapters in place of their old rows, in the book's order."""
    kept = {c["chapter"]: c for c in stored["chapters"]} if stored.get("seeds") == list(SEEDS) else {}
    chapters = kept | {c["chapter"]: c for c in new}
    return {"seeds": list(SEEDS), "chapters": [chapters[name] for name in sorted(chapters)]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="chapter numbers; all if none is given")
    args = parser.parse_args()
    if without := ch.absent():
        print(f"The ledger covers {' and '.join(without)} cells too, and what they need is not here: see `make help`.")
        return 1
    ch.warm_up()
    paths = nb.find_chapters(args.chapters)
    jobs = [(path, seed) for path in paths for seed in SEEDS]
    try:
        results = ch.in_parallel(run_cached, jobs)
    except KeyboardInterrupt:
        print("Interrupted; the runs that ended are kept, and `make ledger` goes on from there.", file=sys.stderr)
        return 130
    if any(result.error for result in results):
        return 1
    runs = dict(zip(jobs, results, strict=True))
    stored = json.loads(VALUES.read_text(encoding="utf-8")) if args.chapters else {}
    data = merged(stored, [collect(p, [runs[p, s] for s in SEEDS]) for p in paths])
    write_whole(VALUES, json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    write_whole(PAGE, page(data))
    print(f"wrote {PAGE.relative_to(nb.ROOT)} and {VALUES.relative_to(nb.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
