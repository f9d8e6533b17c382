"""Counting: from sequences of tokens to one padded stream, and from it to tables of k-grams.

A sequence is padded with ``<s>`` on the left only; ``<s>`` is never predicted. Where the end of a sentence
should be predicted, append ``</s>`` to it: it is a token like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmbook.tokenization import UNKNOWN, Vocabulary

START, END = "<s>", "</s>"

Sequences = Sequence[Sequence[str]]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


def build_vocabulary(sequences: Sequences, min_count: int = 1, max_size: int | None = None) -> Vocabulary:
    """The vocabulary that the models of this module want: ``<s>`` is id 0 and ``<unk>`` id 1."""
    tokens = (token for sequence in sequences for token in sequence)
    return Vocabulary(tokens, min_count=min_count, max_size=max_size, specials=(START, UNKNOWN))


# --- from sequences to one padded stream -------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """Sequences laid end to end, each after order − 1 padding tokens."""

    ids: IntArray  # (P,)
    predicted: NDArray[np.bool_]  # (P,) false on the padding


def make_stream(sequences: Sequences, vocabulary: Vocabulary, order: int) -> Stream:
    """Encode and pad. TypeError for strings in place of token lists, ValueError if there is no token."""
    if isinstance(sequences, str) or any(isinstance(sequence, str) for sequence in sequences):
        raise TypeError("sequences must be a list of lists of tokens, got a string where a list was wanted")
    start = vocabulary.token_to_id(START)
    ids: list[int] = []
    lengths: list[int] = []
    for sequence in sequences:
        ids += [start] * (order - 1)
        ids += vocabulary.encode(sequence)
        lengths += [order - 1, len(sequence)]
    predicted = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    if not predicted.any():
        raise ValueError("sequences must hold at least one token, got none")
    stream = Stream(np.array(ids, dtype=np.int64), predicted)
    if (stream.ids[predicted] == start).any():
        raise ValueError(f"sequences must not contain {START}: the padding is added here")
    return stream


def context_windows(stream: Stream, order: int) -> tuple[IntArray, IntArray]:
    """The order − 1 ids before each predicted token (N, order − 1), and that token's own (N,)."""
    grams = np.lib.stride_tricks.sliding_window_view(stream.ids, order)  # (P − order + 1, order)
    grams = grams[np.flatnonzero(stream.predicted) - (order - 1)]  # (N, order)
    return grams[:, :-1], grams[:, -1]


# --- counting ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GramTable:
    """The distinct k-grams of a text. A gram's name is its row here, its context's a row of the table before.

    The keys ascend, so the grams that share a context lie side by side, and look-up is a binary search.
    """

    keys: IntArray  # (G,) context row · V + last word
    counts: IntArray  # (G,) occurrences that end at a predicted token
    suffix: IntArray  # (G,) row, in the (k−1)-gram table, of the gram without its first word
    vocab_size: int
    context_total: int  # how many rows the (k−1)-gram table has

    @property
    def contexts(self) -> IntArray:
        """Row of each gram's context (G,)."""
        return self.keys // self.vocab_size

    def context_sums(self, values: NDArray) -> FloatArray:
        """Sums of the grams' values (G,) by context (context_total,)."""
        return np.bincount(self.contexts, weights=values, minlength=self.context_total)

    def find(self, contexts: IntArray, words: IntArray) -> IntArray:
        """Rows (N,) of the grams "context + word"; −1 where there is none, or the context itself is −1."""
        keys = contexts * self.vocab_size + words
        rows = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((contexts >= 0) & (self.keys[rows] == keys), rows, -1)

    def followers(self, context: int) -> slice:
        """The rows of all grams with this context."""
        return slice(*np.searchsorted(self.keys, [context * self.vocab_size, (context + 1) * self.vocab_size]))


def count_grams(stream: Stream, vocab_size: int, order: int) -> list[GramTable]:
    """Tables of the k-grams, k = 1 … order.

    A k-gram is packed into one integer, "row of its context" · V + "last word", and all are numbered by one
    sort of these integers: time grows with the text and the order, not with V to the power of the order.
    """
    tables = []
    shorter = np.zeros_like(stream.ids)  # (P,) row of the (k−1)-gram ending here; there is one empty gram
    for _ in range(order):
        contexts = np.roll(shorter, 1)  # the (k−1)-gram that ends one place earlier
        keys, rows = np.unique(contexts * vocab_size + stream.ids, return_inverse=True)
        counts = np.bincount(rows, weights=stream.predicted).astype(np.int64)
        suffix = np.empty_like(keys)
        suffix[rows] = shorter
        tables.append(GramTable(keys, counts, suffix, vocab_size, len(tables[-1].keys) if tables else 1))
        shorter = rows
    return tables
