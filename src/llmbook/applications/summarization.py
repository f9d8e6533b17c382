"""Summaries: extracts that need no training, ROUGE, and what a summary states against what is known.

Three questions, kept apart. Which sentences would one take (:func:`lead`, :func:`textrank`, :func:`oracle`)? How many
words does a summary share with a reference (:func:`rouge_n`, :func:`rouge_l`)? And is what it states true: of a
ToyWorld story, whose events are known, exactly (:func:`judge`); of real text, by stated signs (:func:`unsupported`)?
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from llmbook.applications.translation import ngrams
from llmbook.toyworld import Story, labels, words
from llmbook.toyworld.events import EVENTS
from llmbook.toyworld.state import PLURALS, Event, Template

Tokens = Sequence[str]
ENDS = (".", "?", "!")
LINKS = ("then", "later")
PRONOUNS = ("she", "he", "her", "his")


def sentences(tokens: Tokens) -> list[list[str]]:
    """Cut a text behind each full stop, question and exclamation mark; ``<eos>`` and what follows it is left out.

    In ToyWorld a cut is not made within what somebody asks, which has the only question marks.
    """
    cut: list[list[str]] = [[]]
    for token in tokens:
        if token == "<eos>":
            break
        cut[-1].append(token)
        if token in ENDS:
            cut.append([])
    return [sentence for sentence in cut if sentence]


def flat(parts: Iterable[Tokens]) -> list[str]:
    """Sentences end to end."""
    return [token for part in parts for token in part]


# ------------------------------------------------------------------------------------------------ ROUGE


class Score(NamedTuple):
    """Precision, recall and their harmonic mean; all 0 where nothing is shared."""

    precision: float
    recall: float
    f1: float


def rouge_n(candidate: Tokens, reference: Tokens, n: int = 1) -> Score:
    """ROUGE-N (Lin, 2004): n-grams that both texts hold, each counted as often as in the one that has fewer.

    Equal to ``rouge_score``'s on words that its tokeniser leaves alone. Raises ValueError for n below 1.
    """
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")
    ours, theirs = ngrams(candidate, n), ngrams(reference, n)
    return _score((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(candidate: Tokens, reference: Tokens) -> Score:
    """ROUGE-L (Lin, 2004): the longest sequence of words that both texts have in this order, gaps allowed."""
    return _score(longest_common(candidate, reference), len(candidate), len(reference))


def longest_common(a: Tokens, b: Tokens) -> int:
    """Length of the longest common subsequence, in O(len(a) · len(b)) time and one row of memory."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = row
        row = [0]
        for j, y in enumerate(b):
            row.append(before[j] + 1 if x == y else max(before[j + 1], row[j]))
    return row[-1]


def _score(shared: int, ours: int, theirs: int) -> Score:
    if not shared:
        return Score(0.0, 0.0, 0.0)
    return Score(shared / ours, shared / theirs, 2 * shared / (ours + theirs))


# ------------------------------------------------------------------------------------------------ extracts


def lead(text: Sequence[Tokens], n: int) -> list[Tokens]:
    """The first n sentences."""
    _check_extract(text, n)
    return list(text[:n])


def textrank(text: Sequence[Tokens], n: int, damping: float = 0.85) -> list[Tokens]:
    """The n sentences that others resemble most, in the text's order (TextRank; Mihalcea & Tarau, 2004)."""
    _check_extract(text, n)
    return _in_order(text, np.argsort(-pagerank(resemblance(text), damping), kind="stable")[:n])


def resemblance(text: Sequence[Tokens]) -> np.ndarray:
    """How many kinds of word two sentences share, over the sum of the logarithms of their lengths: (S, S)."""
    kinds = [set(sentence) for sentence in text]
    weights = np.zeros((len(text), len(text)))
    for i in range(len(text)):
        for j in range(i):
            scale = math.log(len(text[i])) + math.log(len(text[j]))
            weights[i, j] = weights[j, i] = len(kinds[i] & kinds[j]) / scale if scale > 0 else 0.0
    return weights


def pagerank(weights: np.ndarray, damping: float = 0.85, tol: float = 1e-12) -> np.ndarray:
    """Where a walker is who follows a link in proportion to its weight, or jumps anywhere (Brin & Page, 1998).

    ``weights`` (S, S) are symmetric and not negative; the answer (S,) sums to 1. From a sentence without links the
    walker jumps. Equal to ``networkx.pagerank``.
    """
    w = np.asarray(weights, dtype=float)
    if w.ndim != 2 or w.shape[0] != w.shape[1] or not w.size or (w < 0).any():
        raise ValueError(f"weights must be a square matrix without negative entries, got shape {w.shape}")
    if not 0 <= damping < 1:
        raise ValueError(f"damping must be at least 0 and below 1, got {damping}")
    size, out = len(w), w.sum(1, keepdims=True)
    follow = np.where(out > 0, w / np.where(out > 0, out, 1), 1 / size)  # (S, S), rows sum to 1
    rank = np.full(size, 1 / size)
    for _ in range(1000):
        new = damping * rank @ follow + (1 - damping) / size
        if np.abs(new - rank).sum() < tol:
            break
        rank = new
    return new


def oracle(text: Sequence[Tokens], reference: Tokens, n: int) -> list[Tokens]:
    """At most n sentences, each time the one that raises ROUGE-1 + ROUGE-2 (F1) most, until none does.

    It reads the reference, so it is no summariser: it says how far extraction could go (Nallapati et al., 2017).
    """
    _check_extract(text, n)
    chosen: list[int] = []
    best = 0.0
    while len(chosen) < n:
        gains = {i: _both(text, sorted([*chosen, i]), reference) for i in range(len(text)) if i not in chosen}
        which = max(gains, key=gains.get, default=None)
        if which is None or gains[which] <= best:
            break
        chosen.append(which)
        best = gains[which]
    return _in_order(text, chosen)


def _both(text: Sequence[Tokens], which: Sequence[int], reference: Tokens) -> float:
    extract = flat(text[i] for i in which)
    return rouge_n(extract, reference, 1).f1 + rouge_n(extract, reference, 2).f1


def _in_order(text: Sequence[Tokens], which: Iterable[int]) -> list[Tokens]:
    return [text[i] for i in sorted(which)]


def _check_extract(text: Sequence[Tokens], n: int) -> None:
    if isinstance(text, str) or any(isinstance(sentence, str) for sentence in text) or not all(text):
        raise ValueError("text must be a sequence of sentences, each a non-empty sequence of tokens")
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")


# ------------------------------------------------------------------------------------- what a story entails


class Judgement(NamedTuple):
    """What a statement is worth: its kind, and the slots of the nearest event that it has otherwise.

    "entailed": an event of the story says so · "intrinsic": an event of this kind happened, with other people, things
    or places · "extrinsic": nothing of this kind happened · "pronoun": it names nobody, so it says nothing alone ·
    "malformed": no sentence of this world. Intrinsic and extrinsic are the terms of Maynez et al. (2020).
    """

    kind: str
    wrong: tuple[str, ...] = ()


def judge(statement: Tokens, story: Story) -> Judgement:
    """Whether the story's events entail one sentence, exactly; if not, how it fails.

    The sentence has names in the place of pronouns, as in ``story.summary``. "Then" and "later" in front of it are
    passed over. A thing's colour may be told or left out where it is left somewhere: both are true.
    """
    if isinstance(statement, str):
        raise ValueError(f"statement must be a sequence of tokens, got the text {statement!r}")
    tokens = list(statement)[1:] if tuple(statement[:1]) and statement[0] in LINKS else list(statement)
    if any(tokens == labels.retell(story, event) for event in story.events):
        return Judgement("entailed")
    readings = [(t, slots) for t in EVENTS if (slots := _read(t, tokens)) is not None]
    if not readings:
        pronoun = any(token in PRONOUNS for token in tokens)
        return Judgement("pronoun" if pronoun else "malformed")
    misses = [_differences(t, slots, e, story) for t, slots in readings for e in story.events if e.kind == t.kind]
    if not misses:
        return Judgement("extrinsic")
    nearest = min(misses, key=len)
    return Judgement("intrinsic", nearest) if nearest else Judgement("entailed")


def _read(template: Template, tokens: Tokens) -> dict[str, str] | None:
    """The slots of a sentence that this template could have said; None if it could not."""
    items = [item for item in template.items if item != "<eos>"]
    if len(items) != len(tokens):
        return None
    slots: dict[str, str] = {}
    for item, token in zip(items, tokens, strict=True):
        if isinstance(item, str):
            if item != token:
                return None
        elif token not in FILLS[item[0]]:
            return None
        else:
            slots[item[0]] = PLURALS.get(token, token)
    return slots


def _differences(template: Template, slots: dict[str, str], event: Event, story: Story) -> tuple[str, ...]:
    """What a sentence has otherwise than an event of its kind: slots, and the verb where it is another one."""
    told = {name: story.tokens[event.at[name]] if name == "poss" else event.slots.get(name) for name in slots}
    if "colour" in slots and told["colour"] is None:
        told["colour"] = story.state.get("colour", event.slots["thing"])
    wrong = [name for name, value in slots.items() if told[name] != value]
    verbs = {item for item in template.items if isinstance(item, str)} - {"a", "the"}
    theirs = {item for item in event.template.items if isinstance(item, str)} - {"a", "the"}
    return tuple(wrong) if verbs == theirs else (*wrong, "verb")


def _fills() -> dict[str, frozenset[str]]:
    """Slot -> the words that can fill it, of every size of world."""
    names = (*words.NAMES_SHE, *words.NAMES_HE, *words.NAMES_OPEN)
    acts = {**words.ACTS_GOOD, **words.ACTS_BAD}
    scenes = [word for plural, row in words.SCENES.items() for word in (plural, row[0])]
    marks = [word for plural, row in words.LANDMARKS.items() for word in (plural, row[0])]
    table = {
        "who": names, "other": names, "holder": names, "job": words.JOBS, "place": words.PLACES, "town": words.TOWNS,
        "thing": words.THINGS, "colour": words.COLOURS, "day": words.DAYS, "time": words.TIMES,
        "fruit": [*words.FRUITS, *(row[0] for row in words.FRUITS.values())], "n": words.NUMBERS,
        "feeling": [*words.FEELINGS_GOOD, *words.FEELINGS_BAD], "act": [*acts, *(row[0] for row in acts.values())],
        "scene": scenes, "landmark": marks, "landmark2": marks, "quality": words.QUALITIES, "tone": words.TONES,
        "poss": ("her", "his"), "is": ("is", "are"),
    }  # fmt: skip
    return {name: frozenset(row) for name, row in table.items()}


FILLS = _fills()


class Facts(NamedTuple):
    """A summary against its story: how many statements, entailed ones, and entailed ones said once more."""

    statements: int
    entailed: int
    repeated: int

    @property
    def consistency(self) -> float:
        """Share of the statements that the events entail; 0 for a summary that states nothing."""
        return self.entailed / self.statements if self.statements else 0.0


def facts(summary: Tokens, story: Story) -> Facts:
    """Count a summary's statements and those that its story entails."""
    stated = sentences(summary)
    entailed = [tuple(s) for s in stated if judge(s, story).kind == "entailed"]
    return Facts(len(stated), len(entailed), len(entailed) - len(set(entailed)))


def coverage(summary: Tokens, story: Story) -> float:
    """Share of the reference's statements (``story.summary``) that a summary makes, word for word."""
    wanted = sentences(story.summary)
    made = [list(s) for s in sentences(summary)]
    return sum(list(s) in made for s in wanted) / len(wanted)


# ------------------------------------------------------------------------------------------------ real text

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+(?:[.,:]\d+)*")
SENTENCE = re.compile(r"(?<=[.!?])[\"'’”]?\s+(?=[\"'‘“]?[A-Z0-9])")
SMALL = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def words_of(text: str) -> list[str]:
    """Words and numbers of a running text, as they are written, without punctuation."""
    return WORD.findall(text)


def split_sentences(text: str) -> list[str]:
    """A running text cut where a full stop is followed by a capital: simple, and wrong behind some abbreviations."""
    return [part.strip() for part in SENTENCE.split(text.strip()) if part.strip()]


def checkable(text: str) -> list[str]:
    """Names and numbers of a text, in order: capitalised words within a sentence, and digits or number words."""
    found = []
    for sentence in split_sentences(text):
        for place, word in enumerate(words_of(sentence)):
            name = word[0].isupper() and place > 0 and word not in ("I", "The", "A")
            if name or word[0].isdigit() or word.lower() in SMALL:
                found.append(word)
    return found


def unsupported(summary: str, source: str) -> tuple[list[str], int]:
    """Names and numbers of a summary that its source does not hold, and how many names and numbers it has.

    A sign, not a proof: a name may stand in the source and be given another's deed. Digits and number words up to
    ten count as the same.
    """
    known = {_plain(word) for word in words_of(source)}
    stated = checkable(summary)
    return [word for word in stated if _plain(word) not in known], len(stated)


def _plain(word: str) -> str:
    """For comparing: lower case, no possessive, digits without commas, small number words as digits."""
    word = re.sub(r"['’]s$", "", word.lower()).replace(",", "")
    return str(SMALL.index(word) + 1) if word in SMALL else word


def novel(summary: Tokens, source: Tokens, n: int = 2) -> float:
    """Share of a summary's n-grams that do not occur in the source: 0 for any extract of one piece."""
    ours, theirs = ngrams(summary, n), ngrams(source, n)
    return sum(k for gram, k in ours.items() if gram not in theirs) / max(1, ours.total())
