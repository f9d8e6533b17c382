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


AUDIT = page("audit.md").partition("(audit-history)=")[
    2
]  # before it stand the reading guide and the texts' differences


@pytest.mark.parametrize("row", [r for r in rows(AUDIT, 3) if r[1] != "Verdict"], ids=lambda r: r[0][:40])
def test_audit_row_has_a_section_a_verdict_and_evidence(row):
    statement, verdict, evidence = row
    assert re.match(r"\*(§[\d.–]+|App\. \d|Introduction|Title)", statement), "a row begins with the article's section"
    assert re.match(r"\*\*(.+?)\*\*", verdict)[1] in VERDICTS
    assert evidence


def test_tests_that_the_audit_names_exist():
    named = set(re.findall(r"`(test_\w+)`", page("audit.md")))
    defined = set(re.findall(r"def (test_\w+)", (ROOT / "tests/unit/test_article.py").read_text("utf-8")))
    assert named == defined


LAST = {1: 3, 2: 4, 3: 3, 4: 2, 5: 4, 6: 5, 7: 3, 8: 2, 9: 6, 10: 5}  # the last section of each of the article's parts
SECTIONS = [
    "Introduction",
    *(f"§{part}.{section}" for part, last in LAST.items() for section in range(1, last + 1)),
    *(f"App. {term}" for term in range(1, 10)),
]


def named(mark: str) -> set[str]:
    """The article's sections that a row's mark names: ``§6.1–6.5, App. 9`` are six."""
    found = set()
    for name in mark.split(", "):
        if ends := re.fullmatch(r"§(\d+)\.(\d)–\d+\.(\d)", name):
            found |= {f"§{ends[1]}.{section}" for section in range(int(ends[2]), int(ends[3]) + 1)}
        else:
            found.add(name[0].upper() + name[1:])
    return found


def test_every_section_of_the_article_has_a_row():
    marks = [re.match(r"\*(.+?)\*", row[0])[1] for row in rows(AUDIT, 3) if row[1] != "Verdict"]
    audited = set().union(*map(named, marks))
    assert [section for section in SECTIONS if section not in audited] == []
    assert audited - set(SECTIONS) <= {
        "§7",
        "§10",
        "Title",
        "Abstract",
    }  # whole parts, and what stands before the first


@pytest.mark.parametrize(
    ("mark", "sections"),
    [
        ("§1.3, §2.4", {"§1.3", "§2.4"}),
        ("§6.1–6.3, App. 9", {"§6.1", "§6.2", "§6.3", "App. 9"}),
        ("Title, abstract, introduction", {"Title", "Abstract", "Introduction"}),
    ],
)
def test_sections_in_a_mark(mark, sections):
    assert named(mark) == sections


def test_the_map_leads_to_the_chapters_in_the_contents():
    chapters = [row for row in rows(page("intro.md"), 3) if re.fullmatch(r"\d\d", row[0])]
    assert [row[0] for row in chapters] == [f"{number:02}" for number in range(1, 27)]
    linked = [re.search(r"\(\.\./(notebooks/\w+)\.ipynb\)", row[1])[1] for row in chapters]
    assert linked == re.findall(r"file: (notebooks/\w+)", (ROOT / "_toc.yml").read_text("utf-8"))
    assert all(row[2].endswith("?") for row in chapters), "a chapter settles a question"


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
