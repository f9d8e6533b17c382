"""Chapter 02's checkers tell right, nearly right and wrong apart."""

import math
import re
from collections import Counter
from itertools import pairwise

import pytest

from llmbook.exercises import ch02


def pair_counts(words):
    counts = Counter()
    for word, n in words.items():
        for i in range(len(word) - 1):
            counts[word[i], word[i + 1]] += n
    return counts


def merge(symbols, pair):
    out = list(symbols)
    i = 0
    while i < len(out) - 1:
        if (out[i], out[i + 1]) == pair:
            out[i : i + 2] = ["".join(pair)]
        i += 1
    return out


def bits(logprobs, text):
    return -sum(logprobs) / (len(text) * math.log(2))


RIGHT = {"pair_counts": pair_counts, "merge": merge, "bits_per_character": bits}


def unweighted(words):
    return Counter((a, b) for word in words for a, b in pairwise(word))


def once_per_word(words):
    return sum((Counter(dict.fromkeys(pairwise(w), n)) for w, n in words.items()), Counter())


def text_counts(words):
    """Count with str.count, which skips overlaps."""
    found = {pair for word in words for pair in pairwise(word)}
    lines = {"|" + "|".join(word) + "|": n for word, n in words.items()}
    return {(a, b): sum(n * _spaced(line).count(f"|{a}||{b}|") for line, n in lines.items()) for a, b in found}


def _spaced(line):
    return line.replace("|", "||")


def concatenated(words):
    stream = [symbol for word, n in words.items() for _ in range(n) for symbol in word]
    return Counter(pairwise(stream))


def overlapping(symbols, pair):
    hits = [i for i in range(len(symbols) - 1) if (symbols[i], symbols[i + 1]) == pair]
    covered = {i for hit in hits for i in (hit, hit + 1)}
    return ["".join(pair) if i in hits else s for i, s in enumerate(symbols) if i in hits or i not in covered]


def first_only(symbols, pair):
    for i in range(len(symbols) - 1):
        if (symbols[i], symbols[i + 1]) == pair:
            return (*symbols[:i], symbols[i] + symbols[i + 1], *symbols[i + 2 :])
    return symbols


def from_the_right(symbols, pair):
    out = list(symbols)
    i = len(out) - 2
    while i >= 0:
        if (out[i], out[i + 1]) == pair:
            out[i : i + 2] = ["".join(pair)]
            i -= 1
        i -= 1
    return out


def by_string(symbols, pair):
    return re.sub(f"{pair[0]} {pair[1]}", pair[0] + pair[1], " ".join(symbols)).split()


def loop_over_pairs(symbols, pair):
    out, skip = [], False
    for a, b in pairwise(symbols):
        if skip:
            skip = False
        elif (a, b) == pair:
            out.append(a + b)
            skip = True
        else:
            out.append(a)
    return out


NEARLY = [
    ("pair_counts", unweighted, "add the word's count"),
    ("pair_counts", once_per_word, "several times"),
    ("pair_counts", text_counts, "overlap"),
    ("pair_counts", concatenated, "border"),
    ("merge", overlapping, "used twice"),
    ("merge", first_only, "first occurrence"),
    ("merge", from_the_right, "from the left"),
    ("merge", by_string, "Compare symbols, not letters"),
    ("merge", loop_over_pairs, "last symbol"),
    ("bits_per_character", lambda lp, text: -sum(lp) / len(text), "in nats"),
    ("bits_per_character", lambda lp, text: -sum(lp) / math.log(2) / len(lp), "number of tokens"),
    ("bits_per_character", lambda lp, text: -sum(lp) / math.log(2) / len(text.encode("utf-8")), "bits per byte"),
    ("bits_per_character", lambda lp, text: sum(lp) / math.log(2) / len(text), "the sign"),
    ("bits_per_character", lambda lp, text: -sum(lp) / math.log(2), "whole text"),
    ("bits_per_character", lambda lp, text: bits(lp, text.replace(" ", "")), "spaces"),
]

WRONG = {
    "pair_counts": lambda words: {("a", "b"): 1},
    "merge": lambda symbols, pair: ["x"],
    "bits_per_character": lambda logprobs, text: 42.0,
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_answer_is_accepted(name, capsys):
    assert getattr(ch02, f"check_{name}")(RIGHT[name])
    assert capsys.readouterr().out.endswith("All right.\n")


@pytest.mark.parametrize(("name", "answer", "words"), NEARLY)
def test_a_known_mistake_is_named(name, answer, words, capsys):
    assert not getattr(ch02, f"check_{name}")(answer)
    said = capsys.readouterr().out
    assert "Nearly: " in said
    assert words in said


@pytest.mark.parametrize("name", WRONG)
def test_any_other_answer_is_shown_beside_the_right_one(name, capsys):
    assert not getattr(ch02, f"check_{name}")(WRONG[name])
    said = capsys.readouterr().out
    assert "✗" in said
    assert "the right one" in said
    assert "Nearly" not in said


@pytest.mark.parametrize("name", RIGHT)
def test_a_stub_is_not_attempted(name, capsys):
    assert not getattr(ch02, f"check_{name}")(lambda *_: None)
    assert "Not attempted yet" in capsys.readouterr().out
