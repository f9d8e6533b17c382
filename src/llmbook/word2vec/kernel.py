"""The compiled loop: a gradient step, and the walk over the text that calls it."""

import math
from collections.abc import Callable

import numpy as np
from numba import njit

# Sums may be reordered (so that they vectorise), but infinities and NaN keep their meaning.
_FASTMATH = {"reassoc", "contract", "arcp", "nsz"}
_PARTS = 3  # a skip-gram window is learned in so many parts


def compiled(function: Callable) -> Callable:
    """numba's compilation, kept on disk where there is a place for it, else in this process only.

    numba looks beside the module and in the user's cache folder (or NUMBA_CACHE_DIR), and raises at import
    where it may write to none of them: a package and a home that are both read-only.
    """
    try:
        return njit(nogil=True, cache=True, fastmath=_FASTMATH)(function)
    except RuntimeError:  # "cannot cache function …: no locator available"
        return njit(nogil=True, cache=False, fastmath=_FASTMATH)(function)


@compiled
def _uniform(state: np.ndarray) -> float:
    """A number in [0, 1) from a 64-bit linear congruential generator (Knuth's MMIX constants)."""
    state[0] = state[0] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    return (state[0] >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@compiled
def _draw(threshold: np.ndarray, alias: np.ndarray, state: np.ndarray) -> int:
    """One draw from the distribution that `alias_table` encodes."""
    x = _uniform(state) * len(threshold)
    column = int(x)
    return column if x - column < threshold[column] else alias[column]


@compiled
def logistic_step(h, grad_h, out, rows, labels, weights, n, alpha, score):
    """One gradient step on  loss = -sum_i weights[i] * log sigma(±h·out[rows[i]]),  i < n.

    The sign is + where labels[i] is 1 and - where it is 0. `out` (R, D) moves by -alpha times its gradient;
    -alpha times the gradient of h (D,) is *added* to `grad_h`, for the caller to hand on. All arrays float32
    (rows int32); `score` is scratch of at least n. The whole gradient is taken before any row moves, so a row
    that is named twice counts twice.
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
    for i in range(n):
        row, step = rows[i], score[i]
        for k in range(dim):
            out[row, k] += step * h[k]


@compiled
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
