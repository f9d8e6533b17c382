"""Can it be read off? Probes of hidden states, and control tasks that say what a probe's accuracy is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Probe:
    """A softmax regression on states (N, C): scores x W + b of K classes; with ``hidden``, a layer of ReLUs before."""

    weight: Tensor  # (C or hidden, K)
    bias: Tensor  # (K,)
    hidden: tuple[Tensor, Tensor] | None = None

    def scores(self, x: Tensor) -> Tensor:
        """Log-odds (N, K), up to a constant in each row."""
        if self.hidden is not None:
            x = F.relu(x @ self.hidden[0] + self.hidden[1])
        return x @ self.weight + self.bias

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """The share of states (N, C) whose class y (N,) has the highest score."""
        return float((self.scores(x).argmax(-1) == y).float().mean())


def _check(x: Tensor, y: Tensor, classes: int) -> None:
    if x.dim() != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"x must be (N, C) and y (N,), got {tuple(x.shape)} and {tuple(y.shape)}")
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(f"y must be classes 0..{classes - 1}, got {int(y.min())} to {int(y.max())}")


def fit_probe(x: Tensor, y: Tensor, classes: int, C: float = 1.0, steps: int = 100) -> Probe:
    """The linear probe: minimises ½ |W|² + C Σ cross-entropy, as scikit-learn's LogisticRegression(C) does.

    States (N, C) and classes (N,). L-BFGS from zero; no chance in it. ValueError for shapes or classes that don't fit.
    """
    _check(x, y, classes)
    weight = torch.zeros(x.shape[1], classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe", tolerance_change=1e-9)

    def closure() -> Tensor:
        search.zero_grad()
        loss = 0.5 * (weight**2).sum() / (C * len(x)) + F.cross_entropy(x @ weight + bias, y)
        loss.backward()
        return loss

    search.step(closure)
    return Probe(weight.detach(), bias.detach())


def fit_deep_probe(
    x: Tensor, y: Tensor, classes: int, size: int, generator: torch.Generator, steps: int = 300, lr: float = 5e-3
) -> Probe:
    """A probe with one hidden layer of ``size`` ReLUs, by Adam on all states at once: stronger, hence less telling."""
    _check(x, y, classes)
    shapes = ((x.shape[1], size), (size,), (size, classes), (classes,))
    first, shift, weight, bias = (
        torch.randn(s, generator=generator) / s[0] ** 0.5 if len(s) == 2 else torch.zeros(s) for s in shapes
    )
    parts = [t.requires_grad_() for t in (first, shift, weight, bias)]
    adam = torch.optim.Adam(parts, lr)
    for _ in range(steps):
        adam.zero_grad()
        F.cross_entropy(F.relu(x @ first + shift) @ weight + bias, y).backward()
        adam.step()
    first, shift, weight, bias = (t.detach() for t in parts)
    return Probe(weight, bias, (first, shift))


def control_labels(words: Tensor, classes: int, rng: np.random.Generator) -> Tensor:
    """Labels (N,) that mean nothing: each word type gets a class by chance, the same everywhere (Hewitt, Liang, 2019).

    A probe can only learn them by heart. Accuracy on the true labels less that on these is the probe's **selectivity**.
    """
    if classes < 2:
        raise ValueError(f"classes must be at least 2, got {classes}")
    types, index = torch.unique(words, return_inverse=True)
    return torch.as_tensor(rng.integers(classes, size=len(types)))[index]


def projected_out(x: Tensor, directions: Tensor) -> Tensor:
    """States x (..., C) less what lies in the span of ``directions`` (K, C): amnesic probing (Elazar et al., 2021)."""
    basis = torch.linalg.svd(directions, full_matrices=False)
    kept = basis.Vh[1e-5 * basis.S[0] < basis.S]  # (rank, C)
    return x - (x @ kept.T) @ kept
