"""The rungs of chapter 12's ladder: GPTs of growing width, each trained for growing numbers of steps."""

from __future__ import annotations

from dataclasses import replace

from llmbook.experiments.sweep import Group, Recipe

WIDTHS = (8, 16, 32, 64)  # features; the law is fitted to these
ONE_UP = 128  # and checked here
STEPS = (75, 150, 300, 600, 1200, 2400)  # of 8 stories, some 490 tokens
RATE = 0.5  # the learning rate times the width; the rungs of `transfer` say why
SEEDS = (0, 1, 2)
FACTORS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)  # of RATE
TRANSFER_STEPS = 300


def rung(width: int, steps: int, factor: float = 1.0) -> Recipe:
    """The recipe of one rung: two blocks of a width, so many steps, the rate in inverse proportion to the width.

    Every run has a schedule of its own length that ends at zero: a run cut short would be no shorter run's equal
    (Hoffmann et al. 2022). No story is read twice.
    """
    return replace(
        Recipe(), n_embd=width, n_inner=2 * width, steps=steps, learning_rate=factor * RATE / width, held_out=300
    )


def ladder() -> dict[str, Recipe]:
    """All rungs by name, those of one size up included."""
    return {f"width {w}, {s} steps": rung(w, s) for w in (*WIDTHS, ONE_UP) for s in STEPS}


def transfer() -> dict[str, Recipe]:
    """Each width at several rates, by name: does the best one move?"""
    return {
        f"width {w}, {TRANSFER_STEPS} steps, rate ×{f:g}": rung(w, TRANSFER_STEPS, f)
        for w in (*WIDTHS, ONE_UP)
        for f in FACTORS
        if f != 1
    }


def groups() -> dict[str, Group]:
    """All that is run, each at its seeds."""
    return {"ladder": Group(ladder(), SEEDS), "transfer": Group(transfer(), SEEDS)}
