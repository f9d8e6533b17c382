"""The committed chapters: none has a fault that a guard can see."""

from __future__ import annotations

import re
from itertools import permutations

import guards
import notebook as nb
import pytest

CHAPTERS = nb.find_chapters()


@pytest.mark.parametrize("guard", guards.GUARDS, ids=lambda g: g.__name__)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter(path, guard):
    assert guard(nb.read(path)) == []


def test_there_are_chapters():
    assert CHAPTERS


@pytest.mark.parametrize(("one", "other"), list(permutations(CHAPTERS, 2)), ids=lambda p: p.stem)
def test_no_code_is_copied_between_chapters(one, other):
    assert guards.copied_code(nb.read(one), nb.read(other)) == []


def test_figure_names_are_unique_in_the_book():
    names = [
        cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        for path in CHAPTERS
        for cell in nb.code_cells(nb.read(path))
    ]
    named = [name for name in names if name]
    assert sorted(named) == sorted(set(named))


def test_the_introduction_quotes_a_claim_as_its_chapter_prints_it():
    quoted = re.findall(r"^✓ .*$", (nb.ROOT / "book" / "intro.md").read_text(encoding="utf-8"), re.MULTILINE)
    printed = {t for path in CHAPTERS for _, cell in guards.code(nb.read(path)) for t in guards.texts(cell)}
    assert quoted
    assert set(quoted) <= printed
