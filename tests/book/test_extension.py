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
