"""Language understanding: spans as BIO tags, scores of sets, what is true of a story, its graph; calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmbook.toyworld.story import Story

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
    true: Sequence[Iterable],
    found: Sequence[Iterable],
    *,
    rng: np.random.Generator,
    baseline: Sequence[Iterable] | None = None,
    resamples: int = 1000,
) -> tuple[float, float]:
    """A 95 % bootstrap interval of the F1, drawn over documents: what stands in one is not independent.

    With a baseline, of the F1's lead over the baseline's on the same drawn documents.
    """
    counts = _counts(true, found)
    rival = None if baseline is None else _counts(true, baseline)
    draws = []
    for _ in range(resamples):
        rows = rng.integers(len(counts), size=len(counts))
        draws.append(_score(counts[rows]).f1 - (0.0 if rival is None else _score(rival[rows]).f1))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


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


def mentions(tokens: Sequence[str], spans: Iterable[Span]) -> dict[str, list[int]]:
    """Each person and thing, by the last word of its spans, and where it is named; the story itself is token 0.

    Indices are those of the tokens *with* ``<bos>`` in front.
    """
    found: dict[str, list[int]] = {STORY: [0]}
    for _, end, kind in sorted(spans):
        if kind in ("PERSON", "THING"):
            found.setdefault(tokens[end - 1], []).append(end)  # one further, behind <bos>
    return found


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
