"""Checkers of chapter 07: the memory of training, one step of AdamW."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from llmbook.exercises import Case, Mistake, check

Array = NDArray[np.float64]


def check_training_bytes(function: Callable[[int, int], int]) -> bool:
    """Check ``function(n_params, size)``: bytes of weights, gradients and AdamW's two means."""
    inputs = {"GPT-2 small, single precision": (124_439_808, 4), "half precision": (1000, 2), "one weight": (1, 8)}
    cases = [Case(name, args, 4 * args[0] * args[1]) for name, args in inputs.items()]
    return check(function, cases, _MEMORY_MISTAKES)


_MEMORY_MISTAKES = [
    Mistake("that is what inference needs: the weights alone.", lambda n, size: n * size),
    Mistake("weights and gradients; AdamW also keeps two means for each weight.", lambda n, size: 2 * n * size),
    Mistake("AdamW keeps *two* means for each weight, m and v.", lambda n, size: 3 * n * size),
    Mistake("that counts numbers, not bytes.", lambda n, size: 4 * n),
    Mistake("size is in bytes, not in bits.", lambda n, size: n * size // 2),
]

Step = tuple[Array, Array, Array]  # p, m, v


def check_adamw(function: Callable[..., Step]) -> bool:
    """Check ``function(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay)``: the new p, m and v."""
    p, g = np.array([1.0, -2.0, 0.5]), np.array([0.3, -4.0, 0.02])
    m, v = np.array([0.1, -1.0, 0.0]), np.array([0.2, 9.0, 0.001])
    zero = np.zeros(3)
    inputs = {
        "the first step": (p, g, zero, zero, 1, 0.1, 0.9, 0.999, 1e-8, 0.0),
        "the first step, with decay": (p, g, zero, zero, 1, 0.1, 0.9, 0.95, 1e-8, 0.5),
        "the fifth step": (p, g, m, v, 5, 0.1, 0.8, 0.99, 1e-8, 0.5),
        "tiny gradients, where eps counts": (p, g * 1e-6, zero, zero, 1, 0.1, 0.9, 0.999, 1e-6, 0.1),
    }
    cases = [Case(name, args, _adamw(*args)) for name, args in inputs.items()]
    return check(function, cases, _ADAMW_MISTAKES)


def _adamw(
    p: Array, g: Array, m: Array, v: Array, t: int, lr: float, beta1: float, beta2: float, eps: float, decay: float
) -> Step:
    return _variant()(p, g, m, v, t, lr, beta1, beta2, eps, decay)


def _variant(
    correct: tuple[bool, bool] = (True, True),
    decayed: str = "weights",
    power: int = 2,
    late: int = 0,
    inside: bool = False,
    swapped: bool = False,
    root: bool = True,
    returned: str = "means",
) -> Callable[..., Step]:
    """One step of AdamW, right by default, with the mistakes that readers make as choices."""

    def step(p, g, m, v, t, lr, beta1, beta2, eps, decay):
        if decayed == "gradient":
            g = g + decay * p
        if decayed == "without lr":
            p = p * (1 - decay)
        if decayed == "weights":
            p = p * (1 - lr * decay)
        weights = (beta1, beta2) if swapped else (1 - beta1, 1 - beta2)
        keep = (1 - beta1, 1 - beta2) if swapped else (beta1, beta2)
        m = keep[0] * m + weights[0] * g
        v = keep[1] * v + weights[1] * np.abs(g) ** power
        n = max(t - late, 0)
        m_hat = m / (1 - beta1**n) if correct[0] and n else m
        v_hat = v / (1 - beta2**n) if correct[1] and n else v
        size = np.sqrt(v_hat + eps) if inside else (np.sqrt(v_hat) if root else v_hat) + eps
        p = p - lr * m_hat / size
        p = p - lr * decay * p if decayed == "after" else p
        return {"means": (p, m, v), "corrected": (p, m_hat, v_hat), "exchanged": (p, v, m)}[returned]

    return step


_ADAMW_MISTAKES = [
    Mistake("the bias correction is missing: m and v begin at 0 and are too small at first.", _variant((False, False))),
    Mistake("m is not corrected, only v.", _variant((False, True))),
    Mistake("v is not corrected, only m.", _variant((True, False))),
    Mistake(
        "the decay is added to the gradient: that is Adam with an L2 penalty. AdamW shrinks the weights themselves.",
        _variant(decayed="gradient"),
    ),
    Mistake("the decay is missing.", _variant(decayed="none")),
    Mistake("the decay is not multiplied by the learning rate.", _variant(decayed="without lr")),
    Mistake("the weights are shrunk after Adam's step; AdamW shrinks them before.", _variant(decayed="after")),
    Mistake("v is the mean of the gradient's *square*.", _variant(power=1)),
    Mistake("ε stands under the root; it is added to the root.", _variant(inside=True)),
    Mistake("β and 1 − β are exchanged: β is the share that is *kept*.", _variant(swapped=True)),
    Mistake("you divide by v̂; its root is wanted.", _variant(root=False)),
    Mistake(
        "the corrected means m̂ and v̂ are returned; keep m and v, or the next step corrects them once more.",
        _variant(returned="corrected"),
    ),
    Mistake("m and v are returned in each other's place.", _variant(returned="exchanged")),
    Mistake("t is counted from 0; at the first step it is 1.", _variant(late=1)),
]
