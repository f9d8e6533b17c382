"""The model: arguments as in gensim, a vocabulary, and threads that run the compiled loop."""

import math
import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from llmbook.word2vec.counts import alias_table, huffman_tree, keep_probability, noise_distribution
from llmbook.word2vec.kernel import train_chunk
from llmbook.word2vec.keyedvectors import KeyedVectors


class Word2Vec:
    """Word vectors by skip-gram (sg=1) or CBOW (sg=0); arguments and attributes as in gensim.

    `sentences`: an iterable of lists of tokens. `negative` words of noise a pair (0: none), drawn by
    count ** `ns_exponent`; hs=1 adds hierarchical softmax, so set negative=0 to have that alone. `sample` is
    the subsampling threshold (0: off). `window` is the largest half-width; `shrink_windows` draws each
    width uniformly from 1..window. The rate falls from `alpha` to `min_alpha`. `workers` threads share the
    matrices without locks, so only workers=1 is reproducible. Afterwards: `wv` (KeyedVectors), `counts`
    (V,), and the output matrices `syn1neg` (V, D) and, with hs, `syn1` (V - 1, D).

    Unlike gensim, about a third of a window's pairs share their negatives, and sentences longer than 10,000
    words are not cut off.
    """

    def __init__(
        self,
        sentences: Iterable[Sequence[str]],
        *,
        vector_size: int = 100,
        alpha: float = 0.025,
        window: int = 5,
        min_count: int = 5,
        sample: float = 1e-3,
        seed: int = 1,
        workers: int = 1,
        min_alpha: float = 1e-4,
        sg: int = 0,
        hs: int = 0,
        negative: int = 5,
        ns_exponent: float = 0.75,
        cbow_mean: int = 1,
        epochs: int = 5,
        shrink_windows: bool = True,
    ):
        vector_size, window = _whole("vector_size", vector_size, 1), _whole("window", window, 1)
        min_count, epochs = _whole("min_count", min_count, 1), _whole("epochs", epochs, 1)
        workers, seed = _whole("workers", workers, 1), _whole("seed", seed, 0)
        for name, value in {"sg": sg, "hs": hs, "cbow_mean": cbow_mean, "shrink_windows": shrink_windows}.items():
            if value not in (0, 1):
                raise ValueError(f"{name} must be 0 or 1, got {value!r}")
        negative = _whole("negative", negative, 0)
        if negative == 0 and not hs:
            raise ValueError(f"negative must be at least 1, or 0 with hs=1, got negative={negative}, hs={hs}")
        if not math.isfinite(ns_exponent):
            raise ValueError(f"ns_exponent must be finite, got {ns_exponent}")
        if not 0 <= min_alpha <= alpha < math.inf:
            raise ValueError(f"alpha must be finite and at least min_alpha, got {alpha} and {min_alpha}")
        self.seed, self.workers, self.epochs = seed, workers, epochs
        self.sg, self.hs, self.negative, self.cbow_mean = sg, hs, negative, cbow_mean
        self.window, self.shrink_windows, self.sample = window, shrink_windows, sample
        self.alpha, self.min_alpha, self.ns_exponent = alpha, min_alpha, ns_exponent

        words, self.counts, tokens, offsets = _encode(sentences, min_count)
        rng = np.random.default_rng(seed)
        start = 2 * rng.random((len(words), vector_size), dtype=np.float32) - 1  # gensim's; word2vec.c has half
        self.wv = KeyedVectors(words, start / np.float32(vector_size))
        self.syn1 = np.zeros((max(0, len(words) - 1) if hs else 0, vector_size), np.float32)
        self.syn1neg = np.zeros((len(words) if negative else 0, vector_size), np.float32)
        self._train(tokens, offsets, rng)

    def _train(self, tokens: np.ndarray, offsets: np.ndarray, rng: np.random.Generator) -> None:
        tree = huffman_tree(self.counts) if self.hs else huffman_tree([1])
        noise = alias_table(noise_distribution(self.counts, self.ns_exponent))
        keep = keep_probability(self.counts, self.sample)
        states = rng.integers(2**63, size=(self.workers, 1)).astype(np.uint64)
        # Each thread takes a run of sentences with about as many words as any other's.
        shares = np.linspace(0, offsets[-1], self.workers + 1)
        borders = np.searchsorted(offsets, shares)
        rates = np.linspace(self.alpha, self.min_alpha, self.epochs + 1)

        window = (self.window, bool(self.shrink_windows))
        matrices = (self.wv.vectors, self.syn1, self.syn1neg)
        options = (bool(self.sg), bool(self.hs), self.negative, bool(self.cbow_mean))

        def work(part: int, epoch: int) -> None:
            span, rate = (borders[part], borders[part + 1]), (rates[epoch], rates[epoch + 1])
            train_chunk(tokens, offsets, span, keep, window, matrices, tree, noise, options, rate, states[part])

        with ThreadPoolExecutor(self.workers) as pool:
            for epoch in tqdm(range(self.epochs), desc="Word2Vec", unit="epoch", disable=None):
                list(pool.map(work, range(self.workers), [epoch] * self.workers))
        if not np.isfinite(self.wv.vectors).all():
            raise FloatingPointError(f"the vectors overflowed: alpha={self.alpha} is too large for this corpus")


def _whole(name: str, value: int, least: int) -> int:
    """The argument as a Python int; refused by name if it is no whole number or too small."""
    try:
        number = operator.index(value)  # also NumPy's integers
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def _encode(sentences: Iterable[Sequence[str]], min_count: int):
    """(words by falling count, their counts (V,), tokens (N,) int32, sentence offsets (S + 1,))."""
    if isinstance(sentences, str):
        raise TypeError("sentences must be an iterable of lists of tokens, got one string")
    corpus, counter = [], Counter()
    for sentence in sentences:
        if isinstance(sentence, str):
            raise TypeError(
                f"each sentence must be a list of tokens, got the string {sentence[:30]!r}, "
                "whose letters would count as words; split it first"
            )
        corpus.append(list(sentence))
        counter.update(corpus[-1])
    if not counter:
        raise ValueError("sentences must have at least one word, got none")
    words = [word for word, count in counter.most_common() if count >= min_count]
    if not words:
        top = counter.most_common(1)[0][1]
        raise ValueError(f"min_count must leave some words, got {min_count}; the most frequent occurs {top} times")
    index = {word: i for i, word in enumerate(words)}
    encoded = [[index[word] for word in sentence if word in index] for sentence in corpus]
    offsets = np.cumsum([0, *map(len, encoded)])
    tokens = np.fromiter((i for sentence in encoded for i in sentence), np.int32, offsets[-1])
    return words, np.array([counter[word] for word in words]), tokens, offsets
