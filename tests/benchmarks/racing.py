"""Races of two implementations on a machine that does other things too.

Rounds are run in turn, so that a slow minute slows both; the clock is the process's CPU time; of the rounds'
ratios the median counts. How far the median can be trusted follows from its rank alone, whatever the times'
distribution: of n rounds, k on either side are cut so that the true median lies between the rest in 19 cases
of 20 (in 15 of 16 with five rounds, which is all that five can say). Where the bound lies in that interval,
the race is not decided, and says so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import llmbook  # noqa: F401  # quiets what transformers warns of on import: races import this module first


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios, and the interval in which the true median lies."""

    median: float
    low: float
    high: float

    def verdict(self, at_most: float = math.inf, at_least: float = 0.0) -> str:
        """'met' or 'missed' where the whole interval lies on one side of the bound, else 'not decided'."""
        if at_least <= self.low and self.high <= at_most:
            return "met"
        return "missed" if self.low > at_most or self.high < at_least else "not decided"

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Our times over theirs, round by round. Raises ValueError for no rounds, unequal numbers or times not above 0."""
    if len(ours) != len(theirs) or not ours:
        raise ValueError(
            f"ours and theirs must have equally many rounds, at least 1, got {len(ours)} and {len(theirs)}"
        )
    if min(*ours, *theirs) <= 0:
        raise ValueError(f"times must be above 0, got {min(*ours, *theirs)}")
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    cut = _cut(len(ratios))
    return Ratio(statistics.median(ratios), ratios[cut], ratios[-1 - cut])


def _cut(rounds: int, miss: float = 0.05) -> int:
    """How many of the sorted rounds may be cut at each end: the most for which both tails stay within ``miss``."""
    tail, cut = 2 / 2**rounds, 0  # both tails: the true median lies beyond all rounds
    while tail + 2 * math.comb(rounds, cut + 1) / 2**rounds <= miss:
        cut += 1
        tail += 2 * math.comb(rounds, cut) / 2**rounds
    return cut


def in_turn(names: Sequence[str], round_number: int) -> list[str]:
    """The order of one round: forwards, then backwards, so that no contestant always follows the same other."""
    return list(names) if round_number % 2 == 0 else list(reversed(names))
