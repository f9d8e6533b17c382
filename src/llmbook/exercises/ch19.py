"""Checker of chapter 19: from BIO tags to spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmbook.exercises import Case, Mistake, check

Span = tuple[int, int, str]


def check_spans(function: Callable[[Sequence[str]], Sequence[Span]]) -> bool:
    """Check ``function(tags)``: the spans (start, end, type) that BIO tags describe."""
    inputs = {
        "one span of two words": ["O", "B-THING", "I-THING", "O"],
        "two spans that touch": ["B-PERSON", "B-PERSON", "I-PERSON"],
        "a span at the end": ["O", "O", "B-TOWN"],
        "another type begins": ["B-JOB", "B-PERSON", "O", "B-DATE", "I-DATE"],
        "nothing at all": ["O", "O"],
        "an I that continues nothing": ["O", "I-TOWN", "I-TOWN", "O"],
    }
    cases = [Case(name, (tags,), _spans(tags)) for name, tags in inputs.items()]
    return check(function, cases, _MISTAKES)


def _spans(tags: Sequence[str], *, merge: bool = False, apart: bool = False, last: int = 0) -> list[Span]:
    found: list[Span] = []
    for i, tag in enumerate(tags):
        kind = tag[2:]
        touches = bool(found) and found[-1][1] == i and found[-1][2] == kind
        if tag != "O" and touches and not apart and (merge or tag[0] == "I"):
            found[-1] = (found[-1][0], i + 1, kind)
        elif tag != "O":
            found.append((i, i + 1, kind))
    return [(start, end - last, kind) for start, end, kind in found]


def _unclosed(tags: Sequence[str]) -> list[Span]:
    return [span for span in _spans(tags) if span[1] < len(tags)]


_MISTAKES = [
    Mistake("an I continues the span before it; you begin a new one.", lambda tags: _spans(tags, apart=True)),
    Mistake("a B begins a new span, even right behind one of its type.", lambda tags: _spans(tags, merge=True)),
    Mistake("the end is the first word *behind* the span; yours is its last word.", lambda tags: _spans(tags, last=1)),
    Mistake("a span that reaches the end of the text is lost; close it after the last tag.", _unclosed),
]
