"""Bias and fairness: what decoding does to a share, association tests, exchanged persons, decisions by group.

A *share* is the probability of the one of two groups of outcomes, given that it is one of the two: of "she", say,
given "she" or "he". Groups here are two, since ToyWorld's are; people are more than two kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from llmbook.toyworld import Story, ToyWorld

Array = NDArray[np.float64]
PEOPLE = ("who", "other", "holder", "poss")  # the slots of a ToyWorld sentence that hold a person


# ------------------------------------------------------------ shares


def tempered_share(share: float, temperature: float, words: tuple[int, int] = (1, 1)) -> float:
    r"""A group's share after its words' probabilities are raised to 1/T and normalised again.

    ``share`` is spread evenly over ``words[0]`` words, the rest over ``words[1]``. With n and m words it becomes
    :math:`n (b/n)^{1/T} / (n (b/n)^{1/T} + m ((1-b)/m)^{1/T})`. Temperature 0 is greedy decoding: 1 where a word of
    the group is the likeliest, 0 where another is, and ½ where they tie.
    """
    _check_share("share", share)
    if not temperature >= 0:
        raise ValueError(f"temperature must be at least 0, got {temperature}")
    if len(words) != 2 or min(words) < 1:
        raise ValueError(f"words must be two counts of at least 1, got {words}")
    logs = [math.log(p / n) if p else -math.inf for p, n in zip((share, 1 - share), words, strict=True)]
    if share in (0, 1):
        return float(share)
    if temperature == 0:
        return 0.5 + 0.5 * ((logs[0] > logs[1] + 1e-12) - (logs[1] > logs[0] + 1e-12))
    odds = (logs[1] - logs[0]) / temperature + math.log(words[1] / words[0])
    return 1 / (1 + math.exp(min(odds, 700.0)))


def price(true_share: float, model_share: float) -> float:
    """Nats that a model loses on each such choice: KL(true ‖ model) of two outcomes. May be infinite."""
    _check_share("true_share", true_share)
    _check_share("model_share", model_share)
    pairs = ((true_share, model_share), (1 - true_share, 1 - model_share))
    return math.fsum((p * math.log(p / q) if q else math.inf) for p, q in pairs if p)


class BalanceGroups:
    """A logits processor: each group of words gets an equal part of the mass that the groups have together.

    Within a group the words keep their proportions; all other words keep their probabilities. Where a group has no
    mass at all, what may be said is settled, and nothing changes. ``groups`` are lists of ids that do not overlap.
    """

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        if len(groups) < 2 or not all(len(group) for group in groups):
            raise ValueError(f"groups must be at least 2 lists of ids, none empty, got {groups}")
        flat = [i for group in groups for i in group]
        if len(set(flat)) < len(flat):
            raise ValueError(f"groups must not overlap, got {groups}")
        self.groups = [torch.as_tensor(list(group)) for group in groups]

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits (…, V) to log-probabilities (…, V) with balanced groups."""
        logprobs = logits.log_softmax(-1)
        masses = torch.stack([logprobs[..., group].logsumexp(-1) for group in self.groups], -1)  # (…, G)
        target = masses.logsumexp(-1, keepdim=True) - math.log(len(self.groups))  # (…, 1)
        shift = torch.where(masses.isfinite().all(-1, keepdim=True), target - masses, 0.0)  # (…, G)
        balanced = logprobs.clone()
        for i, group in enumerate(self.groups):
            balanced[..., group] += shift[..., i, None]
        return balanced


# ------------------------------------------------------------ associations of vectors


class Weat(NamedTuple):
    """The result of a word-embedding association test."""

    statistic: float  # s(X, Y, A, B)
    effect: float  # in standard deviations, from −2 to 2
    p: float  # share of splits at least as extreme, the observed one among them: never 0
    p_paper: float  # share of splits that are strictly more extreme: the paper's definition, 0 for the most extreme
    splits: int  # how many were tried; all of them where there are few enough


def associations(words: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    """s(w, A, B) of vectors (N, C): mean cosine with the rows of ``a`` minus that with the rows of ``b``. (N,)"""
    w, a, b = (_rows(name, x) for name, x in (("words", words), ("a", a), ("b", b)))
    if not w.shape[1] == a.shape[1] == b.shape[1]:
        raise ValueError(f"words, a and b must have one width, got {w.shape[1]}, {a.shape[1]} and {b.shape[1]}")
    return (w @ a.T).mean(1) - (w @ b.T).mean(1)


def weat(x: ArrayLike, y: ArrayLike, a: ArrayLike, b: ArrayLike, *,
         most_splits: int = 20_000, rng: np.random.Generator | None = None) -> Weat:  # fmt: skip
    r"""Caliskan, Bryson and Narayanan's (2017) test: are the words of X nearer to A, and those of Y to B?

    .. math:: s(X, Y, A, B) = \sum_{x \in X} s(x, A, B) - \sum_{y \in Y} s(y, A, B), \qquad
              d = \frac{\overline{s(x)} - \overline{s(y)}}{\text{std}_{w \in X \cup Y}\, s(w)}

    The one-sided p is over all splits of X ∪ Y into two sets of equal size; where there are more than
    ``most_splits``, over so many random ones, and ``rng`` must be given. Rows are vectors; X and Y are equally many.
    """
    s = np.concatenate([associations(x, a, b), associations(y, a, b)])
    n = len(np.asarray(x))
    if len(s) != 2 * n or n < 2:
        raise ValueError(f"x and y must hold equally many vectors, at least 2, got {n} and {len(s) - n}")
    spread = s.std()
    if spread < 1e-12:
        raise ValueError("x and y must differ in their associations, got all the same")
    observed = s[:n].sum() - s[n:].sum()
    sums = 2 * s[_splits(2 * n, most_splits, rng)].sum(1) - s.sum()  # (K,)
    slack = 1e-9 * max(1.0, float(np.abs(s).sum()))
    every = len(sums) == math.comb(2 * n, n)
    at_least, more = int((sums >= observed - slack).sum()), int((sums > observed + slack).sum())
    p = at_least / len(sums) if every else (at_least + 1) / (len(sums) + 1)
    effect = (s[:n].mean() - s[n:].mean()) / spread
    return Weat(float(observed), float(effect), p, more / len(sums), len(sums))


def _splits(size: int, most: int, rng: np.random.Generator | None) -> NDArray[np.int64]:
    """Which words fall into the first half: all ways, or ``most`` random ones. (K, size / 2)"""
    if math.comb(size, size // 2) <= most:
        return np.array(list(combinations(range(size), size // 2)))
    if rng is None:
        raise ValueError(f"rng must be given: {size} words have more than most_splits = {most} splits")
    return rng.permuted(np.tile(np.arange(size), (most, 1)), axis=1)[:, : size // 2]


def _rows(name: str, vectors: ArrayLike) -> Array:
    x = np.asarray(vectors, dtype=float)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"{name} must be (N, C) vectors, at least one, got shape {x.shape}")
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise ValueError(f"{name} must not hold a vector of length 0")
    return x / norms


def pair_direction(first: ArrayLike, second: ArrayLike) -> Array:
    """The unit direction (C,) in which pairs of vectors (N, C) differ most, from ``second`` towards ``first``.

    Bolukbasi et al. (2016): each pair is centred, and the first principal component of all of them taken.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"first and second must be two (N, C) arrays, got {first.shape} and {second.shape}")
    half = (first - second) / 2
    direction = np.linalg.svd(np.concatenate([half, -half]), full_matrices=False)[2][0]
    return direction * (1 if (half @ direction).sum() >= 0 else -1)


def project_out(vectors: ArrayLike, direction: ArrayLike) -> Array:
    """Vectors (…, C) without their part along ``direction`` (C,)."""
    x, d = np.asarray(vectors, dtype=float), np.asarray(direction, dtype=float)
    if d.ndim != 1 or d.shape != x.shape[-1:] or not np.linalg.norm(d) > 0:
        raise ValueError(f"direction must be ({x.shape[-1]},) and not 0, got shape {d.shape}")
    d = d / np.linalg.norm(d)
    return x - (x @ d)[..., None] * d


# ------------------------------------------------------------ exchanged persons


def swap_words(tokens: Sequence[str], pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Every word of a pair becomes its partner, wherever it stands and whatever it means there."""
    table: dict[str, str] = {}
    for one, other in pairs:
        if one in table or other in table:
            raise ValueError(f"pairs must not share a word, got ({one!r}, {other!r})")
        table |= {one: other, other: one}
    return [table.get(token, token) for token in tokens]


def person_pairs(world: ToyWorld) -> list[tuple[str, str]]:
    """The words that tell a person's gender in a world, each with its counterpart."""
    return [*zip(world.names_she, world.names_he, strict=True), ("she", "he"), ("her", "his")]


def swap_people(world: ToyWorld, story: Story) -> list[str]:
    """The story with each person of the other gender: only where a word stands for a person (a town keeps its name)."""
    tokens, pairs = list(story.tokens), person_pairs(world)
    for event in story.events:
        for slot in PEOPLE:
            if slot in event.at:
                at = event.at[slot]
                tokens[at] = swap_words([story.tokens[at]], pairs)[0]
    return tokens


# ------------------------------------------------------------ decisions about groups


class Rates(NamedTuple):
    """How one group fares. NaN where a rate has no case."""

    weight: float  # share of all people
    base: float  # share of the group with truth 1
    selected: float  # share of the group with decision 1
    tpr: float  # of those with truth 1, the share with decision 1
    fpr: float  # of those with truth 0, the share with decision 1
    ppv: float  # of those with decision 1, the share with truth 1


def group_rates(truth: ArrayLike, decision: ArrayLike, groups: ArrayLike,
                weights: ArrayLike | None = None) -> dict[str, Rates]:  # fmt: skip
    """Rates by group for (N,) truths and decisions of 0 or 1; ``weights`` (N,) count a row more than once."""
    y, d, g, w = _people(truth, decision, groups, weights)
    if not np.isin(np.concatenate([y, d]), (0, 1)).all():
        raise ValueError("truth and decision must hold 0 and 1 only")
    found = {}
    for name in sorted(set(g.tolist())):
        here = g == name
        found[str(name)] = Rates(
            float(w[here].sum() / w.sum()), _mean(y, w * here), _mean(d, w * here), _mean(d, w * here * y),
            _mean(d, w * here * (1 - y)), _mean(y, w * here * d),
        )  # fmt: skip
    return found


def demographic_parity_difference(rates: Mapping[str, Rates]) -> float:
    """Largest difference between groups in the share that is selected."""
    return _range(rates, "selected")


def equalized_odds_difference(rates: Mapping[str, Rates]) -> float:
    """The larger of the groups' differences in true-positive and in false-positive rate (Hardt et al. 2016)."""
    return max(_range(rates, "tpr"), _range(rates, "fpr"))


def implied_fpr(base: float, ppv: float, tpr: float) -> float:
    r"""The false-positive rate that follows from the other three (Chouldechova 2017).

    .. math:: \text{FPR} = \frac{p}{1-p} \cdot \frac{1-\text{PPV}}{\text{PPV}} \cdot \text{TPR}
    """
    if not (0 < base < 1 and 0 < ppv <= 1 and 0 <= tpr <= 1):
        raise ValueError(f"base must lie in (0, 1), ppv in (0, 1], tpr in [0, 1]; got {base}, {ppv} and {tpr}")
    return base / (1 - base) * (1 - ppv) / ppv * tpr


def calibration_by_group(
    truth: ArrayLike, score: ArrayLike, groups: ArrayLike, weights: ArrayLike | None = None, digits: int = 9
) -> dict[str, dict[float, float]]:
    """For each group, each score that occurs (rounded) and the share of truth 1 among those who have it.

    A score is calibrated within groups where the two are equal: a score of 0.7 means 7 of 10, whoever has it.
    """
    y, s, g, w = _people(truth, score, groups, weights)
    s = s.round(digits)
    return {
        str(name): {float(v): _mean(y, w * (g == name) * (s == v)) for v in np.unique(s[g == name])}
        for name in sorted(set(g.tolist()))
    }


def balance_of_scores(truth: ArrayLike, score: ArrayLike, groups: ArrayLike,
                      weights: ArrayLike | None = None) -> dict[str, tuple[float, float]]:  # fmt: skip
    """For each group, the mean score of those with truth 0 and with truth 1 (Kleinberg et al. 2017: "balance")."""
    y, s, g, w = _people(truth, score, groups, weights)
    return {
        str(name): (_mean(s, w * (g == name) * (1 - y)), _mean(s, w * (g == name) * y))
        for name in sorted(set(g.tolist()))
    }


def _people(truth: ArrayLike, score: ArrayLike, groups: ArrayLike, weights: ArrayLike | None):
    y, s, g = np.asarray(truth, dtype=float), np.asarray(score, dtype=float), np.asarray(groups)
    w = np.ones(y.shape) if weights is None else np.asarray(weights, dtype=float)
    if y.ndim != 1 or y.size == 0 or not y.shape == s.shape == g.shape == w.shape:
        raise ValueError(
            f"truth, decision or score, groups and weights must be (N,) each, got {y.shape}, {s.shape}, {g.shape} "
            f"and {w.shape}"
        )
    if not ((w >= 0).all() and w.sum() > 0):
        raise ValueError("weights must not be negative, nor all 0")
    return y, s, g, w


def _mean(values: Array, weights: Array) -> float:
    total = weights.sum()
    return float((values * weights).sum() / total) if total > 0 else math.nan


def _range(rates: Mapping[str, Rates], name: str) -> float:
    values = [getattr(rate, name) for rate in rates.values()]
    if len(values) < 2:
        raise ValueError(f"rates must hold at least 2 groups, got {list(rates)}")
    return max(values) - min(values)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")
