"""Finding the passage that answers: BM25, the fusion of rankings, and how rankings are scored.

Scores are (Q, N): a row for each query, a column for each passage, greater is better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

# ------------------------------------------------------------ BM25


class BM25:
    """Robertson's ranking by words, in Lucene's form (Robertson & Zaragoza, 2009).

    Args:
        passages: each a list of tokens.
        k1: how soon a word's repetition stops counting; 0 counts it once.
        b: how much a long passage is discounted, from 0 (not at all) to 1 (in proportion to its length).
    """

    def __init__(self, passages: Sequence[Sequence[str]], k1: float = 1.5, b: float = 0.75):
        if not passages:
            raise ValueError("passages must hold at least one passage, got none")
        if isinstance(passages, str) or any(isinstance(p, str) for p in passages):
            raise ValueError("passages must be lists of tokens, got a text; split it first")
        if k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"k1 must be at least 0 and b lie in [0, 1], got {k1} and {b}")
        self.counts = [Counter(passage) for passage in passages]
        lengths = np.array([len(passage) for passage in passages], dtype=float)
        self._damping = k1 * (1 - b + b * lengths / max(lengths.mean(), 1e-12))  # (N,)
        self._holding: dict[str, list[int]] = {}  # a word -> the passages that hold it
        for i, count in enumerate(self.counts):
            for word in count:
                self._holding.setdefault(word, []).append(i)

    def idf(self, word: str) -> float:
        """The weight of a word: the rarer, the more. log(1 + (N - n + 1/2) / (n + 1/2))."""
        n = len(self._holding.get(word, ()))
        return float(np.log(1 + (len(self.counts) - n + 0.5) / (n + 0.5)))

    def scores(self, query: Sequence[str]) -> NDArray[np.float64]:
        """The score of each passage (N,); a word that the query repeats counts each time."""
        if isinstance(query, str):
            raise ValueError("query must be a list of tokens, got a text; split it first")
        total = np.zeros(len(self.counts))
        for word in query:
            for i in self._holding.get(word, ()):
                often = self.counts[i][word]
                total[i] += self.idf(word) * often / (often + self._damping[i])
        return total


# ------------------------------------------------------------ rankings and their scores


def ranks(scores: ArrayLike, relevant: ArrayLike) -> NDArray[np.float64]:
    """At which place each query's passage stands, from 1: scores (Q, N), relevant (Q,) indices; (Q,).

    Passages with equal scores share the mean of their places, so that nothing is gained by a tie.
    """
    table, wanted = np.asarray(scores, dtype=float), np.asarray(relevant)
    if table.ndim != 2 or np.isnan(table).any():
        raise ValueError(f"scores must be (Q, N) numbers without NaN, got shape {table.shape}")
    if wanted.shape != table.shape[:1]:
        raise ValueError(f"relevant must be {table.shape[:1]}, a passage for each query, got shape {wanted.shape}")
    if wanted.size and not (wanted.min() >= 0 and wanted.max() < table.shape[1]):
        raise ValueError(f"relevant must lie in 0..{table.shape[1] - 1}, got {wanted.min()} to {wanted.max()}")
    own = table[np.arange(len(table)), wanted][:, None]  # (Q, 1)
    better, equal = (table > own).sum(1), (table == own).sum(1)
    return 1 + better + (equal - 1) / 2


def recall_at(places: ArrayLike, k: int) -> float:
    """The share of queries whose passage is among the first k: places (Q,) from :func:`ranks`."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return float((np.asarray(places, dtype=float) <= k).mean())


def mean_reciprocal_rank(places: ArrayLike) -> float:
    """The mean of 1/place: 1 if all are first, 1/2 if all are second."""
    return float((1 / np.asarray(places, dtype=float)).mean())


def reciprocal_rank_fusion(*tables: ArrayLike, k: float = 60.0) -> NDArray[np.float64]:
    """One table of scores (Q, N) from several, by places alone: Σ 1/(k + place) (Cormack et al., 2009)."""
    if not tables or k < 0:
        raise ValueError(f"tables must hold at least one, and k be at least 0; got {len(tables)} and k = {k}")
    arrays = [np.asarray(table, dtype=float) for table in tables]
    if len({a.shape for a in arrays}) != 1 or arrays[0].ndim != 2:
        raise ValueError(f"tables must be of one shape (Q, N), got {[a.shape for a in arrays]}")
    return sum(1 / (k + _places(a)) for a in arrays)


def _places(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place of every passage in its row, ties sharing their mean: (Q, N)."""
    return rankdata(-table, axis=1)
