"""A story with everything that is known about it, and the answers that the world gives about texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmbook.toyworld import labels
from llmbook.toyworld.state import Event, State

BOS, EOS = "<bos>", "<eos>"


class ImpossibleText(ValueError):
    """The text cannot have been told: `index` and `token` say where it breaks, `why` says why."""

    def __init__(self, index: int, token: str, why: str):
        super().__init__(f"token {index}, {token!r}: {why}")
        self.index, self.token, self.why = index, token, why


@dataclass(frozen=True)
class Verdict:
    """The answer of `is_possible`. True in an `if` when the text, or a story that begins with it, can be told."""

    possible: bool
    complete: bool = False  # the text ends with <eos>
    index: int | None = None  # the first token that cannot stand where it stands
    token: str | None = None
    why: str = ""

    def __bool__(self) -> bool:
        return self.possible


@dataclass(frozen=True)
class Rate:
    """An entropy in nats per token and its standard error (0 when it was enumerated)."""

    value: float
    standard_error: float


@dataclass
class Story:
    """A story, or the beginning of one, with everything that is known about it. All lists run over tokens."""

    tokens: list[str]  # ends with "<eos>" when the story is complete
    logprobs: np.ndarray  # (T,) exact log p(token | tokens before it), nats
    entropies: np.ndarray  # (T,) entropy of the distribution that the token was drawn from, nats: the floor
    kinds: list[str]  # "word", "choice", or the name of the fact that settles the token
    sources: list[int]  # index of the token that settled that fact, or -1
    state: State

    @property
    def events(self) -> list[Event]:
        """What has happened, one event per sentence."""
        return self.state.events

    @property
    def text(self) -> str:
        return " ".join(self.tokens)

    @property
    def words(self) -> list[str]:
        """The tokens without "<eos>": a sentence for models that know no end."""
        return self.tokens[:-1] if self.tokens[-1:] == [EOS] else self.tokens

    def __repr__(self) -> str:
        return f"Story({self.text!r})"

    # Labels, made when they are first asked for.
    summary = cached_property(labels.summary)
    questions = cached_property(labels.questions)
    relations = cached_property(labels.relations)
    entities = cached_property(labels.entities)
    sentiment = cached_property(labels.sentiment)
    dialogue = cached_property(labels.dialogue)
    chinese = cached_property(labels.chinese)
