"""Which words did it? Scores of input tokens by gradients, by paths of gradients, and by leaving words out.

``score(e)`` maps embeddings (B, T, C) to one number for each row, (B,); an attribution has one for each token, (B, T).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]


def _check(score: Score, e: Tensor) -> None:
    if e.dim() != 3:
        raise ValueError(f"e must be embeddings (rows, tokens, width), got shape {tuple(e.shape)}")
    if score(e.detach()).shape != e.shape[:1]:
        raise ValueError(f"score must give one number for each of {e.shape[0]} rows")


def gradient(score: Score, e: Tensor) -> Tensor:
    """∂ score / ∂ e, (B, T, C), each row's score by its own embeddings."""
    e = e.detach().requires_grad_()
    return torch.autograd.grad(score(e).sum(), e)[0]


def saliency(score: Score, e: Tensor) -> Tensor:
    """The length of the gradient at each token (B, T): how steep, not in which direction (Simonyan et al., 2014)."""
    _check(score, e)
    return gradient(score, e).norm(dim=-1)


def gradient_times_input(score: Score, e: Tensor) -> Tensor:
    """Σ_c e_c ∂ score/∂ e_c at each token (B, T): the first-order guess at what the token adds."""
    _check(score, e)
    return (gradient(score, e) * e).sum(-1).detach()


def integrated_gradients(score: Score, e: Tensor, baseline: Tensor, steps: int = 16) -> Tensor:
    """The mean gradient on the straight way from ``baseline`` to e, times the way, (B, T) (Sundararajan et al., 2017).

    Midpoint rule with ``steps`` points. The scores of a row sum to score(e) − score(baseline), up to the rule's error:
    :func:`completeness_gap`. ``baseline`` broadcasts to e. ValueError for no steps.
    """
    _check(score, e)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    way, total = (e - baseline).detach(), torch.zeros_like(e)
    for k in range(steps):
        total += gradient(score, baseline + (k + 0.5) / steps * way)
    return (total / steps * way).sum(-1)


@torch.no_grad()
def completeness_gap(score: Score, e: Tensor, baseline: Tensor, attribution: Tensor) -> Tensor:
    """How far a row's scores are from adding up to the change that they explain, (B,)."""
    return (attribution.sum(-1) - (score(e) - score(baseline.expand_as(e)))).abs()


@torch.no_grad()
def leave_one_out(score: Score, e: Tensor, stand_in: Tensor) -> Tensor:
    """score(e) − score(e with this token's embedding replaced by ``stand_in``), (B, T): an experiment, not a slope."""
    _check(score, e)
    whole, lost = score(e), e.new_zeros(e.shape[:2])
    for t in range(e.shape[1]):
        without = e.clone()
        without[:, t] = stand_in
        lost[:, t] = whole - score(without)
    return lost


def hits(attribution: Tensor, source: Tensor, last: Tensor) -> Tensor:
    """Whether the token with the largest score, up to ``last`` (B,), is the true ``source`` (B,): (B,) booleans."""
    places = torch.arange(attribution.shape[1])
    return attribution.masked_fill(places > last[:, None], -torch.inf).argmax(1) == source
