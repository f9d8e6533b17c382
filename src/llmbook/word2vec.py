"""Word2Vec after Mikolov et al. (2013), with gensim's signature and a compiled training loop.

Every variant is the same small problem: given a hidden vector h, decide for a few output rows whether each
is right (1) or wrong (0). Skip-gram takes h from one word, CBOW from the mean of a window; negative sampling
asks about the true words and some drawn at random, hierarchical softmax about the inner nodes on the way to
a word's leaf in a Huffman tree. `logistic_step` is that problem's gradient step; `train_chunk` walks the text.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numba import njit
from scipy import stats
from tqdm import tqdm

# Sums may be reordered (so that they vectorise), but infinities and NaN keep their meaning.
_JIT = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract", "arcp", "nsz"}}
_PARTS = 3  # a skip-gram window is learned in so many parts


# --- what is computed from the counts -------------------------------------------------------------------


def keep_probability(counts: np.ndarray, sample: float) -> np.ndarray:
    """Probability that an occurrence of each word survives subsampling (sample = 0: all do).

    As in word2vec.c and gensim, sqrt(t/f) + t/f capped at 1, for relative frequency f and threshold t;
    the paper prints sqrt(t/f).
    """
    if not sample >= 0:  # NaN too
        raise ValueError(f"sample must be at least 0, got {sample}")
    if sample == 0:
        return np.ones(len(counts))
    ratio = sample * counts.sum() / counts  # t / f
    return np.minimum(1.0, np.sqrt(ratio) + ratio)


def noise_distribution(counts: np.ndarray, exponent: float = 0.75) -> np.ndarray:
    """The distribution negatives are drawn from: counts ** exponent, normalised. Shape (V,)."""
    weights = np.asarray(counts, dtype=np.float64) ** exponent
    return weights / weights.sum()


def alias_table(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias method: (threshold, alias), both (V,), to draw from any distribution in constant time.

    Draw a column uniformly; stay with the column's own probability `threshold`, else take its `alias`.
    """
    threshold = np.asarray(probabilities, dtype=np.float64) * len(probabilities)
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
    two equal counts goes where is arbitrary but not harmless: as words are numbered in order of appearance,
    rare neighbours in the tree tend to come from one article, and the vectors learn it.
    """
    size = len(counts)
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


# --- the compiled loop ----------------------------------------------------------------------------------


@njit(**_JIT)
def _uniform(state: np.ndarray) -> float:
    """A number in [0, 1) from a 64-bit linear congruential generator (Knuth's MMIX constants)."""
    state[0] = state[0] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    return (state[0] >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(**_JIT)
def _draw(threshold: np.ndarray, alias: np.ndarray, state: np.ndarray) -> int:
    """One draw from the distribution that `alias_table` encodes."""
    x = _uniform(state) * len(threshold)
    column = int(x)
    return column if x - column < threshold[column] else alias[column]


@njit(**_JIT)
def logistic_step(h, grad_h, out, rows, labels, weights, n, alpha, score):
    """One gradient step on  loss = -sum_i weights[i] * log sigma(±h·out[rows[i]]),  i < n.

    The sign is + where labels[i] is 1 and - where it is 0. `out` (R, D) moves by -alpha times its gradient;
    -alpha times the gradient of h (D,) is *added* to `grad_h`, for the caller to hand on. All arrays float32
    (rows int32); `score` is scratch of at least n. Scores are taken before any row moves.
    """
    dim = h.shape[0]
    for i in range(n):
        row, dot = rows[i], np.float32(0)
        for k in range(dim):
            dot += h[k] * out[row, k]
        score[i] = dot
    for i in range(n):
        sigmoid = np.float32(1) / (np.float32(1) + math.exp(-score[i]))  # exp may be infinite: then 0
        score[i] = alpha * weights[i] * (labels[i] - sigmoid)
    for i in range(n):
        row, step = rows[i], score[i]
        for k in range(dim):
            grad_h[k] += step * out[row, k]
            out[row, k] += step * h[k]


@njit(**_JIT)
def train_chunk(tokens, offsets, span, keep, window, matrices, tree, noise, options, rates, state):
    """Train in place on sentences span[0] to span[1] - 1, the rate going linearly from rates[0] to rates[1].

    Sentence s is tokens[offsets[s]:offsets[s + 1]] (int32 word numbers). Words are dropped with probability
    1 - keep[word] before windows are laid. window = (largest half-width, whether to draw it from 1..largest);
    matrices = (syn0, syn1, syn1neg); tree and noise from `huffman_tree` and `alias_table`;
    options = (skip-gram?, hierarchical softmax?, negatives a pair, mean rather than sum?).

    One long function on purpose: split into several, with their arrays handed over at each centre word, it
    ran 1.3 to 1.5 times slower.
    """
    syn0, syn1, syn1neg = matrices
    path_start, nodes, codes = tree
    threshold, alias = noise
    skip_gram, hierarchical, negative, mean = options
    widest, shrink = window
    first, last = span
    dim, longest, deepest = syn0.shape[1], 0, 0
    for s in range(first, last):
        longest = max(longest, offsets[s + 1] - offsets[s])
    for w in range(len(path_start) - 1):
        deepest = max(deepest, path_start[w + 1] - path_start[w])
    most = max(deepest, 2 * widest + negative + 1)  # output rows of one step
    h, grad_h = np.empty(dim, np.float32), np.empty(dim, np.float32)
    rows, labels = np.empty(most, np.int32), np.empty(most, np.float32)
    weights, score = np.empty(most, np.float32), np.empty(most, np.float32)
    sentence = np.empty(longest, np.int32)

    for s in range(first, last):
        progress = (offsets[s] - offsets[first]) / max(1, offsets[last] - offsets[first])
        alpha = np.float32(rates[0] + (rates[1] - rates[0]) * progress)
        length = 0
        for t in range(offsets[s], offsets[s + 1]):  # subsampling
            if keep[tokens[t]] >= 1 or _uniform(state) < keep[tokens[t]]:
                sentence[length] = tokens[t]
                length += 1
        for i in range(length):
            half = 1 + int(_uniform(state) * widest) if shrink else widest
            low, high = max(0, i - half), min(length, i + half + 1)
            if high - low < 2:
                continue  # alone in its window
            centre = sentence[i]

            # The hidden vector: the centre word's for skip-gram, the window's mean or sum for CBOW.
            for k in range(dim):
                h[k], grad_h[k] = syn0[centre, k] if skip_gram else np.float32(0), 0
            scale = np.float32(1) / np.float32(high - low - 1)
            if not skip_gram:
                for j in range(low, high):
                    if j != i:
                        word = sentence[j]
                        for k in range(dim):
                            h[k] += syn0[word, k]
                if mean:
                    for k in range(dim):
                        h[k] *= scale

            # What it must predict: skip-gram each word around the centre, CBOW the centre.
            if hierarchical:  # the inner nodes on the way to each word in turn; a left turn has label 1
                # A step per word, as in word2vec.c. One step per window would move the root, which is on every
                # path, up to 2 * window times from the same old vectors, and the vectors come out worse.
                for j in range(low if skip_gram else i, high if skip_gram else i + 1):
                    if j != i or not skip_gram:
                        word, n = sentence[j], 0
                        for p in range(path_start[word], path_start[word + 1]):
                            rows[n], labels[n], weights[n] = nodes[p], 1 - codes[p], 1
                            n += 1
                        if skip_gram:
                            for k in range(dim):
                                h[k], grad_h[k] = h[k] + grad_h[k], 0
                        logistic_step(h, grad_h, syn1, rows, labels, weights, n, alpha, score)
            if negative:
                # Skip-gram takes every third word, then those beside them, so that later ones meet an h that has
                # learned. All pairs (h, true word) of a part share their `negative` words of noise, so that each
                # counts for all these pairs: the same expected gradient (Ji et al. 2016). As in word2vec.c, noise
                # that is a pair's own true word does not count for that pair.
                begin, end, parts = (low, high, _PARTS) if skip_gram else (i, i + 1, 1)
                for part in range(parts):
                    n = 0
                    for j in range(begin + part, end, parts):
                        if j != i or not skip_gram:
                            rows[n], labels[n], weights[n] = sentence[j], 1, 1
                            n += 1
                    if n == 0:
                        continue
                    positives = n
                    for _ in range(negative):
                        word = _draw(threshold, alias, state)
                        pairs = 0
                        for p in range(positives):
                            if rows[p] != word:
                                pairs += 1
                        rows[n], labels[n], weights[n] = word, 0, pairs
                        n += 1
                    if skip_gram:
                        for k in range(dim):
                            h[k], grad_h[k] = h[k] + grad_h[k], 0
                    logistic_step(h, grad_h, syn1neg, rows, labels, weights, n, alpha, score)

            # Hand the gradient on to the words that h was made of.
            if skip_gram:
                for k in range(dim):
                    syn0[centre, k] = h[k] + grad_h[k]
            else:
                # The gradient of a mean is scale * grad_h for every word, that of a sum is grad_h. word2vec.c
                # and gensim have it the other way round (Irsoy et al. 2021), and we follow them: their inputs
                # then learn at another rate than their outputs.
                if not mean:
                    for k in range(dim):
                        grad_h[k] *= scale
                for j in range(low, high):
                    if j != i:
                        word = sentence[j]
                        for k in range(dim):
                            syn0[word, k] += grad_h[k]


# --- the model ------------------------------------------------------------------------------------------


class KeyedVectors:
    """Words and their vectors, with gensim's names: `vectors` (V, D), `index_to_key`, `key_to_index`."""

    def __init__(self, keys: Sequence[str], vectors: np.ndarray):
        if len(keys) != len(vectors):
            raise ValueError(f"keys and vectors must pair up, got {len(keys)} keys and {len(vectors)} vectors")
        self.index_to_key = list(keys)
        self.key_to_index = {key: i for i, key in enumerate(self.index_to_key)}
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.index_to_key)

    def __contains__(self, key: str) -> bool:
        return key in self.key_to_index

    def __getitem__(self, key: str) -> np.ndarray:
        return self.vectors[self._index(key)]

    def _index(self, key: str) -> int:
        if key not in self.key_to_index:
            raise KeyError(f"{key!r} is not in the vocabulary of {len(self)} words")
        return self.key_to_index[key]

    def get_normed_vectors(self) -> np.ndarray:
        """The vectors scaled to length 1, (V, D); a zero vector stays zero."""
        norms = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return self.vectors / np.maximum(norms, np.finfo(np.float32).tiny)

    def similarity(self, w1: str, w2: str) -> float:
        """Cosine of the angle between two words' vectors."""
        a, b = self[w1].astype(np.float64), self[w2].astype(np.float64)
        return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), np.finfo(float).tiny))

    def most_similar(
        self, positive: str | Iterable[str] = (), negative: str | Iterable[str] = (), topn: int = 10
    ) -> list[tuple[str, float]]:
        """The `topn` words nearest by cosine to the sum of `positive` minus `negative` unit vectors.

        The query's own words are left out, as in gensim: `most_similar(["king", "woman"], ["man"])`.
        """
        positive = [positive] if isinstance(positive, str) else list(positive)
        negative = [negative] if isinstance(negative, str) else list(negative)
        if not positive and not negative:
            raise ValueError("positive and negative are both empty: there is nothing to compare with")
        if topn < 1:
            raise ValueError(f"topn must be at least 1, got {topn}")
        plus, minus = [self._index(w) for w in positive], [self._index(w) for w in negative]
        normed = self.get_normed_vectors()
        query = normed[plus].sum(axis=0) - normed[minus].sum(axis=0)
        scores = normed @ (query / max(np.linalg.norm(query), np.finfo(np.float32).tiny))
        scores[plus + minus] = -np.inf
        best = np.argsort(-scores, kind="stable")[: min(topn, len(self) - len({*plus, *minus}))]
        return [(self.index_to_key[i], float(scores[i])) for i in best]

    def evaluate_word_pairs(self, pairs: str | Path | Iterable[tuple[str, str, float]], delimiter: str = "\t"):
        """Agreement with human judgements: (Pearson result, Spearman result, per cent of pairs left out).

        `pairs`: triples (word, word, score), or a file of them with # comments, as gensim takes. Case is
        ignored. A pair with an unknown word is left out, so quote the third number with the others.
        """
        if isinstance(pairs, str | Path):
            lines = Path(pairs).read_text(encoding="utf-8").splitlines()
            rows = [line.split(delimiter) for line in lines if line and not line.startswith("#")]
            pairs = [(a, b, float(score)) for a, b, score in rows]
        pairs = [(a.lower(), b.lower(), score) for a, b, score in pairs]
        lower = {key.lower(): key for key in reversed(self.index_to_key)}  # the most frequent spelling wins
        known = [(lower[a], lower[b], score) for a, b, score in pairs if a in lower and b in lower]
        if len(known) < 2:
            raise ValueError(f"pairs must have at least 2 with both words in the vocabulary, got {len(known)}")
        ours = [self.similarity(a, b) for a, b, _ in known]
        human = [score for _, _, score in known]
        left_out = 100 * (1 - len(known) / len(pairs))
        return stats.pearsonr(human, ours), stats.spearmanr(human, ours), left_out

    def evaluate_word_analogies(self, analogies: dict[str, list[tuple[str, str, str, str]]]):
        """Share of questions "a is to b as c is to ?" whose nearest word to b - a + c is the given d.

        Returns (accuracy, {section: (right, asked)}). Questions with an unknown word are not asked.
        """
        normed, results = self.get_normed_vectors(), {}
        for section, questions in analogies.items():
            known = [[self.key_to_index[w] for w in q] for q in questions if all(w in self for w in q)]
            if not known:
                results[section] = (0, 0)
                continue
            a, b, c, d = np.array(known).T
            scores = (normed[b] - normed[a] + normed[c]) @ normed.T  # (questions, V)
            asked = np.arange(len(d))
            for given in (a, b, c):
                scores[asked, given] = -np.inf
            results[section] = (int((scores.argmax(axis=1) == d).sum()), len(d))
        right, asked = (sum(column) for column in zip(*results.values(), strict=True))
        if asked == 0:
            raise ValueError("analogies has no question with all four words in the vocabulary")
        return right / asked, results


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
        at_least_one = {"vector_size": vector_size, "window": window, "min_count": min_count}
        for name, value in {**at_least_one, "epochs": epochs, "workers": workers}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if negative < 0 or (negative == 0 and not hs):
            raise ValueError(f"negative must be at least 1, or 0 with hs=1, got negative={negative}, hs={hs}")
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
