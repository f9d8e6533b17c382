"""Chapter 18's checkers tell a right, a nearly right and a wrong answer apart, in words."""

import math
from collections import Counter

import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises.ch18 import check_brevity, check_em_round, check_precision


@pytest.mark.parametrize("checker", [check_precision, check_brevity, check_em_round])
def test_a_stub_is_not_attempted(checker, capsys):
    assert_not_attempted(checker, capsys)


def runs(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def precision(ours, theirs, n):
    a, b = runs(ours, n), runs(theirs, n)
    return sum(min(a.count(g), b.count(g)) for g in set(a)) / len(a) if a else 0.0


def test_precision(capsys):
    assert_right(check_precision, precision, capsys)
    for answer, hint in (
        (lambda h, r, n: sum(g in runs(r, n) for g in runs(h, n)) / max(1, len(runs(h, n))), "at most as often"),
        (lambda h, r, n: precision(h, r, n) * len(runs(h, n)) / len(runs(r, n)), "that is recall"),
        (lambda h, r, n: len({*runs(h, n)} & {*runs(r, n)}) / max(1, len({*runs(h, n)})), "not every kind"),
        (lambda h, r, n: precision(h, r, 1), "runs of n words"),
        (lambda h, r, n: precision(h, r, n) if len(h) >= n else math.nan, "shorter than n"),
    ):
        assert_nearly(check_precision, answer, hint, capsys)
    assert_wrong(check_precision, lambda h, r, n: 0.5, capsys)


def test_brevity(capsys):
    assert_right(check_brevity, lambda a, b: 1.0 if a >= b else math.exp(1 - b / a), capsys)
    for answer, hint in (
        (lambda a, b: math.exp(1 - b / a), "too long"),
        (lambda a, b: math.exp(min(0, 1 - a / b)), "other way"),
        (lambda a, b: min(1, a / b), "exponential"),
    ):
        assert_nearly(check_brevity, answer, hint, capsys)
    assert_wrong(check_brevity, lambda a, b: 1.0, capsys)


def em(pairs, table, divide=True):
    counts = Counter()
    for sources, targets in pairs:
        for t in targets:
            for s in sources:
                counts[t, s] += table[t, s] / sum(table[t, other] for other in sources)
    if not divide:
        return {key: counts[key] for key in table}
    sums = Counter()
    for (_, s), c in counts.items():
        sums[s] += c
    return {(t, s): counts[t, s] / sums[s] for t, s in table}


def test_one_round_of_em(capsys):
    assert_right(check_em_round, em, capsys)
    assert_nearly(check_em_round, lambda p, t: em(p, t, divide=False), "expected counts", capsys)

    def other_way(pairs, table):
        counts, sums = em(pairs, table, divide=False), Counter()
        for (t, _), c in counts.items():
            sums[t] += c
        return {(t, s): counts[t, s] / sums[t] for t, s in table}

    def hard(pairs, table):
        counts, sums = Counter(), Counter()
        for sources, targets in pairs:
            for t in targets:
                best = max(sources, key=lambda s: table[t, s])
                for s in sources:
                    counts[t, s] += float(s == best)
        for (_, s), c in counts.items():
            sums[s] += c
        return {(t, s): counts[t, s] / sums[s] if sums[s] else 0.0 for t, s in table}

    assert_nearly(check_em_round, other_way, "for each *source* word", capsys)
    assert_nearly(check_em_round, hard, "share it out", capsys)
    assert_wrong(check_em_round, lambda p, t: t, capsys)
