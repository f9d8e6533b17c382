"""The book's Sphinx extension, on a small book."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = f"""
import sys
sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
extensions = ["sphinxcontrib.bibtex", "llmbook_sphinx"]
bibtex_bibfiles, bibtex_reference_style = ["works.bib"], "author_year"
"""


@pytest.fixture
def cited_as(tmp_path):
    """Builds a page that cites Mill, with his work of this year in the bibliography; returns the page."""
    (tmp_path / "conf.py").write_text(SETTINGS)
    (tmp_path / "index.rst").write_text(".. toctree::\n\n   page\n   works\n")
    (tmp_path / "page.rst").write_text("Page\n====\n\n:cite:t:`mill`\n")
    (tmp_path / "works.rst").write_text("Works\n=====\n\n.. bibliography::\n")

    def build(year: int) -> str:
        entry = f"@book{{mill, author = {{Mill, J.}}, title = {{T}}, publisher = {{P}}, year = {{{year}}}}}"
        (tmp_path / "works.bib").write_text(entry)
        later = time.time() + 60  # than what Sphinx has read, however coarse the file system's clock
        os.utime(tmp_path / "works.bib", (later, later))
        subprocess.run([sys.executable, "-m", "sphinx", "-W", "-q", tmp_path, tmp_path / "html"], check=True)
        return (tmp_path / "html" / "page.html").read_text()

    return build


def test_a_page_that_cites_is_made_anew_with_the_bibliography(cited_as):
    assert "1843" in cited_as(1843)
    assert "1851" in cited_as(1851)


# --- values from the ledger -------------------------------------------------------------------------------

LEDGER_ROW = (
    '| <a href="../notebooks/07_little.html#cell-abc">P(a\\|b) &lt; \\$x\\$: excess</a> †'
    " | ≤ 0.1 | 0.04 ± 0.003 | 12 |\n"
)


def build(folder: Path, extension: str, pages: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Build a small book with one of our extensions; a warning is an error."""
    settings = f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\nextensions = [{extension!r}]\n"
    for name, text in {"conf.py": settings, **pages}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "sphinx", "-W", "-q", folder, folder / "html"]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def state(folder: Path, claim: str) -> subprocess.CompletedProcess[str]:
    """Build a page that states a claim."""
    page = f"Page\n====\n\n:claim:`{claim}`\n"
    pages = {"index.rst": ".. toctree::\n\n   book/page\n", "book/page.rst": page, "book/claims.md": LEDGER_ROW}
    return build(folder, "llmbook_claims", pages)


def test_a_claim_is_stated_with_the_ledgers_value_and_a_link_to_its_cell(tmp_path):
    assert state(tmp_path, "07: P(a|b) < $x$: excess").returncode == 0
    page = (tmp_path / "html" / "book" / "page.html").read_text()
    assert 'href="../notebooks/07_little.html#cell-abc"' in page
    assert ">0.04 ± 0.003<" in page


@pytest.mark.parametrize("claim", ["08: P(a|b) < $x$: excess", "07: excess", "excess"])
def test_a_claim_that_the_ledger_does_not_have_is_a_warning(tmp_path, claim):
    done = state(tmp_path, claim)
    assert done.returncode != 0
    assert "in the ledger" in done.stderr


# --- the index --------------------------------------------------------------------------------------------

TERMS = """\
```{glossary}
Heaps' law
  HL. How many words a text has. See {ref}`ch-07`.

dropout
  Units left out. See {ref}`ch-08`.

batch
  What a step sees. See {ref}`ch-07`.
```
"""
CHAPTER = """\
Little chapter
==============

Of a batch, a batch and a batch.

Where it is introduced
----------------------

A *batch* is a few rows. Words grow by Heaps’ law.

Heaps’ laws in numbers
----------------------

Nothing about dropout.

Exercises
---------

A batch, a batch, a batch, a batch: Heaps' law, Heaps' law.
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> str:
    """The index page of a book with one chapter and a glossary of three terms."""
    folder = tmp_path_factory.mktemp("indexed")
    pages = {
        "index.rst": ".. toctree::\n\n   notebooks/07_little\n",
        "notebooks/07_little.rst": CHAPTER,
        "book/glossary.md": TERMS,
    }
    assert build(folder, "llmbook_index", pages).stderr == ""
    return (folder / "html" / "genindex.html").read_text()


@pytest.mark.parametrize(
    ("term", "section"), [("Heaps&#39; law", "heaps-laws-in-numbers"), ("batch", "where-it-is-introduced")]
)
def test_a_term_leads_to_the_section_that_treats_it(index, term, section):
    assert f'<a href="notebooks/07_little.html#{section}"><strong>{term}</strong></a>' in index


def test_a_term_of_another_chapter_is_not_entered_here(index):
    assert "dropout" not in index
