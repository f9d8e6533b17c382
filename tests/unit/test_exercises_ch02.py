"""Chapter 02's checkers tell right, nearly right and wrong apart."""

from collections import Counter
from itertools import pairwise

import pytest
from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.exercises import ch02


def merged(word, pair):
    out, i = list(word), 0
    while i < len(out) - 1:
        if (out[i], out[i + 1]) == pair:
            out[i : i + 2] = [out[i] + out[i + 1]]
        i += 1
    return out


def changes(word, pair):
    counts = Counter(pairwise(merged(word, pair)))
    counts.subtract(pairwise(word))
    return counts


def stream(tokens):
    """Hold back at most three bytes that begin a character."""
    kept, shown = b"", []
    for i, token in enumerate(tokens):
        kept += token
        for cut in range(min(3, len(kept)), 0, -1):
            head, tail = kept[:-cut], kept[-cut:]
            lead = tail[0]
            needs = 2 if lead >> 5 == 6 else 3 if lead >> 4 == 14 else 4 if lead >> 3 == 30 else 1
            if needs > cut and all(byte >> 6 == 2 for byte in tail[1:]) and i < len(tokens) - 1:
                break
        else:
            head, tail = kept, b""
        shown.append(head.decode("utf-8", errors="replace"))
        kept = tail
    return shown


class Tokenizer:
    """Merges in order over the whole text."""

    def train(self, text, vocab_size):
        self.merges, ids = {}, list(text.encode())
        while 256 + len(self.merges) < vocab_size and len(ids) > 1:
            counts = Counter(pairwise(ids))
            best = max(counts, key=counts.get)
            self.merges[best] = 256 + len(self.merges)
            ids = self.apply(ids, best)

    def apply(self, ids, pair):
        out = []
        for i in ids:
            if out and (out[-1], i) == pair:
                out[-1] = self.merges[pair]
            else:
                out.append(i)
        return out

    def encode(self, text):
        ids = list(text.encode())
        for pair in self.merges:
            ids = self.apply(ids, pair)
        return tuple(ids)

    def spell(self, i):
        pair = next((pair for pair, new in self.merges.items() if new == i), None)
        return bytes([i]) if pair is None else self.spell(pair[0]) + self.spell(pair[1])

    def decode(self, ids):
        return b"".join(map(self.spell, ids)).decode(errors="replace")


class Longest(Tokenizer):
    def encode(self, text):
        data, ids = text.encode(), []
        known = {self.spell(i): i for i in range(256 + len(self.merges))}
        while data:
            size = max(n for n in range(1, len(data) + 1) if data[:n] in known)
            ids.append(known[data[:size]])
            data = data[size:]
        return ids


class Overlapping(Tokenizer):
    def apply(self, ids, pair):
        out, used = [], False
        for i in range(len(ids)):
            if tuple(ids[i : i + 2]) == pair:
                out.append(self.merges[pair])
                used = True
            else:
                if not used:
                    out.append(ids[i])
                used = False
        return out


class OneByOne(Tokenizer):
    def decode(self, ids):
        return "".join(self.spell(i).decode(errors="replace") for i in ids)


class Strict(Tokenizer):
    def decode(self, ids):
        return b"".join(map(self.spell, ids)).decode()


class Stub:
    """Your code here."""


RIGHT = {"changes": changes, "stream": stream, "tokenizer": Tokenizer}


def only(keep):
    return lambda word, pair: {p: n for p, n in changes(word, pair).items() if keep(p, n, pair)}


def so_far(tokens):
    pieces = stream(tokens)
    return ["".join(pieces[: i + 1]) for i in range(len(pieces))]


NEARLY = [
    ("changes", only(lambda p, n, pair: n > 0), "subtract them"),
    ("changes", only(lambda p, n, pair: n < 0), "neighbours too: add"),
    ("changes", only(lambda p, n, pair: p != pair), "itself is gone"),
    ("changes", lambda word, pair: Counter(pairwise(merged(word, pair))), "difference"),
    ("changes", lambda word, pair: {p: -n for p, n in changes(word, pair).items()}, "wrong sign"),
    ("stream", lambda tokens: [t.decode(errors="replace") for t in tokens], "by itself"),
    ("stream", lambda tokens: [t.decode(errors="ignore") for t in tokens], "you drop"),
    ("stream", lambda tokens: ([""] * len(tokens[1:]) + ["".join(stream(tokens))])[: len(tokens)], "wait for the end"),
    ("stream", lambda tokens: stream([*tokens, b""])[:-1], "left over"),
    ("stream", so_far, "only what is new"),
    ("tokenizer", Longest, "the longest token"),
    ("tokenizer", Overlapping, "used twice"),
    ("tokenizer", OneByOne, "join the bytes first"),
]

WRONG = {"changes": lambda word, pair: {pair: 7}, "stream": lambda tokens: ["x"], "tokenizer": Strict}


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_answer_is_accepted(name, capsys):
    assert_right(getattr(ch02, f"check_{name}"), RIGHT[name], capsys)


@pytest.mark.parametrize(("name", "answer", "words"), NEARLY)
def test_a_known_mistake_is_named(name, answer, words, capsys):
    assert_nearly(getattr(ch02, f"check_{name}"), answer, words, capsys)


@pytest.mark.parametrize("name", WRONG)
def test_any_other_answer_is_shown_beside_the_right_one(name, capsys):
    words = assert_wrong(getattr(ch02, f"check_{name}"), WRONG[name], capsys)
    assert "✗" in words
    assert "the right one" in words or "UnicodeDecodeError" in words


@pytest.mark.parametrize("name", RIGHT)
def test_a_stub_is_not_attempted(name, capsys):
    checker = getattr(ch02, f"check_{name}")
    if name == "tokenizer":
        assert not checker(Stub)
        assert "Not attempted yet" in capsys.readouterr().out
    else:
        assert_not_attempted(checker, capsys)
