"""n-gram language models and the first neural one: add-k, interpolated Kneser-Ney, Bengio et al. (2003).

All of them predict a token from the ``order − 1`` tokens before it, share one :class:`Vocabulary`, and give
log-probabilities in **nats**, so that their losses can be compared token by token. (nltk.lm's ``logscore`` is
in bits; ours is called ``logprobs`` so that the two are not confused.)

A sequence is padded with ``<s>`` on the left only; ``<s>`` is never predicted. Where the end of a sentence
should be predicted, append ``</s>`` to it: it is a token like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

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


# --- count-based models ------------------------------------------------------------------------------------


class NgramModel:
    """What the count-based models share: fitting, look-up, sampling.

    Both are mixtures along shorter and shorter contexts h, h′, …:

        p_k(w | h) = own[h w] + weight[h] · p_{k−1}(w | h′),    p_0 uniform over all tokens but ``<s>``,

    with own = 0 for a gram and weight = 1 for a context that was never seen. A subclass says what they are.
    """

    def __init__(self, order: int) -> None:
        if not isinstance(order, int) or order < 1:
            raise ValueError(f"order must be an integer of at least 1, got {order!r}")
        self.order = order

    def fit(self, sequences: Sequences, vocabulary: Vocabulary | None = None) -> Self:
        """Count the sequences' k-grams. Without a vocabulary, the tokens of the sequences make one."""
        self.vocab = build_vocabulary(sequences) if vocabulary is None else vocabulary
        if START not in self.vocab or UNKNOWN not in self.vocab:
            raise ValueError(f"vocabulary must hold {START} and {UNKNOWN}: make it with build_vocabulary")
        stream = make_stream(sequences, self.vocab, self.order)
        self.tables = count_grams(stream, len(self.vocab), self.order)
        self.own, self.weight = zip(*(self._estimate(k) for k in range(1, self.order + 1)), strict=True)
        return self

    def _estimate(self, k: int) -> tuple[FloatArray, FloatArray]:
        """For order k: own, one for each k-gram, and weight, one for each of their contexts."""
        raise NotImplementedError

    def count(self, gram: Sequence[str]) -> int:
        """How often these 1 … order tokens stood side by side in the text (``<s>`` may stand for padding)."""
        if isinstance(gram, str) or not 1 <= len(gram) <= self.order:
            raise ValueError(f"gram must be a list of 1 to {self.order} tokens, got {gram!r}")
        row = self._row(self.vocab.encode(gram))
        return int(self.tables[len(gram) - 1].counts[row]) if row >= 0 else 0

    def logprobs(self, sequences: Sequences) -> FloatArray:
        """ln p(token | the order − 1 before it), in nats, for each token of each sequence in turn (N,)."""
        stream = make_stream(sequences, self.vocab, self.order)
        p = np.full(len(stream.ids), 1 / self._predictable)
        rows = np.zeros_like(stream.ids)
        for table, own, weight in zip(self.tables, self.own, self.weight, strict=True):
            contexts = np.roll(rows, 1)
            rows = table.find(contexts, stream.ids)
            p = np.where(rows >= 0, own[rows], 0) + np.where(contexts >= 0, weight[contexts], 1) * p
        with np.errstate(divide="ignore"):  # log 0 = −∞ is the right answer for an impossible token
            return np.log(p[stream.predicted])

    def distribution(self, context: Sequence[str] = ()) -> FloatArray:
        """p(· | context) over the vocabulary (V,), by id; sums to 1. Only the last order − 1 tokens count."""
        if isinstance(context, str):
            raise TypeError(f"context must be a list of tokens, got the string {context!r}")
        padded = self.vocab.encode([START] * (self.order - 1) + list(context))
        p = np.full(len(self.vocab), 1 / self._predictable)
        p[self.vocab.token_to_id(START)] = 0
        for k, (table, own, weight) in enumerate(zip(self.tables, self.own, self.weight, strict=True)):
            row = self._row(padded[len(padded) - k :])
            if row < 0:
                break  # longer contexts were not seen either
            followers = table.followers(row)
            p *= weight[row]
            p[table.keys[followers] % table.vocab_size] += own[followers]
        return p

    def score(self, word: str, context: Sequence[str] = ()) -> float:
        """p(word | context), an unknown word as ``<unk>``."""
        return float(self.distribution(context)[self.vocab.token_to_id(word)])

    def generate(self, rng: np.random.Generator, max_tokens: int = 30, context: Sequence[str] = ()) -> list[str]:
        """Draw tokens one by one from p(· | the ones before), up to ``</s>`` or `max_tokens`."""
        tokens = list(context)
        while len(tokens) < len(context) + max_tokens and tokens[-1:] != [END]:
            p = self.distribution(tokens)
            tokens.append(self.vocab.id_to_token(rng.choice(len(p), p=p / p.sum())))
        return tokens[len(context) :]

    def _row(self, ids: Sequence[int]) -> int:
        """The row of a gram in the table of its length, 0 for the empty one, −1 if it was never seen."""
        row = np.zeros(1, dtype=np.int64)
        for table, word in zip(self.tables, ids, strict=False):
            row = table.find(row, np.array([word]))
        return int(row[0])

    @property
    def _predictable(self) -> int:
        """How many tokens can be predicted: all but ``<s>``."""
        return len(self.vocab) - 1


class AddK(NgramModel):
    """Add-k smoothing: p(w | h) = (c(h w) + k) / (c(h) + k·V), V the number of predictable tokens.

    In the form of :class:`NgramModel`, a mixture of the relative frequency and the uniform distribution, with
    nothing in between: that is its weakness. k = 1 is Laplace's rule; nltk calls the general case Lidstone.
    """

    def __init__(self, order: int, k: float = 1.0) -> None:
        super().__init__(order)
        if not (k > 0 and np.isfinite(k)):
            raise ValueError(f"k must be positive and finite, got {k}")
        self.k = k

    def _estimate(self, k: int) -> tuple[FloatArray, FloatArray]:
        table = self.tables[k - 1]
        if k < self.order:  # the shorter contexts are skipped
            return np.zeros(len(table.keys)), np.ones(table.context_total)
        added = self.k * self._predictable
        totals = table.context_sums(table.counts) + added
        return table.counts / totals[table.contexts], added / totals


class KneserNey(NgramModel):
    """Interpolated Kneser-Ney smoothing (Kneser & Ney 1995; Chen & Goodman 1999, equation 21 and after).

    p_k(w | h) = max(c(h w) − D, 0)/c(h) + D·N(h •)/c(h) · p_{k−1}(w | h′)

    At the highest order c is the count; below it is the continuation count N(• h w): after how many
    *different* words the gram occurs. N(h •) is the number of different words seen after h. The unigram is
    discounted too and mixed with the uniform distribution, so no token has probability 0.

    `discount` D, strictly between 0 and 1: one for all orders, or one for each order 1 … n. The unigram's may
    be 0, which is nltk's choice: ``KneserNeyInterpolated(n, D)`` is ``KneserNey(n, [0, D, …, D])``.
    """

    def __init__(self, order: int, discount: float | Sequence[float] = 0.75) -> None:
        super().__init__(order)
        discounts = [discount] * order if isinstance(discount, int | float) else list(discount)
        if len(discounts) != order:
            raise ValueError(f"discount must be one number or {order}, one for each order, got {discount}")
        if not (0 <= discounts[0] < 1 and all(0 < d < 1 for d in discounts[1:])):
            raise ValueError(f"discount must lie strictly between 0 and 1 (unigram: 0 allowed), got {discount}")
        self.discounts = discounts

    def adjusted_counts(self, k: int) -> IntArray:
        """Counts of the k-grams (G,): raw at the highest order, continuation counts below."""
        table = self.tables[k - 1]
        if k == self.order:
            return table.counts
        longer = self.tables[k]
        return np.bincount(longer.suffix[longer.counts > 0], minlength=len(table.keys))

    def _discount(self, k: int, counts: IntArray) -> FloatArray:
        """What is taken from each k-gram's count (G,)."""
        return np.minimum(counts, self.discounts[k - 1])

    def _estimate(self, k: int) -> tuple[FloatArray, FloatArray]:
        table, counts = self.tables[k - 1], self.adjusted_counts(k)
        taken = self._discount(k, counts)
        totals = table.context_sums(counts)
        divisor = np.maximum(totals, 1)  # a context that is followed only by padding: all weight goes down
        weight = np.where(totals > 0, table.context_sums(taken) / divisor, 1.0)
        return (counts - taken) / divisor[table.contexts], weight


class ModifiedKneserNey(KneserNey):
    """Kneser-Ney with three discounts per order, for counts 1, 2 and 3 or more, estimated from the text.

    Chen & Goodman 1999, equation 26: D_c = c − (c+1)·Y·n_{c+1}/n_c, Y = n_1/(n_1 + 2 n_2), where n_c is the
    number of grams of that order with count c. Where the text is too small for them, 0.5, 1 and 1.5 (as in
    KenLM's fallback).
    """

    def __init__(self, order: int) -> None:
        super().__init__(order)

    def _discount(self, k: int, counts: IntArray) -> FloatArray:
        n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
        taken = np.array([0.0, 0.5, 1.0, 1.5])
        if (n[1:5] > 0).all():
            y = n[1] / (n[1] + 2 * n[2])
            estimates = [c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3)]
            if all(0 < d < c for c, d in zip((1, 2, 3), estimates, strict=True)):
                taken[1:] = estimates
        return np.minimum(counts, taken[np.minimum(counts, 3)])


# --- the neural model --------------------------------------------------------------------------------------


class NeuralLM(nn.Module):
    """The neural probabilistic language model of Bengio, Ducharme, Vincent & Jauvin (2003), equation 1:

    logits = b + W x + U tanh(d + H x),    x = [C(w_{t−n+1}); …; C(w_{t−1})]

    C is the table of word vectors (V, m), x their concatenation ((n−1)·m,), H the hidden layer (h), and W the
    direct connections from the word vectors to the output, which `direct` switches on.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        order: int,
        embedding_dim: int = 30,
        hidden: int = 50,
        direct: bool = False,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("order", order, 2),
            ("embedding_dim", embedding_dim, 1),
            ("hidden", hidden, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        self.vocab, self.order = vocabulary, order
        inputs, size = (order - 1) * embedding_dim, len(vocabulary)
        self.C = nn.Embedding(size, embedding_dim)
        self.H = nn.Linear(inputs, hidden)
        self.U = nn.Linear(hidden, size)
        self.W = nn.Linear(inputs, size, bias=False) if direct else None
        for name, parameter in self.named_parameters():
            scale = 1.0 if name.startswith("C") else parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.0
            nn.init.normal_(parameter, std=scale, generator=generator)
        with torch.no_grad():
            self.U.bias[vocabulary.token_to_id(START)] = -torch.inf  # never predicted; its gradient is 0

    def forward(self, contexts: Tensor) -> Tensor:
        """Logits (B, V) of the token after each context (B, n − 1) of ids; −∞ for ``<s>``."""
        x = self.C(contexts).flatten(1)  # (B, (n−1)·m)
        logits = self.U(torch.tanh(self.H(x)))  # (B, V)
        if self.W is not None:
            logits = logits + self.W(x)
        return logits

    def fit(
        self,
        sequences: Sequences,
        *,
        epochs: int = 1,
        batch_size: int = 512,
        lr: float = 3e-3,
        generator: torch.Generator,
    ) -> list[float]:
        """Minimise the cross-entropy with Adam, the rate falling to 0; gives each epoch's loss in nats."""
        contexts, words = self._windows(sequences)
        optimizer = torch.optim.Adam(self.parameters(), lr=lr, fused=True)
        batches = [
            (epoch, batch)
            for epoch in range(epochs)
            for batch in torch.randperm(len(words), generator=generator).split(batch_size)
        ]
        losses = [0.0] * epochs
        for step, (epoch, batch) in enumerate(batches):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / len(batches))
            loss = F.cross_entropy(self(contexts[batch]), words[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses[epoch] += loss.item() * len(batch) / len(words)
        return losses

    @torch.no_grad()
    def logprobs(self, sequences: Sequences, batch_size: int = 4096) -> FloatArray:
        """ln p(token | the order − 1 before it), in nats, for every token of every sequence (N,)."""
        contexts, words = self._windows(sequences)
        parts = zip(contexts.split(batch_size), words.split(batch_size), strict=True)
        losses = [F.cross_entropy(self(context), word, reduction="none") for context, word in parts]
        return -torch.cat(losses).double().cpu().numpy()

    def _windows(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        contexts, words = context_windows(make_stream(sequences, self.vocab, self.order), self.order)
        device = self.C.weight.device
        return torch.tensor(contexts, device=device), torch.tensor(words, device=device)


def interpolate(first: FloatArray, second: FloatArray, weight: float) -> FloatArray:
    """Log-probabilities (N,) of the mixture weight · first + (1 − weight) · second of two models."""
    if not 0 < weight < 1:
        raise ValueError(f"weight must lie strictly between 0 and 1, got {weight}")
    return np.logaddexp(np.log(weight) + first, np.log1p(-weight) + second)
