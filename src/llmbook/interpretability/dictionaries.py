"""More features than dimensions: superposition in a toy model, and dictionaries that try to take it apart.

A dictionary is a matrix of directions (M, C) with a rule that says which of them a state uses. A **unit** is one of
them; its activations on N states are one column of (N, M).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# ------------------------------------------------------------ superposition


def sparse_features(shape: tuple[int, ...], density: Tensor | float, generator: torch.Generator) -> Tensor:
    """Features in [0, 1), each there with probability ``density`` (which broadcasts), else 0."""
    there = torch.rand(shape, generator=generator) < density
    return torch.rand(shape, generator=generator) * there


def squeeze(x: Tensor, W: Tensor, b: Tensor, linear: bool = False) -> Tensor:
    """ReLU(x W Wᵀ + b): n features through m dimensions and back (Elhage et al., 2022).

    x is (..., N, n), W (..., n, m), b (..., n). With ``linear`` without the ReLU: then the best W spans what PCA does.
    """
    y = (x @ W) @ W.mT + b.unsqueeze(-2)
    return y if linear else F.relu(y)


def train_squeezed(
    densities: Tensor, importance: Tensor, m: int, generator: torch.Generator,
    *, steps: int = 1500, batch: int = 512, lr: float = 1e-2, linear: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Train one toy model for each density (I,), at once: W (I, n, m) and b (I, n).

    Minimises Σ importance · (x − x̂)² over fresh features; ``importance`` is (n,).
    """
    if m < 1 or importance.dim() != 1:
        raise ValueError(f"m must be at least 1 and importance (n,), got {m} and {tuple(importance.shape)}")
    count, n = len(densities), len(importance)
    W = (torch.randn(count, n, m, generator=generator) / n**0.5).requires_grad_()
    b = torch.zeros(count, n, requires_grad=True)
    adam = torch.optim.Adam([W, b], lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        x = sparse_features((count, batch, n), densities[:, None, None], generator)
        error = (importance * (x - squeeze(x, W, b, linear)) ** 2).mean((1, 2)).sum()
        adam.zero_grad()
        error.backward()
        adam.step()
        schedule.step()
    return W.detach(), b.detach()


def represented(W: Tensor, least: float = 0.5) -> Tensor:
    """How many features have a direction of their own longer than ``least``: (..., n, m) → (...)."""
    return (W.norm(dim=-1) > least).sum(-1)


# ------------------------------------------------------------ sparse autoencoders


class SparseAutoencoder:
    """States as sums of few of many directions: x̂ = c + f D, with the k largest of ReLU((x − c) E + e) kept as f.

    D (M, C) has rows of length 1. The top-k rule is that of Makhzani and Frey (2014), for language models of Gao et
    al. (2024); Bricken et al. (2023) and Cunningham et al. (2024) penalise the sum of f instead.
    """

    def __init__(self, center: Tensor, decoder: Tensor, k: int) -> None:
        if not 1 <= k <= len(decoder):
            raise ValueError(f"k must lie in 1..{len(decoder)}, got {k}")
        self.center, self.k = center, k
        self.decoder = F.normalize(decoder, dim=-1)  # (M, C)
        self.encoder, self.threshold = self.decoder.T.clone(), torch.zeros(len(decoder))

    def encode(self, x: Tensor) -> Tensor:
        """Activations (N, M) of states (N, C): at least 0, at most k of them above."""
        f = F.relu((x - self.center) @ self.encoder + self.threshold)
        top = f.topk(self.k, dim=-1)
        return torch.zeros_like(f).scatter(-1, top.indices, top.values)

    def decode(self, f: Tensor) -> Tensor:
        """States (N, C) from activations (N, M)."""
        return self.center + f @ self.decoder

    @torch.no_grad()
    def unexplained(self, x: Tensor) -> float:
        """The share of the states' variance about ``center`` that the reconstruction leaves."""
        return float(((x - self.decode(self.encode(x))) ** 2).sum() / ((x - self.center) ** 2).sum())


def random_directions(size: int, width: int, generator: torch.Generator) -> Tensor:
    """Directions (M, C), uniform on the sphere: what a dictionary must beat."""
    return F.normalize(torch.randn(size, width, generator=generator), dim=-1)


def principal_directions(x: Tensor) -> Tensor:
    """The principal axes of states (N, C) and their opposites, (2 · C, C), the longest first."""
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh
    return torch.cat([axes, -axes])


def train_autoencoder(
    x: Tensor, size: int, k: int, generator: torch.Generator, *, steps: int = 600, batch: int = 512, lr: float = 3e-3
) -> SparseAutoencoder:
    """A sparse autoencoder of states (N, C): Adam on the squared error, decoder rows put back to length 1 each step."""
    sae = SparseAutoencoder(x.mean(0), random_directions(size, x.shape[1], generator), k)
    parts = [t.requires_grad_() for t in (sae.decoder, sae.encoder, sae.threshold)]
    adam = torch.optim.Adam(parts, lr)
    scale = ((x - sae.center) ** 2).sum(-1).mean()
    for _ in range(steps):
        some = x[torch.randint(len(x), (batch,), generator=generator)]
        loss = ((some - sae.decode(sae.encode(some))) ** 2).sum(-1).mean() / scale
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            sae.decoder.copy_(F.normalize(sae.decoder, dim=-1))
    for t in parts:
        t.requires_grad_(False)
    return sae


# ------------------------------------------------------------ what a unit tells


def best_f1(activations: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each unit and label the best F1 of "this label where the unit is at or above a threshold", and the threshold.

    Activations are (N, M), labels (N, K) of 0 and 1; both results are (M, K). Thresholds lie above 0: a unit that is
    silent says nothing. ValueError where a label is true of no state.
    """
    labels = labels.float()
    if labels.dim() != 2 or len(labels) != len(activations) or not bool((labels.sum(0) > 0).all()):
        raise ValueError(f"labels must be (N, K), each true of some state, got shape {tuple(labels.shape)}")
    values, order = activations.sort(dim=0, descending=True)  # (N, M)
    said = torch.arange(1, len(values) + 1)[:, None]
    below = torch.cat([values[1:], values.new_full((1, values.shape[1]), -torch.inf)])
    cut = (values > 0) & (values > below)  # equal activations cannot be parted
    scores, at = [], []
    for unit in range(values.shape[1]):
        f1 = 2 * labels[order[:, unit]].cumsum(0) / (said + labels.sum(0))  # (N, K)
        best, where = f1.masked_fill(~cut[:, [unit]], 0.0).max(0)
        scores.append(best)
        at.append(values[where, unit])
    return torch.stack(scores), torch.stack(at)


def best_units(activations: Tensor, labels: Tensor, chosen_on: Tensor) -> tuple[Tensor, Tensor]:
    """For each label the unit that tells it best on the states in ``chosen_on`` (N,), and its F1 on the rest: (K,)."""
    scores, thresholds = best_f1(activations[chosen_on], labels[chosen_on])
    unit = scores.argmax(0)  # (K,)
    said = activations[~chosen_on][:, unit] >= thresholds[unit, torch.arange(len(unit))]
    truth = labels[~chosen_on].bool()
    return unit, 2 * (said & truth).sum(0) / (said.sum(0) + truth.sum(0)).clamp(min=1)
