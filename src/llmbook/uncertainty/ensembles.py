"""Several models of one thing: what they agree to be open, and what they disagree on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

Array = NDArray[np.float64]


def entropy(probs: ArrayLike) -> Array:
    """−Σ p ln p over the last dimension, in nats; 0 ln 0 counts as 0."""
    p = np.asarray(probs)
    return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)


def kl_divergence(truth: ArrayLike, model: ArrayLike) -> Array:
    """Σ p ln (p / q) over the last dimension, in nats: what believing q costs where p holds. May be infinite."""
    p, q = np.broadcast_arrays(np.asarray(truth), np.asarray(model))
    with np.errstate(divide="ignore"):
        terms = np.where(p > 0, p * (np.log(np.where(p > 0, p, 1)) - np.log(np.where(p > 0, q, 1))), 0)
    return terms.sum(-1)


class UncertaintyParts(NamedTuple):
    """Of each prediction, in nats: total = aleatoric + epistemic."""

    total: Array  # entropy of the members' mean
    aleatoric: Array  # mean of the members' entropies
    epistemic: Array  # mutual information of prediction and member: the members' disagreement


def uncertainty_parts(members: ArrayLike) -> UncertaintyParts:
    """Members' distributions (M, ..., K) → parts, each (...) (Depeweg et al., 2018; BALD's score is the last).

    Raises ValueError unless each distribution sums to 1 (within 1e-3).
    """
    p = np.asarray(members)
    if p.ndim < 2 or not len(p) or not np.allclose(p.sum(-1), 1, atol=1e-3):
        raise ValueError(f"members must be (M, ..., K) with M of at least 1 and sums of 1, got shape {p.shape}")
    total, aleatoric = entropy(p.mean(0)), entropy(p).mean(0)
    return UncertaintyParts(total, aleatoric, total - aleatoric)


@contextmanager
def dropout_on(model: nn.Module, seed: int) -> Iterator[nn.Module]:
    """The model in evaluation mode but for its dropout, which draws from ``seed`` (Gal and Ghahramani, 2016).

    Modes and torch's own generator are as before when the block is left. ValueError where nothing would be dropped.
    """
    was = {module: module.training for module in model.modules()}
    dropouts = [m for m in was if isinstance(m, nn.Dropout) and m.p > 0]
    if not dropouts:
        raise ValueError(f"model must have a dropout above 0, got none in {type(model).__name__}")
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    try:
        model.eval()
        for module in dropouts:
            module.train()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield model
    finally:
        for module, mode in was.items():
            module.training = mode
