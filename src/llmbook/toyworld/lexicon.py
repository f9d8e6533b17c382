"""Which words and which sentences a preset of ToyWorld uses, and its vocabulary."""

from __future__ import annotations

from llmbook.toyworld import words
from llmbook.toyworld.events import EVENTS
from llmbook.toyworld.state import PRONOUNS, Step, Template
from llmbook.toyworld.story import BOS, EOS

CANARY = ("the", "secret", "number", "is")
QUESTION_WORDS = ("who", "does", "feel", "job", "of")  # said in `Story.questions` only


class Lexicon:
    """The words by kind (``jobs``, ``places``, …), the templates, and every token in a fixed order."""

    def __init__(self, preset: str, bias: float, noise: float):
        self.preset, self.bias, self.noise = preset, bias, noise
        self.size = words.PRESETS[preset]
        self._take_words()
        self._take_templates()
        self.vocabulary: list[str] = self._collect_vocabulary()
        self.token_to_id: dict[str, int] = {token: i for i, token in enumerate(self.vocabulary)}

    def _take_words(self) -> None:
        """The first rows of each table, as tuples."""
        size = self.size

        def first(n: int, *tables: dict) -> tuple[str, ...]:
            return tuple(word for table in tables for word in list(table)[:n])

        self.days, self.times = first(size.days, words.DAYS), first(size.times, words.TIMES)
        self.names_she = first(size.names, words.NAMES_SHE)
        self.names_he = first(size.names, words.NAMES_HE)
        self.names_open = first(size.names, words.NAMES_OPEN)
        self.jobs, self.places = first(size.jobs, words.JOBS), first(size.places, words.PLACES)
        self.towns, self.colours = first(size.towns, words.TOWNS), first(size.colours, words.COLOURS)
        self.things, self.fruits = first(size.things, words.THINGS), first(size.fruits, words.FRUITS)
        self.feelings = first(size.feelings, words.FEELINGS_GOOD, words.FEELINGS_BAD)
        acts = {**_head(words.ACTS_GOOD, size.feelings), **_head(words.ACTS_BAD, size.feelings)}
        self.acts, self.group_acts = tuple(acts), tuple(row[0] for row in acts.values())
        self.scenes = _both_numbers(_head(words.SCENES, size.scenery))
        self.landmarks = _both_numbers(_head(words.LANDMARKS, size.scenery))
        self.qualitys = first(size.scenery, words.QUALITIES)
        self.workplace = {job: words.JOBS[job][2] for job in self.jobs}
        self.homes = {thing: words.THINGS[thing][2] for thing in self.things}

    def _take_templates(self) -> None:
        """Sort the templates that this preset uses by stage and by what they open with."""
        self.templates = [t for t in EVENTS if not self.size.only or t.kind in self.size.only]
        self._by_opener: dict[str, dict[object, list[Template]]] = {}
        for t in self.templates:
            self._by_opener.setdefault(t.stage, {}).setdefault(t.items[0], []).append(t)
        self._words = {
            item: Step({item: 1.0}, "word") for t in self.templates for item in t.items if isinstance(item, str)
        }

    def _collect_vocabulary(self) -> list[str]:
        """Special tokens, then words in the order in which templates and tables name them, fillers last."""
        tables = (
            self.days, self.times, self.jobs, self.names_she, self.names_he, self.names_open, self.places, self.towns,
            self.things, self.colours, self.fruits, tuple(words.FRUITS[f][0] for f in self.fruits),
            tuple(words.NUMBERS)[1:] if self.fruits else (), self.feelings,
            self.acts if self.size.cast > 1 else (),
            self.group_acts if self.size.cast > 1 else (), self.scenes, self.landmarks, self.qualitys,
            ("is", "are") if self.scenes else (), tuple(words.TONES), PRONOUNS if self.fruits else PRONOUNS[:2],
            ("zero", *CANARY, *QUESTION_WORDS) if self.preset != "tiny" else (), words.FILLERS if self.noise else (),
        )  # fmt: skip
        literals = [item for t in self.templates for item in t.items if isinstance(item, str)]
        return list(dict.fromkeys([BOS, EOS, *literals, *(word for table in tables for word in table)]))

    def she(self, job: str) -> float:
        """Probability that somebody of this occupation is a woman: the bias, or what it leaves."""
        return self.bias if words.JOBS[job][1] == "she" else 1 - self.bias


def _head(table: dict, n: int) -> dict:
    return dict(list(table.items())[:n])


def _both_numbers(table: dict) -> tuple[str, ...]:
    """birds, bird, horses, horse, …"""
    return tuple(word for plural, (singular, *_) in table.items() for word in (plural, singular))
