"""Checkers of chapter 18: clipped precision, brevity, and one round of EM."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from llmbook.exercises import Case, Mistake, check

Words = Sequence[str]


def check_precision(function: Callable[[Words, Words, int], float]) -> bool:
    """Check ``function(hypothesis, reference, n)``: the clipped share of the hypothesis's runs of n words."""
    inputs = {
        "single words": ("the red ball is here".split(), "here is the red cup".split(), 1),
        "a word said too often": (["the"] * 7, "the cat is on the mat".split(), 1),
        "pairs of words": ("the red ball is here".split(), "here is the red cup".split(), 2),
        "a long hypothesis": ("a b c a b c".split(), "a b c".split(), 2),
        "shorter than n": (["a"], ["a", "b"], 2),
    }
    cases = [Case(name, args, _precision(*args)) for name, args in inputs.items()]
    return check(function, cases, _PRECISION_MISTAKES)


def _grams(words: Words, n: int) -> Counter:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _precision(ours: Words, theirs: Words, n: int, *, clip: bool = True, recall: bool = False) -> float:
    ours, theirs = _grams(ours, n), _grams(theirs, n)
    hits = (ours & theirs).total() if clip else sum(count for gram, count in ours.items() if gram in theirs)
    size = (theirs if recall else ours).total()
    return hits / size if size else 0.0


def _of_kinds(ours: Words, theirs: Words, n: int) -> float:
    a, b = set(_grams(ours, n)), set(_grams(theirs, n))
    return len(a & b) / len(a) if a else 0.0


_PRECISION_MISTAKES = [
    Mistake(
        "a run counts at most as often as the reference has it; seven times “the” must not score 1.",
        lambda h, r, n: _precision(h, r, n, clip=False),
    ),
    Mistake(
        "that is recall: divide by the runs of the hypothesis, not of the reference.",
        lambda h, r, n: _precision(h, r, n, recall=True),
    ),
    Mistake("count every occurrence, not every kind of run: a set forgets how often.", _of_kinds),
    Mistake("that is right for n = 1 only: take runs of n words.", lambda h, r, n: _precision(h, r, 1)),
    Mistake(
        "a hypothesis shorter than n has no runs: return 0 there.",
        lambda h, r, n: _precision(h, r, n) if len(h) >= n else math.nan,
    ),
]


def check_brevity(function: Callable[[int, int], float]) -> bool:
    """Check ``function(ours, theirs)``: the factor by which BLEU punishes a text that is too short."""
    inputs = {"too short": (8, 10), "far too short": (1, 10), "as long": (10, 10), "longer": (13, 10)}
    cases = [Case(name, args, _brevity(*args)) for name, args in inputs.items()]
    return check(function, cases, _BREVITY_MISTAKES)


def _brevity(ours: int, theirs: int) -> float:
    return math.exp(min(0.0, 1 - theirs / ours))


_BREVITY_MISTAKES = [
    Mistake("a text that is too long gets 1: the precisions punish it already.", lambda a, b: math.exp(1 - b / a)),
    Mistake("the fraction stands the other way: reference over hypothesis.", lambda a, b: math.exp(min(0, 1 - a / b))),
    Mistake("the penalty is exponential, not the ratio itself.", lambda a, b: min(1.0, a / b)),
]


Pairs = Sequence[tuple[Words, Words]]
Table = dict[tuple[str, str], float]


def check_em_round(function: Callable[[Pairs, Table], Table]) -> bool:
    """Check ``function(pairs, table)``: Model 1's table p(target | source) after one more round, without NULL."""
    pairs = [(["red", "ball"], ["红", "球"]), (["ball"], ["球"]), (["red", "cup"], ["红", "杯"])]
    flat = {(t, s): 1 / 3 for s in ("red", "ball", "cup") for t in ("红", "球", "杯")}
    once, repeated = _em_round(pairs, flat), [(["a", "a"], ["x"]), (["a", "b"], ["y"])]
    even = {(t, s): 0.5 for s in "ab" for t in "xy"}
    cases = [
        Case("from an even table", (pairs, flat), once),
        Case("a second round", (pairs, once), _em_round(pairs, once)),
        Case("a source word twice", (repeated, even), _em_round(repeated, even)),
    ]
    return check(function, cases, _EM_MISTAKES)


def _em_round(pairs: Pairs, table: Table, *, hard: bool = False, normal: str = "source") -> Table:
    counts: Counter = Counter()
    for sources, targets in pairs:
        for t in targets:
            best = max(sources, key=lambda s: table[t, s])
            total = sum(table[t, s] for s in sources)
            for s in sources:
                counts[t, s] += float(s == best) if hard else table[t, s] / total
    if normal == "none":
        return {key: counts[key] for key in table}
    place = 1 if normal == "source" else 0
    sums: Counter = Counter()
    for key, count in counts.items():
        sums[key[place]] += count
    return {key: counts[key] / sums[key[place]] if sums[key[place]] else 0.0 for key in table}


_EM_MISTAKES = [
    Mistake(
        "those are the expected counts; divide by their sum over the targets of each source word.",
        lambda pairs, table: _em_round(pairs, table, normal="none"),
    ),
    Mistake(
        "for each *source* word the probabilities of its targets sum to 1; yours sum to 1 for each target word.",
        lambda pairs, table: _em_round(pairs, table, normal="target"),
    ),
    Mistake(
        "that gives each target word wholly to its best source word; share it out in proportion to the table.",
        lambda pairs, table: _em_round(pairs, table, hard=True),
    ),
]
