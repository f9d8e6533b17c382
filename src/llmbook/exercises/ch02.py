"""Checkers of chapter 02: what a merge changes, printing tokens as they come, and a tokeniser of one's own."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from llmbook.bpe import merge_pair
from llmbook.exercises import Case, Mistake, check

Word = tuple[str, ...]
Pair = tuple[str, str]


# --- what a merge changes ----------------------------------------------------------------------------------


def check_changes(function: Callable[[Word, Pair], Mapping[Pair, int]]) -> bool:
    """`function(word, pair)`: {pair of neighbours: how its count in the word changes when `pair` is joined}."""
    inputs: dict[str, tuple[Word, Pair]] = {
        "in the middle: low + e, r": (("s", "low", "e", "r"), ("low", "e")),
        "at the beginning": (("l", "o", "w"), ("l", "o")),
        "at the end": (("l", "o", "w"), ("o", "w")),
        "the whole word": (("o", "n"), ("o", "n")),
        "not in the word": (("n", "e", "w"), ("l", "o")),
        "twice, side by side": (("a", "n", "a", "n", "a"), ("a", "n")),
        "aaa: one merge, not two": (("a", "a", "a"), ("a", "a")),
        "a neighbour that comes back elsewhere": (("x", "a", "b", "y", "x", "a"), ("a", "b")),
    }
    cases = [Case(name, args, _changes(*args)) for name, args in inputs.items()]
    mistakes = [
        Mistake(
            "you count what is new, but the pairs that the merged symbols formed with their neighbours are gone: "
            "subtract them.",
            lambda word, pair: _positive(_changes(word, pair)),
        ),
        Mistake(
            "you subtract what is gone, but the new symbol has neighbours too: add its pairs.",
            lambda word, pair: {p: n for p, n in _changes(word, pair).items() if n < 0},
        ),
        Mistake(
            "you correct the neighbours' pairs, but the merged pair itself is gone as well.",
            lambda word, pair: {p: n for p, n in _changes(word, pair).items() if p != pair},
        ),
        Mistake("you give the new counts of the whole word. What *changes* is their difference.", _new_counts),
        Mistake("right sizes, wrong sign: a pair that is gone changes by a negative number.", _negated),
    ]
    return check(lambda word, pair: _plain(function(word, pair)), cases, mistakes)


def _plain(answer: Any) -> Any:
    """A dictionary without the zero entries that a Counter may keep; anything else as it is."""
    return {pair: count for pair, count in answer.items() if count} if isinstance(answer, Mapping) else answer


def _changes(word: Word, pair: Pair) -> dict[Pair, int]:
    changes = Counter(pairwise(merge_pair(word, pair, "".join(pair))))
    changes.subtract(Counter(pairwise(word)))
    return _plain(changes)


def _positive(changes: Mapping[Pair, int]) -> dict[Pair, int]:
    return {pair: n for pair, n in changes.items() if n > 0}


def _new_counts(word: Word, pair: Pair) -> dict[Pair, int]:
    return dict(Counter(pairwise(merge_pair(word, pair, "".join(pair)))))


def _negated(word: Word, pair: Pair) -> dict[Pair, int]:
    return {p: -n for p, n in _changes(word, pair).items()}


# --- printing tokens as they come --------------------------------------------------------------------------


def check_stream(function: Callable[[list[bytes]], list[str]]) -> bool:
    """`function(tokens)`: for the bytes of each token, the text that may be printed once it has come."""
    dragon = "龍".encode()
    inputs: dict[str, list[bytes]] = {
        "plain letters": [b"the", b" end"],
        "a character in two tokens": ["é".encode()[:1], "é".encode()[1:]],
        "three bytes, one at a time": [dragon[:1], dragon[1:2], dragon[2:]],
        "the rest of one, the whole of another": [b"a" + dragon[:2], dragon[2:] + b"b"],
        "an emoji between words": [b"so ", *(bytes([byte]) for byte in "🐉".encode()), b" it is"],
        "an end in the middle of a character": [b"a", dragon[:2]],
        "a byte that can begin nothing": [b"a", b"\xff", b"b"],
        "no tokens": [],
    }
    cases = [Case(name, (tokens,), _stream(tokens)) for name, tokens in inputs.items()]
    mistakes = [
        Mistake(
            "you decode each token by itself, so a character that two tokens share becomes two signs for "
            "“undecodable”. Keep the bytes of an unfinished character for the next token.",
            lambda tokens: [token.decode("utf-8", errors="replace") for token in tokens],
        ),
        Mistake(
            "you drop what cannot be decoded yet. Keep those bytes: the next token may complete them.",
            lambda tokens: [token.decode("utf-8", errors="ignore") for token in tokens],
        ),
        Mistake("you wait for the end. Print each character as soon as its last byte is there.", _at_the_end),
        Mistake(
            "at the end something is left over: bytes that never became a character are printed as U+FFFD.",
            lambda tokens: _stream(tokens, final=False),
        ),
        Mistake("you print the whole text so far each time; print only what is new.", _all_so_far),
    ]
    return check(function, cases, mistakes)


def _stream(tokens: list[bytes], final: bool = True) -> list[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [decoder.decode(token, final and i == len(tokens) - 1) for i, token in enumerate(tokens)]


def _at_the_end(tokens: list[bytes]) -> list[str]:
    whole = b"".join(tokens).decode("utf-8", errors="replace")
    return [*[""] * (len(tokens) - 1), whole] if tokens else []


def _all_so_far(tokens: list[bytes]) -> list[str]:
    pieces = _stream(tokens)
    return ["".join(pieces[: i + 1]) for i in range(len(pieces))]


# --- a tokeniser of one's own ------------------------------------------------------------------------------


def check_tokenizer(tokenizer: Callable[[], Any]) -> bool:
    """`tokenizer()` makes one with ``train(text, vocab_size)``, ``encode(text)`` and ``decode(ids)``, over bytes.

    Ids 0 to 255 are the bytes, 256 the first merge. Text is not split into words first.
    """
    wikipedia = "aaabdaaabac"  # Wikipedia's example of byte-pair encoding
    probes: dict[str, tuple[Callable[[Any], Any], Any]] = {
        "without merges ids are bytes": (lambda t: list(_taught(t, "a", 256).encode("aé")), [97, 195, 169]),
        "three merges": (lambda t: list(_taught(t, wikipedia, 259).encode(wikipedia)), [258, 100, 258, 97, 99]),
        "aaa: from the left, without overlap": (lambda t: list(_taught(t, "aaa1aaa2", 257).encode("aaa")), [256, 97]),
        "the earliest merge first": (lambda t: list(_taught(t, "bc1bc2bc3ab4ab5", 258).encode("abc")), [97, 256]),
        "any text comes back": (lambda t: _there_and_back(_taught(t, wikipedia, 259), "aaab 語言 👋"), "aaab 語言 👋"),
        "an empty text": (lambda t: list(_taught(t, wikipedia, 259).encode("")), []),
        "half a character is U+FFFD": (lambda t: _taught(t, "a", 256).decode([195]), "\ufffd"),
        "no pairs are left": (lambda t: list(_taught(t, "ab", 300).encode("abab")), [256, 256]),
    }
    cases = [Case(name, (probe,), want) for name, (probe, want) in probes.items()]
    mistakes = [
        Mistake(
            "you take the longest token that fits, from the left. BPE applies the merges in the order in which "
            "they were learnt: abc with the merges bc, ab is a|bc.",
            lambda probe: probe(_LongestMatch),
        ),
        Mistake(
            "aaa became two merged tokens, so a byte was used twice. Go on behind *both* parts of a merge.",
            lambda probe: probe(_Overlapping),
        ),
        Mistake(
            "you decode token by token, but a character's bytes may lie in several tokens: join the bytes first.",
            lambda probe: probe(_TokenByToken),
        ),
    ]
    stub = getattr(tokenizer, "train", None) is None
    return check((lambda probe: None) if stub else (lambda probe: probe(tokenizer)), cases, mistakes)


def _taught(tokenizer: Callable[[], Any], text: str, vocab_size: int) -> Any:
    one = tokenizer()
    one.train(text, vocab_size)
    return one


def _there_and_back(tokenizer: Any, text: str) -> str:
    return tokenizer.decode(tokenizer.encode(text))


class _Reference:
    """A right answer, whose parts the known mistakes replace."""

    def train(self, text: str, vocab_size: int) -> None:
        ids = list(text.encode())
        self.merges: dict[tuple[int, int], int] = {}
        self.bytes = {i: bytes([i]) for i in range(256)}
        while len(self.bytes) < vocab_size and (counts := Counter(pairwise(ids))):
            pair, new = counts.most_common(1)[0][0], len(self.bytes)
            self.merges[pair], self.bytes[new] = new, self.bytes[pair[0]] + self.bytes[pair[1]]
            ids = self.merge(ids, pair, new)

    def merge(self, ids: Sequence[int], pair: tuple[int, int], new: int) -> list[int]:
        return merge_pair(ids, pair, new)

    def encode(self, text: str) -> list[int]:
        ids = list(text.encode())
        for pair, new in self.merges.items():
            ids = self.merge(ids, pair, new)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.bytes[i] for i in ids).decode("utf-8", errors="replace")


class _LongestMatch(_Reference):
    def encode(self, text: str) -> list[int]:
        rest, ids = text.encode(), []
        while rest:
            ids.append(max((i for i, b in self.bytes.items() if rest.startswith(b)), key=lambda i: len(self.bytes[i])))
            rest = rest[len(self.bytes[ids[-1]]) :]
        return ids


class _Overlapping(_Reference):
    def merge(self, ids: Sequence[int], pair: tuple[int, int], new: int) -> list[int]:
        hits = {i for i, neighbours in enumerate(pairwise(ids)) if neighbours == pair}
        return [new if i in hits else x for i, x in enumerate(ids) if i in hits or i - 1 not in hits]


class _TokenByToken(_Reference):
    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.bytes[i].decode("utf-8", errors="replace") for i in ids)
