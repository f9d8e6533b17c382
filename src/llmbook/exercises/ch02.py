"""Checkers of chapter 02: counting pairs, one step of byte-pair encoding, and bits per character."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from llmbook.bpe import merge_pair
from llmbook.exercises import Case, Mistake, check

Word = tuple[str, ...]
Words = Mapping[Word, int]
Pair = tuple[str, str]


def check_pair_counts(function: Callable[[Words], Mapping[Pair, int]]) -> bool:
    """`function(words)`: {pair of neighbours: count}; words maps a tuple of symbols to how often it occurs."""
    cases = [
        Case("one word, once", ({tuple("low"): 1},), {("l", "o"): 1, ("o", "w"): 1}),
        Case("a word that occurs five times", ({tuple("low"): 5},), {("l", "o"): 5, ("o", "w"): 5}),
        _counted("a pair twice in one word", {tuple("banana"): 2}),
        _counted("overlapping pairs: aaa holds two", {tuple("aaa"): 3}),
        _counted("two words share a pair", {tuple("low"): 5, tuple("slow"): 2}),
        _counted("symbols longer than a letter", {("lo", "w"): 5, ("lo", "w", "er"): 2}),
        Case("a word of one symbol has no pairs", ({("a",): 7},), {}),
    ]
    mistakes = [
        Mistake(
            "you count each word once. A word that occurs five times holds each of its pairs five times: "
            "add the word's count, not 1.",
            lambda words: _pair_counts(dict.fromkeys(words, 1)),
        ),
        Mistake(
            "you count a pair once for each word that holds it, but a word may hold it several times (banana).",
            _once_per_word,
        ),
        Mistake(
            "you skip pairs that overlap: aaa holds (a, a) at two places. Overlaps matter when a pair is "
            "merged, not when it is counted.",
            _without_overlaps,
        ),
        Mistake(
            "you put the words end to end, so that the last symbol of one and the first of the next make a pair. "
            "Merges never cross a word's border.",
            _across_words,
        ),
    ]
    return check(lambda words: _plain(function(words)), cases, mistakes)


def _counted(name: str, words: Words) -> Case:
    return Case(name, (words,), _pair_counts(words))


def _plain(answer: Any) -> Any:
    """A dictionary without the zero entries that a Counter may keep; anything else as it is."""
    return {pair: count for pair, count in answer.items() if count} if isinstance(answer, Mapping) else answer


def _pair_counts(words: Words) -> dict[Pair, int]:
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    return dict(counts)


def _once_per_word(words: Words) -> dict[Pair, int]:
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        for pair in set(pairwise(word)):
            counts[pair] += count
    return dict(counts)


def _without_overlaps(words: Words) -> dict[Pair, int]:
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        previous: Pair | None = None
        for pair in pairwise(word):
            previous = None if pair == previous and pair[0] == pair[1] else pair
            if previous:
                counts[pair] += count
    return dict(counts)


def _across_words(words: Words) -> dict[Pair, int]:
    return dict(Counter(pairwise([symbol for word, count in words.items() for symbol in word * count])))


def check_merge(function: Callable[[Sequence[str], Pair], Sequence[str]]) -> bool:
    """`function(symbols, pair)`: the symbols with each occurrence of the pair joined, left to right."""
    inputs: dict[str, tuple[Word, Pair]] = {
        "one occurrence": (tuple("low"), ("l", "o")),
        "no occurrence": (tuple("new"), ("l", "o")),
        "two occurrences": (tuple("banana"), ("a", "n")),
        "aaa: the second a is used up": (tuple("aaa"), ("a", "a")),
        "aaaa: two merges": (tuple("aaaa"), ("a", "a")),
        "the pair at the very end": (tuple("newest"), ("s", "t")),
        "symbols longer than a letter": (("lo", "w", "lo", "w", "l"), ("lo", "w")),
        "same letters, other symbols": (("a", "bc", "ab", "c"), ("ab", "c")),
        "the pair's letters at the end of a longer symbol": (("cab", "c"), ("ab", "c")),
        "an empty word": ((), ("a", "b")),
    }
    cases = [Case(name, args, _merged(*args)) for name, args in inputs.items()]
    mistakes = [
        Mistake(
            "aaa became two joined symbols, so a letter was used twice. After a merge, go on behind *both* of "
            "its parts: i += 2.",
            _overlapping,
        ),
        Mistake("you stop after the first occurrence; a word may hold the pair several times.", _first_only),
        Mistake(
            "you go from the right: aaa should become aa a, not a aa. The library goes from the left.",
            _from_the_right,
        ),
        Mistake(
            "you replace text in a joined string, which also finds the pair inside longer symbols: in “cab c” the "
            "text “ab c” occurs, but the symbol ab does not. Compare symbols, not letters.",
            _by_string,
        ),
        Mistake("you lose the last symbol: a loop over pairs sees it only as the right half of one.", _last_lost),
    ]
    return check(lambda symbols, pair: _listed(function(symbols, pair)), cases, mistakes)


def _listed(answer: Any) -> Any:
    return list(answer) if isinstance(answer, tuple) else answer


def _merged(symbols: Sequence[str], pair: Pair) -> list[str]:
    return merge_pair(symbols, pair, "".join(pair))


def _overlapping(symbols: Sequence[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    used = False  # was this symbol the right half of a pair?
    for i, symbol in enumerate(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            merged.append("".join(pair))
            used = True
        else:
            if not used:
                merged.append(symbol)
            used = False
    return merged


def _first_only(symbols: Sequence[str], pair: Pair) -> list[str]:
    for i in range(len(symbols) - 1):
        if tuple(symbols[i : i + 2]) == pair:
            return [*symbols[:i], "".join(pair), *symbols[i + 2 :]]
    return list(symbols)


def _from_the_right(symbols: Sequence[str], pair: Pair) -> list[str]:
    return merge_pair(symbols[::-1], pair[::-1], "".join(pair))[::-1]


def _by_string(symbols: Sequence[str], pair: Pair) -> list[str]:
    return " ".join(symbols).replace(" ".join(pair), "".join(pair)).split()


def _last_lost(symbols: Sequence[str], pair: Pair) -> list[str]:
    """A loop over neighbours that only ever writes the left one."""
    merged: list[str] = []
    skip = False
    for neighbours in pairwise(symbols):
        if skip:
            skip = False
            continue
        skip = neighbours == pair
        merged.append("".join(pair) if skip else neighbours[0])
    return merged


def check_bits_per_character(function: Callable[[Sequence[float], str], float]) -> bool:
    """`function(logprobs, text)`: bits per character from the natural log-probabilities of the text's tokens."""
    inputs: dict[str, tuple[list[float], str]] = {
        "one token, one character, p = 1/2": ([math.log(0.5)], "a"),
        "two tokens for eight characters": ([math.log(0.25), math.log(0.125)], "language"),
        "a token for each character": ([math.log(0.5), math.log(0.25), math.log(0.125)], "cat"),
        "Chinese: three bytes for a character": ([math.log(0.1)] * 6, "语言"),
        "the space is a character too": ([math.log(0.3), math.log(0.2)], "a cat"),
    }
    cases = [Case(name, args, _bits(*args)) for name, args in inputs.items()]
    mistakes = [
        Mistake("right, but in nats: divide by ln 2 for bits.", lambda lp, text: _bits(lp, text) * math.log(2)),
        Mistake(
            "you divide by the number of tokens. That is what makes losses of two tokenisers incomparable: "
            "divide by the characters of the text.",
            lambda lp, text: -sum(lp) / math.log(2) / len(lp),
        ),
        Mistake(
            "you divide by the bytes: bits per byte. It is a fair measure too, but another one, and for Chinese "
            "a third of this one.",
            lambda lp, text: -sum(lp) / math.log(2) / len(text.encode()),
        ),
        Mistake("the sign: log-probabilities are negative, bits are not.", lambda lp, text: -_bits(lp, text)),
        Mistake(
            "that is the whole text's cost in bits. Divide by its characters.",
            lambda lp, text: -sum(lp) / math.log(2),
        ),
        Mistake(
            "you don't count the spaces, but the model had to predict them.",
            lambda lp, text: _bits(lp, text.replace(" ", "")),
        ),
    ]
    return check(function, cases, mistakes)


def _bits(logprobs: Sequence[float], text: str) -> float:
    return -sum(logprobs) / math.log(2) / len(text)
