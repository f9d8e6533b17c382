"""The scaling law L(N, D) = E + A/Nᵅ + B/Dᵝ: fitted as Hoffmann et al. (2022) did, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, nnls
from scipy.special import huber, logsumexp, softmax

EXPONENTS = np.linspace(0.1, 1.2, 12)
DELTA = 1e-3  # where Huber's loss of a log turns from square to straight, as in the paper
# L-BFGS stops where the loss falls by less than ftol · max(loss, 1). A loss far below 1 ends it too soon, which
# happened to Hoffmann et al. (Besiroglu et al. 2024): ours is counted in units of δ, and ftol is small.
SEARCH = {"method": "L-BFGS-B", "jac": True, "options": {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 5000}}
FLOPS_PER_PARAMETER_AND_TOKEN = 6  # forward 2, backward 4 (Kaplan et al. 2020)


@dataclass(frozen=True)
class Law:
    r"""L(N, D) = E + A/Nᵅ + B/Dᵝ, in nats per token; N parameters, D tokens (Hoffmann et al. 2022, eq. 2)."""

    E: float  # what no size and no data removes
    A: float
    B: float
    alpha: float
    beta: float

    def __call__(self, parameters: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]:
        """The loss of N parameters after D tokens; arrays that broadcast."""
        N, D = np.asarray(parameters, float), np.asarray(tokens, float)
        return self.E + self.A / N**self.alpha + self.B / D**self.beta

    def allocate(self, flops: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        r"""The N and D with the least loss among those with 6 N D = C (Hoffmann et al. 2022, eq. 4).

        N = G (C/6)ᵃ, D = G⁻¹ (C/6)ᵇ with G = (αA/βB)^(1/(α+β)), a = β/(α+β), b = α/(α+β).
        """
        budget = np.asarray(flops, float) / FLOPS_PER_PARAMETER_AND_TOKEN
        total = self.alpha + self.beta
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        return G * budget ** (self.beta / total), budget ** (self.alpha / total) / G


def fit_law(parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike, *, delta: float = DELTA) -> Law:
    r"""The law that fits the losses best: Huber's loss of ln L̂ − ln L, by L-BFGS from three beginnings.

    With a = ln A, b = ln B, e = ln E, the prediction is ln L̂ = LSE(a − α ln N, b − β ln D, e), so that E, A and
    B stay positive (Hoffmann et al. 2022, eq. 3). ``parameters``, ``tokens``, ``losses``: (n,), positive, n ≥ 5.
    Raises ``ValueError`` for other shapes or values.
    """
    N, D, L = (_positive(name, v) for name, v in {"parameters": parameters, "tokens": tokens, "losses": losses}.items())
    if not N.shape == D.shape == L.shape or len(L) < 5:
        raise ValueError(f"five numbers need as many rungs, in arrays of one length; got {len(N)}, {len(D)}, {len(L)}")
    logs = np.log(N), np.log(D), np.log(L)
    found = [minimize(_huber, start, (*logs, delta), **SEARCH) for start in _starts(N, D, L)]
    return _law(min(found, key=lambda result: result.fun).x)


def _starts(N: NDArray, D: NDArray, L: NDArray) -> list[NDArray[np.float64]]:
    """Where to search from, as (a, b, α, β, e): for fixed exponents E, A and B are a linear fit; the best three.

    The paper began at 4,500 points of a grid; so few do because the fit is by least squares of L̂/L where it can be.
    """
    starts = []
    for alpha, beta in product(EXPONENTS, EXPONENTS):
        columns = np.stack([N**-alpha, D**-beta, np.ones_like(L)], axis=1) / L[:, None]  # (n, 3)
        scale = columns.max(0)
        (A, B, E), error = nnls(columns / scale, np.ones_like(L))
        logs = np.log(np.maximum([A, B, E], 1e-6) / scale)
        starts.append((error, np.array([logs[0], logs[1], alpha, beta, logs[2]])))
    return [start for _, start in sorted(starts, key=lambda pair: pair[0])[:3]]


def _law(theta: NDArray) -> Law:
    a, b, alpha, beta, e = (float(v) for v in theta)
    return Law(math.exp(e), math.exp(a), math.exp(b), alpha, beta)


def _positive(name: str, values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(values, float)
    if values.ndim != 1 or not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"{name} must be a row of positive numbers, got {values!r}")
    return values


def _huber(
    theta: NDArray, log_n: NDArray, log_d: NDArray, log_l: NDArray, delta: float
) -> tuple[float, NDArray[np.float64]]:
    """Σ Huber(ln L̂ − ln L) / δ and its gradient by (a, b, α, β, e)."""
    a, b, alpha, beta, e = theta
    terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_l, e)])  # (3, n)
    residual = logsumexp(terms, axis=0) - log_l
    share = softmax(terms, axis=0) * np.clip(residual / delta, -1, 1)  # (3, n): by each term
    by_a, by_b, by_e = share.sum(1)
    gradient = np.array([by_a, by_b, -share[0] @ log_n, -share[1] @ log_d, by_e])
    return float(huber(delta, residual).sum() / delta), gradient


def bootstrap_laws(
    parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike, rng: np.random.Generator, resamples: int = 100
) -> NDArray[np.float64]:
    """Laws fitted to rungs drawn with replacement, (resamples, 5): E, A, B, α, β in each row.

    Each resample starts from the law of all rungs, not from the grid: its own best lies near.
    """
    N, D, L = (np.asarray(v, float) for v in (parameters, tokens, losses))
    best = fit_law(N, D, L)
    start = [np.log(best.A), np.log(best.B), best.alpha, best.beta, np.log(best.E)]
    laws = []
    for _ in range(resamples):
        drawn = rng.integers(len(L), size=len(L))
        logs = np.log(N[drawn]), np.log(D[drawn]), np.log(L[drawn])
        laws.append(astuple(_law(minimize(_huber, start, (*logs, DELTA), **SEARCH).x)))
    return np.array(laws)
