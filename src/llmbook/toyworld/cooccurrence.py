"""Exact co-occurrence in the tiny world, against which word vectors are judged."""

from __future__ import annotations

import math

import numpy as np

from llmbook.toyworld.world import ToyWorld


def expected_cooccurrence(world: ToyWorld, window: int) -> np.ndarray:
    r"""Expected number of times per story that word j stands within `window` words of word i: (V, V), exact.

    A story's counts are what skip-gram sees as (centre, context) pairs, without subsampling or a random window.
    The expectation is :math:`\sum_{stories} p(story)\, \#_{story}(i, j)`, over all stories of the tiny world.
    "<eos>" is no word: pairs with it are left out.

    Raises:
        ValueError: for a window below 1, or a world that cannot be enumerated.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    size = len(world.vocabulary)
    flat = np.zeros(size * size)
    for tokens, logprob in world.enumerate():
        ids = world.encode(tokens[:-1])
        for distance in range(1, min(window, len(ids) - 1) + 1):
            np.add.at(flat, ids[:-distance] * size + ids[distance:], math.exp(logprob))
    counts = flat.reshape(size, size)
    return counts + counts.T


def pmi(counts: np.ndarray) -> np.ndarray:
    """Pointwise mutual information (V, V) in nats of co-occurrence counts (V, V); -inf where two never meet."""
    counts = np.asarray(counts, dtype=float)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or (counts < 0).any() or counts.sum() <= 0:
        raise ValueError(f"counts must be a square matrix of non-negative numbers, not all 0, got shape {counts.shape}")
    joint = counts / counts.sum()
    chance = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    ratio = np.divide(joint, chance, out=np.zeros_like(joint), where=joint > 0)
    return np.log(ratio, out=np.full_like(ratio, -np.inf), where=ratio > 0)
