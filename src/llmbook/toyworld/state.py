"""What a prefix of a story has settled (`State`), the next token's distribution (`Step`), a sentence (`Event`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from llmbook.toyworld import words

NUMBERS = tuple(words.NUMBERS)
PLURALS = {singular: plural for plural, (singular, *_) in words.FRUITS.items()}
PRONOUNS = ("she", "he", "her", "his")


def words_to_number(word: str) -> int:
    return NUMBERS.index(word)


class Step:
    """The next-token distribution at one position: `probs` maps each possible token to its probability.

    `kind` says what sort of choice it is: "word" (the sentence leaves one word only), "choice" (a free draw)
    or the name of the fact that settles it ("place", "gender", "count", …). `source` is the index of the
    earlier token that settled that fact, or -1.
    """

    __slots__ = ("_entropy", "kind", "probs", "source")

    def __init__(self, probs: dict[str, float], kind: str = "choice", source: int = -1):
        self.probs, self.kind, self.source = probs, kind, source
        self._entropy = 0.0 if len(probs) == 1 else None

    @property
    def entropy(self) -> float:
        """Entropy of this distribution in nats: what no model can avoid losing here on average."""
        if self._entropy is None:
            self._entropy = -math.fsum(p * math.log(p) for p in self.probs.values())
        return self._entropy

    def draw(self, u: float) -> str:
        """Turn a uniform number in [0, 1) into a token."""
        for token, p in self.probs.items():
            u -= p
            if u < 0:
                return token
        return token  # rounding only: the probabilities sum to 1 - 1e-16


class Fact(NamedTuple):
    """One thing that the text has settled, the index of the token that did, and of the event."""

    value: str | int
    source: int
    event: int


@dataclass
class State:
    """All that a prefix of a story has settled. A function of the tokens read, and of nothing else."""

    facts: dict[str, dict[str, Fact]] = field(default_factory=dict)  # relation -> subject -> fact
    cast: list[str] = field(default_factory=list)  # people, in order of appearance
    topic: str | None = None  # whom "she" or "he" would mean now
    stage: str = "day"  # which templates may come next
    pending: Event | None = None  # the question that is being answered
    events: list[Event] = field(default_factory=list)
    at: dict[str, int] = field(default_factory=dict)  # token index of each slot of the sentence being told
    length: int = 0  # tokens so far

    def get(self, relation: str, subject: str) -> str | int | None:
        """The value of a fact, or None where the text has not settled it."""
        fact = self.facts.get(relation, {}).get(subject)
        return None if fact is None else fact.value

    def source(self, relation: str, subject: str) -> int:
        return self.facts[relation][subject].source

    def know(self, relation: str, subject: str, value: str | int, source: int) -> None:
        self.facts.setdefault(relation, {})[subject] = Fact(value, source, len(self.events))

    def forget(self, relation: str, subject: str) -> None:
        self.facts.get(relation, {}).pop(subject, None)

    def subjects(self, relation: str, value: str) -> tuple[str, ...]:
        """Everything that stands in `relation` to `value`: what Anna holds, for example."""
        return tuple(s for s, fact in self.facts.get(relation, {}).items() if fact.value == value)


@dataclass(frozen=True)
class Template:
    """One kind of sentence, in both languages, with what it needs and what it settles."""

    kind: str
    weight: float  # against the other sentences that could follow the same words
    items: tuple[str | tuple[str, str], ...]  # a word, or a slot as (name, chooser)
    chinese: tuple[tuple[str, str], ...]  # (word or slot, what it is aligned with)
    effects: tuple[tuple[str, str, str, str], ...]  # (subject, relation, operator, value)
    when: str  # a chooser that must find something; "" for none
    stage: str  # the stage of the story in which it is said
    next: str  # the stage that it leads to


@dataclass
class Event:
    """One sentence that has been told: `slots` has names resolved ("she" -> "Anna"), `at` has token indices."""

    template: Template
    slots: dict[str, str]
    at: dict[str, int]
    start: int
    end: int = -1

    @property
    def kind(self) -> str:
        return self.template.kind

    def __repr__(self) -> str:
        return f"Event({self.kind!r}, {self.slots}, tokens {self.start}:{self.end})"


# ------------------------------------------------------------------------------------------ telling a sentence


def begin(state: State) -> Event:
    """An empty sentence. One that answers takes over the slots of the question, its roles swapped."""
    slots, at = {}, {}
    if state.stage not in ("day", "meet", "main"):
        slots, at = dict(state.pending.slots), dict(state.pending.at)
        if "other" in slots:
            slots["who"], slots["other"] = slots["other"], slots["who"]
            at["who"], at["other"] = at["other"], at["who"]
    state.at = at
    return Event(None, slots, at, start=-1)


def note(item: str | tuple[str, str], token: str, state: State, event: Event) -> None:
    """Take down a token: its place in the text, its meaning for its slot, the gender that it settles."""
    index = state.length - 1
    if event.start < 0:
        event.start = index
    if isinstance(item, str):
        event.at[item] = index
        return
    name = item[0]
    if token in PRONOUNS:
        person = state.topic if name == "who" else event.slots["who"]
        if state.get("gender", person) is None:
            state.know("gender", person, "she" if token in ("she", "her") else "he", index)
        token = person
    event.slots[name] = PLURALS.get(token, token)
    event.at[name] = index


def apply(subject: str, relation: str, operator: str, value: str, event: Event, state: State) -> None:
    """Make one effect of a template hold: `thing.place=place` and the like."""
    subjects = state.cast if subject == "they" else [event.slots.get(subject, subject)]
    source = event.at.get(value, event.end - 1)
    value = event.slots.get(value, value)
    for name in subjects:
        if value == "-":
            state.forget(relation, name)
        elif operator == "=":
            state.know(relation, name, value, source)
        else:
            kind = event.slots[relation]  # the relation is named by a slot: how many apples, how many pears
            change = words_to_number(value) * (1 if operator == "+=" else -1)
            state.know(kind, name, (state.get(kind, name) or 0) + change, source)
