"""What is computed from the words' counts: who is dropped, who is drawn as noise, and the Huffman tree."""

import heapq
import math
from collections.abc import Sequence

import numpy as np


def keep_probability(counts: np.ndarray, sample: float) -> np.ndarray:
    """Probability that an occurrence of each word survives subsampling (sample = 0: all do).

    As in word2vec.c and gensim, sqrt(t/f) + t/f capped at 1, for relative frequency f and threshold t;
    the paper prints sqrt(t/f).
    """
    counts = _positive("counts", counts)
    if not 0 <= sample < math.inf:  # NaN too
        raise ValueError(f"sample must be at least 0 and finite, got {sample}")
    if sample == 0:
        return np.ones(len(counts))
    ratio = sample * counts.sum() / counts  # t / f
    return np.minimum(1.0, np.sqrt(ratio) + ratio)


def noise_distribution(counts: np.ndarray, exponent: float = 0.75) -> np.ndarray:
    """The distribution negatives are drawn from: counts ** exponent, normalised. Shape (V,).

    An exponent of 1 gives the counts' own shares, 0 the same to every word, a negative one favours rare words.
    """
    if not math.isfinite(exponent):
        raise ValueError(f"exponent must be finite, got {exponent}")
    logs = exponent * np.log(_positive("counts", counts))
    weights = np.exp(logs - logs.max())  # the largest is 1: no power overflows
    return weights / weights.sum()


def alias_table(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias method: (threshold, alias), both (V,), to draw from any distribution in constant time.

    Draw a column uniformly; stay with the column's own probability `threshold`, else take its `alias`.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 1 or not (probabilities >= 0).all() or not np.isclose(probabilities.sum(), 1):
        raise ValueError(f"probabilities must be (V,) numbers of at least 0 with sum 1, got {probabilities}")
    threshold = probabilities * len(probabilities)
    alias = np.arange(len(probabilities), dtype=np.int32)
    small = [i for i, t in enumerate(threshold) if t < 1]
    large = [i for i, t in enumerate(threshold) if t >= 1]
    while small and large:
        i = small.pop()
        alias[i] = large[-1]
        threshold[large[-1]] -= 1 - threshold[i]  # the large one fills up the small one's column
        if threshold[large[-1]] < 1:
            small.append(large.pop())
    threshold[small + large] = 1.0  # what is left differs from 1 by rounding only
    return threshold, alias


class _Node:
    """A heap entry that compares by count alone, so that ties fall as they do in gensim's tree."""

    __slots__ = ("count", "index")

    def __init__(self, count: int, index: int):
        self.count, self.index = count, index

    def __lt__(self, other: "_Node") -> bool:
        return self.count < other.count


def huffman_tree(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Huffman tree over words: (offsets, nodes, codes).

    Word w's path from the root is nodes[offsets[w]:offsets[w + 1]] (inner nodes, 0 to V - 2), where it turns
    by codes[...] (0 left, 1 right). offsets has V + 1 entries; one word alone has an empty path. Which of
    two equal counts goes where is arbitrary: the mean path is the same.
    """
    size = len(_positive("counts", counts))
    parent, turn = np.zeros(2 * size, np.int64), np.zeros(2 * size, np.int8)
    heap = [_Node(int(count), word) for word, count in enumerate(counts)]
    heapq.heapify(heap)
    for node in range(size, 2 * size - 1):  # join the two rarest, size - 1 times
        left, right = heapq.heappop(heap), heapq.heappop(heap)
        parent[left.index] = parent[right.index] = node
        turn[right.index] = 1
        heapq.heappush(heap, _Node(left.count + right.count, node))
    offsets, nodes, codes = [0], [], []
    root = 2 * size - 2
    for word in range(size):
        path, position = [], word
        while position != root:
            path.append((parent[position] - size, turn[position]))
            position = parent[position]
        nodes += [node for node, _ in reversed(path)]
        codes += [code for _, code in reversed(path)]
        offsets.append(len(nodes))
    return np.array(offsets, np.int64), np.array(nodes, np.int32), np.array(codes, np.int8)


def _positive(name: str, counts: Sequence[int]) -> np.ndarray:
    """The counts as floats (V,), after a check that there are some and that all are positive."""
    values = np.asarray(counts, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not ((values > 0) & (values < math.inf)).all():
        raise ValueError(f"{name} must be a non-empty (V,) array of positive numbers, got {counts}")
    return values
