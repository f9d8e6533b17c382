"""Language understanding: spans as BIO tags, facts as pointers, moods; a reader of all three; graphs and scores."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from llmbook import zoo
from llmbook.toyworld import ToyWorld, words
from llmbook.toyworld.story import Story
from llmbook.training import TrainingArguments, fit
from llmbook.transformer import IGNORE, Encoder, GPTConfig

Span = tuple[int, int, str]  # tokens[start:end], and its type
Triple = tuple[str, str, str]  # subject, relation, object

TYPES = ("PERSON", "JOB", "PLACE", "TOWN", "THING", "DATE", "QUANTITY")
TAGS = ("O", *(f"{mark}-{kind}" for kind in TYPES for mark in "BI"))
MOODS = ("negative", "neutral", "positive")
STORY = "story"  # the subject of what is true of the whole day

# --- spans as tags -----------------------------------------------------------------------------------------


def to_bio(length: int, spans: Iterable[Span]) -> list[str]:
    """Spans as one tag a token: B-X begins a span of type X, I-X continues it, O is outside (Ramshaw, Marcus 1995).

    Raises ``ValueError`` for a span that is empty, lies outside, or overlaps another.
    """
    tags = ["O"] * length
    for start, end, kind in spans:
        if not 0 <= start < end <= length:
            raise ValueError(f"spans must lie within 0..{length} and not be empty, got {(start, end, kind)}")
        if any(tag != "O" for tag in tags[start:end]):
            raise ValueError(f"spans must not overlap, got {(start, end, kind)} on {tags[start:end]}")
        tags[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return tags


def from_bio(tags: Sequence[str]) -> list[Span]:
    """The spans that tags describe. An I that continues nothing of its type begins a span, as in conlleval."""
    spans: list[Span] = []
    start, kind = 0, ""
    for i, tag in enumerate([*tags, "O"]):
        mark, _, of = tag.partition("-")
        if mark not in ("B", "I", "O") or (mark != "O") != bool(of):
            raise ValueError(f"tags must be O, B-type or I-type, got {tag!r}")
        if kind and not (mark == "I" and of == kind):
            spans.append((start, i, kind))
            kind = ""
        if of and not kind:
            start, kind = i, of
    return spans


# --- scores of sets ----------------------------------------------------------------------------------------


class Score(NamedTuple):
    """Precision, recall and their harmonic mean."""

    precision: float
    recall: float
    f1: float


def _counts(true: Sequence[Iterable], found: Sequence[Iterable]) -> NDArray[np.float64]:
    """For each document: right ones, true ones, found ones. (documents, 3)"""
    if len(true) != len(found) or not len(true):
        raise ValueError(f"found must hold a set for each of the documents, got {len(found)} for {len(true)}")
    pairs = [(set(t), set(f)) for t, f in zip(true, found, strict=True)]
    return np.array([(len(t & f), len(t), len(f)) for t, f in pairs], dtype=float)


def _score(counts: NDArray[np.float64]) -> Score:
    right, true, found = counts.sum(0)
    precision, recall = right / found if found else 0.0, right / true if true else 0.0
    return Score(float(precision), float(recall), float(2 * right / (true + found) if true + found else 0.0))


def set_scores(true: Sequence[Iterable], found: Sequence[Iterable]) -> Score:
    """Strict micro-averaged scores of sets (spans, triples), one set a document: only what is wholly equal counts."""
    return _score(_counts(true, found))


def f1_interval(
    true: Sequence[Iterable], found: Sequence[Iterable], *, rng: np.random.Generator, resamples: int = 1000
) -> tuple[float, float]:
    """A 95 % bootstrap interval of the F1, drawn over documents: what stands in one is not independent."""
    counts = _counts(true, found)
    draws = [_score(counts[rng.integers(len(counts), size=len(counts))]).f1 for _ in range(resamples)]
    return tuple(float(q) for q in np.quantile(draws, [0.025, 0.975]))


@dataclass(frozen=True)
class Reading:
    """What was understood of a text: its spans, its knowledge graph, each person's mood."""

    spans: frozenset[Span]
    triples: frozenset[Triple]
    moods: Mapping[str, str]


def truth(story: Story) -> Reading:
    """ToyWorld's own labels of a story."""
    spans = frozenset((e.start, e.end, e.type) for e in story.entities)
    triples = frozenset((r.subject, r.relation, r.object) for r in story.relations)
    return Reading(spans, triples, story.sentiment)


def referents(story: Story) -> dict[int, str]:
    """Place in the text -> the person that the word there means, names and pronouns alike (coreference)."""
    found = {}
    for event in story.events:
        for role in ("who", "other", "holder"):
            if role in event.slots and event.at.get(role, -1) >= event.start:
                found[event.at[role]] = event.slots[role]
    return found


def mentions(tokens: Sequence[str], spans: Iterable[Span]) -> dict[str, list[int]]:
    """Each person and thing, by the last word of its spans, and where it is named; the story itself is token 0.

    Indices are those of the tokens *with* ``<bos>`` in front.
    """
    found: dict[str, list[int]] = {STORY: [0]}
    for _, end, kind in sorted(spans):
        if kind in ("PERSON", "THING"):
            found.setdefault(tokens[end - 1], []).append(end)  # one further, behind <bos>
    return found


def relation_names(world: ToyWorld) -> tuple[str, ...]:
    """What can be asked of a subject in this world."""
    fruits = [f"number_of_{fruit}" for fruit in words.FRUITS if fruit in world.vocabulary]
    return ("day", "works_as", "is_in", "feels", "has_colour", "has", *fruits)


def askable(subject: str, relation: str) -> bool:
    """Whether a relation makes sense of a subject: a ball has no job. A thing is asked who has it."""
    if relation == "day" or subject == STORY:
        return relation == "day" and subject == STORY
    thing = subject in words.THINGS
    return relation == "is_in" or thing == (relation in ("has_colour", "has"))


def as_triple(subject: str, relation: str, value: str) -> Triple:
    """The edge of the graph. "has" points from the holder to the thing, so it is turned round."""
    return (value, relation, subject) if relation == "has" else (subject, relation, value)


# --- the reader --------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """One encoder, three heads: a tag for each token, a mood for each person, a pointer for each question.

    A fourth serves in training alone: whom a name or a pronoun means.
    A subject is the mean of its mentions' states. The answer to (subject, relation) is a token of the text,
    ``<bos>`` where there is none (a pointer network: Vinyals et al. 2015).
    """

    def __init__(self, config: GPTConfig, relations: int, *, generator: torch.Generator):
        super().__init__()
        self.encoder = Encoder(config, generator=generator)
        width = config.n_embd
        self.tag = nn.Linear(width, len(TAGS))
        self.refer = nn.Linear(width, config.vocab_size)  # which person a word means, for training alone
        self.mood = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, len(MOODS)))
        self.query = nn.Linear(width, (relations + 1) * width)  # the last is where a mood is told
        self.key = nn.Linear(width, width)
        for layer in [m for part in (self.tag, self.refer, self.mood, self.query, self.key) for m in part.modules()]:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0.0, width**-0.5, generator=generator)
                nn.init.zeros_(layer.bias)
        self.later = nn.Parameter(torch.full((relations + 1,), 0.05))  # what comes later counts more

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) to (B, T, C)."""
        return self.encoder(input_ids, attention_mask)

    def subjects(self, states: Tensor, named: Tensor) -> Tensor:
        """Means over mentions: states (B, T, C) and named (B, S, T), 1 at a mention, to (B, S, C)."""
        return named @ states / named.sum(-1, keepdim=True).clamp(min=1)

    def pointers(self, states: Tensor, subjects: Tensor, attention_mask: Tensor) -> Tensor:
        """Log-probabilities over tokens, for each subject and relation, and last its mood: (B, S, R + 1, T).

        Each relation has a slope: of two places that a person went to, the later one is where the person is.
        """
        b, s, c = subjects.shape
        query = self.query(subjects).view(b, s, -1, c)  # (B, S, R + 1, C)
        scores = torch.einsum("bsrc,btc->bsrt", query, self.key(states)) / c**0.5
        scores = scores + self.later[:, None] * torch.arange(states.shape[1], device=states.device)
        return scores.masked_fill(attention_mask[:, None, None] == 0, -1e9).log_softmax(-1)

    def moods(self, states: Tensor, subjects: Tensor, pointers: Tensor) -> Tensor:
        """Scores of the moods (B, S, 3), from a subject and what its last pointer reads."""
        told = pointers[:, :, -1].exp() @ states  # (B, S, C)
        return self.mood(torch.cat([subjects, told], -1))


def collate(world: ToyWorld, stories: Sequence[Story], spans: Sequence[Iterable[Span]] | None = None) -> dict:
    """Stories as a batch. Subjects are those of the given spans (N sets); by default of the true ones, with targets.

    ``input_ids``, ``attention_mask`` (B, T); ``named`` (B, S, T); and ``tags``, ``persons`` (B, T), ``moods`` (B, S),
    ``answers`` (B, S, R, T; True at every token that gives the answer), ``asked`` (B, S, R).
    """
    if spans is not None and len(spans) != len(stories):
        raise ValueError(f"spans must hold a set for each of the {len(stories)} stories, got {len(spans)}")
    relations = relation_names(world)
    read = [truth(story) for story in stories]
    given = [r.spans for r in read] if spans is None else spans
    named = [mentions(story.tokens, s) for story, s in zip(stories, given, strict=True)]
    b, t = len(stories), 1 + max(len(story.tokens) for story in stories)
    s, r = max(map(len, named)), len(relations)
    batch = {
        "input_ids": torch.zeros(b, t, dtype=torch.int64),
        "attention_mask": torch.zeros(b, t, dtype=torch.int64),
        "named": torch.zeros(b, s, t),
        "tags": torch.full((b, t), IGNORE),
        "persons": torch.full((b, t), IGNORE),
        "moods": torch.full((b, s), IGNORE),
        "answers": torch.zeros(b, s, r, t, dtype=torch.bool),
        "asked": torch.zeros(b, s, r, dtype=torch.bool),
    }
    for i, story in enumerate(stories):
        n = len(story.tokens)
        batch["input_ids"][i, : n + 1] = torch.as_tensor(world.encode(["<bos>", *story.tokens]))
        batch["attention_mask"][i, : n + 1] = 1
        tags = to_bio(n, read[i].spans)
        batch["tags"][i, 1 : n + 1] = torch.as_tensor([TAGS.index(tag) for tag in tags])
        for place, person in referents(story).items():
            batch["persons"][i, place + 1] = int(world.encode([person])[0])
        for j, (subject, places) in enumerate(named[i].items()):
            batch["named"][i, j, places] = 1
            if subject in read[i].moods:
                batch["moods"][i, j] = MOODS.index(read[i].moods[subject])
            _fill_answers(batch, i, j, subject, story.tokens, read[i].triples, relations)
    return batch


def _fill_answers(
    batch: dict, i: int, j: int, subject: str, tokens: Sequence[str], triples: Iterable[Triple], relations: Sequence
) -> None:
    known = {(o, r) if r == "has" else (s, r): s if r == "has" else o for s, r, o in triples}
    for k, relation in enumerate(relations):
        if askable(subject, relation):
            value = known.get((subject, relation))
            places = [0] if value is None else [p + 1 for p, token in enumerate(tokens) if token == value]
            batch["answers"][i, j, k, places] = True
            batch["asked"][i, j, k] = bool(places)  # a number that is never said can't be pointed at


def reader_loss(model: Reader, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean negative log-likelihoods (nats), added: of a tag, of the person meant, of a mood, of an answer.

    Any token that gives the answer will do, so the probability of an answer is the sum over them.
    """
    states = model.states(batch["input_ids"], batch["attention_mask"])
    subjects = model.subjects(states, batch["named"])
    tags = F.cross_entropy(model.tag(states).transpose(1, 2), batch["tags"], ignore_index=IGNORE)
    pointers = model.pointers(states, subjects, batch["attention_mask"])
    felt = model.moods(states, subjects, pointers).transpose(1, 2)  # (B, 3, S)
    moods = F.cross_entropy(felt, batch["moods"], ignore_index=IGNORE)
    pointed = pointers[:, :, :-1][batch["asked"]]  # (N, T)
    right = pointed.masked_fill(~batch["answers"][batch["asked"]], -1e9)
    meant = F.cross_entropy(model.refer(states).transpose(1, 2), batch["persons"], ignore_index=IGNORE)
    return tags + meant + moods - right.logsumexp(-1).mean()


@torch.no_grad()
def read(model: Reader, world: ToyWorld, stories: Sequence[Story], batch_size: int = 50) -> list[Reading]:
    """What the model understands of the stories' words alone: its spans name the subjects of its triples and moods."""
    model.eval()
    readings: list[Reading] = []
    for start in range(0, len(stories), batch_size):
        some = stories[start : start + batch_size]
        batch = collate(world, some)
        states = model.states(batch["input_ids"], batch["attention_mask"])
        best = model.tag(states).argmax(-1)
        spans = [
            from_bio([TAGS[i] for i in row[1 : len(story.tokens) + 1]])
            for row, story in zip(best.tolist(), some, strict=True)
        ]
        named = collate(world, some, spans)["named"]
        subjects = model.subjects(states, named)
        pointers = model.pointers(states, subjects, batch["attention_mask"])
        moods = model.moods(states, subjects, pointers).argmax(-1)
        pointed = pointers.exp()
        for i, (story, found) in enumerate(zip(some, spans, strict=True)):
            readings.append(_reading(world, story.tokens, found, pointed[i], moods[i]))
    return readings


def _reading(world: ToyWorld, tokens: Sequence[str], spans: list[Span], pointed: Tensor, moods: Tensor) -> Reading:
    triples, felt = set(), {}
    people = {tokens[end - 1] for _, end, kind in spans if kind == "PERSON"}
    for j, subject in enumerate(mentions(tokens, spans)):
        if subject in people:
            felt[subject] = MOODS[int(moods[j])]
        for k, relation in enumerate(relation_names(world)):
            if askable(subject, relation):
                mass: dict[str, float] = {}
                for token, p in zip(["", *tokens], pointed[j, k].tolist(), strict=False):
                    mass[token] = mass.get(token, 0.0) + p
                if value := max(mass, key=mass.__getitem__):
                    triples.add(as_triple(subject, relation, value))
    return Reading(frozenset(spans), frozenset(triples), felt)


@dataclass(frozen=True)
class ReaderRecipe:
    """All that decides what a reader becomes: how many stories it sees, sizes, training, seed, and the code."""

    stories: int
    max_steps: int = 700
    batch_size: int = 16
    n_embd: int = 96
    n_layer: int = 3
    n_head: int = 4
    learning_rate: float = 3e-3
    seed: int = 0
    name: str = "toyworld-reader"
    code: str = ""  # filled in: what the training follows

    def __post_init__(self) -> None:
        parts = (
            to_bio,
            truth,
            referents,
            mentions,
            Reader,
            collate,
            _fill_answers,
            reader_loss,
            new_reader,
            train_reader,
        )
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
    stories = world.stories(recipe.stories, recipe.seed)
    model = new_reader(recipe, world)
    args = TrainingArguments(
        max_steps=recipe.max_steps, batch_size=recipe.batch_size, learning_rate=recipe.learning_rate,
        warmup_steps=30, min_lr_ratio=0.0, adam_beta2=0.98, weight_decay=0.01, seed=recipe.seed,
    )  # fmt: skip

    def get_batch(step: int) -> dict:
        rng = np.random.default_rng([recipe.seed, step])
        chosen = rng.choice(len(stories), size=recipe.batch_size, replace=len(stories) < recipe.batch_size)
        return collate(world, [stories[i] for i in chosen])

    fit(model, get_batch, args, loss_function=reader_loss, count_targets=lambda batch: len(batch["tags"]),
        progress=False)  # fmt: skip
    save_file(model.state_dict(), folder / "model.safetensors")


def trained_reader(recipe: ReaderRecipe) -> Reader:
    """The reader of a recipe, trained if it is not kept yet; in evaluation mode."""
    folder = zoo.kept(recipe, train_reader)
    model = new_reader(recipe, ToyWorld("small"))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


# --- the graph ---------------------------------------------------------------------------------------------


def knowledge_graph(triples: Iterable[Triple]) -> nx.MultiDiGraph:
    """Triples as a directed graph: an edge from subject to object, named by its relation."""
    graph = nx.MultiDiGraph()
    for subject, relation, value in sorted(triples):
        graph.add_edge(subject, value, key=relation, relation=relation)
    return graph


def objects(graph: nx.MultiDiGraph, subject: str, relation: str) -> list[str]:
    """Where the edges of this name lead from a node; [] for a node that the graph lacks."""
    return sorted(v for s, v, name in graph.edges(keys=True) if (s, name) == (subject, relation))


def who_has_what_where(graph: nx.MultiDiGraph) -> set[Triple]:
    """(person, thing, place): two edges that meet, the thing that a person has and the place the person is in."""
    pairs = [(a, b) for a, b, name in graph.edges(keys=True) if name == "has"]
    return {(person, thing, place) for person, thing in pairs for place in objects(graph, person, "is_in")}


def contextual_calibration(logprobs: ArrayLike, content_free: ArrayLike) -> NDArray[np.float64]:
    """Divide the answers' probabilities (N, K) by those of a text without content (K,), renormalised (Zhao 2021).

    What the prompt alone prefers is taken away. Log-probabilities in, probabilities out.
    """
    x, base = np.asarray(logprobs, dtype=float), np.asarray(content_free, dtype=float)
    if x.ndim != 2 or base.shape != x.shape[1:]:
        raise ValueError(f"content_free must be (K,) for logprobs (N, K), got {base.shape} for {x.shape}")
    z = x - base
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


def word_features(tokens: Sequence[str], i: int) -> dict[str, float]:
    """What a tagger sees of word i: the words around it, its ends, and its shape."""
    if not 0 <= i < len(tokens):
        raise ValueError(f"i must be a place in the {len(tokens)} tokens, got {i}")
    near = {j: tokens[i + j] if 0 <= i + j < len(tokens) else "<none>" for j in (-2, -1, 0, 1, 2)}
    names = [f"{j}:{word.lower()}" for j, word in near.items()]
    names += [f"{j}:shape={_shape(near[j])}" for j in (-1, 0, 1)]
    names += [f"{end}={part}" for n in (1, 2, 3, 4) for end, part in _ends(tokens[i], n)]
    return {"start": float(i == 0)} | dict.fromkeys(names, 1.0)


def _ends(word: str, n: int) -> list[tuple[str, str]]:
    return [("prefix", word[:n]), ("suffix", word[-n:].lower())]


def _shape(word: str) -> str:
    """Capitals A, small letters a, digits 0, the rest as it is; runs shortened: "McDonald's" is "AaAa'a"."""
    kinds = ["A" if c.isupper() else "a" if c.islower() else "0" if c.isdigit() else c for c in word]
    return "".join(k for i, k in enumerate(kinds) if not i or kinds[i - 1] != k)
