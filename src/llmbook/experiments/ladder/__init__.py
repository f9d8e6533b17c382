"""The ladder of chapter 12: how loss falls with parameters and tokens, and the law fitted to it.

rungs: what is run · runs: running what is missing, in ``book/data/ladder.jsonl`` · laws: the fit and what follows.
"""

from llmbook.experiments.ladder.laws import Law, bootstrap_laws, fit_law
from llmbook.experiments.ladder.rungs import (
    FACTORS,
    ONE_UP,
    RATE,
    SEEDS,
    STEPS,
    TRANSFER_STEPS,
    WIDTHS,
    groups,
    ladder,
    rung,
    transfer,
)
from llmbook.experiments.ladder.runs import DATA, climb, main

__all__ = [
    "DATA", "FACTORS", "ONE_UP", "RATE", "SEEDS", "STEPS", "TRANSFER_STEPS", "WIDTHS", "Law", "bootstrap_laws",
    "climb", "fit_law", "groups", "ladder", "main", "rung", "transfer",
]  # fmt: skip
