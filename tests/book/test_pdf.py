"""`make pdf`: what the joined page keeps, and a tiny book all the way."""

from __future__ import annotations

from pathlib import Path

import onepage
import pdf
import pikepdf
import pytest
import screenshots
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
LONG = "1. Words, which make a title of more than one line, words and further words"
KNOWN = ["book/intro", "notebooks/01_a"]


def article(body: str, page: str = "notebooks/01_a"):
    soup = BeautifulSoup(f"<article class='bd-article'>{body}</article>", "html.parser")
    return onepage.ready(soup.article, page, KNOWN)


@pytest.mark.parametrize(
    ("href", "leads_to"),
    [
        ("#here", "#notebooks/01_a:here"),
        ("#%CE%9C", "#notebooks/01_a:Μ"),
        ("../book/intro.html", "#book/intro"),
        ("../book/intro.html#id1", "#book/intro:id1"),
        ("https://example.org/a.html#b", "https://example.org/a.html#b"),
        ("mailto:a@example.org", "mailto:a@example.org"),
    ],
)
def test_links_lead_into_the_page_or_out_of_the_book(href, leads_to):
    assert article(f"<a href='{href}'>x</a>").a["href"] == leads_to


@pytest.mark.parametrize("href", ["../_downloads/1/01_a.ipynb", "../_images/a.svg", "file:///home/me/a.html"])
def test_a_link_to_a_file_is_its_text_only(href):
    found = article(f"<p>get <a href='{href}'>this</a></p>")
    assert found.a is None
    assert found.p.get_text() == "get this"


def test_ids_of_two_pages_differ_and_the_first_of_two_in_a_page_counts():
    body = "<p id='id1'>a</p><p id='id1'>b</p>"
    one, two = article(body), article(body, "book/intro")
    assert [tag.get("id") for tag in one.find_all("p")] == ["notebooks/01_a:id1", None]
    assert two.p["id"] == "book/intro:id1"


def test_a_link_without_its_place_is_refused(tiny):
    page = tiny / "_build" / "html" / "notebooks" / "01_a.html"
    page.write_text(page.read_text().replace('id="solution"', "").replace("id='solution'", ""))
    with pytest.raises(onepage.LinkError, match="not there: #notebooks/01_a:solution"):
        onepage.join(tiny, tiny / "_build" / "html")


def test_folds_are_open_and_keep_a_title_that_says_something():
    hidden = "<summary><p class='collapsed'>Show the code</p><p class='expanded'>Hide the code</p></summary>"
    question = "<summary>Why?<span class='sd-summary-state-marker'>v</span></summary>"
    found = article(f"<details>{hidden}<pre>x = 1</pre></details><details>{question}<p>So.</p></details>")
    assert not found.select("details, summary")
    assert found.get_text() == "x = 1Why?So."
    assert found.select_one(".folded.titled > .folded-title").get_text() == "Why?"


def test_what_is_no_print_is_left_out_and_what_stands_in_for_it_stays():
    found = article(
        "<h1>A<a class='headerlink' href='#a'>#</a></h1><form><button>Ask</button></form><script>1</script>"
        "<style>p {}</style><noscript>Needs JavaScript.</noscript><img src='../_images/a.png'>"
    )
    assert found.get_text() == "ANeeds JavaScript."
    assert (found.h2.get_text(), found.h1) == ("A", None)  # below the parts
    assert found.img["src"] == "html/_images/a.png"


def page(title: str, body: str) -> str:
    math = "<script>window.MathJax = {loader: {load: ['input/tex', 'output/chtml', 'a11y/assistive-mml']}}</script>"
    math += "<script defer src='../_static/mathjax/startup.js'></script>"
    return f"<html><head>{math}</head><body><article class='bd-article'><h1>{title}</h1>{body}</article></body></html>"


@pytest.fixture
def tiny(tmp_path):
    """A book of two chapters, with what a print can lose."""
    root = tmp_path / "a book, 书"
    html = root / "_build" / "html"
    for folder in ("book", "notebooks", "_static"):
        (html / folder).mkdir(parents=True)
    (html / "index.html").touch()
    (html / "_static" / "mathjax").symlink_to(ROOT / "book" / "_static" / "mathjax")
    (root / "_config.yml").write_text('title: "Tiny: A Book"\nauthor: Somebody\ncopyright: "2026"\n')
    (root / "_toc.yml").write_text(
        "root: book/intro\nparts:\n- caption: I. One\n  chapters:\n  - file: notebooks/01_a\n"
    )
    (html / "book" / "intro.html").write_text(
        page("Tiny: A Book", "<p><a href='../notebooks/01_a.html#solution'>there</a></p>")
    )
    formula = r"<h2>By <span class='math'>\(d_k\)</span></h2><p><span class='math'>\(\frac{1}{2}\)</span></p>"
    code = f"<pre>start = {'1 + ' * 100}end</pre>"
    fold = "<details><summary>Solution</summary><p id='solution'>Forty-two.</p></details>"
    (html / "notebooks" / "01_a.html").write_text(page(LONG, formula + code + fold))
    return root


needs_chromium = pytest.mark.skipif(screenshots.CHROMIUM is None, reason="no Chromium on this machine")


@pytest.mark.enable_socket
@needs_chromium
def test_a_tiny_book_is_one_whole_file(tiny, capsys):
    made = pdf.make(tiny)
    assert "5 pages, " in capsys.readouterr().out  # title, contents, part, two chapters
    assert sorted(path.name for path in (tiny / "_build").iterdir()) == [".lock", pdf.FILE, "html"]
    with pikepdf.open(made) as found, found.open_outline() as outline:
        assert (found.docinfo.Title, found.docinfo.Author, found.Root.Lang) == ("Tiny: A Book", "Somebody", "en")
        contents, part = outline.root
        assert (contents.title, part.title) == ("Contents", "I. One")
        assert [item.title for item in part.children] == ["Introduction", LONG]
        assert [item.title for item in part.children[1].children] == ["By d_k"]
        assert [pdf.target_of(link) for link in pdf.links(found)][-1] == "/notebooks/01_a:solution"


@pytest.mark.enable_socket
@needs_chromium
def test_what_is_wrong_cut_or_lost_is_an_error_and_leaves_the_old_file(tiny):
    old = tiny / "_build" / pdf.FILE
    old.write_text("old")
    wide = "<table style='width: 300mm'><tr><td>x</td></tr></table>"
    body = rf"<span class='math'>\(\frac{{1}}\)</span>{wide}<img src='no.png'>"
    (tiny / "_build" / "html" / "book" / "intro.html").write_text(page("T", body))
    with pytest.raises(pdf.PdfError, match="it has 3 formulae, 1 wrong, 1 cut, 1 pictures lost"):
        pdf.make(tiny)
    assert old.read_text() == "old"


def test_without_a_built_book_it_says_so(tmp_path):
    with pytest.raises(pdf.PdfError, match="run `make book` first"):
        pdf.make(tmp_path)


def test_without_chromium_it_says_so(tiny, monkeypatch):
    monkeypatch.setattr(screenshots, "CHROMIUM", None)
    with pytest.raises(pdf.PdfError, match="no chromium"):
        pdf.make(tiny)


def test_an_interruption_leaves_nothing_half_done(tiny, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pdf, "printed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pdf.make(tiny)
    assert sorted(path.name for path in (tiny / "_build").iterdir()) == [".lock", "html"]
