"""Running: one row for each format and for each of the judge's trials, written when it is there."""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from llmbook import pretrained, training
from llmbook.experiments import records
from llmbook.experiments.prompted.prompts import FORMATS, JUDGES, Prompt, padded, verdict_prompt
from llmbook.experiments.prompted.questions import Question, questions, starts
from llmbook.experiments.records import Row
from llmbook.pretrained import ModelError

COMMAND = "python -m llmbook.experiments.prompted"
DATA = Path(__file__).resolve().parents[4] / "book" / "data" / "prompted.jsonl"
FIELDS = {"part": str, "name": str, "trial": str, "logprobs": list, "code": str}
KEY = ("part", "name", "trial")
WRITTEN = 30  # tokens that the model writes where it is compared with a person
Pair = tuple[str, str, str]  # a task, and the two answers


@functools.lru_cache(maxsize=1)
def code_key() -> str:
    """A name for what makes the numbers: what this package's modules do, docstrings apart."""
    paths = sorted(Path(__file__).parent.glob("*.py"))
    outlines = [records.outline(path.read_text(encoding="utf-8")) for path in paths]
    return hashlib.sha256("\n".join(outlines).encode()).hexdigest()[:12]


# ------------------------------------------------------------ what the model says


@torch.no_grad()
def option_logprobs(model: nn.Module, tokenizer: Any, prompt: Prompt) -> list[float]:
    """Log-probability of each continuation of a prompt, nats; the sum over its tokens where it has several."""
    prefix, ends = prompt
    start = tokenizer(prefix, add_special_tokens=False)["input_ids"]
    rows = [tokenizer(end, add_special_tokens=False)["input_ids"] for end in ends]
    if all(len(row) == 1 for row in rows):
        logits = model(input_ids=torch.tensor([start]), logits_to_keep=1).logits[0, -1]
        return logits.log_softmax(-1)[[row[0] for row in rows]].tolist()
    ids = nn.utils.rnn.pad_sequence([torch.tensor(start + row) for row in rows], batch_first=True)
    longest = ids.shape[1] - len(start)
    logits = model(input_ids=ids, logits_to_keep=longest + 1).logits[:, :-1]  # (options, longest, V)
    return [_sum(logits[i], row) for i, row in enumerate(rows)]


def _sum(logits: Tensor, row: Sequence[int]) -> float:
    """Log-probability of ``row`` under the first of these logits (longest, V)."""
    table = logits[: len(row)].log_softmax(-1)
    return float(table[torch.arange(len(row)), torch.tensor(row)].sum())


@torch.no_grad()
def write_on(model: nn.Module, tokenizer: Any, text: str, size: int = WRITTEN) -> str:
    """The greedy continuation of a text by so many tokens, on one line."""
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    cache, told, step = None, [], ids
    marks = torch.tensor(tokenizer.all_special_ids)  # that end a text or open a turn: it is to go on
    for _ in range(size):
        out = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = out.logits[:, -1].index_fill(-1, marks, -torch.inf)
        cache, step = out.past_key_values, logits.argmax(-1, keepdim=True)
        told.append(int(step))
    return " ".join(tokenizer.decode(told).split())


# ------------------------------------------------------------ what the judge is asked


def judged() -> tuple[Question, ...]:
    """Every third question: those on whose answers the judge is tried."""
    return questions()[::3]


def right_and_wrong() -> list[Pair]:
    """A right answer, then a wrong one."""
    return [(q.text, q.answer, q.wrong) for q in judged()]


def the_same_twice() -> list[Pair]:
    """The right answer, twice."""
    return [(q.text, q.answer, q.answer) for q in judged()]


def long_and_short() -> list[Pair]:
    """The right answer among empty words, then the right answer alone."""
    return [(q.text, padded(q.answer), q.answer) for q in judged()]


def long_and_wrong() -> list[Pair]:
    """A wrong answer among empty words, then the right answer alone."""
    return [(q.text, padded(q.wrong), q.answer) for q in judged()]


TRIALS: dict[str, Callable[[], list[Pair]]] = {
    "right, wrong": right_and_wrong,
    "same, same": the_same_twice,
    "long, short": long_and_short,
    "long wrong, short right": long_and_wrong,
}
OWN = "own, person's"


@functools.lru_cache(maxsize=1)  # both wordings judge the same texts
def own_and_persons(model: nn.Module, tokenizer: Any) -> tuple[list[Pair], list[list[float]]]:
    """How the model goes on with a news text, then how its author did; as many tokens. And the log-likelihoods of both.

    The likelihoods, nats, are given the beginning alone: the model as a judge that is not asked.
    """
    pairs, likelihoods = [], []
    for start, rest in starts():
        own = write_on(model, tokenizer, start)
        size = len(tokenizer(own, add_special_tokens=False)["input_ids"])
        theirs = tokenizer.decode(tokenizer(rest, add_special_tokens=False)["input_ids"][:size]).strip()
        pairs.append((f"Continue this news text: {start}", own, theirs))
        likelihoods.append(option_logprobs(model, tokenizer, (start, (f" {own}", f" {theirs}"))))
    return pairs, likelihoods


# ------------------------------------------------------------ rows


def wanted() -> list[tuple[str, str, str]]:
    """Each (part, name, trial) that the file should hold, in the order in which they are computed."""
    formats = [("format", form.name, "set") for form in FORMATS if not form.per_character]  # which divides a row
    return formats + [("judge", judge, trial) for judge in JUDGES for trial in (*TRIALS, OWN)]


def measure(key: tuple[str, str, str], model: nn.Module, tokenizer: Any, which: slice = slice(None)) -> Row:
    """One row, or that part of it: a format on all questions, or a judge on a trial's pairs in both orders.

    ``logprobs`` holds for each question those of its options; for each pair those of "first" and "second" in the
    order given, then in the other one (4 numbers; 2 where both answers are the same).
    """
    part, name, trial = key
    row: Row = {"part": part, "name": name, "trial": trial, "code": code_key()}
    if part == "format":
        form = next(form for form in FORMATS if form.name == name)
        asked: list[Question] = list(questions())[which]
        found = [option_logprobs(model, tokenizer, form.prompt(q, tokenizer)) for q in asked]
    else:
        if trial == OWN:
            pairs, row["likelihoods"] = own_and_persons(model, tokenizer)
            row["texts"], row["likelihoods"] = pairs, _short(row["likelihoods"])
        else:
            pairs = TRIALS[trial]()[which]
        found = [list(_both_orders(name, pair, model, tokenizer)) for pair in pairs]
    return row | {"logprobs": _short(found)}


def _both_orders(judge: str, pair: Pair, model: nn.Module, tokenizer: Any) -> Iterator[float]:
    task, one, other = pair
    orders = [(one, other), (other, one)] if one != other else [(one, other)]
    for first, second in orders:
        yield from option_logprobs(model, tokenizer, verdict_prompt(judge, task, first, second, tokenizer))


def _short(rows: list[list[float]]) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in rows]


def load(path: str | Path = DATA) -> list[Row]:
    """The rows of a file; none where there is no file. ``ValueError`` that names a line for no row."""
    return records.load(path, FIELDS, KEY, COMMAND)


def missing(rows: Iterable[Row]) -> list[tuple[str, str, str]]:
    """What the rows lack, or other code has made."""
    there = {tuple(row[field] for field in KEY) for row in rows if row["code"] == code_key()}
    return [key for key in wanted() if key not in there]


def run(path: str | Path = DATA, *, progress: bool | None = None) -> list[Row]:
    """Compute what is missing from the file, and write it after each row. Returns all rows.

    Ctrl-C loses the row in progress only. Raises ``ValueError`` for a damaged file, ``ModelError`` without the model.
    """
    kept = {tuple(row[field] for field in KEY): row for row in load(path)}
    todo = missing(kept.values())
    if todo:
        model, tokenizer = pretrained.load("smollm2")
    place = {key: number for number, key in enumerate(wanted())}
    for key in tqdm(todo, disable=not training.shows_progress(progress), unit="row"):
        kept[key] = measure(key, model, tokenizer)
        records.save(kept.values(), path, lambda row: place.get(tuple(row[field] for field in KEY), len(place)))
    return [kept[key] for key in wanted()]


def main(argv: Sequence[str] | None = None) -> None:
    """The shell's entry; ``--dry-run`` only lists what is missing."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=run.__doc__)
    parser.add_argument("--path", type=Path, default=DATA, help="the file of rows (default: book/data/prompted.jsonl)")
    parser.add_argument("--dry-run", action="store_true", help="list what would run, and run nothing")
    options = parser.parse_args(argv)
    with records.from_the_shell(COMMAND, ValueError, ModelError):
        todo = missing(load(options.path))
        print(f"{len(todo)} of {len(wanted())} rows to compute")
        if options.dry_run:
            print("".join(f"  {', '.join(key)}\n" for key in todo), end="")
        else:
            run(options.path)
