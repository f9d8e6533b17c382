"""The prose pages agree with the project: verdicts, named tests, the map of chapters, the bibliography."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERDICTS = ("holds", "holds with a condition", "wrong", "cannot be checked here")


def page(name: str) -> str:
    """The source of a page of the book."""
    return (ROOT / "book" / name).read_text(encoding="utf-8")


def rows(text: str, columns: int) -> list[list[str]]:
    """The cells of each body row of the tables that have so many columns."""
    lines = [line.strip().strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines if len(line) == columns]


def entries() -> dict[str, str]:
    """Key and body of each BibTeX entry."""
    found = re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", page("references.bib"), flags=re.M | re.S)
    return dict(found)


@pytest.mark.parametrize("row", [r for r in rows(page("audit.md"), 3) if r[1] != "Verdict"], ids=lambda r: r[0][:40])
def test_audit_row_has_a_section_a_verdict_and_evidence(row):
    statement, verdict, evidence = row
    assert re.match(r"\*(§[\d.–]+|App\. \d)", statement), "a row begins with the article's section"
    assert re.match(r"\*\*(.+?)\*\*", verdict)[1] in VERDICTS
    assert evidence


def test_tests_that_the_audit_names_exist():
    named = set(re.findall(r"`(test_\w+)`", page("audit.md")))
    defined = set(re.findall(r"def (test_\w+)", (ROOT / "tests/unit/test_article.py").read_text("utf-8")))
    assert named == defined


def test_map_says_here_exactly_for_the_chapters_in_the_contents():
    chapters = [row for row in rows(page("intro.md"), 4) if re.fullmatch(r"\d\d", row[0])]
    assert [row[0] for row in chapters] == [f"{number:02}" for number in range(1, 27)]
    here = {row[0] for row in chapters if row[3] == "here"}
    assert here == set(re.findall(r"file: notebooks/(\d\d)_", (ROOT / "_toc.yml").read_text("utf-8")))


def test_bibliography_is_sorted_and_complete():
    found = entries()
    assert list(found) == sorted(found)
    assert len(found) == page("references.bib").count("\n@")
    for key, body in found.items():
        assert re.search(r"^\s*(author|editor)\s*=", body, flags=re.M), key
        year = re.search(r"^\s*year\s*=\s*\{(\d{4})[a-z]?\}", body, flags=re.M)
        assert re.search(r"^\s*title\s*=", body, flags=re.M), key
        assert year, key
        assert year[1] in key, key


def test_bibliography_lists_no_work_twice():
    titles = [re.search(r"title\s*=\s*\{(.+)\}", body)[1] for body in entries().values()]
    years = [re.search(r"year\s*=\s*\{(\d+)[a-z]?\}", body)[1] for body in entries().values()]
    works = [(re.sub(r"\W", "", title.lower()), year) for title, year in zip(titles, years, strict=True)]
    assert len(set(works)) == len(works)


def test_glossary_defines_each_term_once():
    glossary = page("glossary.md").split("```")[1]
    terms = [line for line in glossary.splitlines()[3:] if line and not line.startswith((" ", ":"))]
    assert len(terms) > 40
    assert len({term.lower() for term in terms}) == len(terms)


def test_claim_that_the_introduction_quotes_is_in_a_chapter():
    call = re.search(r"^claim\(.+\)$", page("intro.md"), flags=re.M)[0]
    text, bound = re.search(r'"(.+)", .*(at_least=[\d.]+)', call).groups()
    cells = [
        cell for path in (ROOT / "notebooks").glob("*.ipynb") for cell in json.loads(path.read_text("utf-8"))["cells"]
    ]
    assert any(text in (source := "".join(cell["source"])) and bound in source for cell in cells), call
    shown = re.search(r"^✓ (.+): ≈[\d.]+ \(claimed ≥ ([\d.]+)\)$", page("intro.md"), flags=re.M)
    assert shown.groups() == (text, bound.removeprefix("at_least="))
