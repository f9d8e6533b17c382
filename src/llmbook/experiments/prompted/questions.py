"""One multiple-choice set, made by a rule from the analogies of Mikolov et al. (2013): nobody chose a question."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from llmbook import corpora

KINDS = {
    "capital-common-countries": "What is the capital of {}?",
    "currency": "What is the currency of {}?",
    "gram6-nationality-adjective": "What is the adjective for {}?",
    "gram2-opposite": "Which word means the opposite of {}?",
    "gram4-superlative": "What is the superlative of {}?",
}
PROPER = {"capital-common-countries", "gram6-nationality-adjective"}  # whose answers begin with a capital letter
NAMED = {*PROPER, "currency"}  # that ask about a country
PER_KIND = 24
SEED = 2013  # of which questions, of the wrong options and of the places; fixed: the file holds these
OPTIONS = 4


class Question(NamedTuple):
    """A question, its options in the order in which they are shown, and which of them is right."""

    kind: str
    text: str
    options: tuple[str, ...]
    right: int

    @property
    def answer(self) -> str:
        return self.options[self.right]

    @property
    def wrong(self) -> str:
        """One wrong option: the one behind the right one, in a circle."""
        return self.options[(self.right + 1) % len(self.options)]


@functools.cache
def questions() -> tuple[Question, ...]:
    """At most 24 questions of each of five kinds, four options each, the right one equally often in each place."""
    rng = np.random.default_rng(SEED)
    found = []
    for kind, wording in KINDS.items():
        pairs = _pairs(kind)
        chosen = rng.permutation(len(pairs))[:PER_KIND]
        places = rng.permutation(np.arange(len(chosen)) % OPTIONS)
        for number, place in zip(chosen, places, strict=True):
            subject, answer = pairs[number]
            others = sorted({a for _, a in pairs} - {answer})
            options = [others[i] for i in rng.permutation(len(others))[: OPTIONS - 1]]
            options.insert(place, answer)
            found.append(Question(kind, wording.format(subject), tuple(options), int(place)))
    return tuple(found)


def _pairs(kind: str) -> list[tuple[str, str]]:
    """(subject, answer), each subject once, in the order of the alphabet."""
    rows = corpora.analogies()[kind]
    ends = (1, 0) if kind.startswith("capital") else (0, 1)  # the file has the capital first
    table = {row[2 * half + ends[0]]: row[2 * half + ends[1]] for row in rows for half in (0, 1)}
    shown = [(s.title() if kind in NAMED else s, a.title() if kind in PROPER else a) for s, a in table.items()]
    return sorted(shown)


@functools.cache
def starts(size: int = 24, given: int = 16, rest: int = 30) -> tuple[tuple[str, str], ...]:
    """Beginnings of news from Lee's collection, and how each goes on: words given, words that a person wrote next."""
    texts = corpora.read_text(corpora.gensim_file("lee_background.cor")).splitlines()
    words = [row for text in texts if len(row := text.split()) >= given + rest]
    found = [(" ".join(row[:given]), " ".join(row[given : given + rest])) for row in words]
    rng = np.random.default_rng(SEED)
    return tuple(found[i] for i in sorted(rng.permutation(len(found))[:size]))
