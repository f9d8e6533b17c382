"""A small assistant over the book itself: its sections as passages, a ranking by words, an extract with its link.

The page has the same in JavaScript (book/_static/assistant.js), over the index that :func:`index` makes.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbook.applications.retrieval import BM25
from llmbook.corpora import split_sentences, tokenize

ROOT = Path(__file__).resolve().parents[3]
SKIPPED = ("Three questions", "Exercises", "Summary")  # they name everything and explain nothing
TITLE_WEIGHT = 3  # a heading's words count so many times


class Passage(NamedTuple):
    """A section of a chapter: the chapter's two digits, the heading, the plain text, and where the page has it."""

    chapter: str
    heading: str
    text: str
    link: str


def passages(root: Path = ROOT, chapters: Sequence[str] | None = None) -> list[Passage]:
    """The sections of the book's chapters, or of those named by their two digits, in their order.

    Raises:
        FileNotFoundError: where there are no chapters at ``root``.
    """
    files = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    files = [path for path in files if chapters is None or path.name[:2] in chapters]
    if not files:
        raise FileNotFoundError(f"no chapters {chapters or ''} under {root / 'notebooks'}")
    return [passage for path in files for passage in _sections(path)]


def _sections(path: Path) -> list[Passage]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    parts = re.split(r"^#{1,4} (.+)$", re.sub(r"```.*?```", _keep_prose, text, flags=re.DOTALL), flags=re.MULTILINE)
    found = []
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        if heading in SKIPPED:
            if heading == "Exercises":
                break  # what follows are exercises and the summary
            continue
        link = f"notebooks/{path.stem}.html#{anchor(heading)}"
        found.append(Passage(path.name[:2], plain(heading), plain(body), link))
    return found


def _keep_prose(match: re.Match[str]) -> str:
    """Of a fenced block the words, if it is a box; nothing of mathematics, code and figures."""
    return match[0] if match[0].startswith("```{admonition}") else " "


def anchor(heading: str) -> str:
    """The heading's id in the page, as docutils makes it."""
    letters = unicodedata.normalize("NFKD", plain(heading).lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", letters).strip("-")


def plain(text: str) -> str:
    """Markdown as plain words: links as their texts, no directives, labels, raw HTML, dollars or emphasis.

    What a page fills in for a reference is told in words: the chapter, the figure, the formula, the first author.
    """
    text = re.sub(r"^```\{raw\}.*?^```|</?a\b[^>]*>", " ", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(\(\S+\)=|:\w+:.*|```.*|\+\+\+.*)$", " ", text, flags=re.MULTILINE)
    text = re.sub(r"\s*\{cite:p\}`[^`]*`", "", text)
    text = re.sub(r"\{cite:t\}`([a-z]+)[^`]*`", lambda match: match[1].capitalize(), text)
    text = re.sub(r"\{(?:ref|numref)\}`ch-(\d\d)`", r"chapter \1", text)
    text = re.sub(r"\{(?:ref|numref)\}`fig-[^`]*`", "the figure", text)
    text = re.sub(r"\{eq\}`[^`]*`", "the formula", text)
    text = re.sub(r"\{(?:ref|numref|download|term)\}`([^`<]*)(?:<[^>]*>)?`", r"\1", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[*`$]|\\(?=[a-zA-Z])", "", text).split())


STOP = frozenset(
    "a an and are as at be by can could did do does for from has have how i in into is it its me my of on or our that "
    "the their them there these they this to was we were what when where which who why will with would you your "
    "should one".split()
)


def terms(text: str) -> list[str]:
    """Words that a ranking counts: lower case, no function words, a plural's or a verb's s cut off."""
    return [_stem(word) for word in tokenize(text) if word not in STOP and word != "'s"]


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4 and not word.endswith("ss"):
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


class Found(NamedTuple):
    """A passage, its score, and the sentence of it that answers best."""

    passage: Passage
    score: float
    extract: str


class Assistant:
    """Answers a question with extracts from passages and their links; silent where no word of it is known."""

    def __init__(self, passages: Sequence[Passage]):
        self.passages = list(passages)
        self.index = BM25([TITLE_WEIGHT * terms(p.heading) + terms(p.text) for p in self.passages])

    def scores(self, question: str) -> NDArray[np.float64]:
        """How well each passage agrees with the question, (N,)."""
        return self.index.scores(terms(question))

    def answer(self, question: str, k: int = 3) -> list[Found]:
        """At most k passages with a word of the question, the best first."""
        scores = self.scores(question)
        best = np.argsort(-scores, kind="stable")[:k]
        return [Found(self.passages[i], float(scores[i]), self._extract(i, question)) for i in best if scores[i] > 0]

    def _extract(self, number: int, question: str) -> str:
        """The sentence with the most of the question's weight, the first of equals."""
        wanted = set(terms(question))
        sentences = split_sentences(self.passages[number].text) or [self.passages[number].heading]
        return max(sentences, key=lambda s: sum(self.index.idf(t) for t in sorted(wanted & set(terms(s)))))


def index(passages: Sequence[Passage]) -> dict[str, Any]:
    """What the page needs to rank as :class:`Assistant` does: passages, and for each word [passage, count, …]."""
    built = Assistant(passages)
    words: dict[str, list[int]] = {}
    for i, counts in enumerate(built.index.counts):
        for word, count in sorted(counts.items()):
            words.setdefault(word, []).extend((i, count))
    rows = [
        {"chapter": p.chapter, "heading": p.heading, "link": p.link, "text": p.text, "length": counts.total()}
        for p, counts in zip(built.passages, built.index.counts, strict=True)
    ]
    return {"k1": 1.5, "b": 0.75, "title_weight": TITLE_WEIGHT, "stop": sorted(STOP), "passages": rows, "words": words}


def questions(root: Path = ROOT) -> list[dict[str, Any]]:
    """The hand-written test set, book/data/assistant_questions.json: question, chapter, sections."""
    return json.loads((root / "book" / "data" / "assistant_questions.json").read_text(encoding="utf-8"))["questions"]


def places(assistant: Assistant, asked: Sequence[dict[str, Any]], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place, from 1, of the best right section for each question: scores (Q, N); ties count against it."""
    found = []
    for row, one in zip(scores, asked, strict=True):
        wanted = {plain(s) for s in one["sections"]}
        right = [p.chapter == one["chapter"] and p.heading in wanted for p in assistant.passages]
        if not any(right):
            raise ValueError(f"asked must name sections that exist, got {one}")
        best = row[right].max()
        found.append(1 + int((row[~np.array(right)] >= best).sum()))
    return np.array(found, dtype=float)
