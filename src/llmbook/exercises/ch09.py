"""Checkers of chapter 09: what a device keeps under ZeRO, and who sends what around a ring."""

from __future__ import annotations

from collections.abc import Callable

from llmbook.exercises import Case, Mistake, check

StateBytes = Callable[[int, int, int], float]
RingStep = Callable[[int, int, int], tuple[int, int, bool]]


def check_state_bytes(function: StateBytes) -> bool:
    """Check ``function(n_params, devices, stage)``: bytes of weights, gradients and optimiser on each device."""
    inputs = {
        "one device": (1000, 1, 0),
        "stage 0: all on each": (7_500_000_000, 64, 0),
        "stage 1: the optimiser is divided": (7_500_000_000, 64, 1),
        "stage 2: gradients too": (7_500_000_000, 64, 2),
        "stage 3: weights too": (7_500_000_000, 64, 3),
    }
    cases = [Case(name, args, _state_bytes(*args)) for name, args in inputs.items()]
    return check(function, cases, _STATE_MISTAKES)


def _state_bytes(n: int, devices: int, stage: int, sizes: tuple[int, ...] = (12, 2, 2)) -> float:
    """``sizes`` are those of optimiser, gradients and weights: divided from stages 1, 2 and 3 on."""
    return n * sum(size / devices if stage > i else size for i, size in enumerate(sizes))


_STATE_MISTAKES = [
    Mistake("that is stage 0: nothing is divided yet.", lambda n, d, s: 16 * n),
    Mistake("everything is divided at every stage; only stage 3 does that.", lambda n, d, s: 16 * n / d),
    Mistake(
        "everything is divided from stage 1 on; stage 1 divides the optimiser only.",
        lambda n, d, s: 16 * n / (d if s else 1),
    ),
    Mistake(
        "the order: first the optimiser, which is the largest, then gradients, then weights.",
        lambda n, d, s: _state_bytes(n, d, s, (2, 2, 12)),
    ),
    Mistake(
        "8 bytes of optimiser are Adam's two means; mixed precision also keeps float32 weights, 4 more.",
        lambda n, d, s: _state_bytes(n, d, s, (8, 2, 2)),
    ),
    Mistake(
        "gradients have 2 bytes here, as the weights that they belong to.",
        lambda n, d, s: _state_bytes(n, d, s, (12, 4, 2)),
    ),
    Mistake("that is the total over all devices.", lambda n, d, s: d * _state_bytes(n, d, s)),
]


def check_ring_step(function: RingStep) -> bool:
    """Check ``function(rank, step, n)``: the part sent, the part that arrives, and whether that is added."""
    inputs = {
        "the first round": (1, 0, 4),
        "process 0 in the first round": (0, 0, 4),
        "the last round that adds": (2, 2, 4),
        "the first that copies": (2, 3, 4),
        "the last round": (3, 5, 4),
        "two processes": (0, 1, 2),
        "three processes": (1, 3, 3),
    }
    cases = [Case(name, args, _ring_step(*args)) for name, args in inputs.items()]
    return check(function, cases, _RING_MISTAKES)


def _ring_step(rank: int, step: int, n: int) -> tuple[int, int, bool]:
    return (rank - step) % n, (rank - step - 1) % n, step < n - 1


_RING_MISTAKES = [
    Mistake("Python's % wraps around the ring; without it a part has a negative number.",
            lambda r, s, n: (r - s, r - s - 1, s < n - 1)),
    Mistake("always the part of one's own number: nothing that arrived is ever passed on.",
            lambda r, s, n: (r, (r - 1) % n, s < n - 1)),
    Mistake("the parts go the other way round: what you send is what you received in the round before.",
            lambda r, s, n: ((r + s) % n, (r + s + 1) % n, s < n - 1)),
    Mistake("sent is right; what arrives is what the *left* neighbour, rank − 1, sends.",
            lambda r, s, n: ((r - s) % n, (r - s + 1) % n, s < n - 1)),
    Mistake("n − 1 rounds add, and you add once too often: a part would hold one term twice.",
            lambda r, s, n: ((r - s) % n, (r - s - 1) % n, s < n)),
    Mistake("added in every round: complete sums would be added to sums.",
            lambda r, s, n: ((r - s) % n, (r - s - 1) % n, True)),
    Mistake("n − 1 rounds add, and you add once too seldom: no part is ever complete.",
            lambda r, s, n: ((r - s) % n, (r - s - 1) % n, s < n - 2)),
]  # fmt: skip
