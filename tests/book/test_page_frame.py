"""What stands around a page's text: the functions of llmbook_page and llmbook_icons, on small inputs."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docutils.core import publish_doctree
from fontTools.ttLib import TTFont
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import llmbook_icons  # noqa: E402
import llmbook_page  # noqa: E402


@pytest.mark.parametrize(
    ("page", "mended"),
    [
        ('a<script src="../_static/vendor/fontawesome/6.5.2/js/all.min.js?digest=d"></script>b', "ab"),
        ('<link rel="preload" as="font" href="../_static/vendor/fontawesome/6/webfonts/fa-solid-900.woff2" />', ""),
        ('<script src="../_static/bootstrap.js"></script>', '<script src="../_static/bootstrap.js"></script>'),
        ('<script type="text/x-thebe-config">{\n repo }</script>\n <script>kernelName = 1</script>!', "!"),
        ('<button class="btn search-button-field" aria-label="S">', '<button class="btn search-button-field">'),
        ('d.mode = localStorage.getItem("mode") || "";', 'd.mode = localStorage.getItem("mode") || "auto";'),
        ('<summary aria-label="Toggle hidden content">', "<summary>"),
    ],
)  # fmt: skip
def test_the_themes_html_is_mended(page, mended):
    assert llmbook_page.lighter(page) == mended


def test_pictures_come_late_and_keep_their_place(tmp_path):
    Image.new("1", (30, 20)).save(tmp_path / "a.png")
    files = {"a.png": tmp_path / "a.png", "b.svg": tmp_path / "b.svg"}
    body = '<img alt="A" src="../_images/a.png" /><img src="_images/b.svg" />'
    body += '<img src="../_images/a.png" style="width: 9px" />'
    assert re.findall("<img (.*?)>", llmbook_page.load_lazily(body, files)) == [
        'loading="lazy" decoding="async" width="30" height="20" alt="A" src="../_images/a.png" /',
        'loading="lazy" decoding="async" src="_images/b.svg" /',
        'loading="lazy" decoding="async" src="../_images/a.png" style="width: 9px" /',
    ]


def test_code_loses_only_marks_that_have_no_colour_of_their_own():
    code = '<span class="k">def</span><span class="w"> </span><span class="nf">f</span><span class="p">(</span>'
    assert llmbook_page.plain_words(code) == '<span class="k">def</span> <span class="nf">f</span>('


def test_the_questions_come_from_the_introductions_map():
    row = "| 07 | [The loop, by hand](../notebooks/07_training.ipynb) | What happens? |\n| **V** | **Uses** | |\n"
    assert llmbook_page.questions(row) == {"notebooks/07_training": "What happens?"}
    assert len(llmbook_page.questions((ROOT / "book" / "intro.md").read_text(encoding="utf-8"))) == 26


def test_reading_takes_the_time_of_prose_and_code_that_one_sees():
    text = "Title\n=====\n\n{}\n\n.. code::\n\n{}\n\nExercises\n=========\n\n{}\n"
    code = "\n".join("   x = 1" for _ in range(100))
    document = publish_doctree(text.format("word\n" * 3000, code, "word\n" * 9000))
    assert llmbook_page.minutes(document) == 20  # 3,000 words at 200 a minute, 100 lines at 20
    block = next(document.findall(lambda n: n.tagname == "literal_block"))
    block.parent["classes"] = ["tag_hide-input"]
    assert llmbook_page.minutes(document) == 15


def test_the_books_address_is_in_links_only_where_it_has_one(tmp_path, monkeypatch):
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\nextensions = ['llmbook_page']\n"
        "html_theme, html_title = 'basic', 'Little & book'\n"
    )
    (tmp_path / "index.rst").write_text("Page\n====\n\nA page that says little, but says it in *one* sentence.\n")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "intro.md").write_text("")

    def built(**address: str) -> str:
        command = [sys.executable, "-m", "sphinx", "-q", tmp_path, tmp_path / "html"]
        for name, value in address.items():
            monkeypatch.setenv(name, value)
        subprocess.run(command, check=True)
        return (tmp_path / "html" / "index.html").read_text()

    page = built()
    assert '<meta name="description" content="A page that says little, but says it in one sentence." />' in page
    assert '<meta property="og:site_name" content="Little &amp; book" />' in page
    assert "canonical" not in page
    assert "og:url" not in page
    page = built(BOOK_URL="https://example.org/book/")
    assert '<link rel="canonical" href="https://example.org/book/index.html" />' in page
    assert '<meta property="og:url" content="https://example.org/book/index.html" />' in page
    assert '<meta property="og:image" content="https://example.org/book/_static/card.png" />' in page


THEME = Path(pytest.importorskip("pydata_sphinx_theme").__file__).parent / "theme" / "pydata_sphinx_theme" / "static"


def test_the_icons_are_the_themes_and_no_more():
    folder = next(THEME.glob("vendor/fontawesome/*"))
    codes = llmbook_icons.codes((folder / "css" / "all.min.css").read_text(encoding="utf-8"))
    assert set(codes) == set(llmbook_icons.ICONS)
    assert codes["bars"] == "f0c9"
    points = {int(code, 16) for code in codes.values()}
    font = llmbook_icons.font_of(folder / "webfonts" / "fa-solid-900.ttf", points)
    assert set(TTFont(io.BytesIO(font)).getBestCmap()) == points
    assert len(base64.b64encode(font)) < 10_000


def test_an_icon_that_the_font_does_not_have_is_named():
    with pytest.raises(KeyError, match="angle-left"):
        llmbook_icons.codes('.fa-bars:before{content:"\\f0c9"}')
