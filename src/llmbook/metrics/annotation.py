"""A class annotates: statements about ToyWorld stories, a form to judge them with, and what the answers are worth.

The truth of each statement is known, so that agreement can be told from being right. The guidelines stand in
``book/data/annotation_guidelines.md``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbook.files import write_whole
from llmbook.toyworld import Story, ToyWorld, words

LABELS = ("true", "false", "not told")
FIELDS = ("rater", "item", "label")
STATEMENTS = {
    "where is {} ?": "{} is in the {} .",
    "who has {} ?": "{1} has {0} .",
    "what colour is {} ?": "{} is {} .",
    "what is the job of {} ?": "{} is a {} .",
    "how does {} feel ?": "{} is {} .",
}
CHOICES = {
    "where is {} ?": tuple(words.PLACES)[:8],
    "what colour is {} ?": tuple(words.COLOURS)[:6],
    "what is the job of {} ?": tuple(words.JOBS)[:8],
    "how does {} feel ?": (*tuple(words.FEELINGS_GOOD)[:3], *tuple(words.FEELINGS_BAD)[:3]),
}


class Item(NamedTuple):
    """A story, a statement on how things stand when it is over, and the index in LABELS of what holds."""

    story: str
    statement: str
    truth: int


@lru_cache(maxsize=4)
def items(size: int = 24, seed: int = 21) -> tuple[Item, ...]:
    """So many statements, a third of each label, in an order drawn by the seed. The same for everybody in a class."""
    if size < 3 or size % 3:
        raise ValueError(f"size must be a multiple of 3 and at least 3, got {size}")
    rng = np.random.default_rng(seed)
    found: list[Item] = []
    left = [size // 3] * 3
    for story in ToyWorld("small").stories(40 * size, seed):
        if not any(left):
            break
        label = int(rng.choice(np.flatnonzero(left)))
        options = _statements(story)[label]
        if options and 30 <= len(story.tokens) <= 70:
            statement = options[int(rng.integers(len(options)))]
            found.append(Item(" ".join(story.words), statement, label))
            left[label] -= 1
    return tuple(found[i] for i in rng.permutation(len(found)))


def _statements(story: Story) -> tuple[list[str], list[str], list[str]]:
    """What can be said of a story's end that is true, that is false, and that it leaves open."""
    true, false, open_ = [], [], []
    told = {q.question: q.answer for q in story.questions}
    for ask, say in STATEMENTS.items():
        for question, answer in told.items():
            subject = _subject(question, ask)
            if subject is None:
                continue
            true.append(_say(say, subject, answer))
            false += [_say(say, subject, other) for other in CHOICES.get(ask, story.state.cast) if other != answer]
    for person in story.state.cast:
        if f"how does {person} feel ?" not in told and story.sentiment[person] == "neutral":
            open_ += [_say("{} is {} .", person, feeling) for feeling in CHOICES["how does {} feel ?"]]
    return true, false, open_


def _subject(question: str, ask: str) -> str | None:
    """Whom a question is about, if it is of this wording."""
    head, tail = ask.split("{}")
    if question.startswith(head) and question.endswith(tail):
        return question[len(head) : len(question) - len(tail)]
    return None


def _say(say: str, subject: str, answer: str) -> str:
    article = answer[0] in "aeiou" and " a {}" in say
    return say.replace(" a {}", " an {}").format(subject, answer) if article else say.format(subject, answer)


# ------------------------------------------------------------ the form


class Form:
    """Judge one statement after the other, by buttons; ``show()`` displays it in Jupyter.

    ``answers`` maps an item's number to its label. Nothing is written until ``save(path)`` is called.
    """

    def __init__(self, rater: str, tasks: Sequence[Item] | None = None) -> None:
        import ipywidgets  # only where a class runs it

        if not rater.strip():
            raise ValueError("rater must be a name or a number, got an empty text")
        self.rater, self.tasks = rater.strip(), tuple(items() if tasks is None else tasks)
        self.answers: dict[int, str] = {}
        self.place = 0
        self.text = ipywidgets.HTML()
        self.buttons = [ipywidgets.Button(description=label) for label in LABELS]
        self.back = ipywidgets.Button(description="back", icon="arrow-left")
        for button in self.buttons:
            button.on_click(lambda clicked: self.answer(clicked.description))
        self.back.on_click(lambda _: self.turn(-1))
        self.box = ipywidgets.VBox([self.text, ipywidgets.HBox([*self.buttons, self.back])])
        self._draw()

    def answer(self, label: str) -> None:
        """Give the item in view this label, and go on to the next."""
        if label not in LABELS:
            raise ValueError(f"label must be one of {', '.join(LABELS)}, got {label!r}")
        if self.place < len(self.tasks):
            self.answers[self.place] = label
            self.turn(1)

    def turn(self, steps: int) -> None:
        """Go to another item."""
        self.place = min(max(self.place + steps, 0), len(self.tasks))
        self._draw()

    def _draw(self) -> None:
        done = self.place == len(self.tasks)
        for button in self.buttons:
            button.disabled = done
        self.back.disabled = self.place == 0
        if done:
            self.text.value = f"<p>All {len(self.tasks)} are judged. Thank you: now <code>save(path)</code>.</p>"
            return
        item = self.tasks[self.place]
        given = self.answers.get(self.place, "none yet")
        self.text.value = (
            f"<p>{self.place + 1} of {len(self.tasks)} (your answer: {given})</p><p>{item.story}</p>"
            f"<p>When the story is over: <b>{item.statement}</b></p>"
        )

    def show(self) -> None:
        """Display the form; needs a running Jupyter."""
        from IPython.display import display

        display(self.box)

    def to_csv(self) -> str:
        """The answers as a table with a header: rater, item, label."""
        return to_csv({(self.rater, number): label for number, label in sorted(self.answers.items())})

    def save(self, path: str | Path) -> None:
        """Write the answers to a file."""
        write_whole(path, self.to_csv())


# ------------------------------------------------------------ the answers


def to_csv(answers: Mapping[tuple[str, int], str]) -> str:
    """(rater, item) -> label, as a table with a header."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(FIELDS)
    table.writerows((rater, item, label) for (rater, item), label in answers.items())
    return out.getvalue()


def read_answers(tables: Iterable[str], size: int) -> tuple[list[str], NDArray[np.float64]]:
    """The raters' names, and their labels (raters, size) as indices in LABELS, NaN where one has not judged.

    Raises ValueError for a table without the three columns, an unknown label or item, or an item judged twice.
    """
    given: dict[tuple[str, int], int] = {}
    for text in tables:
        rows = csv.DictReader(io.StringIO(text))
        if tuple(rows.fieldnames or ()) != FIELDS:
            raise ValueError(f"tables must have the columns {', '.join(FIELDS)}, got {rows.fieldnames}")
        for row in rows:
            key, label = _parsed(row, size)
            if key in given:
                raise ValueError(f"tables must hold each item once for each rater, got {key} twice")
            given[key] = label
    raters = sorted({rater for rater, _ in given})
    if not raters:
        raise ValueError("tables must hold at least one answer, got none")
    ratings = np.full((len(raters), size), np.nan)
    for (rater, item), label in given.items():
        ratings[raters.index(rater), item] = label
    return raters, ratings


def _parsed(row: dict[str, Any], size: int) -> tuple[tuple[str, int], int]:
    if row["label"] not in LABELS:
        raise ValueError(f"tables must hold labels among {', '.join(LABELS)}, got {row['label']!r}")
    if not str(row["item"]).isdigit() or int(row["item"]) >= size:
        raise ValueError(f"tables must hold items from 0 to {size - 1}, got {row['item']!r}")
    return (row["rater"], int(row["item"])), LABELS.index(row["label"])


def simulated_rater(truth: NDArray, care: float, rng: np.random.Generator, habit: int | None = None) -> NDArray:
    """Labels of a rater who is right with probability ``care`` and else takes another label, any alike.

    With ``habit`` 2 the rater knows no "not told" and says "false" in its place, always: a guideline misread.
    """
    if not 0 <= care <= 1:
        raise ValueError(f"care must lie between 0 and 1, got {care}")
    slip = rng.random(len(truth)) >= care
    given = np.where(slip, (truth + rng.integers(1, len(LABELS), len(truth))) % len(LABELS), truth)
    return given if habit is None else np.where(given == habit, LABELS.index("false"), given)
