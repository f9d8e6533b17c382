"""A reader of ToyWorld: one encoder that marks names, says whom each word is about, points at answers, judges moods."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from llmbook import zoo
from llmbook.applications.understanding import (
    MOODS,
    STORY,
    TAGS,
    Reading,
    Span,
    Triple,
    from_bio,
    mentions,
    to_bio,
    truth,
)
from llmbook.toyworld import ToyWorld, words
from llmbook.toyworld.story import Story
from llmbook.training import TrainingArguments, fit
from llmbook.transformer import IGNORE, Encoder, GPTConfig

PRONOUNS = ("she", "he")
THEY = "they"  # what is about everybody
RARE = -4.0  # the first log-odds that a word answers a question: few do

# --- what can be asked -------------------------------------------------------------------------------------


def relation_names(world: ToyWorld) -> tuple[str, ...]:
    """What can be asked of a subject in this world."""
    fruits = [f"number_of_{fruit}" for fruit in words.FRUITS if fruit in world.vocabulary]
    return ("day", "works_as", "is_in", "feels", "has_colour", "has", *fruits)


def answer_words(relation: str) -> frozenset[str]:
    """The words that can answer a question; a pronoun does if it means somebody who can."""
    people = (*words.NAMES_SHE, *words.NAMES_HE, *words.NAMES_OPEN, *PRONOUNS)
    known = {
        "day": words.DAYS,
        "works_as": words.JOBS,
        "is_in": (*words.PLACES, *words.TOWNS),
        "feels": (*words.FEELINGS_GOOD, *words.FEELINGS_BAD),
        "has_colour": words.COLOURS,
        "has": people,
    }
    if relation not in known and not relation.startswith("number_of_"):
        raise ValueError(f"relation must be number_of_something or one of {sorted(known)}, got {relation!r}")
    return frozenset(known.get(relation, (*words.NUMBERS, "none")))


def askable(subject: str, relation: str) -> bool:
    """Whether a relation makes sense of a subject: a ball has no job. A thing is asked who has it."""
    if relation == "day" or subject == STORY:
        return relation == "day" and subject == STORY
    thing = subject in words.THINGS
    return relation == "is_in" or thing == (relation in ("has_colour", "has"))


def as_triple(subject: str, relation: str, value: str) -> Triple:
    """The edge of the graph. "has" points from the holder to the thing, so it is turned round."""
    return (value, relation, subject) if relation == "has" else (subject, relation, value)


def abouts(story: Story) -> dict[int, str]:
    """Place in the text -> whom it is about: a name or pronoun the person it means (coreference), the other words of
    a sentence the one who acts in it, or "they" where all of them do."""
    found: dict[int, str] = {}
    for event in story.events:
        together = THEY if THEY in story.tokens[event.start : event.end] else None
        if who := event.slots.get("who", together):
            found |= dict.fromkeys(range(event.start, event.end), who)
    for event in story.events:
        for role in ("who", "other", "holder"):
            if role in event.slots and event.at.get(role, -1) >= event.start:
                found[event.at[role]] = event.slots[role]
    return found


# --- batches -----------------------------------------------------------------------------------------------


class Example(NamedTuple):
    """One story as numbers. Places count ``<bos>`` in front."""

    ids: NDArray[np.int64]  # (T,)
    tags: NDArray[np.int64]  # (T,), IGNORE at <bos>
    about: NDArray[np.int64]  # (T,), ids of people, IGNORE where nobody is meant
    named: list[list[int]]  # for each subject, where it is named
    moods: list[int]  # for each subject, IGNORE if it is no person
    answers: list[tuple[int, int, list[int]]]  # subject, relation, the places that answer


def as_example(world: ToyWorld, story: Story, spans: Iterable[Span] | None = None) -> Example:
    """A story's words and labels; its subjects are those of the given spans, by default of the true ones.

    Where the answer is none, ``<bos>`` gives it and every word that can't answer. A number that is never said has
    no place to point at, and is left out.
    """
    read, n = truth(story), len(story.tokens)
    meant = abouts(story)
    about = np.full(n + 1, IGNORE)
    about[[place + 1 for place in meant]] = world.encode(list(meant.values()))
    subjects = mentions(story.tokens, read.spans if spans is None else spans)
    known = {(o, r) if r == "has" else (s, r): s if r == "has" else o for s, r, o in read.triples}
    moods, answers = [], []
    for j, subject in enumerate(subjects):
        moods.append(MOODS.index(read.moods[subject]) if subject in read.moods else IGNORE)
        for k, relation in enumerate(relation_names(world)):
            if askable(subject, relation):
                places = _places(story.tokens, meant, relation, known.get((subject, relation)))
                answers += [(j, k, places)] if places else []
    tags = np.array([IGNORE, *(TAGS.index(tag) for tag in to_bio(n, read.spans))])
    ids = world.encode(["<bos>", *story.tokens])
    return Example(ids, tags, about, list(subjects.values()), moods, answers)


def _places(tokens: Sequence[str], meant: Mapping[int, str], relation: str, value: str | None) -> list[int]:
    can = answer_words(relation)
    if value is None:
        return [0] + [i + 1 for i, token in enumerate(tokens) if token not in can]
    return [
        i + 1 for i, token in enumerate(tokens) if token in can and (meant[i] if token in PRONOUNS else token) == value
    ]


def stack(world: ToyWorld, examples: Sequence[Example]) -> dict[str, Tensor]:
    """Examples as a batch: ``input_ids``, ``attention_mask``, ``tags``, ``about`` (B, T), ``named`` (B, S, T),
    ``moods`` (B, S), ``answers`` (B, S, R, T; True at every token that answers), ``asked`` (B, S, R)."""
    b, t = len(examples), max(len(e.ids) for e in examples)
    s, r = max(len(e.named) for e in examples), len(relation_names(world))
    batch = {
        "input_ids": torch.zeros(b, t, dtype=torch.int64),
        "attention_mask": torch.zeros(b, t, dtype=torch.int64),
        "tags": torch.full((b, t), IGNORE),
        "about": torch.full((b, t), IGNORE),
        "named": torch.zeros(b, s, t),
        "moods": torch.full((b, s), IGNORE),
        "answers": torch.zeros(b, s, r, t, dtype=torch.bool),
        "asked": torch.zeros(b, s, r, dtype=torch.bool),
    }
    for i, example in enumerate(examples):
        n = len(example.ids)
        batch["attention_mask"][i, :n] = 1
        batch["moods"][i, : len(example.moods)] = torch.as_tensor(example.moods)
        for name, row in (("input_ids", example.ids), ("tags", example.tags), ("about", example.about)):
            batch[name][i, :n] = torch.as_tensor(row)
        for j, places in enumerate(example.named):
            batch["named"][i, j, places] = 1
        for j, k, places in example.answers:
            batch["answers"][i, j, k, places] = True
            batch["asked"][i, j, k] = True
    return batch


def collate(world: ToyWorld, stories: Sequence[Story], spans: Sequence[Iterable[Span]] | None = None) -> dict:
    """Stories as a batch (:func:`stack`). Subjects are those of the given spans (N sets), by default of the true."""
    if spans is not None and len(spans) != len(stories):
        raise ValueError(f"spans must hold a set for each of the {len(stories)} stories, got {len(spans)}")
    given = spans or [None] * len(stories)
    return stack(world, [as_example(world, story, some) for story, some in zip(stories, given, strict=True)])


# --- the model ---------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """One encoder, four heads: a tag for each token, whom it is about, a pointer for each question, moods.

    A subject is the mean of its mentions' states. The answer to (subject, relation) is the *last* token of the text
    that matches, ``<bos>`` if none does (a pointer network: Vinyals et al. 2015).
    """

    def __init__(self, config: GPTConfig, relations: int, *, generator: torch.Generator):
        super().__init__()
        self.encoder = Encoder(config, generator=generator)
        width = config.n_embd
        self.tag = nn.Linear(width, len(TAGS))
        self.about = nn.Linear(width, config.vocab_size)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.relation = nn.Linear(width, relations + 1)  # the last is where a mood is told
        self.mood = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, len(MOODS)))
        for layer in list(self.modules()):
            if isinstance(layer, nn.Linear) and not any(layer is part for part in self.encoder.modules()):
                nn.init.normal_(layer.weight, 0.0, width**-0.5, generator=generator)
                nn.init.zeros_(layer.bias)
        nn.init.constant_(self.relation.bias, RARE)

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) to (B, T, C)."""
        return self.encoder(input_ids, attention_mask)

    def subjects(self, states: Tensor, named: Tensor) -> Tensor:
        """Means over mentions: states (B, T, C) and named (B, S, T), 1 at a mention, to (B, S, C)."""
        return named @ states / named.sum(-1, keepdim=True).clamp(min=1)

    def matches(self, states: Tensor, subjects: Tensor) -> Tensor:
        """Log-odds that a token tells a relation of a subject: is it about the subject, does it tell the relation?

        (B, S, R + 1, T), the mood last.
        """
        subject = self.query(subjects) @ self.key(states).mT / states.shape[-1] ** 0.5  # (B, S, T)
        return subject[:, :, None] + self.relation(states).mT[:, None]

    def pointers(self, states: Tensor, subjects: Tensor, attention_mask: Tensor) -> Tensor:
        """Log-probabilities (B, S, R + 1, T) that a token is the last one that matches; ``<bos>``, that none does."""
        odds = self.matches(states, subjects).masked_fill(attention_mask[:, None, None] == 0, -1e9)
        return last_match(odds)

    def moods(self, states: Tensor, subjects: Tensor, pointers: Tensor) -> Tensor:
        """Scores of the moods (B, S, 3), from a subject and what its last pointer reads."""
        told = pointers[:, :, -1].exp() @ states  # (B, S, C)
        return self.mood(torch.cat([subjects, told], -1))


def last_match(odds: Tensor) -> Tensor:
    """Log-odds of a match at each place (..., T) to log-probabilities of being the last match (..., T).

    Read from the end: a place has it if it matches and nothing behind it does. Place 0 takes what is left, so that
    the probabilities add to one.
    """
    no = F.logsigmoid(-odds)
    behind = no.flip(-1).cumsum(-1).flip(-1) - no
    first = torch.arange(odds.shape[-1], device=odds.device) == 0
    return torch.where(first, behind, F.logsigmoid(odds) + behind)


def reader_loss(model: Reader, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean negative log-likelihoods (nats), added: of a tag, of whom a token is about, of a mood, of an answer.

    Any token that gives the answer will do, so the probability of an answer is the sum over them.
    """
    states = model.states(batch["input_ids"], batch["attention_mask"])
    subjects = model.subjects(states, batch["named"])
    pointers = model.pointers(states, subjects, batch["attention_mask"])
    asked = batch["asked"]
    right = pointers[:, :, :-1][asked].masked_fill(~batch["answers"][asked], -1e9).logsumexp(-1)
    return (
        _cross_entropy(model.tag(states), batch["tags"])
        + _cross_entropy(model.about(states), batch["about"])
        + _cross_entropy(model.moods(states, subjects, pointers), batch["moods"])
        - right.mean()
    )


def _cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, -2), targets.flatten(), ignore_index=IGNORE)


# --- reading -----------------------------------------------------------------------------------------------


@torch.no_grad()
def read(
    model: Reader,
    world: ToyWorld,
    stories: Sequence[Story],
    spans: Sequence[Iterable[Span]] | None = None,
    batch_size: int = 50,
) -> list[Reading]:
    """What the model understands of the stories' words alone: its spans name the subjects of its triples and moods.

    Given spans (N sets) are used in the place of its own.
    """
    if spans is not None and len(spans) != len(stories):
        raise ValueError(f"spans must hold a set for each of the {len(stories)} stories, got {len(spans)}")
    model.eval()
    readings: list[Reading] = []
    for start in range(0, len(stories), batch_size):
        some = stories[start : start + batch_size]
        batch = collate(world, some)  # of which only the words are used
        mask = batch["attention_mask"]
        states = model.states(batch["input_ids"], mask)
        best = model.tag(states).argmax(-1).tolist()
        lengths = [len(story.tokens) for story in some]
        found = [from_bio([TAGS[i] for i in row[1 : n + 1]]) for row, n in zip(best, lengths, strict=True)]
        found = found if spans is None else [sorted(s) for s in spans[start : start + batch_size]]
        subjects = model.subjects(states, collate(world, some, found)["named"])
        pointers = model.pointers(states, subjects, mask)
        moods = model.moods(states, subjects, pointers).argmax(-1)
        meant = model.about(states).argmax(-1)
        for i, story in enumerate(some):
            people = world.decode(meant[i, 1:].tolist())
            tokens = [w if w not in PRONOUNS else who for w, who in zip(story.tokens, people, strict=False)]
            readings.append(_reading(world, story.tokens, tokens, found[i], pointers[i].exp(), moods[i]))
    return readings


def _reading(
    world: ToyWorld, tokens: Sequence[str], meant: Sequence[str], spans: list[Span], pointed: Tensor, moods: Tensor
) -> Reading:
    triples, felt = set(), {}
    people = {tokens[end - 1] for _, end, kind in spans if kind == "PERSON"}
    for k, relation in enumerate(relation_names(world)):
        can = answer_words(relation)
        values = ["", *(word if word in can else "" for word in meant)]  # "": no answer
        for j, subject in enumerate(mentions(tokens, spans)):
            if askable(subject, relation):
                mass: Counter = Counter()
                for value, p in zip(values, pointed[j, k].tolist(), strict=False):
                    mass[value] += p
                if value := max(mass, key=mass.__getitem__):
                    triples.add(as_triple(subject, relation, value))
    for j, subject in enumerate(mentions(tokens, spans)):
        if subject in people:
            felt[subject] = MOODS[int(moods[j])]
    return Reading(frozenset(spans), frozenset(triples), felt)


# --- training ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReaderRecipe:
    """All that decides what a reader becomes: how many stories it sees, sizes, training, seed, and the code."""

    stories: int
    max_steps: int = 1200
    batch_size: int = 8
    n_embd: int = 96
    n_layer: int = 3
    n_head: int = 4
    learning_rate: float = 2e-3
    seed: int = 0
    name: str = "toyworld-reader"
    code: str = ""  # filled in: what the training follows

    def __post_init__(self) -> None:
        parts: tuple[Callable, ...] = (
            to_bio, truth, mentions, relation_names, answer_words, askable, abouts, as_example, _places, stack, Reader,
            last_match, reader_loss, _cross_entropy, new_reader, train_reader,
        )  # fmt: skip
        source = "".join(inspect.getsource(part) for part in parts)
        object.__setattr__(self, "code", hashlib.sha256(source.encode()).hexdigest()[:12])


def new_reader(recipe: ReaderRecipe, world: ToyWorld) -> Reader:
    """A reader with first weights from the recipe's seed."""
    config = GPTConfig(
        len(world.vocabulary), 160, recipe.n_embd, recipe.n_layer, recipe.n_head, positions="rotary",
        initializer_range=0.05,
    )  # fmt: skip
    return Reader(config, len(relation_names(world)), generator=torch.Generator().manual_seed(recipe.seed))


def train_reader(recipe: ReaderRecipe, folder: Path) -> None:
    """Train on the first stories of a seed as the recipe says; write the weights to folder."""
    world = ToyWorld("small")
    examples = [as_example(world, story) for story in world.stories(recipe.stories, recipe.seed)]
    model = new_reader(recipe, world)
    args = TrainingArguments(
        max_steps=recipe.max_steps, batch_size=recipe.batch_size, learning_rate=recipe.learning_rate,
        warmup_steps=30, min_lr_ratio=0.0, adam_beta2=0.98, weight_decay=0.01, seed=recipe.seed,
    )  # fmt: skip

    def get_batch(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([recipe.seed, step])
        size = min(recipe.batch_size, len(examples))
        return stack(world, [examples[i] for i in rng.choice(len(examples), size=size, replace=False)])

    fit(model, get_batch, args, loss_function=reader_loss, count_targets=lambda batch: len(batch["tags"]),
        progress=False)  # fmt: skip
    save_file(model.state_dict(), folder / "model.safetensors")


def trained_reader(recipe: ReaderRecipe) -> Reader:
    """The reader of a recipe, trained if it is not kept yet; in evaluation mode."""
    folder = zoo.kept(recipe, train_reader)
    model = new_reader(recipe, ToyWorld("small"))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()
