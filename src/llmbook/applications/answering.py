"""Questions with their answers, and how answers are scored: exact match, F1, risk against coverage."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmbook.toyworld import ToyWorld
from llmbook.toyworld.labels import the
from llmbook.toyworld.story import Story

# ------------------------------------------------------------ questions


class Item(NamedTuple):
    """A question on a passage; ``target`` is the index of the answer in the passage, None where it does not say."""

    question: tuple[str, ...]
    passage: tuple[str, ...]
    answer: str | None
    target: int | None


def answerable(story: Story) -> list[Item]:
    """The story's questions whose answer is one of its words, with the last place before its support that names it.

    Left out are sums that nobody says (two apples and three more): no span holds their answer.
    """
    found = []
    for asked in story.questions:
        places = [i for i in range(asked.token + 1) if story.tokens[i] == asked.answer]
        if places:
            found.append(Item(tuple(asked.question.split()), tuple(story.words), asked.answer, places[-1]))
    return found


def unanswerable(story: Story, world: ToyWorld, rng: np.random.Generator) -> Item:
    """A question that the story cannot answer: half of them about somebody or something that is not in it.

    The others ask about what is in the story, but for a fact that does not hold at its end.
    """
    answered = {asked.question for asked in story.questions}
    everything = (*world.names_she, *world.names_he, *world.names_open, *world.things)
    here = [t for t in everything if t in story.tokens]
    away = [t for t in everything if t not in story.tokens]
    subjects = here if rng.random() < 0.5 else away
    while True:
        subject = subjects[rng.integers(len(subjects))]
        texts = THINGS_ASKED if subject in world.things else PEOPLE_ASKED
        text = texts[rng.integers(len(texts))].format(the(subject))
        if text not in answered:
            return Item(tuple(text.split()), tuple(story.words), None, None)
        subjects = away if rng.random() < 0.1 else subjects  # everything may have been told about those here


THINGS_ASKED = ("where is {} ?", "who has {} ?", "what colour is {} ?")
PEOPLE_ASKED = ("where is {} ?", "how does {} feel ?", "what is the job of {} ?")


# ------------------------------------------------------------ scores

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """SQuAD's: lower case, no punctuation, no articles, one space between words (Rajpurkar et al., 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, gold: str) -> float:
    """1 where the two are the same after :func:`normalise`, else 0."""
    return float(normalise(answer) == normalise(gold))


def token_f1(answer: str, gold: str) -> float:
    """The harmonic mean of precision and recall over words, after :func:`normalise`; two empty answers agree."""
    said, wanted = normalise(answer).split(), normalise(gold).split()
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted))


class RiskCoverage(NamedTuple):
    """``risk[i]`` is the share of errors among the ``coverage[i]`` · N answers that are surest."""

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]

    @property
    def area(self) -> float:
        """The mean risk over all coverages (AURC; Geifman et al., 2019): the less, the better."""
        return float(self.risk.mean())


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """What remains wrong if only the surest answers are given: confidence (N,), correct (N,) of 0 and 1.

    Answers of equal confidence come in together: each has the error of its group, whatever their order.
    """
    sure, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if sure.ndim != 1 or not sure.size or sure.shape != right.shape:
        raise ValueError(f"confidence and correct must be two (N,) arrays, got {sure.shape} and {right.shape}")
    if np.isnan(sure).any() or not np.isin(right, (0.0, 1.0)).all():
        raise ValueError("confidence must be without NaN, and correct hold 0 or 1 only")
    _, group = np.unique(-sure, return_inverse=True)
    wrong = np.bincount(group, weights=1 - right) / np.bincount(group)  # of each group of ties
    errors = wrong[group][np.argsort(group, kind="stable")]
    count = np.arange(1, sure.size + 1)
    return RiskCoverage(count / sure.size, np.cumsum(errors) / count)
