"""n-gram models that count: add-k, interpolation, stupid backoff, absolute discounting, Kneser-Ney."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from llmbook.ngrams.counts import (
    END,
    START,
    FloatArray,
    GramTable,
    IntArray,
    Sequences,
    build_vocabulary,
    count_grams,
    make_stream,
)
from llmbook.tokenization import UNKNOWN, Vocabulary


class NgramModel:
    """What the count-based models share: fitting, look-up, sampling.

    All go along shorter and shorter contexts h, h′, …:

        p_k(w | h) = own[h w] + weight[h] · p_{k−1}(w | h′),    p_0 uniform over all tokens but ``<s>``,

    with own = 0 for a gram and weight = 1 for a context that was never seen. A subclass says what they are.
    Log-probabilities are in **nats**. (nltk.lm's ``logscore`` is in bits; ours is called ``logprobs`` so that
    the two are not confused.)
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
        return self._smooth(count_grams(stream, len(self.vocab), self.order))

    def fit_like(self, fitted: NgramModel) -> Self:
        """Smooth the counts of a fitted model of at least this order: as :meth:`fit` on its text, but at once."""
        if not hasattr(fitted, "tables") or fitted.order < self.order:
            raise ValueError(f"fitted must be a fitted model of order at least {self.order}, got {fitted!r}")
        self.vocab = fitted.vocab
        return self._smooth(fitted.tables[: self.order])

    def _smooth(self, tables: list[GramTable]) -> Self:
        self.tables = tables
        self.own, self.weight = [], []
        for k in range(1, self.order + 1):
            own, weight = self._estimate(k)
            self.own.append(own)
            self.weight.append(weight)
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


class JelinekMercer(NgramModel):
    """Interpolation with a constant weight (Jelinek & Mercer 1980):

    p_k(w | h) = (1 − λ) c(h w)/c(h) + λ p_{k−1}(w | h′)

    `weight` λ, strictly between 0 and 1: one for all orders, or one for each order 1 … n.
    """

    def __init__(self, order: int, weight: float | Sequence[float] = 0.5) -> None:
        super().__init__(order)
        self.weights = _one_each("weight", weight, order)
        if not all(0 < w < 1 for w in self.weights):
            raise ValueError(f"weight must lie strictly between 0 and 1, got {weight}")

    def _estimate(self, k: int) -> tuple[FloatArray, FloatArray]:
        frequencies, totals = _relative_frequencies(self.tables[k - 1])
        weight = self.weights[k - 1]
        return (1 - weight) * frequencies, np.where(totals > 0, weight, 1.0)


class StupidBackoff(NgramModel):
    """Stupid backoff (Brants et al. 2007), made a distribution.

    S_k(w | h) = c(h w)/c(h) if h w was seen, otherwise α S_{k−1}(w | h′)

    These scores do not sum to 1. Here each is divided by their sum Z(h) over all words, which is what makes a
    comparison in nats possible; at the scale they were made for, nobody computes it.
    """

    def __init__(self, order: int, alpha: float = 0.4) -> None:
        super().__init__(order)
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must be above 0 and at most 1, got {alpha}")
        self.alpha = alpha

    def _smooth(self, tables: list[GramTable]) -> Self:
        self._p = np.array([1 / self._predictable])  # of each (k−1)-gram's last word; of the empty gram: any word's
        self._total = np.ones(1)  # Z of each context of the order before
        return super()._smooth(tables)

    def _estimate(self, k: int) -> tuple[FloatArray, FloatArray]:
        table = self.tables[k - 1]
        frequencies, totals = _relative_frequencies(table)
        lower = self._p[table.suffix]  # (G,) p_{k−1}(w | h′)
        below = self._total if k == 1 else self._total[self.tables[k - 2].suffix]  # Z(h′) of each context h
        left = 1 - table.context_sums(np.where(table.counts > 0, lower, 0))  # p_{k−1} of all words not seen after h
        Z = (totals > 0) + self.alpha * below * left.clip(0)
        weight = np.where(totals > 0, self.alpha * below / Z, 1.0)
        inherited = weight[table.contexts] * lower
        own = np.where(table.counts > 0, frequencies / Z[table.contexts] - inherited, 0)
        self._p, self._total = own + inherited, Z
        return own, weight


class AbsoluteDiscounting(NgramModel):
    """Interpolated absolute discounting (Ney, Essen & Kneser 1994):

    p_k(w | h) = max(c(h w) − D, 0)/c(h) + D·N(h •)/c(h) · p_{k−1}(w | h′)

    N(h •) is the number of different words seen after h. The unigram is discounted too and mixed with the
    uniform distribution, so no token has probability 0.

    `discount` D, strictly between 0 and 1: one for all orders, or one for each order 1 … n. The unigram's may
    be 0, which is nltk's choice: ``AbsoluteDiscountingInterpolated(n, D)`` is
    ``AbsoluteDiscounting(n, [0, D, …, D])``.
    """

    def __init__(self, order: int, discount: float | Sequence[float] = 0.75) -> None:
        super().__init__(order)
        discounts = _one_each("discount", discount, order)
        if not (0 <= discounts[0] < 1 and all(0 < d < 1 for d in discounts[1:])):
            raise ValueError(f"discount must lie strictly between 0 and 1 (unigram: 0 allowed), got {discount}")
        self.discounts = discounts

    def adjusted_counts(self, k: int) -> IntArray:
        """What c stands for in the equation, for each k-gram (G,): here how often it occurs."""
        return self.tables[k - 1].counts

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


class KneserNey(AbsoluteDiscounting):
    """Interpolated Kneser-Ney smoothing (Kneser & Ney 1995; Chen & Goodman 1999, equation 21 and after).

    Absolute discounting with another c below the highest order: the continuation count N(• h w), after how
    many *different* words the gram occurs. nltk's ``KneserNeyInterpolated(n, D)`` is
    ``KneserNey(n, [0, D, …, D])``.
    """

    def adjusted_counts(self, k: int) -> IntArray:
        """Counts of the k-grams (G,): plain at the highest order, continuation counts below."""
        table = self.tables[k - 1]
        if k == self.order:
            return table.counts
        longer = self.tables[k]
        return np.bincount(longer.suffix[longer.counts > 0], minlength=len(table.keys))


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


def _relative_frequencies(table: GramTable) -> tuple[FloatArray, FloatArray]:
    """c(h w)/c(h) for each gram (G,), and c(h) for each context (context_total,), 0 where nothing followed."""
    totals = table.context_sums(table.counts)
    return table.counts / np.maximum(totals, 1)[table.contexts], totals


def _one_each(name: str, value: float | Sequence[float], order: int) -> list[float]:
    """One number for each order."""
    values = [value] * order if isinstance(value, int | float) else list(value)
    if len(values) != order:
        raise ValueError(f"{name} must be one number or {order}, one for each order, got {value}")
    return values


def interpolate(first: FloatArray, second: FloatArray, weight: float) -> FloatArray:
    """Log-probabilities (N,) of the mixture weight · first + (1 − weight) · second of two models."""
    if not 0 < weight < 1:
        raise ValueError(f"weight must lie strictly between 0 and 1, got {weight}")
    return np.logaddexp(np.log(weight) + first, np.log1p(-weight) + second)
