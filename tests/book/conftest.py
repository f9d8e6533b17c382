"""Where the built book is: BOOK_HTML, or _build/html."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

HTML = Path(os.environ.get("BOOK_HTML", ROOT / "_build" / "html")).resolve()


@pytest.fixture(scope="session")
def book() -> Path:
    """The folder of the built pages."""
    if not (HTML / "index.html").exists():
        pytest.fail(f"no built book at {HTML}: run `make book` first, or set BOOK_HTML", pytrace=False)
    return HTML
